//! A store of the type `rsync`.

use std::path::PathBuf;

use mimeo_adapters::stores::rsync::{RsyncStoreConfig, RsyncTarget};

use super::{Item, Own, ssh};
use crate::config::units;

pub(super) const KEYS: &[&str] =
    &["target", "read_url", "spool", "spool_size", "password", "key_file", "known_hosts", "port"];

pub(super) fn read(own: &Own<'_>) -> Option<RsyncStoreConfig> {
    let section = &own.section;
    let example =
        "the directory to write to, like \"mimeo@10.0.0.11:/srv/images/\" or \"rsync://mimeo@10.0.0.11/images/\"";
    let target = own.required("target", example);
    let target = target.and_then(|item| item.parse(|text| RsyncTarget::parse(text).map_err(|error| error.to_string())));
    let read_url = own.url("read_url", "where a web server exports the target, like \"http://10.0.0.11/images/\"");
    let spool = own.required("spool", "a directory of this machine with room for the images that are on their way");
    let spool = spool.and_then(|item| directory(own, &item));
    let spool_size = own.required("spool_size", "what the spool may hold, like \"20GiB\"");
    let spool_size = spool_size.and_then(|item| item.parse(size));
    let password = own.section.get("password").map(|item| item.secret(own.directory));
    let key_file = ssh::file_if_given(own, "key_file");
    let known_hosts = ssh::path_if_given(own, "known_hosts");
    let port = section.get("port").map(|item| ssh::port(&item));
    let (others, instead) = match target.as_ref()? {
        RsyncTarget::Ssh { .. } => (&["password"][..], "is for a daemon; ssh logs in with key_file or an agent"),
        RsyncTarget::Daemon { .. } => {
            (&["key_file", "known_hosts", "port"][..], "is for ssh; leave it out for a daemon")
        }
    };
    let misplaced: Vec<_> = others.iter().filter_map(|key| section.get(key)).collect();
    for item in &misplaced {
        item.wrong(instead);
    }
    let config = RsyncStoreConfig {
        name: own.name.clone(),
        target: target?,
        read_url: read_url?,
        spool: spool?,
        spool_size: spool_size?,
        bandwidth: section.get("bandwidth").and_then(|item| item.parse(units::bandwidth)),
        password: password.map_or(Some(None), |given| given.map(|text| Some(text.into())))?,
        key_file: key_file?,
        known_hosts: known_hosts?,
        port: port.map_or(Some(None), |given| given.map(Some))?,
    };
    misplaced.is_empty().then_some(config)
}

fn size(text: &str) -> Result<u64, String> {
    match units::size(text)? {
        0 => Err(format!("\"{text}\" holds nothing; give the spool room for the largest image at least")),
        size => Ok(size),
    }
}

/// What no other store may have too, each with its key.
pub(super) fn places(config: &RsyncStoreConfig) -> Vec<(&'static str, String)> {
    vec![("target", config.target.place()), ("read_url", config.read_url.to_string())]
}

