//! A store of the type `glance`: one that only Glance can write.

use super::Own;

pub(super) const KEYS: &[&str] = &["backend"];

/// Glance's id of the store: the section's name unless it says another.
pub(super) fn read(own: &Own<'_>) -> String {
    if let Some(item) = own.section.own("bandwidth") {
        item.wrong("Glance itself writes to this store, at its own pace; remove the key");
    }
    let named = own.section.get("backend").and_then(|item| item.text());
    named.unwrap_or_else(|| own.name.to_string())
}

/// What no other store may have too, each with its key.
pub(super) fn places(backend: &str) -> Vec<(&'static str, String)> {
    vec![("backend", backend.to_owned())]
}
