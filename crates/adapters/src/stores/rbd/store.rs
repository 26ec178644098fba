use std::{
    collections::BTreeSet,
    io, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, future::ready, stream};
use mimeo_core::{
    Error, ObjectName, Reason, Result, StoreName,
    ports::{ByteStream, Cursor, ObjectPage, Offer, Receipt, Sink, Store},
};
use serde::Deserialize;

use super::{
    RbdStoreConfig,
    ceph::{Ceph, answered},
    ffi::{Image, Pool},
    share::Shares,
    sink::RbdSink,
    take::Taking,
};
use crate::stores::listing::distinct;

/// The snapshot's name is Glance's.
pub(super) const SNAPSHOT: &str = "snap";
/// The image's metadata that tells how many bytes of an image that was never published are there.
pub(super) const WRITTEN: &str = "mimeo.written";

/// What is read or written at once, unless the image's objects are smaller.
const REQUEST: u64 = 2 << 20;
/// After how many more bytes it is noted how far the image was written, and after how long at the soonest: each note waits for
/// the disk, and one for each of so many bytes took a tenth of a quick upload.
const NOTED_EVERY: u64 = 16 << 20;
const NOTED_AFTER: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub struct RbdStore {
    ceph: Ceph,
    sizes: Sizes,
    shares: Shares,
    taking: Arc<Taking>,
    removals: Removals,
}

#[derive(Clone, Copy)]
pub(super) struct Sizes {
    /// A power of two, and no more than an object of the image.
    pub(super) request: u64,
    pub(super) noted_every: u64,
    pub(super) noted_after: Duration,
}

impl RbdStore {
    /// Connects to nothing yet.
    pub fn new(config: RbdStoreConfig) -> Result<Self> {
        let request = REQUEST.min(1 << config.order);
        let sizes = Sizes { request, noted_every: NOTED_EVERY, noted_after: NOTED_AFTER };
        Ok(Self {
            ceph: Ceph::new(config),
            sizes,
            shares: Shares::default(),
            taking: Arc::default(),
            removals: Removals::default(),
        })
    }

    /// What begins from now on is done over a new connection, with the key that the keyring has then.
    pub fn renew(&self) {
        self.ceph.forget();
    }

    /// With other requests, a power of two, so that a test need not send large objects.
    #[doc(hidden)]
    #[must_use]
    pub fn with_request(self, bytes: u64) -> Self {
        Self { sizes: Sizes { request: bytes, noted_every: bytes, noted_after: Duration::ZERO }, ..self }
    }

    /// For messages, as `rbd` itself takes it.
    fn spec(&self, object: &ObjectName) -> String {
        format!("{}/{object}", self.ceph.config.pool)
    }

    async fn opened(&self, object: &ObjectName, snapshot: Option<&'static str>) -> Result<(Arc<Image>, u64)> {
        let (spec, name) = (self.spec(object), object.to_string());
        let open = move |pool: &Arc<Pool>| {
            let Some(image) = found(pool.open_read_only(&name, snapshot))? else { return Ok(None) };
            let length = if snapshot.is_some() { image.size()? } else { written(&image)? };
            Ok(Some((Arc::new(image), length)))
        };
        self.ceph.ask(&format!("opening {spec}"), open).await?.ok_or_else(|| {
            let message = format!("{}: there is no {spec}: the object is gone", self.name());
            Error::new(Reason::ObjectMissing, message)
        })
    }

    /// Reads up to `end` with a few requests ahead.
    fn stream(&self, spec: String, image: Arc<Image>, offset: u64, end: u64) -> ByteStream {
        let (ceph, request) = (self.ceph.clone(), self.sizes.request);
        let reads = stream::unfold(offset, move |at| {
            let next = (at / request + 1) * request;
            ready((at < end).then(|| ((at, next.min(end) - at), next)))
        });
        let read = move |(at, length): (u64, u64)| {
            let answer = usize::try_from(length).map(|length| image.read(at, length));
            async move { answered(&mut answer.map_err(io::Error::other)?).await }
        };
        let share = self.shares.enter();
        let ahead = share.requests();
        let until_an_error = move |failed: &mut bool, read: io::Result<Bytes>| {
            let over = mem::replace(failed, read.is_err());
            let read = read.map_err(|cause| ceph.failed(&format!("reading {spec}"), cause));
            let _until_the_end = &share;
            ready((!over).then_some(read))
        };
        reads.map(read).buffered(ahead).scan(false, until_an_error).boxed()
    }
}

