//! Uploads: the bits of an image go to its stores while the image service takes them.
//!
//! Whoever stands in the way of an upload (a gateway) hands over what passes, and says how it ended. Nothing here may
//! fail an upload, or hold it up for longer than a moment: what cannot be copied now is copied out of band.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use mimeo_core::{
    Change, DirtyMark, Due, Error, Image, ImageId, ImageStatus, Reason, Record, Result, StoreName,
    plan::CHECK_PROPERTY,
    ports::{ByteStream, Source},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::{
    Engine,
    attempt::{self, Partial},
    copy::{self, Running},
    gate::Pass,
    look::look,
    transfer::{Origin, Origins, Transfer},
    turn::Held,
};

/// Bytes of one upload in memory, beside what travels.
const WINDOW: usize = 1 << 20;
/// Chunks between the one who hands them over and the window.
const CHUNKS: usize = 4;
/// How long an upload waits for the stores as a whole before it goes on without them.
const LONGEST_STALL: Duration = Duration::from_secs(2);
/// How long Glance may take to show that it takes the upload, and how often it is asked.
const CONSENT: (Duration, Duration) = (Duration::from_secs(3), Duration::from_millis(25));
/// How long an upload waits for the end of another turn of its image, and how often it asks.
const LAST_TURN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_millis(10));
/// How long the stores have to give up an upload that failed, before another of the same image may be copied.
const GIVING_UP: Duration = Duration::from_secs(2);
/// While an upload goes on, whoever waits to read the image is told so often that there is nothing wrong.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// What an upload becomes once the image service has taken it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Becomes {
    /// The image's bits.
    Image,
    /// Staged bits, of which an import makes the image's at some later time.
    Staged,
}

impl Becomes {
    /// How the image service shows that it takes the upload.
    fn consent(self) -> ImageStatus {
        match self {
            Self::Image => ImageStatus::Saving,
            Self::Staged => ImageStatus::Uploading,
        }
    }

    /// Whether that is what has become of it.
    fn is(self, status: ImageStatus) -> bool {
        match self {
            Self::Image => status == ImageStatus::Active,
            // The import may be quicker than the look.
            Self::Staged => {
                matches!(status, ImageStatus::Uploading | ImageStatus::Importing | ImageStatus::Active)
            }
        }
    }
}

/// An upload that is to be copied as it passes.
pub struct Upload {
    pub bits: Bits,
    pub outcome: Outcome,
    /// To be run beside it.
    pub copying: Copying,
    /// How many replicas the rules want.
    pub wanted: usize,
}

/// Where the bits are handed over. Dropping it says that these were all.
#[derive(Debug)]
pub struct Bits(Option<mpsc::Sender<Bytes>>);

impl Bits {
    /// Hands over the next bytes. Waits no longer than a moment: after that the upload goes on alone, and is copied out of
    /// band.
    pub async fn pass(&mut self, bytes: Bytes) {
        let Some(bits) = &self.0 else { return };
        if !matches!(tokio::time::timeout(LONGEST_STALL, bits.send(bytes)).await, Ok(Ok(()))) {
            self.0 = None;
        }
    }
}

/// What became of the upload. Dropping it says that the image service did not take it.
#[derive(Debug)]
pub struct Outcome(oneshot::Sender<()>);

impl Outcome {
    /// The image service took it.
    pub fn taken(self) {
        // Whoever copied may have given up already.
        let _ = self.0.send(());
    }
}

/// The copies of an upload.
pub struct Copying {
    engine: Arc<Engine>,
    image: Image,
    becomes: Becomes,
    stores: Vec<StoreName>,
    held: Held,
    bits: mpsc::Receiver<Bytes>,
    outcome: oneshot::Receiver<()>,
}

impl Engine {
    /// Prepares to copy an upload of `size` bytes, where that is known, to the stores that the rules want for the image.
    /// `None`: there is nothing to copy, or not now.
    pub async fn upload(self: &Arc<Self>, id: &ImageId, becomes: Becomes, size: Option<u64>) -> Result<Option<Upload>> {
        let known = tokio::time::timeout(LAST_TURN.0, self.orders.are_known());
        if self.settings.observe || known.await.is_err() {
            return Ok(None);
        }
        // Nobody knows yet whether whoever uploads may: of an image that has its bits no turn is taken.
        let Some(image) = self.registry.look(id).await? else { return Ok(None) };
        let is_new = image.status == ImageStatus::Queued && !image.properties.contains_key(CHECK_PROPERTY);
        if !is_new || size == Some(0) {
            return Ok(None);
        }
        let Some(held) = self.hold(id).await else {
            self.turns.contest(id);
            return Ok(None);
        };
        let prepared = self.prepare(Image { size, ..image }, becomes, held).await;
        if !matches!(prepared, Ok(Some(_))) {
            // What came due meanwhile was left out.
            self.wake.notify_one();
        }
        prepared
    }

