//! What the stores behind an SSH server share.

use std::path::PathBuf;

use super::{Item, Own};

/// `None`: a mistake. `Some(None)`: the key is not there.
pub(super) fn path_if_given(own: &Own<'_>, key: &str) -> Option<Option<PathBuf>> {
    match own.section.get(key) {
        Some(item) => own.path(&item).map(Some),
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

/// A port of TCP.
pub(super) fn port(item: &Item<'_>) -> Option<u16> {
    let number = item.number(1)?;
    let port = u16::try_from(number).ok();
    if port.is_none() {
        item.wrong(format!("{number} is no port; the last one is 65535"));
    }
    port
}
