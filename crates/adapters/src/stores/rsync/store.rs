use std::{
    ffi::OsString,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use mimeo_core::{
    Error, ObjectName, Reason, Result, StoreName,
    ports::{ByteStream, Offer, Receipt, Sink, Store},
};
use url::Url;

use super::{RsyncStoreConfig, program::run, sink::RsyncSink, spool::Spool};
use crate::{Live, stores::web::Web};

/// Where the server keeps what it has of a file when the connection breaks.
const PARTIAL: &str = ".mimeo-partial";

/// The sizes at which only what differs from a like object is sent. Less is sent as soon as it is compared; and of more
/// the server would have to read so much first that it would seem to stand still.
const DELTA: RangeInclusive<u64> = (16 << 20)..=(8 << 30);

#[derive(Debug, Clone)]
pub struct RsyncStore {
    pub(super) name: StoreName,
    config: Live<RsyncStoreConfig>,
    web: Web,
    pub(super) spool: Spool,
    delta: RangeInclusive<u64>,
}

impl RsyncStore {
    pub fn new(config: RsyncStoreConfig) -> Result<Self> {
        let web = Web::new(config.name.clone(), config.read_url.clone())?;
        let spool = Spool::new(&config.name, &config.spool, config.spool_size);
        Ok(Self { name: config.name.clone(), config: Live::new(config), web, spool, delta: DELTA })
    }

    /// From now on rsync logs in with the password or the key of this configuration; nothing else of it counts.
    pub fn renew(&self, config: RsyncStoreConfig) {
        let RsyncStoreConfig { password, key_file, .. } = config;
        self.config.set(RsyncStoreConfig { password, key_file, ..(*self.config.get()).clone() });
    }

    /// Compares at other sizes, so that a test need not send large ones.
    #[doc(hidden)]
    #[must_use]
    pub fn with_delta_from(self, bytes: u64) -> Self {
        Self { delta: bytes..=*DELTA.end(), ..self }
    }

    /// Sends the file, or what the link leads to. The server writes it aside and renames it when it is complete. Where the
    /// file has the name of a like object, that is what the server compares with: `--fuzzy` takes the file whose name is
    /// nearest to the one that is sent. What the server has in part of this very object comes before.
    pub(super) async fn send(
        &self,
        object: &ObjectName,
        file: &Path,
        size: u64,
        is_like: bool,
        sent: &AtomicU64,
    ) -> Result<Receipt> {
        let partial = format!("--partial-dir={PARTIAL}");
        let mut arguments: Vec<OsString> =
            ["-s", "--copy-links", "--no-human-readable", "--info=progress2", "--outbuf=N", "--chmod=F644", &partial]
                .map(Into::into)
                .into();
        if is_like && self.delta.contains(&size) {
            arguments.push("--fuzzy".into());
        }
        if let Some(bandwidth) = self.config.get().bandwidth {
            // rsync counts in units of 1024 bytes, and takes 0 for no limit.
            arguments.push(format!("--bwlimit={}", bandwidth.get().div_ceil(1024)).into());
        }
        arguments.extend(["--".into(), file.into()]);
        run(&self.config.get(), &arguments, object.as_str(), sent).await?;
        mimeo_crash::point("rsync-sent");
        sent.store(size, Ordering::Relaxed);
        // rsync ends well too where it passed a file over.
        self.published(object, size).await
    }

    /// That the target is there: rsync would make it, and find nothing to remove.
    async fn has_target(&self) -> Result<()> {
        let arguments = ["-s", "--list-only", "--exclude=*", "--"].map(Into::into);
        run(&self.config.get(), &arguments, "", &AtomicU64::new(0)).await.map(drop)
    }

    /// Whether the object is where it was written.
    async fn is_there(&self, object: &ObjectName) -> Result<bool> {
        let mut arguments = vec![OsString::from("-s"), "--list-only".into()];
        arguments.extend([format!("--include=/{object}").into(), "--exclude=*".into(), "--".into()]);
        let listed = run(&self.config.get(), &arguments, "", &AtomicU64::new(0)).await?;
        Ok(listed.lines().any(|line| line.ends_with(&format!(" {object}"))))
    }

    /// What the web server tells of an object that was sent.
    async fn published(&self, object: &ObjectName, size: u64) -> Result<Receipt> {
        let found = match self.web.probe(object).await? {
            Some(found) if found == size => return Ok(Receipt { size: Some(size) }),
            Some(found) => format!("has {found} bytes of {size}"),
            None => "is not there".to_owned(),
        };
        let message = format!(
            "{}: rsync has sent {object}, but it {found} at {}; target and read_url must show the same directory",
            self.name,
            self.location(object)
        );
        Err(Error::new(Reason::StoreError, message))
    }
}

#[async_trait]
impl Store for RsyncStore {
    fn name(&self) -> &StoreName {
        &self.name
    }

    fn location(&self, object: &ObjectName) -> String {
        self.web.location(object).into()
    }

    fn is_sparse(&self) -> bool {
        true
    }

    fn compares(&self) -> bool {
        true
    }

    fn reopens(&self) -> bool {
        true
    }

    /// A file of this machine need not be in the spool.
    fn takes_from(&self, area: &str) -> bool {
        directory(area).is_some()
    }

    async fn take(&self, object: &ObjectName, offer: &Offer, sent: &AtomicU64) -> Result<Receipt> {
        let Offer { area, object: given, size, like } = offer;
        let no_file = || Error::new(Reason::StoreError, format!("{}: {area} is no directory", self.name));
        let file = directory(area).ok_or_else(no_file)?.join(given.as_str());
        let place = self.spool.place(object, 0).await?;
        let link = place.link(like.as_ref().unwrap_or(object), file).await?;
        self.send(object, &link, *size, like.is_some(), sent).await
    }

    async fn open(&self, object: &ObjectName, size: Option<u64>) -> Result<Box<dyn Sink>> {
        Ok(Box::new(RsyncSink::open(self.clone(), object.clone(), size).await?))
    }

    async fn read(&self, object: &ObjectName, offset: u64) -> Result<ByteStream> {
        self.web.read_unless_there(object, offset, "target", Box::pin(self.is_there(object))).await
    }

    async fn probe(&self, object: &ObjectName) -> Result<Option<u64>> {
        self.web.probe_unless_there(object, "target", Box::pin(self.is_there(object))).await
    }

    /// Makes the target like an empty directory, as far as the object's own names are concerned: those under which it
    /// is published, kept in part, and written aside.
    async fn delete(&self, object: &ObjectName) -> Result<()> {
        self.has_target().await?;
        let mut empty = self.spool.empty().await?.into_os_string();
        empty.push("/");
        let mut arguments: Vec<OsString> = vec!["-s".into(), "-r".into(), "--delete".into()];
        let own = [
            format!("/{object}"),
            format!("/.{object}.??????"),
            format!("/{PARTIAL}/"),
            format!("/{PARTIAL}/{object}"),
        ];
        arguments.extend(own.map(|name| format!("--include={name}").into()));
        arguments.extend(["--exclude=*".into(), "--info=del".into(), "--".into(), empty]);
        let said = run(&self.config.get(), &arguments, "", &AtomicU64::new(0)).await?;
        match said.lines().any(|line| line.starts_with("deleting ")) {
            true => Ok(()),
            false => self.web.shown_gone(object, "target").await,
        }
    }
}

/// The directory that a file URL names.
fn directory(area: &str) -> Option<PathBuf> {
    Url::parse(area).ok().filter(|url| url.scheme() == "file")?.to_file_path().ok()
}
