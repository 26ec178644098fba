//! The transfer: the source is read once and hashed; every sink takes the same chunks at its own pace.
//!
//! Owns the flow of bytes of one image. Knows nothing of the ledger, of locations or of what comes after a close.

mod hash;
mod reader;
mod window;

use std::{sync::Arc, time::Duration};

use mimeo_core::{
    Digest, Error, Image, ObjectName, Reason, Result,
    ports::{Sink, Source},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub(crate) use self::hash::{Hasher, digest};
use self::{
    reader::Reader,
    window::{Cursor, Found, Waits, Window},
};
use crate::{StorePart, progress::Line};

/// The least rate at which a store is expected to publish what it has taken: some copy it once more on close.
const PUBLISH_BYTES_PER_SECOND: u64 = 10 << 20;

/// What the whole source was, once it was read and found to be what Glance says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verified {
    pub(crate) size: u64,
    pub(crate) digest: Digest,
}

/// Why the source was no good. Every sink is told the same.
#[derive(Debug, Clone)]
pub(crate) struct SourceFailure {
    reason: Reason,
    message: String,
}

impl From<Error> for SourceFailure {
    fn from(error: Error) -> Self {
        Self { reason: error.reason, message: error.chain() }
    }
}

impl From<SourceFailure> for Error {
    fn from(failure: SourceFailure) -> Self {
        Error::new(failure.reason, failure.message)
    }
}

/// One image on its way to some stores. Feeds are taken first, then `read` runs beside them.
pub(crate) struct Transfer {
    window: Arc<Window<Verified>>,
    source: Arc<dyn Source>,
    image: Image,
    patience: Duration,
}

impl Transfer {
    pub(crate) fn new(image: Image, source: Arc<dyn Source>, window: usize, patience: Duration) -> Self {
        Self { window: Window::new(window), source, image, patience }
    }

    /// One store's share of the transfer.
    pub(crate) fn feed(&self) -> Feed {
        Feed {
            cursor: self.window.cursor(),
            source: Arc::clone(&self.source),
            size: self.image.size,
            patience: self.patience,
        }
    }

    /// Reads the source to its end, and tells every feed how that went.
    pub(crate) async fn read(self, permit: OwnedSemaphorePermit) {
        let broken = || Error::new(Reason::SourceUnreadable, "the reading broke down");
        let mut finisher = Finisher { window: &self.window, ending: Err(broken().into()) };
        finisher.ending = self.pump().await.map_err(SourceFailure::from);
        drop(finisher);
        // The permit bounds the memory of windows: it is given back when this one is empty.
        self.window.drain().await;
        drop(permit);
    }

    async fn pump(&self) -> Result<Verified> {
        let mut reader = Reader::new(Arc::clone(&self.source), 0, self.image.size, self.patience);
        let content = self.image.hash.as_ref().map(|hash| Hasher::content(hash.algorithm));
        let blake3 = Hasher::blake3();
        let (mut size, mut waits) = (0_u64, Waits::new());
        while let Some(chunk) = reader.next().await? {
            size += chunk.len() as u64;
            if self.image.size.is_some_and(|expected| size > expected) {
                break;
            }
            if let Some(content) = &content {
                content.update(chunk.clone()).await;
            }
            blake3.update(chunk.clone()).await;
            if !self.window.push(chunk, &mut waits).await {
                return Err(Error::new(Reason::Cancelled, "no store was left to copy to"));
            }
        }
        self.check_size(size)?;
        let hashing = || Error::new(Reason::SourceUnreadable, "hashing broke down");
        if let (Some(hash), Some(expected)) = (content, &self.image.hash) {
            let found = hash.finish().await.ok_or_else(hashing)?;
            if found != expected.value {
                let message = format!(
                    "the image's bits hash to {found}, but Glance says {}: the original is damaged and is not copied",
                    expected.value
                );
                return Err(Error::new(Reason::SourceMismatch, message));
            }
        }
        Ok(Verified { size, digest: digest(blake3).await.ok_or_else(hashing)? })
    }

