//! A store of the type `sftp`.

use std::{
    env,
    net::Ipv6Addr,
    path::{Path, PathBuf},
};

use mimeo_adapters::stores::sftp::SftpStoreConfig;

use super::{Item, Own, ssh};

pub(super) const KEYS: &[&str] =
    &["host", "port", "user", "path", "read_url", "key_file", "key_passphrase", "agent", "password", "known_hosts"];

pub(super) fn read(own: &Own<'_>) -> Option<SftpStoreConfig> {
    let section = &own.section;
    let word = |key, example| own.required(key, example).and_then(|item| item.parse(one_word));
    let secret = |key| match section.get(key) {
        Some(item) => item.secret(own.directory).map(|text| Some(text.into())),
        None => Some(None),
    };
    let host = own.required("host", "the SSH server's name, like \"10.0.0.11\"").and_then(|item| item.parse(host));
    let user = word("user", "the user to log in as");
    let path = own.required("path", "the directory at the server, like \"/srv/images\"");
    let path = path.and_then(|item| item.parse(directory));
    let read_url = own.url("read_url", "where a web server exports the directory, like \"http://10.0.0.11/images/\"");
    let port = section.value("port", 22, ssh::port);
    let agent = section.value("agent", false, Item::boolean);
    let key_file = ssh::file_if_given(own, "key_file");
    let (key_passphrase, password) = (secret("key_passphrase"), secret("password"));
    let known_hosts = ssh::path_if_given(own, "known_hosts");
    if !agent && ["key_file", "agent", "password"].iter().all(|key| section.get(key).is_none_or(|_| *key == "agent")) {
        section.missing("key_file", "missing; give key_file, password or agent = true, to log in with");
        return None;
    }
    Some(SftpStoreConfig {
        name: own.name.clone(),
        host: host?,
        port,
        user: user?,
        path: path?,
        read_url: read_url?,
        key_file: key_file?,
        key_passphrase: key_passphrase?,
        agent,
        password: password?,
        known_hosts: known_hosts?.unwrap_or_else(known_hosts_of_the_user),
    })
}

/// A name or an address, and nothing besides.
fn host(text: &str) -> Result<String, String> {
    let host = one_word(text)?;
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let signs = [':', '/', '@', '[', ']', '%'];
    let address = bare.split_once('%').filter(|(_, zone)| !zone.is_empty() && !zone.contains(signs));
    let address = address.map_or(bare, |(address, _)| address);
    match host.contains(signs) && address.parse::<Ipv6Addr>().is_err() {
        true => {
            Err(format!("\"{text}\" is more than a name or an address; user, port and path have keys of their own"))
        }
        false => Ok(bare.to_owned()),
    }
}

/// One directory is written in one way, so that it can be told from others.
fn directory(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains(char::is_control) {
        return Err(format!("\"{text}\" is no directory; write it like \"/srv/images\", or \".\" for the user's home"));
    }
    if text.starts_with('~') {
        return Err(format!("\"{text}\": no shell reads it; without \"~/\" it counts from the user's home"));
    }
    let parts: Vec<&str> = text.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    let root = if text.starts_with('/') { "/" } else { "" };
    let path = format!("{root}{}", parts.join("/"));
    Ok(if path.is_empty() { ".".to_owned() } else { path })
}

/// What no other store may have too, each with its key.
pub(super) fn places(config: &SftpStoreConfig) -> Vec<(&'static str, String)> {
    let host = config.host.to_ascii_lowercase();
    let place = SftpStoreConfig { host, ..config.clone() }.address();
    vec![("path", place), ("read_url", config.read_url.to_string())]
}

/// Where the keys of known hosts are, if nothing is said: where ssh has them.
fn known_hosts_of_the_user() -> PathBuf {
    env::home_dir().unwrap_or_else(|| Path::new("/").to_owned()).join(".ssh/known_hosts")
}

