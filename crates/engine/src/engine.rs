use std::{
    collections::{BTreeMap, BTreeSet},
    num::{NonZeroU64, NonZeroUsize},
    sync::{Arc, Mutex, atomic::AtomicU64},
    time::Duration,
};

use mimeo_core::{
    Image, Limits, Reason, Record, Result, StoreName, TimeZone, Timestamp,
    plan::{self, Conditions, Observation, Plan, Policy, Sight},
    ports::{Clock, Events, Ledger, Registry, Store, Undone},
};
use tokio::{
    sync::{Notify, RwLock, Semaphore, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    adopt,
    ask::Asked,
    breaker::Breakers,
    gate::Gate,
    guard::{self, Guard},
    health::Health,
    leftovers::Leftovers,
    meter::Meter,
    names::Naming,
    note::Doubts,
    orders::{self, Orders},
    pace::Paces,
    places::Places,
    progress::Board,
    recent::{self, Recent},
    room::Room,
    sabotage::{self, Bug},
    scrub::Scrubs,
    serve,
    steady::Steady,
    turn::Turns,
};

/// Copies to one store that may go on by themselves, slower than the rest: each holds a connection to the source.
const SLOW_COPIES: usize = 16;
/// Copies that may be tried at a time to a store whose last one failed. A store that hangs costs the others no more than
/// so many transfers and turns.
const TRIALS: usize = 2;
/// Images that may wait for one store's place while they hold a turn; further ones are put off.
const WAITING: usize = 32;
/// Copies of one store that are read back at a time.
const PROOFS: usize = 4;
/// Images whose locations are arranged at the same time: when a store goes down it may be thousands at once.
const ARRANGED: usize = 8;

/// The world, as the engine is given it.
pub struct Parts {
    pub registry: Arc<dyn Registry>,
    pub ledger: Arc<dyn Ledger>,
    pub clock: Arc<dyn Clock>,
    /// In the operator's order.
    pub stores: Vec<StorePart>,
}

pub struct StorePart {
    pub store: Arc<dyn Store>,
    /// How long it may move no byte before the copy counts as stalled.
    pub timeout: Duration,
    /// Glance's own id of the store, where its locations are to name it.
    pub backend: Option<String>,
}

#[derive(Debug)]
pub struct Settings {
    pub policy: Policy,
    /// What they are at the start; see [`Engine::change_limits`].
    pub limits: Limits,
    /// In which the limits' hours are meant.
    pub time_zone: TimeZone,
    /// How long the image service may give no byte of an image before the read is tried anew.
    pub source_timeout: Duration,
    pub scan_interval: Duration,
    pub full_scan_interval: Duration,
    pub gc: GcSettings,
    pub scrub: ScrubSettings,
    /// Only plan and report.
    pub observe: bool,
}

/// How registered copies are read again.
#[derive(Debug, Clone, Copy)]
pub struct ScrubSettings {
    /// Each within this time; `None`: only when somebody asks.
    pub period: Option<Duration>,
    /// Bytes per second at each store.
    pub bandwidth: Option<NonZeroU64>,
}

#[derive(Debug, Clone, Copy)]
pub struct GcSettings {
    pub interval: Duration,
    /// From the end of an image to the removal of its copies.
    pub grace: Duration,
    /// More images than this, or more than `max_percent` of all, wait for an operator.
    pub max_images: u64,
    pub max_percent: u64,
}

/// How much may go on at one store at a time. No gate is shared by two stores: what hangs at one holds up no other.
pub(crate) struct Gates {
    /// As many as its limits allow.
    pub(crate) copies: Arc<Gate>,
    /// Images that are read for this store alone.
    pub(crate) alone: Arc<Gate>,
    /// Images that wait for one of `copies`, or of `alone`: each holds a turn.
    pub(crate) waiting: Arc<Semaphore>,
    pub(crate) slow: Arc<Semaphore>,
    pub(crate) trials: Arc<Semaphore>,
    pub(crate) proofs: Semaphore,
    pub(crate) room: Room,
}

impl Gates {
    fn new() -> Self {
        Self {
            copies: Arc::default(),
            alone: Arc::default(),
            waiting: Arc::new(Semaphore::new(WAITING)),
            slow: Arc::new(Semaphore::new(SLOW_COPIES)),
            trials: Arc::new(Semaphore::new(TRIALS)),
            proofs: Semaphore::new(PROOFS),
            room: Room::default(),
        }
    }
}

/// Keeps every image where the rules want it. One per ledger.
pub struct Engine {
    pub(crate) registry: Arc<dyn Registry>,
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) stores: BTreeMap<StoreName, StorePart>,
    pub(crate) settings: Settings,
    pub(crate) limits: watch::Sender<Limits>,
    /// One for each image that may be read at the same time.
    pub(crate) places: Arc<Places>,
    pub(crate) paces: Arc<Paces>,
    gates: BTreeMap<StoreName, Gates>,
    pub(crate) board: Board,
    pub(crate) recent: Recent,
    pub(crate) asked: Asked,
    pub(crate) orders: Orders,
    pub(crate) guard: Guard,
    pub(crate) health: Health,
    pub(crate) meter: Meter,
    pub(crate) doubts: Doubts,
    pub(crate) breakers: Breakers,
    pub(crate) scrubs: Arc<Scrubs>,
    pub(crate) arranged: Semaphore,
    pub(crate) naming: Naming,
    pub(crate) leftovers: Leftovers,
    pub(crate) steady: Steady,
    /// One question that goes through all of Glance's images is answered at a time, and one through the whole ledger.
    pub(crate) questions: Semaphore,
    pub(crate) lists: Semaphore,
    /// Held to read from the time that a look gives to what it concludes until that is in the ledger.
    pub(crate) concluding: RwLock<()>,
    /// How often an image of which nothing is known could not be seen while the token sees less than it should. The next
    /// scan that sees everything is a full one.
    pub(crate) missed: AtomicU64,
    /// The highest number that was given to an attempt.
    pub(crate) last_attempt: Mutex<u64>,
    /// Rung when an image was marked dirty.
    pub(crate) wake: Notify,
    /// Rung when an operator let the held deletions through.
    pub(crate) sweep: Notify,
    /// The images at work now.
    pub(crate) turns: Turns,
}

