//! An engine over fakes, in virtual time.

use std::{
    collections::BTreeMap,
    num::{NonZeroU64, NonZeroUsize},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use mimeo_core::{
    Backoff, CHUNK, Hours, Image, ImageId, ImageState, Limits, TimeZone, Timestamp,
    plan::Policy,
    policy::{RuleSpec, Rules, StoreFacts},
    ports::{Clock, EventKind, ImageEvent, Ledger, Registry, Store},
};
use mimeo_engine::{Engine, GcSettings, Parts, ScrubSettings, Settings, StorePart, status::ImageReport};
use mimeo_testkit::{EventSender, FakeEvents, FakeRegistry, FakeStore, MemoryLedger, sample};
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

/// Images read at the same time.
const CONCURRENCY: NonZeroUsize = NonZeroUsize::new(4).unwrap();

/// Follows tokio's clock, which stands still but for timers. As a real one it never tells the same time twice.
pub(crate) struct VirtualClock {
    began: Instant,
    asked: AtomicU64,
}

impl VirtualClock {
    pub(crate) fn start() -> Self {
        Self { began: Instant::now(), asked: AtomicU64::new(0) }
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        let ticks = Duration::from_nanos(self.asked.fetch_add(1, Ordering::Relaxed));
        sample::time(0).saturating_add(self.began.elapsed() + ticks).unwrap()
    }
}

pub(crate) struct World {
    pub(crate) registry: FakeRegistry,
    pub(crate) ledger: Arc<MemoryLedger>,
    pub(crate) stores: Vec<FakeStore>,
    pub(crate) events: EventSender,
    pub(crate) engine: Arc<Engine>,
    clock: Arc<dyn Clock>,
    pub(crate) options: Options,
    serving: Option<(JoinHandle<()>, CancellationToken)>,
}

#[derive(Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
pub(crate) struct Options {
    pub(crate) stores: usize,
    pub(crate) observe: bool,
    pub(crate) max_deletes: u64,
    /// Whether the stores go on with what they have of an object.
    pub(crate) resumable: bool,
    /// Whether the stores can be listed.
    pub(crate) listable: bool,
    /// Whether Glance can write the stores too, and removes bits with their locations.
    pub(crate) reached: bool,
    /// Stores that only Glance can write, by their ids there; here they are `glance1` and so on.
    pub(crate) glances: &'static [&'static str],
    pub(crate) scrub: Option<Duration>,
    pub(crate) scrub_bandwidth: Option<NonZeroU64>,
    /// What images are cut into for resuming.
    pub(crate) chunk: u64,
    /// Bytes of one image in memory.
    pub(crate) window: NonZeroUsize,
    /// None: every image to every store.
    pub(crate) rules: &'static [Rule],
}

/// One rule for every image: its stores, and how many of them.
pub(crate) type Rule = (&'static [&'static str], Option<usize>);

impl Default for Options {
    fn default() -> Self {
        Self {
            stores: 3,
            observe: false,
            max_deletes: 10,
            resumable: false,
            listable: false,
            reached: false,
            glances: &[],
            scrub: None,
            scrub_bandwidth: None,
            chunk: CHUNK,
            window: NonZeroUsize::new(64 << 10).unwrap(),
            rules: &[],
        }
    }
}

impl World {
    pub(crate) fn start(options: Options) -> Self {
        let registry = FakeRegistry::default();
        registry.set_sees_all(true);
        let stores: Vec<FakeStore> = (0..options.stores).map(|n| store(n, options)).collect();
        stores.iter().filter(|_| options.reached).for_each(|store| registry.reaches(store));
        let ledger = Arc::new(MemoryLedger::default());
        let clock: Arc<dyn Clock> = Arc::new(VirtualClock::start());
        let engine = over_fakes(&registry, &ledger, &stores, &clock, options);
        let (events, _) = FakeEvents::new();
        let mut world = Self { registry, ledger, stores, events, engine, clock, options, serving: None };
        world.serve();
        world
    }

    /// A new engine on the same ledger and stores, as after a restart.
    pub(crate) fn serve(&mut self) {
        let (events, source) = FakeEvents::new();
        self.events = events;
        self.engine = over_fakes(&self.registry, &self.ledger, &self.stores, &self.clock, self.options);
        let stop = CancellationToken::new();
        let (engine, token) = (Arc::clone(&self.engine), stop.clone());
        #[allow(clippy::disallowed_methods)]
        let task = tokio::task::spawn(async move {
            engine.serve(Some(Box::new(source)), token).await.unwrap();
        });
        self.serving = Some((task, stop));
    }

    pub(crate) async fn stop(&mut self) {
        if let Some((task, stop)) = self.serving.take() {
            stop.cancel();
            task.await.unwrap();
        }
    }

    /// With other options, as after a change of the configuration.
    pub(crate) async fn restart(&mut self, change: impl FnOnce(&mut Self)) {
        self.stop().await;
        change(self);
        self.serve();
    }

    /// As SIGKILL: nothing is recorded any more from this moment on. (Tasks within tasks take a few turns to end.)
    pub(crate) async fn kill(&mut self) {
        if let Some((task, _)) = self.serving.take() {
            self.ledger.set_down(true);
            task.abort();
            let _ = task.await;
            tokio::time::sleep(Duration::from_millis(10)).await;
            self.ledger.set_down(false);
        }
    }

    /// An active image with its bits; its event is sent.
    pub(crate) fn create(&self, image: Image) -> ImageId {
        let bits = sample::bits(usize::try_from(image.size.unwrap()).unwrap());
        let id = image.id.clone();
        self.registry.insert(image, bits);
        self.changed(&id);
        id
    }