    fn check_size(&self, size: u64) -> Result<()> {
        match self.image.size {
            Some(expected) if size != expected => {
                let message = format!("the source gave {size} bytes or more, but Glance says {expected}");
                Err(Error::new(Reason::SourceSize, message))
            }
            _ => Ok(()),
        }
    }
}

/// Tells every feed how the reading ended, even if it panicked: else they would wait for ever.
struct Finisher<'a> {
    window: &'a Window<Verified>,
    ending: Result<Verified, SourceFailure>,
}

impl Drop for Finisher<'_> {
    fn drop(&mut self) {
        self.window.finish(self.ending.clone());
    }
}

/// What one store's sink is fed with: the window as long as it keeps up, a read of its own after that.
pub(crate) struct Feed {
    cursor: Cursor<Verified>,
    source: Arc<dyn Source>,
    size: Option<u64>,
    patience: Duration,
}

impl Feed {
    /// Writes the object and closes it. `slow` bounds how many copies to this store go on by themselves.
    pub(crate) async fn copy_to(
        mut self,
        part: &StorePart,
        object: &ObjectName,
        line: &Line,
        slow: &Arc<Semaphore>,
    ) -> Result<Verified> {
        let opened = within(part.timeout, part, "opening the object", part.store.open(object, self.size)).await;
        let mut sink = opened?;
        match self.fill(&mut sink, part, line, slow).await {
            Ok(verified) => close(sink, part, verified).await,
            Err(error) => {
                // Aborting is a courtesy: the sweeper removes what is left.
                let _ = tokio::time::timeout(part.timeout, sink.abort()).await;
                Err(error)
            }
        }
    }

    async fn fill(
        &mut self,
        sink: &mut Box<dyn Sink>,
        part: &StorePart,
        line: &Line,
        slow: &Arc<Semaphore>,
    ) -> Result<Verified> {
        loop {
            match self.cursor.next().await {
                Found::Chunk(chunk) => {
                    let length = chunk.len();
                    within(part.timeout, part, "writing", sink.write(chunk)).await?;
                    line.advance(length);
                }
                Found::End(ending) => return Ok(ending?),
                Found::Detached(offset) => return self.fill_alone(sink, part, line, slow, offset).await,
            }
        }
    }

    /// Goes on from a read of its own. A difference from what the others got shows when the copy is proven.
    async fn fill_alone(
        &mut self,
        sink: &mut Box<dyn Sink>,
        part: &StorePart,
        line: &Line,
        slow: &Arc<Semaphore>,
        offset: u64,
    ) -> Result<Verified> {
        let _permit = Arc::clone(slow).try_acquire_owned().map_err(|_| {
            let message =
                format!("{}: slower than the others, and enough slow copies run to it already", part.store.name());
            Error::new(Reason::StoreBusy, message)
        })?;
        tracing::info!(store = %part.store.name(), offset, "the store is slower than the others and goes on alone");
        let mut reader = Reader::new(Arc::clone(&self.source), offset, self.size, self.patience);
        while let Some(chunk) = reader.next().await? {
            let length = chunk.len();
            within(part.timeout, part, "writing", sink.write(chunk)).await?;
            line.advance(length);
        }
        Ok(self.cursor.ending().await?)
    }
}

async fn close(sink: Box<dyn Sink>, part: &StorePart, verified: Verified) -> Result<Verified> {
    let receipt = within(publish_limit(part, verified.size), part, "closing the object", sink.close()).await?;
    match receipt.size {
        Some(size) if size != verified.size => {
            let message =
                format!("{}: the store says it has {size} bytes of {} sent", part.store.name(), verified.size);
            Err(Error::new(Reason::ProofMismatch, message))
        }
        _ => Ok(verified),
    }
}

/// How long the store may take to publish an object of this size.
pub(crate) fn publish_limit(part: &StorePart, size: u64) -> Duration {
    part.timeout + Duration::from_secs(size / PUBLISH_BYTES_PER_SECOND)
}

/// Bounds one step of a store's by the time that it may move no byte.
pub(crate) async fn within<T>(
    limit: Duration,
    part: &StorePart,
    doing: &str,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
        let message = format!("{}: no progress for {limit:?} while {doing}", part.store.name());
        Err(Error::new(Reason::StoreStalled, message))
    })
}