    async fn prepare(self: &Arc<Self>, image: Image, becomes: Becomes, held: Held) -> Result<Option<Upload>> {
        let id = &image.id;
        let record = self.ledger.load(id).await?.unwrap_or_else(|| Record::new(id.clone()));
        let record = match record.objects.is_empty() {
            true => record,
            // What an upload before this one left behind is given up first.
            false => look(self, id, &BTreeSet::new()).await?.record,
        };
        let (wanted, stores) = self.wanted_now(&image, &record);
        if stores.is_empty() {
            return Ok(None);
        }
        let ((bits, passing), (say, outcome)) = (mpsc::channel(CHUNKS), oneshot::channel());
        let copying = Copying { engine: Arc::clone(self), image, becomes, stores, held, bits: passing, outcome };
        Ok(Some(Upload { bits: Bits(Some(bits)), outcome: Outcome(say), copying, wanted }))
    }

    /// The image's turn, once a look at what it was before the upload is over.
    async fn hold(self: &Arc<Self>, id: &ImageId) -> Option<Held> {
        let began = Instant::now();
        loop {
            let held = Held::take(self, id);
            if held.is_some() || began.elapsed() >= LAST_TURN.0 {
                return held;
            }
            tokio::time::sleep(LAST_TURN.1).await;
        }
    }

    /// How many stores the rules want for the image, and those where Mimeo may begin to write at this moment.
    fn wanted_now(&self, image: &Image, record: &Record) -> (usize, Vec<StoreName>) {
        let policy = &self.settings.policy;
        let conditions = self.conditions(self.clock.now());
        let is_open = |store: &StoreName| {
            let is_well = !conditions.failing.contains(store) && !conditions.down.contains_key(store);
            is_well && !conditions.closed.contains_key(store) && self.stores.contains_key(store)
        };
        let wanted = policy.rules.wanted(image, &policy.stores, &conditions, &record.replicas).stores;
        (wanted.len(), wanted.into_iter().filter(is_open).collect())
    }
}

impl Copying {
    /// Copies while the upload passes; then proves and registers, as after any copy. What this leaves undone is for the
    /// image's next turn.
    pub async fn run(self) {
        let (engine, id) = (Arc::clone(&self.engine), self.image.id.clone());
        let span = tracing::info_span!("upload", id = %id);
        if let Err(error) = self.copy().instrument(span).await {
            tracing::warn!(%id, reason = error.reason.code(), error = error.chain(), "the upload was not copied as it \
                passed; it is copied later");
        }
        let mark = DirtyMark { image: id.clone(), due: engine.clock.now() };
        if let Err(error) = engine.ledger.commit(&[Change::Dirty(mark)]).await {
            tracing::warn!(%id, error = error.chain(), "the ledger did not take the mark; the scan finds the image");
        }
        engine.wake.notify_one();
    }

