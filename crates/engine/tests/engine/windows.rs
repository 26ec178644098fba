//! What is between the reader and the stores: a bounded window that no slow store closes for the others.

use std::{
    collections::BTreeSet,
    num::NonZero,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use mimeo_core::{
    Image, ImageId, Location, ObjectName, Reason, ReplicaState, Result, StoreName, Timestamp,
    ports::{ByteStream, Cursor, Page, Receipt, Registry, Sink, Source, Store, Undone},
};
use mimeo_engine::Engine;
use mimeo_testkit::{FakeRegistry, FakeStore, StoreFault, sample};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::world::{self, Options, VirtualClock};

const MIB: u64 = 1 << 20;

/// Takes so long for each write, and sends while it closes, as its line allows.
struct Slow {
    store: FakeStore,
    per_write: Duration,
    line: Option<Line>,
}

/// So many steps of a time each. Where it is stuck it counts no byte that was sent.
#[derive(Clone, Copy)]
struct Line {
    steps: u32,
    step: Duration,
    is_stuck: bool,
}

struct SlowSink {
    sink: Box<dyn Sink>,
    per_write: Duration,
    line: Option<Line>,
    sent: Arc<AtomicU64>,
}

#[async_trait]
impl Store for Slow {
    fn name(&self) -> &StoreName {
        self.store.name()
    }

    fn location(&self, object: &ObjectName) -> String {
        self.store.location(object)
    }

    async fn open(&self, object: &ObjectName, size: Option<u64>) -> Result<Box<dyn Sink>> {
        let sink = self.store.open(object, size).await?;
        let (per_write, line) = (self.per_write, self.line);
        Ok(Box::new(SlowSink { sink, per_write, line, sent: Arc::default() }))
    }

    async fn read(&self, object: &ObjectName, offset: u64) -> Result<ByteStream> {
        self.store.read(object, offset).await
    }

    async fn probe(&self, object: &ObjectName) -> Result<Option<u64>> {
        self.store.probe(object).await
    }

    async fn delete(&self, object: &ObjectName) -> Result<()> {
        self.store.delete(object).await
    }
}

#[async_trait]
impl Sink for SlowSink {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        tokio::time::sleep(self.per_write).await;
        self.sink.write(bytes).await
    }

    fn sent(&self) -> Option<Arc<AtomicU64>> {
        self.line.map(|_| Arc::clone(&self.sent))
    }

    async fn close(self: Box<Self>) -> Result<Receipt> {
        if let Some(line) = self.line {
            for _ in 0..line.steps {
                tokio::time::sleep(line.step).await;
                self.sent.fetch_add(u64::from(!line.is_stuck), Ordering::Relaxed);
            }
        }
        self.sink.close().await
    }

    async fn abort(self: Box<Self>) {
        self.sink.abort().await;
    }
}

static LIVE: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

struct Owned(Vec<u8>);

impl Owned {
    fn new(bytes: Vec<u8>) -> Self {
        let live = LIVE.fetch_add(bytes.len(), Ordering::SeqCst) + bytes.len();
        MOST.fetch_max(live, Ordering::SeqCst);
        Self(bytes)
    }
}

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        LIVE.fetch_sub(self.0.len(), Ordering::SeqCst);
    }
}

const PART: usize = 256 << 10;

struct Sparse(u64);

#[async_trait]
impl Source for Sparse {
    async fn open(&self, offset: u64) -> Result<ByteStream> {
        let (mut at, size) = (offset, self.0);
        Ok(futures::stream::iter(std::iter::from_fn(move || {
            (at < size).then(|| {
                let length = (size - at).min(PART as u64);
                at += length;
                let mut bytes = vec![0; usize::try_from(length).unwrap()];
                bytes[..100].fill(1);
                Ok(Bytes::from_owner(Owned::new(bytes)))
            })
        }))
        .boxed())
    }
}

struct SparseRegistry(FakeRegistry, u64);

#[async_trait]
impl Registry for SparseRegistry {
    async fn look(&self, id: &ImageId) -> Result<Option<Image>> {
        self.0.look(id).await
    }

    async fn named(&self, name: &str) -> Result<Vec<Image>> {
        self.0.named(name).await
    }

    async fn sees_all(&self) -> Result<bool> {
        self.0.sees_all().await
    }

    async fn roles(&self) -> Result<Option<BTreeSet<String>>> {
        self.0.roles().await
    }

    async fn changed_since(&self, since: Option<Timestamp>, cursor: Option<&Cursor>) -> Result<Page> {
        self.0.changed_since(since, cursor).await
    }

