use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Read},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use mimeo_core::{
    Error, ImageId, ObjectName, Reason, Result, StoreName,
    ports::{ByteStream, Cursor, ObjectPage, Sink, Store},
};
use rustix::fs::{Access, OFlags, access};
use url::Url;

use super::{
    FileStoreConfig,
    disk::{Calls, Disk, is_there},
    sink::FileSink,
};
use crate::stores::{
    listing::{distinct, of_file},
    web::Web,
    writer::GATHERED,
};

/// What one read of an object that was never closed gives.
const PART: usize = 256 << 10;

/// What a web server needs to read an object, if the process's umask lets it.
const MODE: u32 = 0o644;

#[derive(Debug, Clone)]
pub struct FileStore {
    config: FileStoreConfig,
    web: Web,
    gathered: usize,
    calls: Calls,
}

impl FileStore {
    pub fn new(config: FileStoreConfig) -> Result<Self> {
        let web = Web::new(config.name.clone(), config.read_url.clone())?;
        Ok(Self { config, web, gathered: GATHERED, calls: Calls::new() })
    }

    /// With other writes, so that a test need not send large objects.
    #[doc(hidden)]
    #[must_use]
    pub fn with_gathered(self, bytes: usize) -> Self {
        Self { gathered: bytes, ..self }
    }

    fn disk(&self, object: &ObjectName) -> Disk {
        Disk {
            store: self.config.name.clone(),
            directory: self.config.path.clone(),
            object: object.clone(),
            calls: self.calls.clone(),
        }
    }

    async fn start(&self, object: &ObjectName, size: Option<u64>, offset: u64) -> Result<Box<dyn Sink>> {
        let disk = self.disk(object);
        let begin = move |disk: &Disk| match offset {
            0 => disk.begin(),
            _ => disk.go_on(offset),
        };
        let file = disk.run(begin).await?;
        Ok(Box::new(FileSink::new(disk, file, size, offset, self.gathered)))
    }
}

impl Disk {
    /// What an earlier try left under the name is replaced: another file, so that nothing of it comes late.
    fn begin(&self) -> Result<File> {
        self.unlink(&self.part())?;
        let path = self.part();
        let created = options().create_new(true).mode(MODE).open(&path);
        created.map_err(|cause| self.failed("cannot make", &path, cause))
    }

    fn go_on(&self, offset: u64) -> Result<File> {
        let path = self.part();
        let failed = |cause| self.failed("cannot go on with", &path, cause);
        let file = options().open(&path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        if length < offset {
            let (store, path) = (&self.store, path.display());
            let message = format!("{store}: {path} has {length} bytes, and cannot be gone on with from {offset}");
            return Err(Error::new(Reason::StoreError, message));
        }
        // What is behind must not show through where zeros are left out.
        file.set_len(offset).map_err(failed)?;
        Ok(file)
    }

    fn kept(&self) -> Result<u64> {
        let path = self.part();
        let failed = |cause| self.failed("cannot look at", &path, cause);
        match path.symlink_metadata() {
            Ok(found) if found.is_file() => Ok(found.len()),
            // A directory that is not there now may have it later.
            Err(cause) if cause.kind() != ErrorKind::NotFound || !self.directory.is_dir() => Err(failed(cause)),
            _ => Ok(0),
        }
    }

    fn read_kept(&self) -> Result<File> {
        let path = self.part();
        let opened = OpenOptions::new().read(true).custom_flags(no_follow()).open(&path);
        let gone = || Error::new(Reason::ObjectMissing, format!("{}: {} is not there", self.store, path.display()));
        is_there(opened).map_err(|cause| self.failed("cannot read", &path, cause))?.ok_or_else(gone)
    }

    /// Whether anything was there.
    fn delete(&self) -> Result<bool> {
        // Removing what is not there needs no leave to write: a mount point without its mount would pass for empty.
        let allowed = access(&self.directory, Access::WRITE_OK);
        allowed.map_err(|cause| self.failed("cannot remove anything from", &self.directory, cause.into()))?;
        let was_there = self.unlink(&self.part())? | self.unlink(&self.published())?;
        // Also where nothing was there: the removal may be one whose answer was lost.
        self.sync_directory().map(|()| was_there)
    }

    /// Whether the object is published. Where the whole directory is away nobody can say.
    fn has_published(&self) -> Result<bool> {
        let looked = is_there(std::fs::symlink_metadata(self.published()));
        let found = looked.map_err(|cause| self.failed("cannot look at", &self.published(), cause))?;
        if found.is_none() {
            let directory = std::fs::metadata(&self.directory);
            directory.map_err(|cause| self.failed("cannot look at", &self.directory, cause))?;
        }
        Ok(found.is_some())
    }

    /// What is in the directory, whatever this object is.
    fn list(&self) -> Result<ObjectPage> {
        let failed = |cause| self.failed("cannot list", &self.directory, cause);
        let entries = std::fs::read_dir(&self.directory).map_err(failed)?;
        let names = entries.map(|entry| entry.map(|entry| entry.file_name())).collect::<std::io::Result<Vec<_>>>();
        let names = names.map_err(failed)?;
        let objects = distinct(names.iter().filter_map(|name| of_file(name.to_str()?)));
        Ok(ObjectPage { objects, next: None })
    }

    /// Whether it was there.
    fn unlink(&self, path: &PathBuf) -> Result<bool> {
        let removed = is_there(std::fs::remove_file(path));
        removed.map_err(|cause| self.failed("cannot remove", path, cause)).map(|removed| removed.is_some())
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).custom_flags(no_follow());
    options
}

fn no_follow() -> i32 {
    OFlags::NOFOLLOW.bits().cast_signed()
}

#[async_trait]
impl Store for FileStore {
    fn name(&self) -> &StoreName {
        &self.config.name
    }

