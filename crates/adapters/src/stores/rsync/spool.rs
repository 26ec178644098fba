//! The bounded place on this machine where objects wait for rsync.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use mimeo_core::{Error, ObjectName, Reason, Result, StoreName};
use tokio::{fs::File, runtime::Handle};

/// One store's directory in the spool. Clones share its room.
#[derive(Debug, Clone)]
pub(super) struct Spool {
    store: StoreName,
    directory: PathBuf,
    size: u64,
    used: Arc<Mutex<u64>>,
}

/// An object's place in the spool; it goes with its file when dropped.
#[derive(Debug)]
pub(super) struct Place {
    spool: Spool,
    pub(super) path: PathBuf,
    bytes: u64,
}

impl Spool {
    /// Removes what a process that ended left there.
    pub(super) fn new(store: &StoreName, spool: &Path, size: u64) -> Self {
        let directory = spool.join(format!("mimeo-{store}"));
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            if entry.file_name().into_string().is_ok_and(|name| ObjectName::try_from(name).is_ok()) {
                remove_leftover(&entry.path());
            }
        }
        Self { store: store.clone(), directory, size, used: Arc::default() }
    }

    /// An empty file of the object's name. `size` bytes of the spool are kept for it.
    pub(super) async fn place(&self, object: &ObjectName, size: u64) -> Result<(Place, File)> {
        let mut place = Place { spool: self.clone(), path: self.directory.join(object.as_str()), bytes: 0 };
        place.grow(size)?;
        self.make(&self.directory).await?;
        let path = place.path.clone();
        let made = tokio::task::spawn_blocking(move || {
            let file = private().create(true).truncate(true).write(true).open(path)?;
            // Tells another process that it is in use.
            file.try_lock()?;
            Ok(file)
        });
        match made.await.map_err(std::io::Error::from).flatten() {
            Ok(file) => Ok((place, File::from_std(file))),
            Err(cause) => Err(self.failed(&cause)),
        }
    }

    /// A directory in which there is nothing.
    pub(super) async fn empty(&self) -> Result<PathBuf> {
        let empty = self.directory.join("empty");
        self.make(&self.directory).await?;
        self.make(&empty).await?;
        Ok(empty)
    }

    async fn make(&self, directory: &Path) -> Result<()> {
        let mut builder = tokio::fs::DirBuilder::new();
        builder.mode(0o700);
        match builder.create(directory).await {
            Err(cause) if cause.kind() != std::io::ErrorKind::AlreadyExists => Err(self.failed(&cause)),
            _ => Ok(()),
        }
    }

    pub(super) fn failed(&self, cause: &std::io::Error) -> Error {
        let (reason, cure) = match cause.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                (Reason::StoreFull, "make room there, or lower spool_size")
            }
            _ => (Reason::StoreError, "make the spool's directory, writable for Mimeo"),
        };
        let (store, directory) = (&self.store, self.directory.display());
        Error::new(reason, format!("{store}: cannot write in the spool {directory} ({cause}); {cure}"))
    }
}

impl Place {
    /// Keeps so many more bytes of the spool for the object.
    pub(super) fn grow(&mut self, bytes: u64) -> Result<()> {
        let spool = &self.spool;
        let full = |reason, what: &str| {
            let (store, size) = (&spool.store, spool.size);
            Err(Error::new(reason, format!("{store}: the object {what} of {size} bytes")))
        };
        if self.bytes.saturating_add(bytes) > spool.size {
            return full(Reason::StoreFull, "is larger than the spool; raise spool_size: it is now");
        }
        let mut used = spool.used.lock().unwrap_or_else(PoisonError::into_inner);
        if *used + bytes > spool.size {
            return full(Reason::StoreBusy, "must wait for others to leave the spool");
        }
        *used += bytes;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut used = self.spool.used.lock().unwrap_or_else(PoisonError::into_inner);
        *used = used.saturating_sub(self.bytes);
        drop(used);
        let path = std::mem::take(&mut self.path);
        // One that was never made is no error, and one that stays is removed at the next start.
        let remove = move || drop(fs::remove_file(path));
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

/// Nobody else may read what an image holds.
fn private() -> fs::OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = fs::OpenOptions::new();
    options.mode(0o600);
    options
}

/// Not one that another process, `mimeo check` say, has in use.
fn remove_leftover(path: &Path) {
    let unused = fs::File::open(path).is_ok_and(|file| file.try_lock().is_ok());
    if unused {
        drop(fs::remove_file(path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> StoreName {
        "far".parse().unwrap()
    }

    fn object(attempt: u64) -> ObjectName {
        ObjectName::new(&"0f0e0d0c-0b0a-4009-8807-060504030201".parse().unwrap(), attempt)
    }

    #[tokio::test]
    async fn an_object_waits_for_room_and_one_that_is_too_large_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::new(&store(), directory.path(), 100);
        let (first, _file) = spool.place(&object(1), 60).await.unwrap();
        assert_eq!(spool.place(&object(2), 41).await.unwrap_err().reason, Reason::StoreBusy);
        assert_eq!(spool.place(&object(2), 101).await.unwrap_err().reason, Reason::StoreFull);
        let (mut second, _file) = spool.place(&object(2), 0).await.unwrap();
        second.grow(40).unwrap();
        assert_eq!(second.grow(1).unwrap_err().reason, Reason::StoreBusy);
        drop(first);
        second.grow(60).unwrap();
        assert_eq!(second.grow(1).unwrap_err().reason, Reason::StoreFull);
    }

    #[tokio::test]
    async fn only_objects_that_nobody_uses_are_left_overs() {
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::new(&store(), directory.path(), 100);
        let (used, _file) = spool.place(&object(1), 10).await.unwrap();
        let own = directory.path().join("mimeo-far");
        let left = own.join(object(2).as_str());
        let foreign = own.join("notes.txt");
        for file in [&left, &foreign] {
            fs::write(file, "x").unwrap();
        }
        Spool::new(&store(), directory.path(), 100);
        assert!(used.path.exists() && foreign.exists() && !left.exists());
    }
}