#[async_trait]
impl Store for RbdStore {
    fn name(&self) -> &StoreName {
        &self.ceph.config.name
    }

    fn location(&self, object: &ObjectName) -> String {
        self.ceph.config.location(object)
    }

    fn is_sparse(&self) -> bool {
        true
    }

    fn resumes(&self) -> Option<bool> {
        Some(true)
    }

    fn area(&self) -> Option<String> {
        Some(self.ceph.config.area())
    }

    /// From every pool of the cluster.
    fn takes_from(&self, area: &str) -> bool {
        self.ceph.config.pool_of(area).is_some() && self.taking.is_able()
    }

    async fn take(&self, object: &ObjectName, offer: &Offer, sent: &AtomicU64) -> Result<Receipt> {
        let no_pool = || Error::new(Reason::StoreError, format!("{}: {} is no pool", self.name(), offer.area));
        let pool = self.ceph.config.pool_of(&offer.area).ok_or_else(no_pool)?;
        self.taking.take(&self.ceph, object, (pool, offer), sent).await
    }

    async fn open(&self, object: &ObjectName, size: Option<u64>) -> Result<Box<dyn Sink>> {
        let (spec, name, order) = (self.spec(object), object.to_string(), self.ceph.config.order.cast_signed());
        let made = move |pool: &Arc<Pool>| {
            pool.create(&name, size.unwrap_or(0), order)?;
            mimeo_crash::point("rbd-image-made");
            pool.open(&name)
        };
        let image = self.ceph.ask(&format!("making {spec}"), made).await?;
        Ok(Box::new(RbdSink::new(self.ceph.clone(), spec, (self.sizes, self.shares.enter()), image, size, 0)))
    }

    async fn kept(&self, object: &ObjectName) -> Result<u64> {
        let (spec, name) = (self.spec(object), object.to_string());
        let kept = move |pool: &Arc<Pool>| {
            if let Some(published) = found(pool.open_read_only(&name, Some(SNAPSHOT)))? {
                return published.close().map(|()| 0);
            }
            let Some(image) = found(pool.open_read_only(&name, None))? else { return Ok(0) };
            let kept = written(&image)?;
            image.close().map(|()| kept)
        };
        self.ceph.ask(&format!("asking what is kept of {spec}"), kept).await
    }

    async fn read_kept(&self, object: &ObjectName) -> Result<Option<ByteStream>> {
        let (image, kept) = self.opened(object, None).await?;
        Ok(Some(self.stream(self.spec(object), image, 0, kept)))
    }

    async fn resume(&self, object: &ObjectName, size: Option<u64>, offset: u64) -> Result<Box<dyn Sink>> {
        let (spec, name) = (self.spec(object), object.to_string());
        let reopened = move |pool: &Arc<Pool>| {
            let image = pool.open(&name)?;
            // Not more is kept from here on. What may be behind it goes with the end of the image.
            image.set_metadata(WRITTEN, &offset.to_string())?;
            image.resize(offset)?;
            image.resize(size.unwrap_or(offset))?;
            Ok(image)
        };
        let image = self.ceph.work(&format!("going on with {spec}"), reopened).await?;
        Ok(Box::new(RbdSink::new(self.ceph.clone(), spec, (self.sizes, self.shares.enter()), image, size, offset)))
    }

    async fn read(&self, object: &ObjectName, offset: u64) -> Result<ByteStream> {
        let (image, size) = self.opened(object, Some(SNAPSHOT)).await?;
        Ok(self.stream(self.spec(object), image, offset, size))
    }

    async fn probe(&self, object: &ObjectName) -> Result<Option<u64>> {
        let (spec, name) = (self.spec(object), object.to_string());
        let probe = move |pool: &Arc<Pool>| {
            let Some(image) = found(pool.open_read_only(&name, Some(SNAPSHOT)))? else { return Ok(None) };
            let size = image.size()?;
            image.close().map(|()| Some(size))
        };
        self.ceph.ask(&format!("asking for {spec}"), probe).await
    }

