//! Filters: what must be true of an image to be listed.

use jiff::Timestamp;

use super::super::{attributes::VISIBILITIES, fault::Fault, image::Image};

/// One condition.
#[derive(Debug)]
pub(super) enum Filter {
    /// The field or property equals one of the values.
    In(String, Vec<String>),
    Tag(String),
    Hidden(bool),
    Protected(bool),
    Visibility(String),
    AtLeast(u64),
    AtMost(u64),
    Created(Comparison, Timestamp),
    Updated(Comparison, Timestamp),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Less,
    LessOrEqual,
    Equal,
    NotEqual,
    GreaterOrEqual,
    Greater,
}

impl Filter {
    pub(super) const NOT_HIDDEN: Self = Self::Hidden(false);

    /// `None` for a filter that lets everything through.
    pub(super) fn parse(name: &str, value: &str) -> Result<Option<Self>, Fault> {
        let flag = || match value.to_lowercase().as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(Fault::bad_request(format!(
                "Invalid value '{value}' for '{name}' filter. Valid values are 'true' or 'false'."
            ))),
        };
        let number = || {
            value.parse().map_err(|_| {
                Fault::bad_request(format!("Unable to filter on a range with a non-numeric value: {value}"))
            })
        };
        Ok(Some(match name {
            "tag" => Self::Tag(value.trim().to_owned()),
            "os_hidden" => Self::Hidden(flag()?),
            "protected" => Self::Protected(flag()?),
            "size_min" => Self::AtLeast(number()?),
            "size_max" => Self::AtMost(number()?),
            "visibility" if value == "all" => return Ok(None),
            "visibility" if VISIBILITIES.contains(&value) => Self::Visibility(value.to_owned()),
            "visibility" => {
                return Err(Fault::bad_request(format!("Invalid visibility value: {value}")));
            }
            "created_at" => {
                let (comparison, time) = moment(name, value)?;
                Self::Created(comparison, time)
            }
            "updated_at" => {
                let (comparison, time) = moment(name, value)?;
                Self::Updated(comparison, time)
            }
            _ => Self::In(name.to_owned(), alternatives(name, value)),
        }))
    }

    pub(super) fn accepts(&self, image: &Image) -> bool {
        match self {
            Self::In(name, values) => text(image, name).is_some_and(|text| values.contains(&text)),
            Self::Tag(tag) => image.tags.contains(tag),
            Self::Hidden(hidden) => image.os_hidden == *hidden,
            Self::Protected(protected) => image.protected == *protected,
            Self::Visibility(visibility) => image.visibility == *visibility,
            Self::AtLeast(size) => image.size.is_some_and(|known| known >= *size),
            Self::AtMost(size) => image.size.is_some_and(|known| known <= *size),
            Self::Created(comparison, time) => comparison.holds(image.created_at, *time),
            Self::Updated(comparison, time) => comparison.holds(image.updated_at, *time),
        }
    }

    pub(super) fn is_about_hidden(&self) -> bool {
        matches!(self, Self::Hidden(_))
    }
}

impl Comparison {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "lt" => Self::Less,
            "lte" => Self::LessOrEqual,
            "eq" => Self::Equal,
            "neq" => Self::NotEqual,
            "gte" => Self::GreaterOrEqual,
            "gt" => Self::Greater,
            _ => return None,
        })
    }

    fn holds(self, left: Timestamp, right: Timestamp) -> bool {
        match self {
            Self::Less => left < right,
            Self::LessOrEqual => left <= right,
            Self::Equal => left == right,
            Self::NotEqual => left != right,
            Self::GreaterOrEqual => left >= right,
            Self::Greater => left > right,
        }
    }
}

/// `TIME`, or `gt:TIME` and its like.
fn moment(name: &str, value: &str) -> Result<(Comparison, Timestamp), Fault> {
    let operator = value.split_once(':').and_then(|(operator, time)| Some((Comparison::parse(operator)?, time)));
    let (comparison, time) = operator.unwrap_or((Comparison::Equal, value));
    let time = time.parse().map_err(|error| Fault::bad_request(format!("Bad value for '{name}': {error}")))?;
    Ok((comparison, time))
}

/// The one value, also as `eq:a b`, or those of `in:"a b",c`, for the fields where Glance knows these.
fn alternatives(name: &str, value: &str) -> Vec<String> {
    let listable = ["id", "name", "status", "container_format", "disk_format"].contains(&name);
    let Some(list) = value.strip_prefix("in:").filter(|_| listable) else {
        let one = value.strip_prefix("eq:").filter(|_| listable);
        return vec![one.unwrap_or(value).to_owned()];
    };
    let mut values = vec![String::new()];
    let mut quoted = false;
    for character in list.chars() {
        match (character, values.last_mut()) {
            ('"', _) => quoted = !quoted,
            (',', _) if !quoted => values.push(String::new()),
            (plain, Some(current)) => current.push(plain),
            (_, None) => {}
        }
    }
    values
}

/// The value of a field or property to which a filter compares.
fn text(image: &Image, name: &str) -> Option<String> {
    match name {
        "id" => Some(image.id.clone()),
        "name" => image.name.clone(),
        "status" => Some(image.status.as_str().to_owned()),
        "owner" => image.owner.clone(),
        "container_format" => image.container_format.clone(),
        "disk_format" => image.disk_format.clone(),
        "checksum" => image.checksum.clone(),
        "os_hash_value" => image.hash.as_ref().map(|hash| hash.value.clone()),
        "os_hash_algo" => image.hash.as_ref().map(|hash| hash.algorithm.clone()),
        "size" => image.size.map(|size| size.to_string()),
        "min_disk" => Some(image.min_disk.to_string()),
        "min_ram" => Some(image.min_ram.to_string()),
        _ => image.properties.get(name).cloned(),
    }
}
