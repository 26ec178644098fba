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