    async fn add_locations(&self, id: &ImageId, locations: &[Location]) -> Result<()> {
        self.0.add_locations(id, locations).await
    }

    async fn arrange_locations(&self, id: &ImageId, keep: &[Location], remove: &[Location]) -> Result<()> {
        self.0.arrange_locations(id, keep, remove).await
    }

    async fn copy_to(&self, id: &ImageId, backends: &[String]) -> Result<()> {
        self.0.copy_to(id, backends).await
    }

    async fn put_back(&self, id: &ImageId, undone: &Undone) -> Result<()> {
        self.0.put_back(id, undone).await
    }

    fn source(&self, _: &ImageId) -> Arc<dyn Source> {
        Arc::new(Sparse(self.1))
    }
}

fn engine(registry: Arc<dyn Registry>, stores: Vec<Arc<dyn Store>>, window: usize) -> Arc<Engine> {
    let options = Options { window: NonZero::new(window).unwrap(), ..Options::default() };
    let clock = Arc::new(VirtualClock::start());
    world::engine(registry, Arc::default(), stores, clock, options)
}

fn serve(engine: &Arc<Engine>) -> CancellationToken {
    let (engine, stop) = (Arc::clone(engine), CancellationToken::new());
    let token = stop.clone();
    #[allow(clippy::disallowed_methods)]
    tokio::task::spawn(async move { engine.serve(None, token).await });
    stop
}

async fn time_with(per_write: Duration) -> (Duration, Duration) {
    let registry = FakeRegistry::default();
    registry.set_sees_all(true);
    let size = 32 * MIB;
    let image = sample::image(1, size);
    let id = image.id.clone();
    registry.insert(image, sample::bits(usize::try_from(size).unwrap()));
    let near = FakeStore::new("near");
    let far = FakeStore::new("far");
    let stores: Vec<Arc<dyn Store>> =
        vec![Arc::new(near.clone()), Arc::new(Slow { store: far.clone(), per_write, line: None })];
    let engine = engine(Arc::new(registry.clone()), stores, 2 << 20);
    let _stop = serve(&engine);
    let began = Instant::now();
    let mut times = Vec::new();
    for count in 1..=2 {
        while registry.image(&id).unwrap().locations.len() < count && began.elapsed() < Duration::from_secs(200) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        times.push(began.elapsed());
    }
    (times[0], times[1])
}

#[tokio::test(start_paused = true)]
async fn a_store_of_any_slowness_holds_up_no_other() {
    // 64 KiB each: 2 MB/s, 6.5 MB/s.
    let slower = time_with(Duration::from_millis(30)).await;
    let slow = time_with(Duration::from_millis(10)).await;
    assert!(slower.0 < Duration::from_secs(3) && slow.0 < Duration::from_secs(3), "(near, far): {slower:?} {slow:?}");
}

#[tokio::test(start_paused = true)]
async fn memory_is_bounded_for_sparse_images_too() {
    let registry = FakeRegistry::default();
    registry.set_sees_all(true);
    let size = 64 * MIB;
    registry.insert(Image { hash: None, ..sample::image(1, size) }, Bytes::new());
    let store = FakeStore::new("store");
    store.inject(StoreFault::WriteStalls);
    let window = 1 << 20;
    let engine = engine(Arc::new(SparseRegistry(registry, size)), vec![Arc::new(store.clone())], window);
    let _stop = serve(&engine);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let most = MOST.load(Ordering::SeqCst);
    assert!(most < window + 8 * PART, "{most} bytes were held, {window} allowed");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_sends_while_it_closes_may_take_its_time_as_long_as_it_moves() {
    // The store's time-out is 5 s.
    for (steps, is_stuck) in [(100, false), (3, true)] {
        let registry = FakeRegistry::default();
        let image = sample::image(1, MIB);
        let id = image.id.clone();
        registry.insert(image, sample::bits(usize::try_from(MIB).unwrap()));
        let line = Some(Line { steps, step: Duration::from_secs(4), is_stuck });
        let far = Slow { store: FakeStore::new("far"), per_write: Duration::ZERO, line };
        let engine = engine(Arc::new(registry.clone()), vec![Arc::new(far)], 2 << 20);
        let _stop = serve(&engine);
        tokio::time::sleep(Duration::from_mins(7)).await;
        let replica = engine.find(id.as_str()).await.unwrap().remove(0).replicas.remove(0);
        let reason = replica.reason.map(|reason| reason.code);
        match is_stuck {
            true => assert_eq!(reason.as_deref(), Some(Reason::StoreStalled.code())),
            false => assert_eq!((replica.state, reason), (ReplicaState::Registered, None)),
        }
    }
}
