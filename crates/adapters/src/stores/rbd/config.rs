use std::path::{Path, PathBuf};

use ini::Ini;
use mimeo_core::{ObjectName, StoreName};

/// Glance's own `rbd_store_chunk_size`.
const CHUNK_SIZE: u64 = 8 << 20;
/// What librbd makes images of: 4 KiB to 32 MiB.
const ORDERS: std::ops::RangeInclusive<u32> = 12..=25;

/// One store's section, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RbdStoreConfig {
    pub name: StoreName,
    pub pool: String,
    /// Without `client.`.
    pub user: String,
    pub conf_file: PathBuf,
    /// Where the user's key is, if not where `conf_file` says.
    pub keyring: Option<PathBuf>,
    /// The cluster's, which stands in every location.
    pub fsid: String,
    /// The objects that an image is made of have `1 << order` bytes.
    pub order: u32,
}

impl RbdStoreConfig {
    pub const CONF_FILE: &str = "/etc/ceph/ceph.conf";

    /// With everything else as Glance has it. `fsid` is as [`valid_fsid`](Self::valid_fsid) gives it.
    pub fn new(name: StoreName, pool: String, fsid: String) -> Self {
        let conf_file = Self::CONF_FILE.into();
        let order = CHUNK_SIZE.trailing_zeros();
        Self { name, pool, user: "admin".into(), conf_file, keyring: None, fsid, order }
    }

    /// The fsid as Ceph itself writes it.
    pub fn valid_fsid(text: &str) -> Result<String, InvalidRbdKey> {
        let groups = text.split('-').map(str::len).eq([8, 4, 4, 4, 12]);
        match groups && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit()) {
            true => Ok(text.to_ascii_lowercase()),
            false => Err(InvalidRbdKey("is no fsid; copy what `ceph fsid` prints")),
        }
    }

    /// The fsid that Ceph's configuration file tells.
    pub fn fsid_of(conf_file: &Path) -> Result<String, InvalidRbdKey> {
        let conf = Ini::load_from_file_noescape(conf_file)
            .map_err(|_| InvalidRbdKey("cannot be read; install Ceph's configuration there, readable for mimeo"))?;
        let told = conf.get_from(Some("global"), "fsid");
        let untold = "tells no fsid in [global]; add it there, or give fsid here (`ceph fsid` prints it)";
        Self::valid_fsid(told.ok_or(InvalidRbdKey(untold))?)
            .map_err(|_| InvalidRbdKey("tells an fsid in [global] that is none; copy what `ceph fsid` prints"))
    }

    /// The order of objects of so many bytes.
    pub fn order_of(chunk_size: u64) -> Result<u32, InvalidRbdKey> {
        let order = Some(chunk_size.trailing_zeros()).filter(|order| ORDERS.contains(order));
        order
            .filter(|_| chunk_size.is_power_of_two())
            .ok_or(InvalidRbdKey("must be a power of two from 4KiB to 32MiB, like \"8MiB\""))
    }

    /// The pool, as [`pool_of`](Self::pool_of) reads it.
    pub(super) fn area(&self) -> String {
        format!("rbd://{}/{}/", self.fsid, self.pool)
    }

    /// The pool of this cluster that an area is.
    pub(super) fn pool_of<'a>(&self, area: &'a str) -> Option<&'a str> {
        area.strip_prefix("rbd://")?.strip_prefix(&*self.fsid)?.strip_prefix('/')?.strip_suffix('/')
    }

    /// Where Glance reads the object.
    pub(super) fn location(&self, object: &ObjectName) -> String {
        format!("rbd://{}/{}/{object}/{}", self.fsid, quoted(&self.pool), super::store::SNAPSHOT)
    }
}

/// As Glance quotes: all but letters, digits and `_.-~`.
fn quoted(text: &str) -> String {
    let quoted = |byte: u8| match byte {
        b'_' | b'.' | b'-' | b'~' => char::from(byte).to_string(),
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(quoted).collect()
}

/// A value that the store cannot have: the rule it breaks, with the cure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidRbdKey(&'static str);

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const FSID: &str = "78185306-f8c6-4a0e-9a83-85a04d859a55";

    #[test]
    fn a_location_is_quoted_as_glance_does_it() {
        let config = RbdStoreConfig::new("ceph".parse().unwrap(), "im ages/é_.-~".into(), FSID.into());
        let object = ObjectName::new(&"6a8f2b1e-0f52-4c46-9d4e-5ad3b1a0c9de".parse().unwrap(), 3);
        let expected = format!("rbd://{FSID}/im%20ages%2F%C3%A9_.-~/6a8f2b1e-0f52-4c46-9d4e-5ad3b1a0c9de.3/snap");
        assert_eq!(config.location(&object), expected);
    }

    #[test]
    fn the_fsid_comes_from_cephs_own_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ceph.conf");
        for (text, expected) in [
            (
                format!("# a comment\n[global]\n\tmon host = [v1:10.0.0.1:6789]\n\tfsid = {FSID}\n[client]\n"),
                Some(FSID),
            ),
            (format!("[global]\nfsid={}\n", FSID.to_uppercase()), Some(FSID)),
            (format!("[mon]\nfsid = {FSID}\n"), None),
            ("[global]\nfsid = 7\n".into(), None),
        ] {
            fs::write(&file, &text).unwrap();
            assert_eq!(RbdStoreConfig::fsid_of(&file).ok().as_deref(), expected, "{text}");
        }
        assert!(RbdStoreConfig::fsid_of(Path::new("/nowhere/ceph.conf")).is_err());
    }

    #[test]
    fn objects_have_a_power_of_two_of_bytes() {
        assert_eq!(RbdStoreConfig::order_of(8 << 20), Ok(23));
        for bad in [0, 1, 2048, 3 << 20, 64 << 20] {
            assert!(RbdStoreConfig::order_of(bad).is_err(), "{bad} was taken");
        }
    }
}
