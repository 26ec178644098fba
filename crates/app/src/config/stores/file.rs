//! A store of the type `file`.

use std::path::{Component, Path, PathBuf, absolute};

use mimeo_adapters::stores::file::FileStoreConfig;

use super::Own;

pub(super) const KEYS: &[&str] = &["path", "read_url"];

pub(super) fn read(own: &Own<'_>) -> Option<FileStoreConfig> {
    // Whether it is there shows when it is written to: one whose file server is away would not answer now.
    let path = own.required("path", "the directory to write to, like \"/srv/images\"").and_then(|item| own.path(&item));
    let read_url =
        own.url("read_url", "the web server that shows the directory: Glance reads no file:// location, ever");
    Some(FileStoreConfig { name: own.name.clone(), path: path?, read_url: read_url? })
}

/// What no other store may have too, each with its key.
pub(super) fn places(config: &FileStoreConfig) -> Vec<(&'static str, String)> {
    let path = normal(&config.path);
    vec![("path", path.display().to_string()), ("read_url", config.read_url.to_string())]
}

/// The path without detours, as far as its text tells: no file system is asked.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in absolute(path).as_deref().unwrap_or(path).components() {
        match part {
            Component::ParentDir => {
                normal.pop();
            }
            Component::CurDir => {}
            part => normal.push(part),
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::{Config, ConfigError, StoreKind};

    fn parse_whole(text: &str) -> Result<Config, ConfigError> {
        Config::parse(Path::new("/etc/mimeo/mimeo.toml"), text, &|_| None)
    }

    fn parse(section: &str) -> Result<Config, ConfigError> {
        parse_whole(&format!("enabled_stores = [\"a\"]\n[stores.a]\ntype = \"file\"\n{section}"))
    }

    fn mistakes(section: &str) -> Vec<String> {
        let text = parse(section).unwrap_err().to_string();
        text.lines().map(|line| line.split_once("mimeo.toml:").unwrap().1.to_owned()).collect()
    }

    #[test]
    fn a_directory_and_the_web_server_that_shows_it_are_all_that_is_needed() {
        let config = parse("path = \"images\"\nread_url = \"http://10.0.0.11/images\"").unwrap();
        let StoreKind::File(file) = &config.stores[0].kind else { panic!("{:?}", config.stores[0].kind) };
        assert_eq!(file.path, Path::new("/etc/mimeo/images"), "whether it is there is not asked");
        let config = parse("path = \"~/images\"\nread_url = \"http://h/\"").unwrap();
        let StoreKind::File(at_home) = &config.stores[0].kind else { panic!("{:?}", config.stores[0].kind) };
        assert_eq!(at_home.path, std::env::home_dir().unwrap().join("images"));
        assert_eq!(config.stores[0].kind.read_url().unwrap().as_str(), "http://h/");
    }

    #[test]
    fn each_mistake_is_told_with_key_and_cure() {
        let found = mistakes("");
        assert!(found[0].starts_with("2: stores.a.path: missing; give the directory"), "{found:?}");
        assert!(found[1].starts_with("2: stores.a.read_url: missing; give the web server"), "{found:?}");
        for path in ["", " "] {
            let found = mistakes(&format!("read_url = \"http://h/\"\npath = \"{path}\""));
            assert!(found.len() == 1 && found[0].starts_with("5: stores.a.path: is empty; write a path"), "{found:?}");
        }
        let found = mistakes("path = \"images\"\nread_url = \"file:///images/\"");
        assert!(
            found[0].starts_with("5: stores.a.read_url: ") && found[0].contains("must start with http"),
            "{found:?}"
        );
    }

    #[test]
    fn a_directory_is_one_stores_only_by_whatever_name() {
        let two = |path: &str| {
            let text = format!(
                "enabled_stores = [\"a\", \"b\"]\n[stores.a]\ntype = \"file\"\npath = \"images\"\n\
                 read_url = \"http://a/\"\n[stores.b]\ntype = \"file\"\npath = \"{path}\"\nread_url = \"http://b/\""
            );
            parse_whole(&text).map_err(|error| error.to_string())
        };
        for other in ["other", "images/deep", "/srv/images"] {
            assert!(two(other).is_ok(), "{other}");
        }
        for same in ["other/../images", "./images/", "/etc/mimeo/images", "/etc//mimeo/x/.././images/."] {
            let error = two(same).unwrap_err();
            assert!(error.contains(":8: stores.b.path: is the same place as that of store \"a\""), "{error}");
        }
    }
}
