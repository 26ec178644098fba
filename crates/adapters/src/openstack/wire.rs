//! An image as the Images API writes it.

use std::collections::{BTreeMap, BTreeSet};

use mimeo_core::{ContentHash, HashAlgorithm, Image, ImageId, ImageStatus, Location, Timestamp, Visibility};
use serde::Deserialize;
use serde_json::Value;

/// What the API adds to an image besides its attributes and custom properties.
const ADDED: [&str; 8] = ["self", "file", "schema", "direct_url", "min_disk", "min_ram", "virtual_size", "stores"];

#[derive(Deserialize)]
pub(super) struct WirePage {
    pub(super) images: Vec<WireImage>,
    /// Where the list goes on, if it does.
    pub(super) next: Option<String>,
}

/// With whom an image is shared.
#[derive(Deserialize)]
pub(super) struct Members {
    pub(super) members: Vec<Member>,
}

#[derive(Deserialize)]
pub(super) struct Member {
    pub(super) member_id: String,
}

#[derive(Deserialize)]
pub(super) struct WireImage {
    pub(super) id: ImageId,
    name: Option<String>,
    status: ImageStatus,
    visibility: Visibility,
    owner: Option<String>,
    size: Option<u64>,
    #[serde(default)]
    os_hidden: bool,
    #[serde(default)]
    protected: bool,
    disk_format: Option<String>,
    container_format: Option<String>,
    #[serde(default)]
    tags: Vec<String>,
    created_at: Timestamp,
    updated_at: Timestamp,
    checksum: Option<String>,
    os_hash_algo: Option<String>,
    os_hash_value: Option<String>,
    #[serde(default)]
    locations: Option<Vec<Location>>,
    #[serde(flatten)]
    more: BTreeMap<String, Value>,
}

impl From<WireImage> for Image {
    fn from(wire: WireImage) -> Self {
        let hash = hash(&wire);
        let importing = is_importing(&wire.more);
        let (backends, failed_backends) = (names(&wire.more, "stores"), names(&wire.more, "os_glance_failed_import"));
        let property = |(key, value): (String, Value)| match value {
            Value::String(value) if !ADDED.contains(&key.as_str()) && !key.starts_with("os_glance_") => {
                Some((key, value))
            }
            _ => None,
        };
        Self {
            id: wire.id,
            name: wire.name,
            status: wire.status,
            visibility: wire.visibility,
            owner: wire.owner,
            size: wire.size,
            hidden: wire.os_hidden,
            protected: wire.protected,
            disk_format: wire.disk_format,
            container_format: wire.container_format,
            tags: wire.tags,
            properties: wire.more.into_iter().filter_map(property).collect(),
            created_at: wire.created_at,
            updated_at: wire.updated_at,
            hash,
            locations_shown: wire.locations.is_some(),
            locations: wire.locations.unwrap_or_default(),
            importing,
            backends,
            failed_backends,
        }
    }
}

/// The strong hash where its algorithm is known, else the old checksum.
fn hash(wire: &WireImage) -> Option<ContentHash> {
    let algorithm = wire.os_hash_algo.as_deref().and_then(HashAlgorithm::from_glance);
    let (algorithm, value) = match (algorithm, &wire.os_hash_value, &wire.checksum) {
        (Some(algorithm), Some(value), _) => (algorithm, value),
        (_, _, Some(checksum)) => (HashAlgorithm::Md5, checksum),
        _ => return None,
    };
    Some(ContentHash { algorithm, value: value.to_ascii_lowercase() })
}

/// A list of stores, which Glance writes with commas.
fn names(more: &BTreeMap<String, Value>, key: &str) -> BTreeSet<String> {
    let text = more.get(key).and_then(Value::as_str).unwrap_or_default();
    text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// Empty lists of stores stay behind for good; a task or a store to come does not.
fn is_importing(more: &BTreeMap<String, Value>) -> bool {
    let text = |key: &str| more.get(key).and_then(Value::as_str);
    more.get("os_glance_import_task").is_some_and(|task| !task.is_null())
        || text("os_glance_importing_to_stores").is_some_and(|stores| !stores.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn image(changes: &Value) -> Image {
        let mut image = json!({
            "id": "0b3f8a10-7a44-4f0e-9d57-1f2e3d4c5b6a", "name": "debian", "status": "active", "visibility": "public",
            "owner": "p1", "size": 3, "os_hidden": true, "protected": false, "disk_format": "raw",
            "container_format": "bare", "tags": ["a"], "created_at": "2026-11-22T17:36:34Z",
            "updated_at": "2026-11-22T17:36:35Z", "checksum": "AB", "os_hash_algo": "sha512", "os_hash_value": "CD",
            "min_ram": 0, "min_disk": 0, "virtual_size": null, "self": "/v2/images/x", "file": "/v2/images/x/file",
            "schema": "/v2/schemas/image", "direct_url": "http://h/x", "stores": "http1", "os_distro": "debian",
            "os_glance_importing_to_stores": "", "os_glance_failed_import": "",
            "locations": [{"url": "http://h/x", "metadata": {"store": "http1", "n": {"a": []}}, "validation_data": {}}]
        });
        image.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        serde_json::from_value::<WireImage>(image).unwrap().into()
    }

    #[test]
    fn reads_an_image_as_glance_sends_it() {
        let image = image(&json!({}));
        assert_eq!(image.properties, BTreeMap::from([("os_distro".into(), "debian".into())]));
        assert_eq!(image.hash.unwrap(), ContentHash { algorithm: HashAlgorithm::Sha512, value: "cd".into() });
        assert_eq!((image.hidden, image.importing, image.locations.len()), (true, false, 1));
        assert_eq!((image.backends.len(), image.failed_backends.len()), (1, 0));
    }

    #[test]
    fn old_and_unusual_images_are_read_too() {
        let queued = image(&json!({"size": null, "checksum": null, "os_hash_algo": null, "os_hash_value": null,
                                   "name": null, "owner": null, "status": "brand_new"}));
        assert_eq!((queued.size, queued.hash, queued.status), (None, None, ImageStatus::Unknown));
        let old = image(&json!({"os_hash_algo": "sha3", "os_hash_value": "EF"}));
        assert_eq!(old.hash.unwrap().algorithm, HashAlgorithm::Md5);
    }

    #[test]
    fn the_stores_that_glance_wrote_and_could_not_write_are_told_apart() {
        let image = image(&json!({"stores": "a,b", "os_glance_failed_import": "c"}));
        assert_eq!(image.backends, ["a", "b"].map(str::to_owned).into());
        assert_eq!(image.failed_backends, ["c"].map(str::to_owned).into());
    }

    #[test]
    fn an_import_shows_by_its_task_or_by_a_store_to_come() {
        assert!(image(&json!({"os_glance_import_task": "t1"})).importing);
        assert!(image(&json!({"os_glance_importing_to_stores": "file2"})).importing);
    }
}