impl Engine {
    pub fn new(parts: Parts, settings: Settings) -> Arc<Self> {
        let stores: BTreeMap<StoreName, StorePart> =
            parts.stores.into_iter().map(|part| (part.store.name().clone(), part)).collect();
        let paces = Arc::new(Paces::new(stores.keys(), settings.scrub.bandwidth));
        let breakers = Breakers::new(stores.keys());
        let steady = Steady::new(parts.clock.now());
        let gates = stores.keys().map(|name| (name.clone(), Gates::new())).collect();
        let engine = Self {
            registry: parts.registry,
            ledger: parts.ledger,
            clock: parts.clock,
            stores,
            limits: watch::Sender::new(settings.limits.clone()),
            places: Arc::default(),
            paces,
            gates,
            settings,
            board: Board::default(),
            recent: Recent::default(),
            asked: Asked::default(),
            orders: Orders::default(),
            guard: Guard::default(),
            health: Health::default(),
            meter: Meter::default(),
            doubts: Doubts::default(),
            breakers,
            scrubs: Arc::default(),
            arranged: Semaphore::new(ARRANGED),
            naming: Naming::default(),
            leftovers: Leftovers::default(),
            steady,
            questions: Semaphore::new(1),
            lists: Semaphore::new(1),
            concluding: RwLock::default(),
            missed: AtomicU64::default(),
            last_attempt: Mutex::default(),
            wake: Notify::new(),
            sweep: Notify::new(),
            turns: Turns::default(),
        };
        engine.put_in_force(&engine.limits());
        Arc::new(engine)
    }

    /// Takes up what was said and counted before this process began.
    pub async fn recall(&self) -> Result<()> {
        guard::recall(self).await?;
        orders::recall(self).await?;
        self.meter.begin(self.ledger.last_told().await?).await;
        Ok(())
    }

    /// Runs until `stop`; then lets nothing half-done unrecorded.
    pub async fn serve(self: &Arc<Self>, events: Option<Box<dyn Events>>, stop: CancellationToken) -> Result<()> {
        serve::run(self, events, stop).await
    }

    /// The limits in force.
    pub fn limits(&self) -> Limits {
        self.limits.borrow().clone()
    }

    /// Makes other limits of those in force, also for what runs now, and gives them; or leaves them as they are. No other
    /// change comes in between. Names of stores that are not enabled have no effect.
    pub fn change_limits<E>(&self, change: impl FnOnce(&Limits) -> Result<Limits, E>) -> Result<Limits, E> {
        let mut changed = None;
        self.limits.send_if_modified(|limits| {
            let result = change(limits);
            if let Ok(new) = &result {
                self.put_in_force(new);
                limits.clone_from(new);
            }
            changed.insert(result).is_ok()
        });
        changed.unwrap_or_else(|| Ok(self.limits()))
    }

