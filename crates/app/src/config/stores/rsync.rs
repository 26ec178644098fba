//! A store of the type `rsync`.

use mimeo_adapters::stores::rsync::RsyncStoreConfig;

use super::Own;

pub(super) const KEYS: &[&str] = &[];

pub(super) fn read(own: &Own<'_>) -> Option<RsyncStoreConfig> {
    Some(RsyncStoreConfig { name: own.name.clone() })
}

/// What no other store may have too, each with its key.
pub(super) fn places(_config: &RsyncStoreConfig) -> Vec<(&'static str, String)> {
    Vec::new()
}
