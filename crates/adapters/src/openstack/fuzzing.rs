//! What must hold of every answer of Glance's, whatever bytes it is.

use mimeo_core::{HashAlgorithm, Image};
use serde_json::{Value, json};

use super::{
    answer::plain,
    wire::{Members, WireImage, WirePage},
};

/// An image that was read and is written as Glance writes it reads the same.
pub fn images(body: &[u8]) {
    let _ = serde_json::from_slice::<Members>(body);
    let page = serde_json::from_slice::<WirePage>(body).map(|page| page.images).unwrap_or_default();
    let image = serde_json::from_slice::<WireImage>(body).ok();
    for image in page.into_iter().chain(image).map(Image::from) {
        assert!(image.properties.keys().all(|key| !key.starts_with("os_glance_")));
        if image.hash.as_ref().is_none_or(|hash| hash.algorithm != HashAlgorithm::Md5) {
            let again = serde_json::from_value::<WireImage>(written(&image));
            assert_eq!(again.map(Image::from).ok().as_ref(), Some(&image));
        }
    }
}

fn written(image: &Image) -> Value {
    let list = |names: &std::collections::BTreeSet<String>| Vec::from_iter(names.iter().cloned()).join(",");
    let mut written = json!({
        "id": image.id, "name": image.name, "status": image.status, "visibility": image.visibility,
        "owner": image.owner, "size": image.size, "os_hidden": image.hidden, "protected": image.protected,
        "disk_format": image.disk_format, "container_format": image.container_format, "tags": image.tags,
        "created_at": image.created_at, "updated_at": image.updated_at, "stores": list(&image.backends),
        "os_glance_failed_import": list(&image.failed_backends),
        "os_glance_import_task": image.importing.then_some("task"),
        "os_hash_value": image.hash.as_ref().map(|hash| &hash.value),
        "os_hash_algo": image.hash.as_ref().map(|hash| match hash.algorithm {
            HashAlgorithm::Md5 => "md5",
            HashAlgorithm::Sha256 => "sha256",
            HashAlgorithm::Sha512 => "sha512",
        }),
        "locations": image.locations_shown.then_some(&image.locations),
    });
    if let Some(members) = written.as_object_mut() {
        members.extend(image.properties.iter().map(|(key, value)| (key.clone(), Value::from(value.as_str()))));
    }
    written
}

/// No secret of a location that Glance's words name is shown, and no more of them than fits a line.
pub fn words(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    assert!(plain(text).chars().count() <= 300);
    let (before, after) = text.split_once('\n').unwrap_or((text, ""));
    if !text.contains("s3cret") {
        let shown = plain(&format!("{before} swift+https://tenant%3Auser:s3cret@host/v3/c/o {after}"));
        assert!(!shown.contains("s3cret"), "{shown}");
    }
}
