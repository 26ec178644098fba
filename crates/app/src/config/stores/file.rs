//! A store of the type `file`.

use std::{fs, io::ErrorKind};

use mimeo_adapters::stores::file::FileStoreConfig;

use super::Own;

pub(super) const KEYS: &[&str] = &["path", "read_url"];

pub(super) fn read(own: &Own<'_>) -> Option<FileStoreConfig> {
    let path = own.required("path", "the directory to write to, like \"/srv/images\"").and_then(|item| {
        item.parse(|text| {
            let path = own.directory.join(text);
            match fs::metadata(&path) {
                _ if text.trim().is_empty() => Err("is empty; give the directory to write to".to_owned()),
                Ok(found) if !found.is_dir() => Err(format!("{} is no directory; give one", path.display())),
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    Err(format!("the directory {} is not there; make it, or mount it", path.display()))
                }
                // What else is wrong with it shows when it is written to.
                _ => Ok(path),
            }
        })
    });
    let read_url =
        own.url("read_url", "the web server that shows the directory: Glance reads no file:// location, ever");
    Some(FileStoreConfig { name: own.name.clone(), path: path?, read_url: read_url? })
}

/// What no other store may have too, each with its key.
pub(super) fn places(config: &FileStoreConfig) -> Vec<(&'static str, String)> {
    let path = config.path.canonicalize().unwrap_or_else(|_| config.path.clone());
    vec![("path", path.display().to_string()), ("read_url", config.read_url.to_string())]
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::config::{Config, ConfigError, StoreKind};

    /// In a directory with `images` and `other` in it, and a file called `plain`.
    fn parse_whole(text: &str) -> Result<Config, ConfigError> {
        let directory = tempfile::tempdir().unwrap();
        for name in ["images", "other"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        fs::write(directory.path().join("plain"), "").unwrap();
        Config::parse(&directory.path().join("mimeo.toml"), text, &|_| None)
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
        assert!(file.path.is_absolute() && file.path.ends_with("images"), "{}", file.path.display());
        assert_eq!(config.stores[0].kind.read_url().unwrap().as_str(), "http://10.0.0.11/images/");
    }

    #[test]
    fn each_mistake_is_told_with_key_and_cure() {
        let found = mistakes("");
        assert!(found[0].starts_with("2: stores.a.path: missing; give the directory"), "{found:?}");
        assert!(found[1].starts_with("2: stores.a.read_url: missing; give the web server"), "{found:?}");
        let url = "read_url = \"http://h/\"";
        for (path, hint) in [
            ("nowhere", "is not there; make it, or mount it"),
            ("plain", "is no directory"),
            ("", "is empty; give the directory"),
        ] {
            let found = mistakes(&format!("{url}\npath = \"{path}\""));
            assert!(found.len() == 1 && found[0].starts_with("5: stores.a.path: "), "{found:?}");
            assert!(found[0].contains(hint), "{found:?}");
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
        assert!(two("other").is_ok());
        let error = two("other/../images").unwrap_err();
        assert!(error.contains(":8: stores.b.path: is the same place as that of store \"a\""), "{error}");
    }
}
