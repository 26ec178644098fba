//! A store of the type `sftp`.

use mimeo_adapters::stores::sftp::SftpStoreConfig;

use super::Own;

pub(super) const KEYS: &[&str] = &[];

pub(super) fn read(own: &Own<'_>) -> Option<SftpStoreConfig> {
    Some(SftpStoreConfig { name: own.name.clone() })
}

/// What no other store may have too, each with its key.
pub(super) fn places(_config: &SftpStoreConfig) -> Vec<(&'static str, String)> {
    Vec::new()
}
