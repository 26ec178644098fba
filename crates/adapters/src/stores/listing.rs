//! What a listing shows of Mimeo's own.

use mimeo_core::ObjectName;

/// The object that a file is of: by its own name, or the one that it has until it is closed.
#[cfg(any(feature = "file", feature = "sftp"))]
pub(super) fn of_file(name: &str) -> Option<ObjectName> {
    let part = name.strip_prefix('.').and_then(|name| name.strip_suffix(".part"));
    part.unwrap_or(name).parse().ok()
}

/// Each once: a file and its part, or segments, come one after the other.
pub(super) fn distinct(names: impl Iterator<Item = ObjectName>) -> Vec<ObjectName> {
    let mut names: Vec<ObjectName> = names.collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(all(test, any(feature = "file", feature = "sftp")))]
mod tests {
    use super::*;

    #[test]
    fn others_files_are_no_objects() {
        let name = "0b3f8a10-7a44-4f0e-9d57-1f2e3d4c5b6a.17";
        for file in [name.to_owned(), format!(".{name}.part")] {
            assert_eq!(of_file(&file).unwrap().as_str(), name);
        }
        for other in ["", ".", "..", &name[..36], &format!("{name}.part"), &format!(".{name}"), &format!("my-{name}")] {
            assert_eq!(of_file(other), None, "{other}");
        }
    }
}
