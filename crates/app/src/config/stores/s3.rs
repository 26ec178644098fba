//! A store of the type `s3`.

use mimeo_adapters::stores::s3::S3StoreConfig;

use super::Own;

pub(super) const KEYS: &[&str] = &[];

pub(super) fn read(own: &Own<'_>) -> Option<S3StoreConfig> {
    Some(S3StoreConfig { name: own.name.clone() })
}

/// What no other store may have too, each with its key.
pub(super) fn places(_config: &S3StoreConfig) -> Vec<(&'static str, String)> {
    Vec::new()
}
