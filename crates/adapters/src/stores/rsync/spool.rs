//! The bounded place on this machine where objects wait for rsync.

use std::{
    collections::VecDeque,
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use mimeo_core::{Error, ImageId, ObjectName, Reason, Result, StoreName};
use tokio::{runtime::Handle, sync::Semaphore, task::spawn_blocking, time::Instant};

/// How long room is kept for an image that did not ask again. Longer than the wait between two tries.
const PATIENCE: Duration = Duration::from_hours(2);

/// How many writes to the spool are under way: each keeps a thread of those that all stores share.
const CALLS: usize = 16;

/// One store's directory in the spool. Clones share its room.
#[derive(Debug, Clone)]
pub(super) struct Spool {
    store: StoreName,
    directory: PathBuf,
    size: u64,
    room: Arc<Mutex<Room>>,
    places: Arc<AtomicU64>,
    patience: Duration,
    calls: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Room {
    used: u64,
    /// Those who found none, in the order in which they came.
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    image: ImageId,
    bytes: u64,
    asked: Instant,
}

/// An object's directory in the spool; it goes with what is in it when dropped.
#[derive(Debug)]
pub(super) struct Place {
    spool: Spool,
    directory: PathBuf,
    bytes: u64,
    /// Tells another process that it is in use.
    lock: Option<File>,
}

impl Spool {
    /// Removes what a process that ended left there.
    pub(super) fn new(store: &StoreName, spool: &Path, size: u64) -> Self {
        let directory = spool.join(format!("mimeo-{store}"));
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_some_and(is_ours) {
                remove_leftover(&entry.path());
            }
        }
        Self {
            store: store.clone(),
            directory,
            size,
            room: Arc::default(),
            places: Arc::default(),
            patience: PATIENCE,
            calls: Arc::new(Semaphore::new(CALLS)),
        }
    }

    /// An empty directory for the object, for which `size` bytes of the spool are kept.
    pub(super) async fn place(&self, object: &ObjectName, size: u64) -> Result<Place> {
        let mut place = Place { spool: self.clone(), directory: PathBuf::new(), bytes: 0, lock: None };
        self.keep(&object.image(), size)?;
        place.bytes = size;
        self.make(&self.directory).await?;
        // The one before, under the same name, may still be on its way out.
        loop {
            let number = self.places.fetch_add(1, Ordering::Relaxed);
            let directory = self.directory.join(format!("{object}{MARK}{number}"));
            let made = directory.clone();
            match aside(move || made_and_locked(&made)).await {
                Ok(lock) => {
                    (place.directory, place.lock) = (directory, Some(lock));
                    return Ok(place);
                }
                Err(cause) if cause.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(cause) => return Err(self.failed(&cause)),
            }
        }
    }

    /// Keeps room for an image that has none yet. Who has waited longer comes first: their room is not given to others.
    fn keep(&self, image: &ImageId, bytes: u64) -> Result<()> {
        if bytes > self.size {
            return Err(self.too_large());
        }
        let mut room = self.room();
        room.waiting.retain(|waiting| waiting.asked.elapsed() < self.patience);
        let place = room.waiting.iter().position(|waiting| waiting.image == *image);
        let ahead = room.waiting.iter().take(place.unwrap_or(usize::MAX)).map(|waiting| waiting.bytes).sum::<u64>();
        if bytes == 0 || room.used.saturating_add(ahead).saturating_add(bytes) <= self.size {
            room.used += bytes;
            room.waiting.retain(|waiting| waiting.image != *image);
            return Ok(());
        }
        let asked = Instant::now();
        match place.and_then(|place| room.waiting.get_mut(place)) {
            Some(waiting) => (waiting.bytes, waiting.asked) = (bytes, asked),
            None => room.waiting.push_back(Waiting { image: image.clone(), bytes, asked }),
        }
        drop(room);
        Err(self.full())
    }

    pub(super) fn calls(&self) -> Arc<Semaphore> {
        Arc::clone(&self.calls)
    }

    fn room(&self) -> MutexGuard<'_, Room> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn too_large(&self) -> Error {
        let (store, size) = (&self.store, self.size);
        let message = format!("{store}: the object is larger than the spool; raise spool_size: it is now {size} bytes");
        Error::new(Reason::StoreFull, message)
    }

    fn full(&self) -> Error {
        let (store, size) = (&self.store, self.size);
        let message = format!("{store}: the object must wait for others to leave the spool of {size} bytes");
        Error::new(Reason::StoreBusy, message)
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
    /// A file of this name, that nobody else may read.
    pub(super) async fn file(&self, name: &ObjectName) -> Result<File> {
        let path = self.directory.join(name.as_str());
        aside(move || private().create_new(true).write(true).open(path))
            .await
            .map_err(|cause| self.spool.failed(&cause))
    }

    /// The file, under the other name where there is one.
    pub(super) async fn renamed(&self, name: &ObjectName, other: Option<&ObjectName>) -> Result<PathBuf> {
        let path = self.directory.join(name.as_str());
        let Some(other) = other else { return Ok(path) };
        let renamed = self.directory.join(other.as_str());
        let (from, to) = (path, renamed.clone());
        aside(move || fs::rename(from, to)).await.map_err(|cause| self.spool.failed(&cause))?;
        Ok(renamed)
    }

    /// A link of this name to a file elsewhere.
    pub(super) async fn link(&self, name: &ObjectName, file: PathBuf) -> Result<PathBuf> {
        let path = self.directory.join(name.as_str());
        let link = path.clone();
        let linked = aside(move || std::os::unix::fs::symlink(file, link)).await;
        linked.map(|()| path).map_err(|cause| self.spool.failed(&cause))
    }

    /// Keeps so many more bytes of the spool for the object.
    pub(super) fn grow(&mut self, bytes: u64) -> Result<()> {
        let spool = &self.spool;
        if self.bytes.saturating_add(bytes) > spool.size {
            return Err(spool.too_large());
        }
        let mut room = spool.room();
        let ahead = room.waiting.iter().map(|waiting| waiting.bytes).sum::<u64>();
        if room.used.saturating_add(ahead).saturating_add(bytes) > spool.size {
            return Err(spool.full());
        }
        room.used += bytes;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut room = self.spool.room();
        room.used = room.used.saturating_sub(self.bytes);
        drop(room);
        let (directory, lock) = (std::mem::take(&mut self.directory), self.lock.take());
        if directory.as_os_str().is_empty() {
            return;
        }
        // What stays is removed at the next start.
        let remove = move || {
            drop(fs::remove_dir_all(directory));
            drop(lock);
        };
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

/// Between an object's name and a number.
const MARK: char = '~';

fn is_ours(name: &str) -> bool {
    let object = name.split_once(MARK).map_or(name, |(object, _)| object);
    ObjectName::try_from(object.to_owned()).is_ok()
}

fn made_and_locked(directory: &Path) -> std::io::Result<File> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().mode(0o700).create(directory)?;
    let lock = File::open(directory)?;
    lock.try_lock()?;
    Ok(lock)
}

async fn aside<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> std::io::Result<T> {
    spawn_blocking(work).await.map_err(std::io::Error::from).flatten()
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
    let unused = File::open(path).is_ok_and(|file| file.try_lock().is_ok());
    if unused {
        // Earlier releases left files.
        drop(fs::remove_dir_all(path).or_else(|_| fs::remove_file(path)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> StoreName {
        "far".parse().unwrap()
    }

    /// Of an image of its own.
    fn object(image: u32, attempt: u64) -> ObjectName {
        ObjectName::new(&format!("{image:08x}-0b0a-4009-8807-060504030201").parse().unwrap(), attempt)
    }

    #[tokio::test]
    async fn an_object_waits_for_room_and_one_that_is_too_large_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::new(&store(), directory.path(), 100);
        let first = spool.place(&object(1, 1), 60).await.unwrap();
        assert_eq!(spool.place(&object(2, 1), 101).await.unwrap_err().reason, Reason::StoreFull);
        let mut second = spool.place(&object(2, 1), 0).await.unwrap();
        second.grow(40).unwrap();
        assert_eq!(second.grow(1).unwrap_err().reason, Reason::StoreBusy);
        drop(first);
        second.grow(60).unwrap();
        assert_eq!(second.grow(1).unwrap_err().reason, Reason::StoreFull);
    }

    #[tokio::test]
    async fn room_is_kept_for_the_large_one_that_came_first_until_it_is_given_up() {
        let directory = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(&store(), directory.path(), 100);
        let small = spool.place(&object(1, 1), 30).await.unwrap();
        assert_eq!(spool.place(&object(2, 1), 90).await.unwrap_err().reason, Reason::StoreBusy);
        // There is room for it, but then the large one would never have its turn.
        assert_eq!(spool.place(&object(3, 1), 20).await.unwrap_err().reason, Reason::StoreBusy);
        let beside = spool.place(&object(4, 1), 0).await.unwrap();
        drop(small);
        let large = spool.place(&object(2, 2), 90).await.unwrap();
        drop((large, beside));
        assert_eq!(spool.place(&object(5, 1), 90).await.unwrap_err().reason, Reason::StoreBusy, "behind the third");
        spool.patience = Duration::ZERO;
        drop(spool.place(&object(6, 1), 100).await.unwrap());
    }

    #[tokio::test]
    async fn only_objects_that_nobody_uses_are_left_overs() {
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::new(&store(), directory.path(), 100);
        let used = spool.place(&object(1, 1), 10).await.unwrap();
        let own = directory.path().join("mimeo-far");
        let (left, file, foreign) =
            (own.join(format!("{}~7", object(2, 1))), own.join(object(3, 1).as_str()), own.join("notes.txt"));
        fs::create_dir(&left).unwrap();
        for file in [&left.join("x"), &file, &foreign] {
            fs::write(file, "x").unwrap();
        }
        Spool::new(&store(), directory.path(), 100);
        assert!(used.directory.exists() && foreign.exists() && !left.exists() && !file.exists());
    }

    #[tokio::test]
    async fn the_same_name_has_another_place_each_time() {
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::new(&store(), directory.path(), 100);
        let (one, two) = (spool.place(&object(1, 1), 1).await.unwrap(), spool.place(&object(1, 1), 1).await.unwrap());
        assert_ne!(one.directory, two.directory);
    }
}
