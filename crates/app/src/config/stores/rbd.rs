//! A store of the type `rbd`.

use std::path::Path;

use mimeo_adapters::stores::rbd::RbdStoreConfig;

use super::{Item, Own};
use crate::config::units;

pub(super) const KEYS: &[&str] = &["backend", "pool", "user", "conf_file", "keyring", "fsid", "chunk_size"];

pub(super) fn read(own: &Own<'_>) -> Option<RbdStoreConfig> {
    let section = &own.section;
    let pool = own.required("pool", "the pool of Glance's images, like \"images\"").and_then(|item| pool(&item));
    let conf_file = section.value("conf_file", RbdStoreConfig::CONF_FILE.into(), |item| own.path(item));
    let fsid = fsid(own, &conf_file);
    let config = RbdStoreConfig::new(own.name.clone(), pool?, fsid?);
    Some(RbdStoreConfig {
        user: section.value("user", config.user.clone(), user),
        keyring: section.get("keyring").and_then(|item| own.path(&item)),
        order: section.value("chunk_size", config.order, order),
        conf_file,
        ..config
    })
}

/// What no other store may have too, each with its key.
pub(super) fn places(config: &RbdStoreConfig) -> Vec<(&'static str, String)> {
    vec![("pool", format!("{}/{}", config.fsid, config.pool))]
}

/// The one that is given, else the one that Ceph's own file tells.
fn fsid(own: &Own<'_>, conf_file: &Path) -> Option<String> {
    if let Some(item) = own.section.get("fsid") {
        return item.parse(|text| RbdStoreConfig::valid_fsid(text).map_err(|rule| format!("\"{text}\" {rule}")));
    }
    let told = RbdStoreConfig::fsid_of(conf_file);
    if let Err(rule) = &told {
        let message = format!("\"{}\" {rule}", conf_file.display());
        match own.section.get("conf_file") {
            Some(item) => item.wrong(message),
            None => own.section.missing("conf_file", &message),
        }
    }
    told.ok()
}

fn pool(item: &Item<'_>) -> Option<String> {
    item.parse(|text| match text.is_empty() || text.contains(['/', '@', '\0']) {
        true => Err(format!("\"{text}\" is no pool's name; see `ceph osd pool ls`")),
        false => Ok(text.to_owned()),
    })
}

fn user(item: &Item<'_>) -> Option<String> {
    item.parse(|text| match text.is_empty() || text.starts_with("client.") {
        true => Err(format!("\"{text}\" is no user; write it without \"client.\", like \"glance\"")),
        false => Ok(text.to_owned()),
    })
}

fn order(item: &Item<'_>) -> Option<u32> {
    item.parse(|text| RbdStoreConfig::order_of(units::size(text)?).map_err(|rule| format!("\"{text}\" {rule}")))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use crate::config::{Config, ConfigError, StoreKind};

    use super::RbdStoreConfig;

    const FSID: &str = "78185306-f8c6-4a0e-9a83-85a04d859a55";

    fn parse(directory: &Path, section: &str) -> Result<RbdStoreConfig, ConfigError> {
        let text = format!("enabled_stores = [\"ceph\"]\n[stores.ceph]\ntype = \"rbd\"\n{section}");
        let config = Config::parse(&directory.join("mimeo.toml"), &text, &|_| None)?;
        match &config.stores[0].kind {
            StoreKind::Rbd(config) => Ok(config.clone()),
            other => panic!("{other:?} is no RBD store"),
        }
    }

    #[test]
    fn a_pool_and_an_fsid_are_enough() {
        let config = parse(Path::new("etc"), &format!("pool = \"images\"\nfsid = \"{FSID}\"")).unwrap();
        assert_eq!(config, RbdStoreConfig::new("ceph".parse().unwrap(), "images".into(), FSID.into()));
        assert_eq!((config.user.as_str(), config.conf_file.to_str()), ("admin", Some("/etc/ceph/ceph.conf")));
        assert_eq!((config.order, config.keyring), (23, None));
    }

    #[test]
    fn every_key_is_read_and_paths_count_from_the_file() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("ceph.conf"), format!("[global]\nfsid = {FSID}\n")).unwrap();
        let section = "pool = \"glance\"\nuser = \"mimeo\"\nconf_file = \"ceph.conf\"\nkeyring = \"mimeo.keyring\"\n\
            chunk_size = \"4MiB\"";
        let config = parse(directory.path(), section).unwrap();
        assert_eq!((config.pool.as_str(), config.user.as_str(), config.fsid.as_str()), ("glance", "mimeo", FSID));
        assert_eq!(config.conf_file, directory.path().join("ceph.conf"));
        assert_eq!((config.keyring, config.order), (Some(directory.path().join("mimeo.keyring")), 22));
    }

    #[test]
    fn each_mistake_names_its_key_and_the_cure() {
        let fsid = format!("fsid = \"{FSID}\"\n");
        for (section, key, cure) in [
            (fsid.clone(), "pool", "the pool of Glance's images"),
            (format!("{fsid}pool = \"a/b\""), "pool", "ceph osd pool ls"),
            (format!("{fsid}pool = \"a\"\nuser = \"client.glance\""), "user", "without \"client.\""),
            (format!("{fsid}pool = \"a\"\nchunk_size = \"3MiB\""), "chunk_size", "power of two"),
            (format!("{fsid}pool = \"a\"\nkeyring = \"\""), "keyring", "remove the key"),
            ("pool = \"a\"\nfsid = \"7\"".into(), "fsid", "`ceph fsid`"),
            ("pool = \"a\"\nconf_file = \"/nowhere/ceph.conf\"".into(), "conf_file", "install Ceph's configuration"),
        ] {
            let mistakes = parse(Path::new("etc"), &section).unwrap_err().to_string();
            let named = mistakes.lines().count() == 1 && mistakes.contains(&format!(": stores.ceph.{key}: "));
            assert!(named && mistakes.contains(cure), "{section}: {mistakes}");
        }
    }

    #[test]
    fn two_stores_may_not_share_a_pool_of_one_cluster() {
        let section = format!("type = \"rbd\"\npool = \"images\"\nfsid = \"{FSID}\"\n");
        let text = format!("enabled_stores = [\"a\", \"b\"]\n[stores.a]\n{section}[stores.b]\n{section}");
        let error = Config::parse(Path::new("mimeo.toml"), &text, &|_| None).unwrap_err().to_string();
        assert!(error.contains("stores.b.pool: is the same place as that of store \"a\""), "{error}");
    }
}