    fn location(&self, object: &ObjectName) -> String {
        self.web.location(object).into()
    }

    fn is_sparse(&self) -> bool {
        true
    }

    fn resumes(&self) -> Option<bool> {
        Some(true)
    }

    fn area(&self) -> Option<String> {
        Url::from_directory_path(&self.config.path).ok().map(Into::into)
    }

    async fn open(&self, object: &ObjectName, size: Option<u64>) -> Result<Box<dyn Sink>> {
        self.start(object, size, 0).await
    }

    async fn kept(&self, object: &ObjectName) -> Result<u64> {
        self.disk(object).run(Disk::kept).await
    }

    async fn read_kept(&self, object: &ObjectName) -> Result<Option<ByteStream>> {
        let disk = self.disk(object);
        let file = disk.run(Disk::read_kept).await?;
        let next = async |(disk, file): (Disk, File)| {
            let read = disk.run(|disk| {
                let mut bytes = Vec::with_capacity(PART);
                let read = (&file).take(PART as u64).read_to_end(&mut bytes);
                read.map_err(|cause| disk.failed("cannot read", &disk.part(), cause))?;
                Ok((file, Bytes::from(bytes)))
            });
            let (file, bytes) = read.await?;
            Ok::<_, Error>((!bytes.is_empty()).then_some((bytes, (disk, file))))
        };
        Ok(Some(stream::try_unfold((disk, file), next).boxed()))
    }

    async fn resume(&self, object: &ObjectName, size: Option<u64>, offset: u64) -> Result<Box<dyn Sink>> {
        self.start(object, size, offset).await
    }

    async fn read(&self, object: &ObjectName, offset: u64) -> Result<ByteStream> {
        self.web.read_unless_there(object, offset, "path", self.disk(object).run(Disk::has_published)).await
    }

    async fn probe(&self, object: &ObjectName) -> Result<Option<u64>> {
        self.web.probe_unless_there(object, "path", self.disk(object).run(Disk::has_published)).await
    }

    async fn list(&self, _after: Option<&Cursor>) -> Result<Option<ObjectPage>> {
        let of_none = ObjectName::new(&ImageId::nil(), 0);
        self.disk(&of_none).run(Disk::list).await.map(Some)
    }

    async fn room(&self) -> Result<Option<u64>> {
        // The question is about the directory alone.
        self.disk(&ObjectName::new(&ImageId::nil(), 0)).run(Disk::room).await
    }

    async fn delete(&self, object: &ObjectName) -> Result<()> {
        match self.disk(object).run(Disk::delete).await? {
            true => Ok(()),
            false => self.web.shown_gone(object, "path").await,
        }
    }
}
