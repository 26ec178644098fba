//! What is between the reader and the stores: a bounded window that no slow store closes for the others.

use std::{
    collections::BTreeMap,
    num::NonZero,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use mimeo_core::{
    Backoff, Hours, Image, ImageId, Limits, Location, ObjectName, Result, StoreName, TimeZone, Timestamp,
    plan::Policy,
    policy::{Rules, StoreFacts},
    ports::{ByteStream, Clock, Cursor, Page, Receipt, Registry, Sink, Source, Store, Undone},
};
use mimeo_engine::{Engine, GcSettings, Parts, Settings, StorePart};
use mimeo_testkit::{FakeRegistry, FakeStore, MemoryLedger, StoreFault, sample};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const MIB: u64 = 1 << 20;

struct Slow(FakeStore, Duration);

struct SlowSink(Box<dyn Sink>, Duration);

#[async_trait]
impl Store for Slow {
    fn name(&self) -> &StoreName {
        self.0.name()
    }

    fn location(&self, object: &ObjectName) -> String {
        self.0.location(object)
    }

    async fn open(&self, object: &ObjectName, size: Option<u64>) -> Result<Box<dyn Sink>> {
        Ok(Box::new(SlowSink(self.0.open(object, size).await?, self.1)))
    }

    async fn read(&self, object: &ObjectName, offset: u64) -> Result<ByteStream> {
        self.0.read(object, offset).await
    }

    async fn probe(&self, object: &ObjectName) -> Result<Option<u64>> {
        self.0.probe(object).await
    }

    async fn delete(&self, object: &ObjectName) -> Result<()> {
        self.0.delete(object).await
    }
}

#[async_trait]
impl Sink for SlowSink {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        tokio::time::sleep(self.1).await;
        self.0.write(bytes).await
    }

    async fn close(self: Box<Self>) -> Result<Receipt> {
        self.0.close().await
    }

    async fn abort(self: Box<Self>) {
        self.0.abort().await;
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

    async fn changed_since(&self, since: Option<Timestamp>, cursor: Option<&Cursor>) -> Result<Page> {
        self.0.changed_since(since, cursor).await
    }

    async fn add_locations(&self, id: &ImageId, locations: &[Location]) -> Result<()> {
        self.0.add_locations(id, locations).await
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

struct VirtualClock(Instant);

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        sample::time(0).saturating_add(self.0.elapsed()).unwrap()
    }
}

fn engine(registry: Arc<dyn Registry>, stores: Vec<Arc<dyn Store>>, window: usize) -> Arc<Engine> {
    let facts = stores.iter().map(|store| StoreFacts::new(store.name().clone()));
    let policy = Policy {
        rules: Rules::default(),
        stores: facts.collect(),
        backoff: Backoff { first: Duration::from_secs(1), max: Duration::from_secs(10) },
    };
    let part = |store| StorePart { store, timeout: Duration::from_secs(5), backend: None };
    let parts = Parts {
        registry,
        ledger: Arc::new(MemoryLedger::default()),
        clock: Arc::new(VirtualClock(Instant::now())),
        stores: stores.into_iter().map(part).collect(),
    };
    let settings = Settings {
        policy,
        limits: Limits {
            concurrency: NonZero::new(1).unwrap(),
            memory: NonZero::new(window).unwrap(),
            bandwidth: None,
            hours: Hours::default(),
            stores: BTreeMap::new(),
        },
        time_zone: TimeZone::UTC,
        source_timeout: Duration::from_secs(5),
        scan_interval: Duration::from_secs(1),
        full_scan_interval: Duration::from_mins(10),
        gc: GcSettings {
            interval: Duration::from_secs(1),
            grace: Duration::from_secs(100),
            max_images: 10,
            max_percent: 10,
        },
        observe: false,
    };
    Engine::new(parts, settings)
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
    let stores: Vec<Arc<dyn Store>> = vec![Arc::new(near.clone()), Arc::new(Slow(far.clone(), per_write))];
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