    pub(crate) fn changed(&self, id: &ImageId) {
        let snapshot = self.registry.image(id).map(|image| image.snapshot());
        self.events.send(ImageEvent { image: id.clone(), kind: EventKind::Changed, snapshot });
    }

    pub(crate) fn delete(&self, id: &ImageId) {
        self.registry.remove(id);
        self.events.send(ImageEvent { image: id.clone(), kind: EventKind::Deleted, snapshot: None });
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) async fn report(&self, id: &ImageId) -> Option<ImageReport> {
        self.engine.find(id.as_str()).await.unwrap().pop()
    }

    pub(crate) async fn state(&self, id: &ImageId) -> Option<ImageState> {
        self.report(id).await.map(|report| report.state)
    }

    pub(crate) async fn registered(&self, id: &ImageId) {
        self.until("the image is registered", async || self.state(id).await == Some(ImageState::Registered)).await;
    }

    /// Waits in virtual time; a condition that never comes true is a failed test, not a hanging one.
    pub(crate) async fn until(&self, what: &str, condition: impl AsyncFn() -> bool) {
        for _ in 0..100_000 {
            if condition().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("it never came true that {what}");
    }

    /// Lets go what is on the list of what is to go.
    pub(crate) async fn confirm(&self) {
        let seen = self.engine.gc(None, 1000).await.unwrap().as_of;
        self.engine.confirm_gc(seen).await.unwrap().unwrap();
    }

    /// How many objects all stores hold.
    pub(crate) fn objects(&self) -> usize {
        self.stores.iter().map(|store| store.objects().len()).sum()
    }

    /// How many objects of the image the ledger knows.
    pub(crate) async fn ledger_objects(&self, id: &ImageId) -> usize {
        self.ledger.load(id).await.unwrap().map_or(0, |record| record.objects.len())
    }

    /// The location URLs that the image shows, of this world's stores.
    pub(crate) fn locations(&self, id: &ImageId) -> Vec<String> {
        let image = self.registry.image(id).unwrap();
        image.locations.into_iter().map(|location| location.url).collect()
    }

    /// Every location leads to the image's own bits.
    pub(crate) fn assert_good_copies(&self, id: &ImageId, expected: usize) {
        let image = self.registry.image(id).unwrap();
        let bits = sample::bits(usize::try_from(image.size.unwrap()).unwrap());
        let mut good = 0;
        for store in &self.stores {
            for object in store.objects().into_iter().filter(|object| object.image() == *id) {
                if image.has_location(&store.location(&object)) {
                    assert_eq!(store.bits(&object).unwrap(), bits, "{object} at {}", store.name());
                    good += 1;
                }
            }
        }
        assert_eq!((good, image.locations.len()), (expected, expected));
    }
}

fn rule((stores, copies): &Rule) -> RuleSpec {
    let stores = stores.iter().map(|store| store.parse().unwrap()).collect();
    RuleSpec { name: "rule".into(), when: None, stores, copies: *copies }
}

fn store(number: usize, options: Options) -> FakeStore {
    let store = FakeStore::new(&format!("store{number}"));
    let store = if options.resumable { store.resumable() } else { store };
    let store = if options.reached { store.removed_with_its_locations() } else { store };
    if options.listable { store.listable() } else { store }
}

fn over_fakes(
    registry: &FakeRegistry,
    ledger: &Arc<MemoryLedger>,
    stores: &[FakeStore],
    clock: &Arc<dyn Clock>,
    options: Options,
) -> Arc<Engine> {
    let stores = stores.iter().map(|store| Arc::new(store.clone()) as Arc<dyn Store>);
    engine(Arc::new(registry.clone()), Arc::clone(ledger), stores.collect(), Arc::clone(clock), options)
}

/// An engine over these parts, as far as the options are not about fakes.
pub(crate) fn engine(
    registry: Arc<dyn Registry>,
    ledger: Arc<MemoryLedger>,
    stores: Vec<Arc<dyn Store>>,
    clock: Arc<dyn Clock>,
    options: Options,
) -> Arc<Engine> {
    let glance = |(number, backend): (usize, &&str)| {
        let name = format!("glance{}", number + 1).parse().unwrap();
        StoreFacts { backend: Some((*backend).to_owned()), ..StoreFacts::new(name) }
    };
    let facts = stores.iter().map(|store| StoreFacts::new(store.name().clone()));
    let facts = facts.chain(options.glances.iter().enumerate().map(glance));
    let policy = Policy {
        rules: Rules::compile(options.rules.iter().map(rule).collect()).unwrap(),
        stores: facts.collect(),
        backoff: Backoff { first: Duration::from_secs(1), max: Duration::from_secs(10) },
        chunk: options.chunk,
    };
    let timeout = Duration::from_secs(5);
    let part = |store| StorePart { store, timeout, backend: None };
    let parts = Parts { registry, ledger, clock, stores: stores.into_iter().map(part).collect() };
    let settings = Settings {
        policy,
        limits: Limits {
            concurrency: CONCURRENCY,
            memory: CONCURRENCY.checked_mul(options.window).unwrap(),
            bandwidth: None,
            hours: Hours::default(),
            stores: BTreeMap::new(),
        },
        time_zone: TimeZone::UTC,
        source_timeout: Duration::from_secs(5),
        scan_interval: Duration::from_mins(1),
        full_scan_interval: Duration::from_mins(10),
        gc: GcSettings {
            interval: Duration::from_secs(1),
            grace: Duration::from_secs(100),
            max_images: options.max_deletes,
            max_percent: 10,
        },
        scrub: ScrubSettings { period: options.scrub, bandwidth: options.scrub_bandwidth },
        observe: options.observe,
    };
    Engine::new(parts, settings)
}