/// A word that ends up in a command or an address.
fn one_word(text: &str) -> Result<String, String> {
    match text.is_empty() || text.starts_with('-') || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        true => Err(format!("\"{text}\" must be one word that does not start with '-'")),
        false => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Config, ConfigError, StoreKind};

    const LEAST: &str = "enabled_stores = [\"a\"]\n[stores.a]\ntype = \"sftp\"\nhost = \"h\"\nuser = \"u\"\n\
        path = \"/srv/images/\"\nread_url = \"http://h/images\"\n";

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(Path::new("etc/mimeo.toml"), text, &|_| None)
    }

    fn sftp(text: &str) -> SftpStoreConfig {
        match parse(text).unwrap().stores.remove(0).kind {
            StoreKind::Sftp(config) => config,
            other => panic!("{other:?} is no SFTP store"),
        }
    }

    fn mistakes(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn what_is_not_said_has_its_default() {
        let config = sftp(&format!("{LEAST}agent = true"));
        assert_eq!((config.port, config.path.as_str(), config.agent), (22, "/srv/images", true));
        assert!(config.known_hosts.ends_with(".ssh/known_hosts"), "{config:?}");
        assert!(config.password.is_none() && config.key_file.is_none());
        assert_eq!(config.read_url.as_str(), "http://h/images/");
        assert_eq!(config.address(), "sftp://u@h:22/srv/images");
    }

    #[test]
    fn one_directory_is_written_in_one_way() {
        for (host, path, expected) in [
            ("h", "/srv//images/.", "sftp://u@h:22/srv/images"),
            ("h", "images/", "sftp://u@h:22/~/images"),
            ("h", "/images", "sftp://u@h:22/images"),
            ("h", "./", "sftp://u@h:22/~/."),
            ("[fe80::1]", "/", "sftp://u@[fe80::1]:22/"),
            ("fe80::1", "/", "sftp://u@[fe80::1]:22/"),
            ("fe80::1%eth0", "/", "sftp://u@[fe80::1%eth0]:22/"),
        ] {
            let text = LEAST.replace("\"h\"", &format!("\"{host}\"")).replace("/srv/images/", path);
            assert_eq!(sftp(&format!("{text}agent = true")).address(), expected);
        }
    }

    #[test]
    fn every_key_is_read_and_no_secret_is_shown() {
        let directory = tempfile::tempdir().unwrap();
        for file in ["key", "word"] {
            std::fs::write(directory.path().join(file), "s3cret\n").unwrap();
        }
        let text = format!(
            "{LEAST}port = 2222\nkey_file = \"key\"\nkey_passphrase = \"file:word\"\npassword = \"s3cret\"\n\
             known_hosts = \"hosts\""
        );
        let parsed = Config::parse(&directory.path().join("mimeo.toml"), &text, &|_| None).unwrap();
        let StoreKind::Sftp(config) = &parsed.stores[0].kind else { panic!("{parsed:?}") };
        assert_eq!((config.port, config.agent), (2222, false));
        assert_eq!(config.key_file.as_deref(), Some(directory.path().join("key").as_path()));
        assert_eq!(config.known_hosts, directory.path().join("hosts"));
        assert!(config.password.is_some() && config.key_passphrase.is_some());
        assert!(!format!("{parsed:?}").contains("s3cret"), "{parsed:?}");
    }

    #[test]
    fn each_mistake_is_told_with_its_key_and_cure() {
        let found = mistakes("enabled_stores = [\"a\"]\n[stores.a]\ntype = \"sftp\"");
        for key in ["host", "user", "path", "read_url", "key_file"] {
            assert!(found.contains(&format!("etc/mimeo.toml:2: stores.a.{key}: missing; give ")), "{key}: {found}");
        }
        let home = env::home_dir().unwrap();
        let of_home = format!("password: the secret file {}/nowhere/word cannot be read", home.display());
        let cases = [
            ("port = 0", "port: 0 is not a whole number of at least 1"),
            ("port = 65536", "port: 65536 is no port; the last one is 65535"),
            ("key_file = \"/nowhere/key\"", "key_file: /nowhere/key is no file; create it"),
            ("password = \"file:/nowhere/word\"", "password: the secret file /nowhere/word cannot be read"),
            ("agent = 1", "agent: expected true or false"),
            ("password = \"file:~/nowhere/word\"", &*of_home),
            ("known_host = \"x\"", "known_host: unknown key; did you mean \"known_hosts\"?"),
        ];
        for (line, expected) in cases {
            let found = mistakes(&format!(
                "{LEAST}{line}\n{}",
                if line.starts_with("agent") { "password = \"x\"" } else { "agent = true" }
            ));
            assert!(found.starts_with(&format!("etc/mimeo.toml:8: stores.a.{expected}")), "{line}: {found}");
        }
        for host in ["h:22", "u@h", "sftp://h", "h/x", "[h]", "::x", "::1%", "::1%eth0/x"] {
            let found = mistakes(&format!("{}agent = true", LEAST.replace("\"h\"", &format!("\"{host}\""))));
            assert!(found.contains(&format!("host: \"{host}\" is more than a name or an address")), "{found}");
        }
        let found = mistakes(&format!("{}agent = true", LEAST.replace("/srv/images/", "~/images")));
        assert!(found.contains("path: \"~/images\": no shell reads it"), "{found}");
        let found = mistakes(&LEAST.replace("\"h\"", "\"-oProxyCommand=x\"").replace("/srv/images/", ""));
        assert!(found.contains(":4: stores.a.host: \"-oProxyCommand=x\" must be one word"), "{found}");
        assert!(found.contains(":6: stores.a.path: \"\" is no directory"), "{found}");
    }

    #[test]
    fn two_stores_at_one_directory_are_a_mistake() {
        let second = LEAST.split_once("[stores.a]").unwrap().1;
        let text = LEAST.replace("[\"a\"]", "[\"a\", \"b\"]") + "agent = true\n[stores.b]" + second + "agent = true";
        let other = text.replace("http://h/images\"\nagent = true\n[", "http://h/other\"\nagent = true\n[");
        let found = mistakes(&other.replacen("\"h\"", "\"H\"", 1));
        assert!(found.contains("stores.b.path: is the same place as that of store \"a\""), "{found}");
    }
}
