//! A store of the type `rbd`.

use mimeo_adapters::stores::rbd::RbdStoreConfig;

use super::Own;

pub(super) const KEYS: &[&str] = &[];

pub(super) fn read(own: &Own<'_>) -> Option<RbdStoreConfig> {
    Some(RbdStoreConfig { name: own.name.clone() })
}

/// What no other store may have too, each with its key.
pub(super) fn places(_config: &RbdStoreConfig) -> Vec<(&'static str, String)> {
    Vec::new()
}
