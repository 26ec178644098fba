//! The directory as it is written, by calls that block: they run on threads of their own.

use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::Arc,
};

use mimeo_core::{Error, ObjectName, Reason, Result, StoreName};
use rustix::io::Errno;
use tokio::{
    sync::{AcquireError, OwnedSemaphorePermit, Semaphore},
    task::{JoinError, JoinHandle, spawn_blocking},
};

/// How many calls a store has under way. Those to a file server that is away never return, and each keeps a thread of
/// those that all stores share.
const CALLS: usize = 16;

/// One object's place in the directory.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    pub(super) store: StoreName,
    pub(super) directory: PathBuf,
    pub(super) object: ObjectName,
    pub(super) calls: Calls,
}

/// The store's share of the threads. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Calls(pub(super) Arc<Semaphore>);

/// Leave for one call, given back when the call returns. It is never refused: the semaphore is not closed.
pub(super) struct Leave {
    _permit: std::result::Result<OwnedSemaphorePermit, AcquireError>,
}

impl Calls {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(CALLS)))
    }
}

impl Disk {
    pub(super) fn published(&self) -> PathBuf {
        self.directory.join(self.object.as_str())
    }

    /// Where the object is until it is closed.
    pub(super) fn part(&self) -> PathBuf {
        self.directory.join(format!(".{}.part", self.object))
    }

    /// What was begun goes on when the future is dropped, to the end of this one call.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let leave = self.leave().await;
        self.finished(self.call(leave, call).await)
    }

    /// Waits while as many calls as may be are under way.
    pub(super) async fn leave(&self) -> Leave {
        Leave { _permit: self.calls.0.clone().acquire_owned().await }
    }

    /// Begins a call.
    pub(super) fn call<T: Send + 'static>(
        &self,
        leave: Leave,
        call: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let disk = self.clone();
        spawn_blocking(move || {
            let done = call(&disk);
            drop(leave);
            done
        })
    }

    /// What became of a call.
    pub(super) fn finished<T>(&self, call: std::result::Result<Result<T>, JoinError>) -> Result<T> {
        call.map_err(|cause| {
            let message = format!("{}: {} was not finished", self.store, self.object);
            Error::new(Reason::StoreError, message).caused_by(cause)
        })?
    }

    /// How many more bytes may be written here. `None`: the file system does not tell.
    pub(super) fn room(&self) -> Result<Option<u64>> {
        let told = rustix::fs::statvfs(&self.directory);
        let told = told.map_err(|cause| self.failed("cannot look at", &self.directory, cause.into()))?;
        Ok((told.f_blocks > 0).then(|| told.f_bavail.saturating_mul(told.f_frsize)))
    }

    /// Makes the file the object, for good.
    pub(super) fn publish(&self, file: &File, length: u64) -> Result<()> {
        let (part, published) = (self.part(), self.published());
        let failed = |cause| self.failed("cannot finish", &part, cause);
        // Zeros that were left out at the end.
        if file.metadata().map_err(failed)?.len() < length {
            file.set_len(length).map_err(failed)?;
        }
        file.sync_all().map_err(failed)?;
        mimeo_crash::point("file-synced");
        fs::rename(&part, &published).map_err(|cause| self.failed("cannot publish", &published, cause))?;
        mimeo_crash::point("file-renamed");
        self.sync_directory()
    }

    pub(super) fn sync_directory(&self) -> Result<()> {
        let synced = File::open(&self.directory).and_then(|directory| directory.sync_all());
        synced.map_err(|cause| self.failed("cannot sync", &self.directory, cause))
    }

    pub(super) fn failed(&self, what: &str, path: &Path, cause: io::Error) -> Error {
        let (reason, cure) = match cause.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                (Reason::StoreFull, ": make room there, or raise the quota")
            }
            ErrorKind::FileTooLarge => (Reason::StoreFull, ": the file system takes no file of this size"),
            ErrorKind::PermissionDenied => (Reason::StoreRefused, ": let Mimeo's user write in the directory"),
            ErrorKind::ReadOnlyFilesystem => (Reason::StoreRefused, ": mount the file system for writing"),
            _ if cause.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
                (Reason::StoreRefused, ": a symbolic link is in the object's place; remove it")
            }
            ErrorKind::TimedOut | ErrorKind::HostUnreachable | ErrorKind::StaleNetworkFileHandle => {
                (Reason::StoreUnreachable, ": the file server does not answer; mount it anew")
            }
            ErrorKind::NotFound if !self.directory.is_dir() => {
                (Reason::StoreError, ": the directory is not there; make or mount it, or correct the store's path")
            }
            ErrorKind::NotADirectory => (Reason::StoreError, ": the store's path is no directory; correct it"),
            _ => (Reason::StoreError, ""),
        };
        Error::new(reason, format!("{}: {what} {}{cure}", self.store, path.display())).caused_by(cause)
    }
}

/// Nothing there is no error.
pub(super) fn is_there<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_has_its_reason_store_and_cure() {
        let image = "00000001-0000-4000-8000-000000000000".parse().unwrap();
        let disk = |directory: &str| Disk {
            store: "file1".parse().unwrap(),
            directory: directory.into(),
            object: ObjectName::new(&image, 1),
            calls: Calls::new(),
        };
        let cases = [
            (Errno::NOSPC, Reason::StoreFull, "make room"),
            (Errno::DQUOT, Reason::StoreFull, "quota"),
            (Errno::FBIG, Reason::StoreFull, "no file of this size"),
            (Errno::ACCESS, Reason::StoreRefused, "let Mimeo's user write"),
            (Errno::PERM, Reason::StoreRefused, "let Mimeo's user write"),
            (Errno::ROFS, Reason::StoreRefused, "for writing"),
            (Errno::LOOP, Reason::StoreRefused, "symbolic link"),
            (Errno::STALE, Reason::StoreUnreachable, "mount it anew"),
            (Errno::NOTDIR, Reason::StoreError, "is no directory"),
            (Errno::IO, Reason::StoreError, "cannot write"),
            (Errno::NOENT, Reason::StoreError, "cannot write"),
        ];
        for (errno, reason, hint) in cases {
            let error = disk("/").failed("cannot write", Path::new("/x"), errno.into());
            assert_eq!(error.reason, reason, "{}", error.chain());
            assert!(error.message.starts_with("file1: cannot write /x") && error.message.contains(hint), "{error}");
        }
        let error = disk("/nowhere").failed("cannot make", Path::new("/nowhere/x"), Errno::NOENT.into());
        assert_eq!(error.reason, Reason::StoreError);
        assert!(error.message.contains("the directory is not there"), "{error}");
    }
}
