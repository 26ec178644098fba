//! A store of the type `file`.

use mimeo_adapters::stores::file::FileStoreConfig;

use super::Own;

pub(super) const KEYS: &[&str] = &[];

pub(super) fn read(own: &Own<'_>) -> Option<FileStoreConfig> {
    Some(FileStoreConfig { name: own.name.clone() })
}

/// What no other store may have too, each with its key.
pub(super) fn places(_config: &FileStoreConfig) -> Vec<(&'static str, String)> {
    Vec::new()
}