    async fn copy(mut self) -> Result<()> {
        let first = tokio::select! {
            biased;
            first = self.bits.recv() => first,
            // Who was refused may go on to send, or never begin.
            _ = &mut self.outcome => None,
        };
        let Some(first) = first else { return Ok(()) };
        self.consent().await?;
        let Self { engine, image, becomes, stores, held, mut bits, outcome } = self;
        let enter = |store: &StoreName| Some((store.clone(), engine.gates(store).copies.enter_before_last()?));
        let mut passes: BTreeMap<StoreName, Pass> = stores.iter().filter_map(enter).collect();
        let stores: Vec<StoreName> = passes.keys().cloned().collect();
        let attempts = attempt::begin(&engine, &image.id, &stores, Partial::GiveUp).await?;
        mimeo_crash::point("upload-begun");
        tracing::info!(stores = stores.len(), size = image.size, "copying the upload as it passes");
        let (is_over, over) = watch::channel(false);
        let later = AfterUpload { source: engine.registry.source(&image.id), over };
        let origins = Origins::new(vec![Origin::service(Arc::new(later))]);
        let transfer = Transfer::live(image.clone(), origins.clone(), WINDOW, engine.settings.source_timeout);
        let (mut work, mut readers, mut running) = (JoinSet::new(), JoinSet::new(), BTreeSet::new());
        for attempt in attempts {
            let (feed, pass) = (transfer.feed(false), passes.remove(&attempt.store));
            let (engine, image, store) = (Arc::clone(&engine), image.clone(), attempt.store.clone());
            running.insert(store.clone());
            let copying = async move {
                let proven = attempt::copy(&engine, &image, attempt, feed).await;
                drop(pass);
                copy::Done::Copied(store, proven)
            };
            work.spawn(copying.in_current_span());
        }
        let (tell, told) = oneshot::channel();
        let all = stream::iter([first]).chain(stream::poll_fn(move |cx| bits.poll_recv(cx)));
        let reading = async move {
            let verdict = match becomes {
                Becomes::Image => transfer.pass(all, told).await,
                Becomes::Staged => transfer.stage(all, told).await,
            };
            transfer.end(verdict).await;
        };
        readers.spawn(reading.in_current_span());
        match became(&engine, &image, becomes, outcome).await {
            Ok(image) => {
                let _ = (tell.send(image.clone()), is_over.send(true));
                // No mark gave this turn, and none is settled by it.
                let due = Due { image: image.id.clone(), seq: 0, due: engine.clock.now() };
                let turn = held.turn(due, CancellationToken::new());
                let running = Running { origins, stores: running, work, readers };
                copy::go_on(&engine, &turn, &image, running).await
            }
            Err(error) => {
                drop((tell, is_over));
                // Each gives its object up, and notes it; what a slow one leaves is for the next look.
                let given_up = async { while work.join_next().await.is_some() {} };
                let _ = tokio::time::timeout(GIVING_UP, given_up).await;
                Err(error)
            }
        }
    }

    /// Waits until Glance shows that it takes an upload of this image, as long as it has not refused this one. It is the only one that
    /// passes here for the image, and its first bytes are on their way; that Glance takes another one that goes another way,
    /// at the very moment at which it is to refuse this one, cannot be told apart: then the copies are given up with its
    /// answer.
    async fn consent(&mut self) -> Result<()> {
        let none = |why| Err(Error::new(Reason::Cancelled, why));
        let began = Instant::now();
        while began.elapsed() < CONSENT.0 {
            let shown = tokio::select! {
                biased;
                outcome = &mut self.outcome => match outcome {
                    Ok(()) => {
                        self.outcome = taken();
                        return Ok(());
                    }
                    Err(_) => return none("Glance refused the upload"),
                },
                shown = self.engine.registry.look(&self.image.id) => shown?.map(|image| image.status),
            };
            match shown {
                _ if self.held.is_contested() => return none("another upload of the image goes on beside this one"),
                Some(status) if status == self.becomes.consent() => return Ok(()),
                Some(ImageStatus::Queued) => tokio::time::sleep(CONSENT.1).await,
                _ => break,
            }
        }
        none("Glance did not show that it takes the upload")
    }
}

/// What says that the image service took the upload.
fn taken() -> oneshot::Receiver<()> {
    let (say, taken) = oneshot::channel();
    Outcome(say).taken();
    taken
}

/// The image that the upload has become, once the image service said that it took it.
async fn became(engine: &Engine, before: &Image, becomes: Becomes, outcome: oneshot::Receiver<()>) -> Result<Image> {
    let refused = |_| Error::new(Reason::Cancelled, "Glance did not take the upload");
    outcome.await.map_err(refused)?;
    mimeo_crash::point("upload-taken");
    let after = engine.registry.look(&before.id).await?;
    let became = after.filter(|image| becomes.is(image.status));
    let other = || Error::new(Reason::ImageNotActive, "the image is not what the upload makes of it");
    became.ok_or_else(other)
}

/// The image's bits, for those who did not keep up with the upload: they are there once it is over; of a staged one they
/// are not, and are copied after the import.
struct AfterUpload {
    source: Arc<dyn Source>,
    over: watch::Receiver<bool>,
}

#[async_trait]
impl Source for AfterUpload {
    async fn open(&self, offset: u64) -> Result<ByteStream> {
        let (source, over) = (Arc::clone(&self.source), self.over.clone());
        if *over.borrow() {
            return source.open(offset).await;
        }
        let waiting = stream::unfold(false, move |told| {
            let mut over = over.clone();
            async move {
                if told {
                    return None;
                }
                let ended = tokio::time::timeout(SIGN_OF_LIFE, over.wait_for(|over| *over)).await;
                match ended {
                    Err(_) => Some((Ok(Bytes::new()), false)),
                    Ok(_) => Some((Ok(Bytes::new()), true)),
                }
            }
        });
        let after = stream::once(async move { source.open(offset).await }).try_flatten();
        Ok(Box::pin(waiting.chain(after)))
    }
}