    fn put_in_force(&self, limits: &Limits) {
        self.places.set(limits);
        self.paces.set(limits);
        for (store, gates) in &self.gates {
            let own = limits.stores.get(store).and_then(|own| own.concurrency);
            gates.copies.set(own.map(NonZeroUsize::get));
            // What is slow at one store leaves places for the others.
            let places = limits.concurrency.get();
            let most = (places - places.div_ceil(4)).max(1);
            gates.alone.set((self.gates.len() > 1).then_some(most));
        }
    }

    /// What planning depends on beside the image itself.
    pub(crate) fn conditions(&self, now: Timestamp) -> Conditions {
        let limits = self.limits.borrow();
        let opens = |store: &StoreName| limits.opens(store, now, &self.settings.time_zone);
        let stores = self.settings.policy.stores.iter().map(|facts| &facts.name);
        let closed = stores.filter_map(|store| Some((store.clone(), opens(store)?))).collect();
        let mut conditions = Conditions {
            closed,
            takes: self.takes(),
            unwanted_before: self.guard.unwanted_before(now, self.settings.gc.grace),
            scrub: self.settings.scrub.period,
            scrubbing: self.scrubs.full(),
            ..self.health.rates()
        };
        self.orders.add_to(&mut conditions);
        self.breakers.tell(&mut conditions);
        for (store, rate) in &mut conditions.read_rates {
            let limit = limits.stores.get(store).and_then(|own| own.bandwidth);
            *rate = limit.map_or(*rate, |limit| limit.get().min(*rate));
        }
        conditions
    }

    /// Which stores take objects by themselves, and from which.
    fn takes(&self) -> BTreeMap<StoreName, BTreeSet<StoreName>> {
        let areas = self.stores.iter().filter_map(|(name, part)| Some((name, part.store.area()?)));
        let areas: Vec<(&StoreName, String)> = areas.collect();
        let givers = |(name, part): (&StoreName, &StorePart)| {
            let near = areas.iter().filter(|(giver, area)| *giver != name && part.store.takes_from(area));
            let givers: BTreeSet<StoreName> = near.map(|(giver, _)| (*giver).clone()).collect();
            (!givers.is_empty()).then(|| (name.clone(), givers))
        };
        self.stores.iter().filter_map(givers).collect()
    }

    /// What is to be done about the image as it is seen now.
    pub(crate) fn plan_for(&self, record: &Record, sight: &Sight, running: &BTreeSet<StoreName>) -> Plan {
        let now = self.clock.now();
        let (conditions, elsewhere) = (self.conditions(now), self.elsewhere(record));
        let shown = match sight {
            Sight::Present(image) => adopt::shown(self, image),
            _ => Vec::new(),
        };
        let (shown, elsewhere, conditions) = (&shown[..], &elsewhere, &conditions);
        let seen = Observation { now, record, sight, running, shown, elsewhere, conditions };
        plan::plan(&self.settings.policy, &seen)
    }

    /// The moment on tokio's clock, for waiting.
    pub(crate) fn instant(&self, at: Option<Timestamp>) -> Option<Instant> {
        let wait = at?.duration_since(self.clock.now()).try_into().unwrap_or_default();
        Instant::now().checked_add(wait)
    }

    pub(crate) fn gates(&self, store: &StoreName) -> &Gates {
        // Made from the same names as `stores`, which every caller has looked the store up in.
        &self.gates[store]
    }

    /// Restores what a PATCH of ours undid for others, as far as that can be known; the rest is told.
    pub(crate) async fn put_back_undone(&self, image: &Image) {
        let findings = self.recent.findings(image);
        for report in &findings.reports {
            tracing::warn!(image = %image.id, lost = report, "another's change was undone while locations were registered; \
                please make it again");
        }
        if findings.undone == Undone::default() || sabotage::is(Bug::UndoneStaysUndone) {
            return;
        }
        let what = recent::describe(&findings.undone);
        let window = self.recent.open(image);
        let result = self.registry.put_back(&image.id, &findings.undone).await;
        self.recent.close(&window, &result);
        if result.as_ref().err().is_none_or(|error| error.reason == Reason::ImageServiceUnreachable) {
            self.recent.has_put_back(&image.id, &findings.undone);
        }
        match result {
            Ok(()) => tracing::warn!(image = %image.id, what, "put back what registering locations had undone"),
            Err(error) => {
                tracing::error!(image = %image.id, what, error = error.chain(), "could not put back what registering \
                    locations had undone; please set it again");
            }
        }
    }
}
