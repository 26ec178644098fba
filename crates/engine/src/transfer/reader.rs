//! Reading: one ordered stream out of several places that hold the same bits, each of which may break.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, future::ready, stream};
use mimeo_core::{
    Error, ObjectName, Reason, Result, StoreName,
    ports::{ByteStream, Source, Store},
};
use tokio::sync::watch;

/// How often in a row the origins may break without giving a byte, beyond one try of each.
const RETRIES: usize = 5;
const FIRST_WAIT: Duration = Duration::from_millis(200);

/// A copy that gives no byte for this long to somebody who waits is left for the next one.
const HURRY: Duration = Duration::from_secs(2);

/// A place to read the image from.
#[derive(Clone)]
pub(crate) struct Origin {
    /// The store of a proven copy; `None` is the image service itself.
    pub(crate) store: Option<StoreName>,
    pub(super) source: Arc<dyn Source>,
}

impl Origin {
    pub(crate) fn service(source: Arc<dyn Source>) -> Self {
        Self { store: None, source }
    }

    pub(crate) fn copy(store: &Arc<dyn Store>, object: ObjectName) -> Self {
        let source = Copy { store: Arc::clone(store), object };
        Self { store: Some(store.name().clone()), source: Arc::new(source) }
    }
}

struct Copy {
    store: Arc<dyn Store>,
    object: ObjectName,
}

#[async_trait::async_trait]
impl Source for Copy {
    async fn open(&self, offset: u64) -> Result<ByteStream> {
        self.store.read(&self.object, offset).await
    }
}

/// Where a transfer reads from, the best first. Copies that are proven on the way come to the front: whoever still reads
/// goes on from there, and frees the image service.
#[derive(Clone)]
pub(crate) struct Origins(Arc<watch::Sender<Vec<Origin>>>);

impl Origins {
    /// At least one, the best first.
    pub(crate) fn new(origins: Vec<Origin>) -> Self {
        Self(Arc::new(watch::Sender::new(origins)))
    }

    pub(crate) fn prefer(&self, origin: Origin) {
        self.0.send_modify(|origins| origins.insert(0, origin));
    }
}

/// The image's bits from `offset` on, `length` of them, from whichever of the origins gives them. It begins with the first
/// byte, so that an error comes before anything was given.
pub(crate) async fn read(origins: &Origins, offset: u64, length: u64, patience: Duration) -> Result<ByteStream> {
    let reader = Reader::new(origins, offset, Some(offset + length), patience);
    let mut reader = Reader { patience_with_copies: HURRY, ..reader };
    let first = reader.next().await?;
    let rest = stream::try_unfold(reader, async |mut reader| Ok(reader.next().await?.map(|bytes| (bytes, reader))));
    let all = stream::iter(first).map(Ok).chain(rest);
    Ok(Box::pin(all.scan(length, |left, bytes: Result<Bytes>| {
        let bytes = bytes.map(|mut bytes| {
            bytes.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= bytes.len() as u64;
            bytes
        });
        ready(bytes.as_ref().map_or(true, |bytes| !bytes.is_empty()).then_some(bytes))
    })))
}

pub(super) struct Reader {
    origins: watch::Receiver<Vec<Origin>>,
    /// The one that is read, by its place in the list.
    at: usize,
    stream: Option<ByteStream>,
    offset: u64,
    /// Where the image ends, if known: a stream that ends before it broke.
    size: Option<u64>,
    failures: usize,
    /// A stream that gives no byte for this long is broken.
    patience: Duration,
    patience_with_copies: Duration,
    /// The stores that gave some of the bytes.
    used: BTreeSet<StoreName>,
    broken: Vec<(StoreName, Error)>,
}

impl Reader {
    pub(super) fn new(origins: &Origins, offset: u64, size: Option<u64>, patience: Duration) -> Self {
        let origins = origins.0.subscribe();
        Self {
            origins,
            at: 0,
            stream: None,
            offset,
            size,
            failures: 0,
            patience,
            patience_with_copies: patience,
            used: BTreeSet::new(),
            broken: Vec::new(),
        }
    }

    /// The store whose copy is being read; `None`: the image service.
    pub(super) fn store(&self) -> Option<StoreName> {
        self.origins.borrow().get(self.at)?.store.clone()
    }

    /// The stores of the copies that gave any of the bytes, and of those that broke.
    pub(super) fn findings(self) -> (BTreeSet<StoreName>, Vec<(StoreName, Error)>) {
        (self.used, self.broken)
    }

    /// The next bytes; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if self.origins.has_changed().unwrap_or(false) {
                self.origins.mark_unchanged();
                (self.at, self.stream) = (0, None);
            }
            match self.attempt().await {
                Ok(Some(chunk)) if chunk.is_empty() => {}
                Ok(Some(chunk)) => {
                    self.failures = 0;
                    self.used.extend(self.store());
                    self.offset += chunk.len() as u64;
                    return Ok(Some(chunk));
                }
                Ok(None) if self.size.is_none_or(|size| self.offset >= size) => return Ok(None),
                Ok(None) => {
                    let message = format!("the source ended at byte {} of {}", self.offset, self.size.unwrap_or(0));
                    self.broke(Error::new(Reason::SourceSize, message)).await?;
                }
                Err(error) => self.broke(error).await?,
            }
        }
    }

    async fn attempt(&mut self) -> Result<Option<Bytes>> {
        let is_copy = self.store().is_some();
        let work = async {
            let stream = match &mut self.stream {
                Some(stream) => stream,
                none => {
                    let origin = self.origins.borrow().get(self.at).cloned();
                    let none_left = || Error::new(Reason::SourceUnreadable, "there is nothing to read from");
                    let origin = origin.ok_or_else(none_left)?;
                    none.insert(origin.source.open(self.offset).await?)
                }
            };
            stream.next().await.transpose()
        };
        let patience = if is_copy { self.patience_with_copies } else { self.patience };
        match tokio::time::timeout(patience, work).await {
            Ok(result) => result,
            Err(_) => Err(self.stalled(patience)),
        }
    }

    fn stalled(&self, patience: Duration) -> Error {
        let offset = self.offset;
        let what = format!("gave no byte for {patience:?} at offset {offset}");
        match self.store() {
            Some(store) => Error::new(Reason::StoreStalled, format!("{store}: its copy {what}")),
            None => Error::new(Reason::SourceUnreadable, format!("the source {what}")),
        }
    }

    /// Goes to the next origin; waits when all have been tried; or gives up.
    async fn broke(&mut self, error: Error) -> Result<()> {
        let count = self.origins.borrow().len();
        self.stream = None;
        self.failures += 1;
        if self.failures >= RETRIES + count || (count == 1 && error.reason.is_permanent()) {
            return Err(error);
        }
        let store = self.store();
        tracing::debug!(offset = self.offset, error = error.chain(), "the source broke; going on from there");
        self.broken.extend(store.map(|store| (store, error)));
        self.at = (self.at + 1) % count.max(1);
        if self.failures >= count {
            let rounds = u32::try_from(self.failures - count).unwrap_or(u32::MAX);
            tokio::time::sleep(FIRST_WAIT * 2_u32.saturating_pow(rounds)).await;
        }
        Ok(())
    }
}