/// A directory that is there.
fn directory(own: &Own<'_>, item: &Item<'_>) -> Option<PathBuf> {
    let path = own.path(item)?;
    if !path.is_dir() {
        item.wrong(format!("{} is no directory; create it, writable for mimeo, or correct the path", path.display()));
        return None;
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::{Config, ConfigError, StoreKind};

    fn parse(more: &str) -> Result<Config, ConfigError> {
        let text =
            format!("enabled_stores = [\"a\"]\n[stores.a]\ntype = \"rsync\"\nread_url = \"http://h/images\"\n{more}");
        Config::parse(Path::new("/etc/mimeo.toml"), &text, &|_| None)
    }

    fn mistakes(more: &str) -> String {
        parse(more).unwrap_err().to_string()
    }

    const SPOOL: &str = "spool = \"/tmp\"\nspool_size = \"20GiB\"\n";

    #[test]
    fn the_keys_of_a_daemon_and_those_of_ssh_are_read() {
        let daemon = parse(&format!("{SPOOL}target = \"rsync://m@h/images\"\npassword = \"s3cret\"")).unwrap();
        assert!(!format!("{daemon:?}").contains("s3cret"), "{daemon:?}");
        let StoreKind::Rsync(config) = &daemon.stores[0].kind else { panic!("{daemon:?}") };
        assert_eq!(config.target.to_string(), "rsync://m@h/images/");
        assert_eq!((config.spool.as_path(), config.spool_size), (Path::new("/tmp"), 20 << 30));
        assert!(config.password.is_some() && config.known_hosts.is_none() && config.port.is_none());
        let ssh = parse(&format!("{SPOOL}target = \"m@h:/srv/images\"\nport = 2222\nknown_hosts = \"hosts\"")).unwrap();
        let StoreKind::Rsync(config) = &ssh.stores[0].kind else { panic!("{ssh:?}") };
        assert_eq!((config.target.to_string().as_str(), config.port), ("m@h:/srv/images/", Some(2222)));
        assert_eq!(config.known_hosts.as_deref(), Some(Path::new("/etc/hosts")));
        assert!(config.password.is_none() && config.key_file.is_none());
    }

    #[test]
    fn each_mistake_is_told_with_its_key_and_cure() {
        let found = mistakes("");
        for key in ["target", "spool", "spool_size"] {
            assert!(found.contains(&format!("/etc/mimeo.toml:2: stores.a.{key}: missing; give ")), "{key}: {found}");
        }
        let ssh = format!("{SPOOL}target = \"m@h:/srv/images\"\n");
        let daemon = format!("{SPOOL}target = \"rsync://m@h/images\"\n");
        let cases = [
            (format!("{ssh}password = \"s3cret\""), "8: stores.a.password: is for a daemon"),
            (format!("{daemon}port = 22"), "8: stores.a.port: is for ssh"),
            (format!("{daemon}known_hosts = \"x\""), "8: stores.a.known_hosts: is for ssh"),
            (
                format!("{SPOOL}target = \"/srv/images\""),
                "7: stores.a.target: \"/srv/images\" is no target; write it as",
            ),
            (
                format!("{SPOOL}target = \"rsync://m:s3cret@h/i\""),
                "7: stores.a.target: \"rsync://***@h/i\" must not carry",
            ),
            (ssh.replace("20GiB", "0GiB"), "6: stores.a.spool_size: \"0GiB\" holds nothing"),
            (ssh.replace("20GiB", "20 miles"), "6: stores.a.spool_size: \"20 miles\" is no size"),
            (ssh.replace("/tmp", "/nowhere/spool"), "5: stores.a.spool: /nowhere/spool is no directory; create it"),
        ];
        for (text, expected) in cases {
            let found = mistakes(&text);
            assert!(found.starts_with(&format!("/etc/mimeo.toml:{expected}")), "{found}");
            assert_eq!(found.lines().count(), 1, "{found}");
            assert!(!found.contains("s3cret"), "{found}");
        }
    }

    #[test]
    fn two_stores_at_one_target_are_a_mistake() {
        let directory = tempfile::tempdir().unwrap();
        let spool = format!("spool = \"{}\"\nspool_size = \"20GiB\"\n", directory.path().display());
        for (first, second) in
            [("m@h:/srv", "m@H:/srv/./"), ("h:/srv", "H:/srv/"), ("rsync://m@h/i", "rsync://m@H:873/i/")]
        {
            let text = format!(
                "enabled_stores = [\"a\", \"b\"]\n[stores.a]\ntype = \"rsync\"\nread_url = \"http://h/1\"\ntarget = \"{first}\"\n\
                 {spool}[stores.b]\ntype = \"rsync\"\nread_url = \"http://h/2\"\ntarget = \"{second}\"\n{spool}"
            );
            let found = Config::parse(Path::new("/etc/mimeo.toml"), &text, &|_| None).unwrap_err().to_string();
            assert!(found.contains("stores.b.target: is the same place as that of store \"a\""), "{found}");
        }
    }
}
