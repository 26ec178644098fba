//! A store of the type `glance`: one that only Glance can write.

use super::Own;

/// Its limits are Glance's own.
pub(super) const KEYS: &[&str] = &["backend"];

/// Glance's id of the store: the section's name unless it says another.
pub(super) fn read(own: &Own<'_>) -> Option<String> {
    for key in ["concurrency", "bandwidth"] {
        if let Some(item) = own.section.own(key) {
            item.wrong("Glance itself writes to this store, at its own pace; remove the key");
        }
    }
    match own.section.get("backend") {
        Some(item) => item.parse(|text| match text.is_empty() {
            true => Err("is empty; give the store's id as in glance-api.conf, or leave the key out".to_owned()),
            false => Ok(text.to_owned()),
        }),
        None => Some(own.name.to_string()),
    }
}

/// What no other store may have too, each with its key.
pub(super) fn places(backend: &str) -> Vec<(&'static str, String)> {
    vec![("backend", backend.to_owned())]
}
