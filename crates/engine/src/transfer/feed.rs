//! A feed: what one store's sink is fed with. The window as long as it keeps up, a read of its own after that.

use std::{
    collections::BTreeSet,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use mimeo_core::{Error, ObjectName, Reason, Result, StoreName, ports::Sink};
use tokio::{sync::Semaphore, time::Instant};

use super::{
    Verified,
    piece::{Piece, pieces},
    reader::{Origins, Reader},
    window::{Cursor, Found},
};
use crate::{
    StorePart,
    health::Health,
    pace::Paces,
    progress::Line,
    sabotage::{self, Bug},
};

/// The least rate at which a store is expected to publish what it has taken: some copy it once more on close.
const PUBLISH_BYTES_PER_SECOND: u64 = 10 << 20;
/// A store may stand still for its `timeout`; one that goes alone has moved when it has taken so much.
const STEP: usize = 64 << 10;

pub(crate) struct Feed {
    pub(super) cursor: Cursor<Verified>,
    pub(super) origins: Origins,
    pub(super) size: Option<u64>,
    pub(super) patience: Duration,
    pub(super) since: Instant,
}

/// What a feed shares with the others to the same store, and shows.
pub(crate) struct Lane<'a> {
    pub(crate) part: &'a StorePart,
    pub(crate) paces: &'a Paces,
    pub(crate) line: &'a Line,
    pub(crate) health: &'a Health,
    /// How many copies to this store may go on by themselves.
    pub(crate) slow: &'a Arc<Semaphore>,
    /// An object that the store may compare with.
    pub(crate) like: Option<ObjectName>,
}

impl Feed {
    /// Writes the object, of which the bytes before `from` are there and right, and closes it. Gives also the stores whose copies
    /// were read for this one alone: nobody has compared what they gave with the image.
    pub(crate) async fn copy_to(
        mut self,
        object: &ObjectName,
        from: u64,
        lane: &Lane<'_>,
    ) -> Result<(Verified, BTreeSet<StoreName>)> {
        let part = lane.part;
        let opening = match from {
            0 => part.store.open(object, self.size),
            _ => part.store.resume(object, self.size, from),
        };
        let mut sink = within(part.timeout, part, "opening the object", opening).await?;
        mimeo_crash::point("object-opened");
        if let Some(like) = &lane.like {
            sink.like(like);
        }
        match self.fill(&mut sink, from, lane).await {
            Ok((verified, lenders)) => Ok((close(sink, part, verified).await?, lenders)),
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
        from: u64,
        lane: &Lane<'_>,
    ) -> Result<(Verified, BTreeSet<StoreName>)> {
        let mut offset = 0;
        loop {
            match self.cursor.next().await {
                Found::Piece(piece) => {
                    let end = offset + piece.length() as u64;
                    if let Some(piece) = piece.without(from.saturating_sub(offset)) {
                        lane.put(sink, piece, usize::MAX).await?;
                    }
                    offset = end;
                }
                Found::End(ending) => return Ok((ending?, BTreeSet::new())),
                Found::Detached(offset) => return self.fill_alone(sink, lane, offset.max(from)).await,
            }
        }
    }

    /// Goes on from a read of its own. A difference from what the others got shows when the copy is proven.
    async fn fill_alone(
        &mut self,
        sink: &mut Box<dyn Sink>,
        lane: &Lane<'_>,
        mut offset: u64,
    ) -> Result<(Verified, BTreeSet<StoreName>)> {
        let store = lane.part.store.name();
        if self.size.is_some_and(|size| offset >= size) {
            return Ok((self.cursor.ending().await?, BTreeSet::new()));
        }
        lane.health.fell_behind(store, offset, self.since.elapsed());
        let _permit = Arc::clone(lane.slow).try_acquire_owned().map_err(|_| {
            let message = format!("{store}: slower than the others, and enough slow copies run to it already");
            Error::new(Reason::StoreBusy, message)
        })?;
        tracing::info!(%store, offset, "the store is slower than the others and goes on alone");
        let mut reader = Reader::new(&self.origins, offset, self.size, self.patience);
        while let Some(chunk) = reader.next().await? {
            if let Some(failure) = self.cursor.failure() {
                return Err(failure.into());
            }
            let length = chunk.len() as u64;
            if let Some(origin) = reader.store() {
                lane.paces.take(&origin, chunk.len()).await;
            }
            // Read by this sink alone, and written.
            lane.paces.take_of_all(2 * chunk.len()).await;
            for piece in pieces(chunk, offset) {
                lane.put(sink, piece, STEP).await?;
            }
            offset += length;
        }
        let (lenders, _) = reader.findings();
        Ok((self.cursor.ending().await?, lenders))
    }
}

impl Lane<'_> {
    /// Hands a piece to the sink, at most `step` bytes at a time.
    async fn put(&self, sink: &mut Box<dyn Sink>, piece: Piece, step: usize) -> Result<()> {
        if let (Piece::Zeros(length), true) = (&piece, self.part.store.is_sparse()) {
            within(self.part.timeout, self.part, "skipping zeros", sink.skip(*length as u64)).await?;
            self.line.advance(*length);
            return Ok(());
        }
        let step = self.paces.grain(self.part.store.name()).map_or(step, |grain| grain.min(step));
        for bytes in piece.into_bytes(step) {
            self.write(sink, bytes).await?;
        }
        Ok(())
    }

    async fn write(&self, sink: &mut Box<dyn Sink>, bytes: Bytes) -> Result<()> {
        let length = bytes.len();
        self.paces.take(self.part.store.name(), length).await;
        within(self.part.timeout, self.part, "writing", sink.write(bytes)).await?;
        mimeo_crash::point("bytes-written");
        self.line.advance(length);
        Ok(())
    }
}

async fn close(sink: Box<dyn Sink>, part: &StorePart, verified: Verified) -> Result<Verified> {
    let sent = sink.sent();
    mimeo_crash::point("object-complete");
    let closing = sink.close();
    let receipt = match sent {
        Some(sent) => while_sending(&sent, part, closing).await?,
        None => within(publish_limit(part, verified.size), part, "closing the object", closing).await?,
    };
    match receipt.size {
        Some(size) if size != verified.size => {
            let message =
                format!("{}: the store says it has {size} bytes of {} sent", part.store.name(), verified.size);
            Err(Error::new(Reason::ProofMismatch, message))
        }
        _ => Ok(verified),
    }
}

/// As [`within`], for as long as more and more is sent.
pub(crate) async fn while_sending<T>(
    sent: &AtomicU64,
    part: &StorePart,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let mut work = pin!(work);
    let mut before = sent.load(Ordering::Relaxed);
    loop {
        if let Ok(done) = tokio::time::timeout(part.timeout, work.as_mut()).await {
            return done;
        }
        let now = sent.load(Ordering::Relaxed);
        if now == std::mem::replace(&mut before, now) {
            return Err(stalled(part.timeout, part, "sending the object"));
        }
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
    let bound = if sabotage::is(Bug::SlowHoldsUpAll) { Duration::MAX } else { limit };
    tokio::time::timeout(bound, work).await.unwrap_or_else(|_| Err(stalled(limit, part, doing)))
}

fn stalled(limit: Duration, part: &StorePart, doing: &str) -> Error {
    let message = format!("{}: no progress for {limit:?} while {doing}", part.store.name());
    Error::new(Reason::StoreStalled, message)
}
