//! Corners of the transfer: that no store and no image is felt by the others, and that nothing bad is built upon.

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
    Backoff, CHUNK, Hours, Image, ImageId, Limits, Location, ObjectName, Reason, ReplicaState, Result, StoreLimits,
    StoreName, TimeZone, Timestamp,
    plan::Policy,
    policy::{Rules, StoreFacts},
    ports::{ByteStream, Clock, Cursor, Page, Receipt, Registry, Sink, Source, Store, Undone},
};
use mimeo_engine::{Engine, GcSettings, Parts, Settings, StorePart};
use mimeo_testkit::{FakeRegistry, FakeStore, MemoryLedger, StoreCall, StoreFault, sample};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::world::{Options, World};

const MIB: u64 = 1 << 20;

fn limit(world: &World, store: usize, change: impl FnOnce(&mut StoreLimits)) {
    let mut limits = world.engine.limits();
    change(limits.stores.entry(world.stores[store].name().clone()).or_default());
    let _: std::result::Result<_, ()> = world.engine.change_limits(|_| Ok(limits));
}

fn overall(world: &World, change: impl FnOnce(&mut Limits)) {
    let mut limits = world.engine.limits();
    change(&mut limits);
    let _: std::result::Result<_, ()> = world.engine.change_limits(|_| Ok(limits));
}

fn hours(span: &str) -> Hours {
    Hours(vec![span.parse().unwrap()])
}

async fn is_at(world: &World, id: &ImageId, store: usize) -> bool {
    let name = world.stores[store].name();
    let Some(report) = world.report(id).await else { return false };
    report.replicas.iter().any(|it| it.store == *name && it.state == ReplicaState::Registered)
}