    async fn list(&self, _after: Option<&Cursor>) -> Result<Option<ObjectPage>> {
        let what = format!("listing the images of {}", self.ceph.config.pool);
        let images = self.ceph.work(&what, |pool| pool.images()).await?;
        let objects = distinct(images.iter().filter_map(|image| image.parse().ok()));
        Ok(Some(ObjectPage { objects, next: None }))
    }

    /// Who may not ask the monitors is told nothing.
    async fn room(&self) -> Result<Option<u64>> {
        let name = self.ceph.config.pool.clone();
        let ask = move |pool: &Arc<Pool>| match pool.ask_monitors(DF) {
            Err(cause) if cause.kind() == io::ErrorKind::PermissionDenied => Ok(None),
            answer => answer.map(|answer| room_of(&answer, &name)),
        };
        self.ceph.ask("asking for free space", ask).await
    }

    async fn delete(&self, object: &ObjectName) -> Result<()> {
        let (spec, name) = (self.spec(object), object.to_string());
        let what = format!("removing {spec}");
        let Some(removal) = self.removals.begin(object) else {
            let message =
                format!("{}: {spec} is being removed since before, or others are: that takes its time", self.name());
            return Err(Error::new(Reason::StoreBusy, message));
        };
        let to_the_end = move |pool: &Arc<Pool>| {
            let _removal = removal;
            Ok(remove(pool, &name))
        };
        match self.ceph.work(&what, to_the_end).await? {
            Ok(()) => Ok(()),
            Err(Held::Clones(clones)) => {
                let message = format!("{}: {spec} is held by {}: it goes after them", self.name(), listed(&clones));
                Err(Error::new(Reason::StoreInUse, message))
            }
            Err(Held::Snapshots) => {
                let message = format!(
                    "{}: {spec} has snapshots that Mimeo did not make: `rbd snap ls --all {spec}` shows them",
                    self.name()
                );
                Err(Error::new(Reason::StoreInUse, message))
            }
            Err(Held::Open) => {
                let message =
                    format!("{}: {spec} is open elsewhere: `rbd status {spec}` tells where; end that", self.name());
                Err(Error::new(Reason::StoreInUse, message))
            }
            Err(Held::Failed(cause)) => Err(self.ceph.failed(&what, cause)),
        }
    }
}

/// Removals at once. Most end soon; of those that do not, each makes the others slower.
const REMOVALS: usize = 4;

/// The objects that are being removed: a removal that was given up goes on, and has its image open.
#[derive(Clone, Default)]
struct Removals(Arc<Mutex<BTreeSet<ObjectName>>>);

struct Removal {
    all: Removals,
    object: ObjectName,
}

impl Removals {
    /// `None` while another of the object goes on, or too many do.
    fn begin(&self, object: &ObjectName) -> Option<Removal> {
        let mut names = self.names();
        let may = names.len() < REMOVALS && names.insert(object.clone());
        may.then(|| Removal { all: self.clone(), object: object.clone() })
    }

    fn names(&self) -> MutexGuard<'_, BTreeSet<ObjectName>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Removal {
    fn drop(&mut self) {
        self.all.names().remove(&self.object);
    }
}

/// How many clones there are, and the first of them: an image may have thousands.
fn listed(clones: &[String]) -> String {
    const NAMED: usize = 5;
    let (count, plural) = (clones.len(), if clones.len() == 1 { "" } else { "s" });
    let named = clones.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    format!("{count} clone{plural} ({named}{})", if count > NAMED { ", …" } else { "" })
}

/// Why an image could not be removed.
enum Held {
    Clones(Vec<String>),
    Snapshots,
    Open,
    Failed(io::Error),
}

impl From<io::Error> for Held {
    fn from(cause: io::Error) -> Self {
        Self::Failed(cause)
    }
}

