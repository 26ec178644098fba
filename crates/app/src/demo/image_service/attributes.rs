//! Which values a client may give to which field of an image, at its creation and later.

use serde_json::{Map, Value};
use uuid::Uuid;

use super::{
    fault::Fault,
    image::{Image, Status},
};

/// Fields that Glance itself sets, as named in its request deserialiser, and those that are only a part of the view.
const READ_ONLY: [&str; 15] = [
    "checksum",
    "created_at",
    "direct_url",
    "file",
    "id",
    "os_hash_algo",
    "os_hash_value",
    "schema",
    "self",
    "size",
    "status",
    "stores",
    "updated_at",
    "virtual_size",
    "locations",
];

/// Fields that a client may set, but not remove.
const WRITABLE: [&str; 10] = [
    "container_format",
    "disk_format",
    "min_disk",
    "min_ram",
    "name",
    "os_hidden",
    "owner",
    "protected",
    "tags",
    "visibility",
];

const RESERVED: [&str; 3] = ["deleted", "deleted_at", "location"];
const RESERVED_PREFIX: &str = "os_glance";

pub(super) const VISIBILITIES: [&str; 4] = ["community", "public", "private", "shared"];
pub(super) const CONTAINER_FORMATS: [&str; 8] = ["ami", "ari", "aki", "bare", "ovf", "ova", "docker", "compressed"];
pub(super) const DISK_FORMATS: [&str; 12] =
    ["ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "vdi", "iso", "ploop", "gpt"];

/// The longest text that Glance stores, in characters.
const TEXT_LIMIT: usize = 255;

/// The image that a `POST /v2/images` asks for.
pub(super) fn image_from(mut wish: Map<String, Value>) -> Result<Image, Fault> {
    let id = match wish.remove("id") {
        None => Uuid::new_v4(),
        Some(id) => id.as_str().and_then(|id| Uuid::try_parse(id).ok()).ok_or_else(|| invalid("id", &id))?,
    };
    let mut image = Image::new(id.to_string());
    for (name, value) in wish {
        check_writable(&name)?;
        set(&mut image, &name, value)?;
    }
    Ok(image)
}

pub(super) fn check_writable(name: &str) -> Result<(), Fault> {
    if READ_ONLY.contains(&name) {
        return Err(Fault::forbidden(format!("Attribute '{name}' is read-only.")));
    }
    if RESERVED.contains(&name) || name.starts_with(RESERVED_PREFIX) {
        return Err(Fault::forbidden(format!("Attribute '{name}' is reserved.")));
    }
    Ok(())
}

/// Whether the image has the field or property.
pub(super) fn has(image: &Image, name: &str) -> bool {
    WRITABLE.contains(&name) || image.properties.contains_key(name)
}

/// Gives a field, or else a property, a value.
pub(super) fn set(image: &mut Image, name: &str, value: Value) -> Result<(), Fault> {
    match name {
        "name" => image.name = optional_text(name, value)?,
        "owner" => image.owner = optional_text(name, value)?,
        "visibility" => image.visibility = one_of(&VISIBILITIES, name, &value)?,
        "protected" => image.protected = flag(name, &value)?,
        "os_hidden" => image.os_hidden = flag(name, &value)?,
        "min_disk" => image.min_disk = count(name, &value)?,
        "min_ram" => image.min_ram = count(name, &value)?,
        "container_format" => {
            let format = optional_of(&CONTAINER_FORMATS, name, &value)?;
            check_queued(image, name)?;
            image.container_format = format;
        }
        "disk_format" => {
            let format = optional_of(&DISK_FORMATS, name, &value)?;
            check_queued(image, name)?;
            image.disk_format = format;
        }
        "tags" => {
            let Value::Array(tags) = value else {
                return Err(invalid(name, &value));
            };
            image.tags = tags.into_iter().map(|tag| text(name, tag)).collect::<Result<_, _>>()?;
        }
        _ if name.chars().count() > TEXT_LIMIT => {
            return Err(Fault::bad_request("Custom property should not be greater than 255 characters."));
        }
        _ => {
            let Value::String(value) = value else {
                return Err(invalid(name, &value));
            };
            image.properties.insert(name.to_owned(), value);
        }
    }
    Ok(())
}

/// Takes a property away.
pub(super) fn remove(image: &mut Image, name: &str) -> Result<(), Fault> {
    if WRITABLE.contains(&name) {
        return Err(Fault::forbidden(format!("Property {name} may not be removed.")));
    }
    match image.properties.remove(name) {
        Some(_) => Ok(()),
        None => Err(missing(name)),
    }
}

pub(super) fn missing(name: &str) -> Fault {
    Fault::conflict(format!("Property {name} does not exist."))
}

pub(super) fn invalid(name: &str, value: &Value) -> Fault {
    Fault::bad_request(format!("Provided object does not match schema 'image': {value} is not valid for '{name}'"))
}

fn check_queued(image: &Image, name: &str) -> Result<(), Fault> {
    if image.status == Status::Queued {
        return Ok(());
    }
    Err(Fault::forbidden(format!("Attribute {name} can be only replaced for a queued image.")))
}

pub(super) fn text(name: &str, value: Value) -> Result<String, Fault> {
    match value {
        Value::String(text) if text.chars().count() <= TEXT_LIMIT => Ok(text),
        other => Err(invalid(name, &other)),
    }
}

fn optional_text(name: &str, value: Value) -> Result<Option<String>, Fault> {
    match value {
        Value::Null => Ok(None),
        value => text(name, value).map(Some),
    }
}

fn one_of(known: &[&str], name: &str, value: &Value) -> Result<String, Fault> {
    value.as_str().filter(|text| known.contains(text)).map(str::to_owned).ok_or_else(|| invalid(name, value))
}

fn optional_of(known: &[&str], name: &str, value: &Value) -> Result<Option<String>, Fault> {
    if value.is_null() {
        return Ok(None);
    }
    one_of(known, name, value).map(Some)
}

fn flag(name: &str, value: &Value) -> Result<bool, Fault> {
    value.as_bool().ok_or_else(|| invalid(name, value))
}

fn count(name: &str, value: &Value) -> Result<u64, Fault> {
    value.as_u64().ok_or_else(|| invalid(name, value))
}