async fn at_a_store(world: &World, id: &ImageId, store: usize, most: u64) -> Duration {
    let began = Instant::now();
    while !is_at(world, id, store).await && began.elapsed() < Duration::from_secs(most) {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    began.elapsed()
}

fn opens(world: &World, store: usize) -> usize {
    world.stores[store].calls().iter().filter(|call| matches!(call, StoreCall::Open(_))).count()
}

fn hashed(image: Image) -> Image {
    let bits = sample::bits(usize::try_from(image.size.unwrap()).unwrap());
    let value = format!("{:x}", <sha2::Sha512 as sha2::Digest>::digest(bits));
    Image { hash: Some(mimeo_core::ContentHash { algorithm: mimeo_core::HashAlgorithm::Sha512, value }), ..image }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_failed_for_a_moment_is_tried_again_though_a_slow_one_still_copies() {
    let world = World::start(Options::default());
    limit(&world, 1, |own| own.bandwidth = NonZero::new(10_000));
    world.stores[2].inject(StoreFault::OpenFails(Reason::StoreUnreachable));
    let id = world.create(sample::image(1, 10 * MIB));
    tokio::time::sleep(Duration::from_secs(2)).await;
    world.stores[2].heal();
    let took = at_a_store(&world, &id, 2, 3000).await;
    assert!(took < Duration::from_secs(30), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn images_that_wait_for_one_stores_gate_take_no_turn_from_others() {
    let world = World::start(Options::default());
    limit(&world, 1, |own| own.bandwidth = NonZero::new(10));
    limit(&world, 1, |own| own.concurrency = NonZero::new(1));
    // More than may have a turn at a time.
    for n in 0..270 {
        world.create(sample::image(n, 1000));
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let id = world.create(sample::image(1000, 1000));
    let took = at_a_store(&world, &id, 0, 100).await;
    assert!(took < Duration::from_secs(15), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stores_bandwidth_holds_when_it_is_the_source() {
    let world = World::start(Options { stores: 2, ..Options::default() });
    world.stores[1].inject(StoreFault::OpenFails(Reason::StoreUnreachable));
    let id = world.create(hashed(sample::image(1, 10 * MIB)));
    world.until("one is registered", async || world.locations(&id).len() == 1).await;
    limit(&world, 0, |own| own.bandwidth = NonZero::new(100_000));
    world.stores[1].heal();
    let took = at_a_store(&world, &id, 1, 500).await;
    assert_eq!(world.registry.opens(&id), 1, "read from the copy");
    assert!(took > Duration::from_secs(90), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn what_was_kept_outlives_that_others_are_tried_first() {
    let world = World::start(Options { stores: 1, resumable: true, ..Options::default() });
    limit(&world, 0, |own| own.bandwidth = NonZero::new(4 << 20));
    let ids: Vec<ImageId> = (0..4).map(|n| world.create(sample::image(n, 2 * CHUNK + 1000))).collect();
    world.until("each has more than a chunk", async || world.stores[0].written() > 5 * CHUNK + CHUNK).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    world.stores[0].inject(StoreFault::WriteFails(Reason::StoreUnreachable));
    tokio::time::sleep(Duration::from_millis(600)).await;
    world.stores[0].heal();
    for id in &ids {
        world.registered(id).await;
    }
    assert_eq!(opens(&world, 0), 4, "each was begun once");
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_place_does_not_start_outside_the_hours() {
    let world = World::start(Options { stores: 1, ..Options::default() });
    overall(&world, |limits| limits.concurrency = NonZero::new(1).unwrap());
    overall(&world, |limits| limits.hours = hours("00:00-00:10"));
    limit(&world, 0, |own| own.bandwidth = NonZero::new(10_000));
    for n in 0..3 {
        world.create(sample::image(n, 10 * MIB));
    }
    tokio::time::sleep(Duration::from_mins(9)).await;
    let before = opens(&world, 0);
    tokio::time::sleep(Duration::from_hours(5)).await;
    assert_eq!((before, opens(&world, 0)), (1, 1), "none is started after 00:10");
}

async fn backlog(world: &World) {
    limit(world, 1, |own| own.hours = hours("22:00-23:00"));
    let ids: Vec<ImageId> = (0..100).map(|n| world.create(sample::image(n, 256 << 10))).collect();
    for id in &ids {
        at_a_store(world, id, 0, 1000).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_died_takes_no_place_from_images_for_others() {
    let world = World::start(Options { stores: 2, ..Options::default() });
    backlog(&world).await;
    world.stores[1].inject(StoreFault::WriteStalls);
    limit(&world, 1, |own| own.hours = Hours::default());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let id = world.create(sample::image(1000, 300 << 10));
    let took = at_a_store(&world, &id, 0, 1000).await;
    assert!(took < Duration::from_secs(15), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_store_takes_no_place_from_images_for_others() {
    let world = World::start(Options { stores: 2, ..Options::default() });
    backlog(&world).await;
    limit(&world, 1, |own| *own = StoreLimits { bandwidth: NonZero::new(20_000), ..StoreLimits::default() });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let id = world.create(sample::image(1000, 300 << 10));
    let took = at_a_store(&world, &id, 0, 3000).await;
    assert!(took < Duration::from_secs(15), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn bad_bytes_of_a_copy_are_not_registered_elsewhere_though_glance_has_no_hash() {
    let world = World::start(Options { stores: 2, ..Options::default() });
    world.stores[1].inject(StoreFault::OpenFails(Reason::StoreUnreachable));
    let id = world.create(Image { hash: None, ..sample::image(1, MIB) });
    world.until("one is registered", async || world.locations(&id).len() == 1).await;
    let bad = world.stores[0].objects()[0].clone();
    world.stores[0].tamper(&bad, Some(Bytes::from(vec![7; 1 << 20])));
    world.stores[1].heal();
    at_a_store(&world, &id, 1, 100).await;
    assert!(is_at(&world, &id, 1).await);
    for object in world.stores[1].objects() {
        assert!(world.stores[1].bits(&object).unwrap() == sample::bits(1 << 20), "bad bytes are registered");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_store_as_a_source_delays_nobody_again_and_again() {
    let world = World::start(Options { stores: 2, ..Options::default() });
    backlog(&world).await;
    world.stores[0].inject(StoreFault::ReadStalls);
    limit(&world, 1, |own| own.hours = Hours::default());
    let began = Instant::now();
    for n in 0..100 {
        at_a_store(&world, &sample::image(n, 1).id, 1, 1000).await;
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(30), "{took:?}");
}

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
    let facts = stores.iter().map(|store| StoreFacts { name: store.name().clone(), visibility: None });
    let policy = Policy {
        rules: Rules::default(),
        stores: facts.collect(),
        backoff: Backoff { first: Duration::from_secs(1), max: Duration::from_secs(10) },
    };
    let part = |store| StorePart { store, timeout: Duration::from_secs(5) };
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

#[tokio::test(start_paused = true)]
async fn a_full_store_is_not_kept_full_by_what_is_not_finished() {
    let world = World::start(Options { stores: 1, resumable: true, ..Options::default() });
    limit(&world, 0, |own| own.bandwidth = NonZero::new(4 << 20));
    world.create(sample::image(1, 3 * CHUNK));
    world.until("a part is there", async || world.stores[0].written() > 2 * CHUNK).await;
    world.stores[0].inject(StoreFault::WriteFails(Reason::StoreFull));
    tokio::time::sleep(Duration::from_secs(1000)).await;
    let object = world.stores[0].calls().into_iter().find_map(|call| match call {
        StoreCall::Open(object) => Some(object),
        _ => None,
    });
    let reads = world.stores[0].calls().iter().filter(|call| matches!(call, StoreCall::Read(..))).count();
    let left = world.stores[0].kept(&object.unwrap()).await.unwrap();
    assert_eq!((left, reads), (0, 0), "bytes that are left, times that they were read anew");
}