/// Removes the image with its snapshot. Nothing is touched of one that has clones.
fn remove(pool: &Arc<Pool>, name: &str) -> Result<(), Held> {
    if let Some(published) = found(pool.open_read_only(name, Some(SNAPSHOT)))? {
        let clones = published.children()?;
        if !clones.is_empty() {
            return Err(Held::Clones(clones));
        }
        let image = pool.open(name)?;
        match found(image.unprotect(SNAPSHOT)) {
            // It was not protected.
            Err(cause) if cause.kind() == io::ErrorKind::InvalidInput => {}
            // A clone was made meanwhile.
            Err(cause) if cause.kind() == io::ErrorKind::ResourceBusy => {
                return Err(Held::Clones(published.children()?));
            }
            unprotected => drop(unprotected?),
        }
        mimeo_crash::point("rbd-unprotected");
        found(image.remove_snapshot(SNAPSHOT))?;
        mimeo_crash::point("rbd-snapshot-removed");
        published.close()?;
        image.close()?;
    }
    found(pool.remove(name)).map(drop).map_err(|cause| match cause.kind() {
        io::ErrorKind::ResourceBusy => Held::Open,
        io::ErrorKind::DirectoryNotEmpty => Held::Snapshots,
        _ => Held::Failed(cause),
    })
}

/// As `ceph df detail`.
const DF: &str = r#"{"prefix": "df", "detail": "detail", "format": "json"}"#;

#[derive(Deserialize)]
struct Df {
    pools: Vec<PoolDf>,
}

#[derive(Deserialize)]
struct PoolDf {
    name: String,
    stats: PoolStats,
}

#[derive(Deserialize)]
struct PoolStats {
    /// What clients may still write, after copies, and up to where the cluster counts as full.
    max_avail: u64,
    /// What clients have written.
    stored: u64,
    /// 0: none.
    #[serde(default)]
    quota_bytes: u64,
}

/// What the disks and the quota leave of the pool.
fn room_of(answer: &[u8], pool: &str) -> Option<u64> {
    let df: Df = serde_json::from_slice(answer).ok()?;
    let PoolStats { max_avail, stored, quota_bytes } = df.pools.into_iter().find(|found| found.name == pool)?.stats;
    // Nothing stored, and no room: of a new pool the manager has counted nothing yet.
    if (max_avail, stored) == (0, 0) {
        return None;
    }
    let quota = Some(quota_bytes).filter(|quota| *quota > 0).map(|quota| quota.saturating_sub(stored));
    Some(quota.map_or(max_avail, |quota| quota.min(max_avail)))
}

/// How much of an image that was never published is there.
fn written(image: &Image) -> io::Result<u64> {
    let noted = found(image.metadata(WRITTEN))?.and_then(|text| text.parse().ok()).unwrap_or(0);
    Ok(image.size()?.min(noted))
}

/// `None` for what is not there.
pub(super) fn found<T>(answer: io::Result<T>) -> io::Result<Option<T>> {
    match answer {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        answer => answer.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use mimeo_core::ObjectName;

    use super::{REMOVALS, Removals, room_of};

    #[test]
    fn an_object_is_removed_once_at_a_time_and_only_a_few_are() {
        let id = "01020304-0b0a-4009-8807-060504030201".parse().unwrap();
        let object = |attempt| ObjectName::new(&id, attempt);
        let removals = Removals::default();
        let mut running: Vec<_> = (0..REMOVALS as u64 - 1).map(|n| removals.begin(&object(n)).unwrap()).collect();
        assert!(removals.begin(&object(0)).is_none(), "it goes on");
        running.push(removals.begin(&object(100)).unwrap());
        assert!(removals.begin(&object(101)).is_none(), "there are too many");
        running.clear();
        assert!(removals.begin(&object(0)).is_some());
    }

    #[test]
    fn a_pool_has_the_room_that_disks_and_quota_leave() {
        let answer = br#"{"stats": {"total_bytes": 99}, "pools": [
            {"name": "other", "id": 1, "stats": {"stored": 0, "max_avail": 5}},
            {"name": "images", "id": 2, "stats": {"stored": 30, "max_avail": 1000, "quota_bytes": 0, "objects": 3}},
            {"name": "small", "id": 3, "stats": {"stored": 30, "max_avail": 1000, "quota_bytes": 100}},
            {"name": "over", "id": 4, "stats": {"stored": 130, "max_avail": 1000, "quota_bytes": 100}}]}"#;
        for (pool, room) in [("images", Some(1000)), ("small", Some(70)), ("over", Some(0)), ("none", None)] {
            assert_eq!(room_of(answer, pool), room, "{pool}");
        }
        assert_eq!(room_of(b"no answer", "images"), None);
    }
}
