//! What the stores behind an SSH server share.

use std::{
    env,
    path::{Path, PathBuf},
};

use super::{Item, Own};

/// A file or directory of this machine: relative to the configuration file, or to the home directory after `~/`.
pub(super) fn path(own: &Own<'_>, item: &Item<'_>) -> Option<PathBuf> {
    item.parse(|text| match (text.strip_prefix("~/"), env::home_dir()) {
        _ if text.is_empty() => Err("is empty; write a path".to_owned()),
        (Some(rest), Some(home)) => Ok(home.join(rest)),
        _ => Ok(own.directory.join(text)),
    })
}

/// `None`: a mistake. `Some(None)`: the key is not there.
pub(super) fn path_if_given(own: &Own<'_>, key: &str) -> Option<Option<PathBuf>> {
    match own.section.get(key) {
        Some(item) => path(own, &item).map(Some),
        None => Some(None),
    }
}

/// One that is there; what is wrong with it shows only when it is used otherwise.
pub(super) fn file_if_given(own: &Own<'_>, key: &str) -> Option<Option<PathBuf>> {
    let path = path_if_given(own, key)?;
    match (&path, own.section.get(key)) {
        (Some(path), Some(item)) if !path.is_file() => {
            item.wrong(format!("{} is no file; create it, readable for mimeo, or correct the path", path.display()));
            None
        }
        _ => Some(path),
    }
}

/// A directory that is there.
pub(super) fn directory(own: &Own<'_>, item: &Item<'_>) -> Option<PathBuf> {
    let path = path(own, item)?;
    if !path.is_dir() {
        item.wrong(format!("{} is no directory; create it, writable for mimeo, or correct the path", path.display()));
        return None;
    }
    Some(path)
}

/// Where the keys of known hosts are, if nothing is said: where ssh has them.
pub(super) fn known_hosts_of_the_user() -> PathBuf {
    env::home_dir().unwrap_or_else(|| Path::new("/").to_owned()).join(".ssh/known_hosts")
}

/// A port of TCP.
pub(super) fn port(item: &Item<'_>) -> Option<u16> {
    let number = item.number(1)?;
    let port = u16::try_from(number).ok();
    if port.is_none() {
        item.wrong(format!("{number} is no port; the last one is 65535"));
    }
    port
}

/// A word that ends up in a command or an address.
pub(super) fn word(text: &str) -> Result<String, String> {
    match text.is_empty() || text.starts_with('-') || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        true => Err(format!("\"{text}\" must be one word that does not start with '-'")),
        false => Ok(text.to_owned()),
    }
}
