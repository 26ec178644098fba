//! A store of the type `swift`.

use mimeo_adapters::stores::swift::SwiftStoreConfig;

use super::Own;

pub(super) const KEYS: &[&str] = &[];

pub(super) fn read(own: &Own<'_>) -> Option<SwiftStoreConfig> {
    Some(SwiftStoreConfig { name: own.name.clone() })
}

/// What no other store may have too, each with its key.
pub(super) fn places(_config: &SwiftStoreConfig) -> Vec<(&'static str, String)> {
    Vec::new()
}
