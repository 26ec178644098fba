//! The world around the engine: what is true of it, how it fares, and one engine's life in it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::FutureExt;
use mimeo_core::{
    Error, Image, ImageId, ImageStatus, ObjectName, ObjectState, Reason, Result, Timestamp, Visibility, bare,
    ports::{Clock, ImageEvent, Store},
};
use mimeo_testkit::{EventSender, FakeRegistry, FakeStore, MemoryLedger, sample};
use tokio::{sync::Notify, task::JoinSet, time::Instant};

use crate::{
    dice::Dice,
    promises::{self, Broken, Step},
    setup::Setup,
    weather::{Fate, Part, Weather},
    witness::{Place, Witness},
};

pub(crate) struct World {
    pub(crate) registry: FakeRegistry,
    pub(crate) ledger: MemoryLedger,
    pub(crate) stores: Vec<FakeStore>,
    pub(crate) setup: Setup,
    /// Bytes that were handed to the engine and that it still holds.
    pub(crate) held: Arc<AtomicUsize>,
    /// Streams and sinks that the engine has open.
    pub(crate) open: Arc<AtomicUsize>,
    /// Rung when an engine has died, or a promise was broken.
    pub(crate) bell: Notify,
    began: Instant,
    state: Mutex<State>,
    /// What goes on without the engine: late answers, and requests that outlive whoever sent them.
    ghosts: Mutex<JoinSet<()>>,
}

pub(crate) struct State {
    pub(crate) dice: Dice,
    pub(crate) weather: Weather,
    pub(crate) witness: Witness,
    /// The images as they truly are, and were.
    pub(crate) truths: BTreeMap<ImageId, Truth>,
    /// Events that no engine has acknowledged yet, in order.
    pub(crate) unacknowledged: Vec<Notice>,
    pub(crate) sender: Option<EventSender>,
    /// Changes that a PATCH under way is about to undo.
    pub(crate) watched: Vec<Watched>,
    /// How far the wall clock is off, in seconds.
    pub(crate) jumped: i64,
    pub(crate) steps: u64,
    pub(crate) broken: Option<Broken>,
    trace: Option<Vec<String>>,
}

pub(crate) struct Truth {
    pub(crate) bits: Bytes,
    /// When anything of it that counts for its copies changed last.
    pub(crate) changed: Instant,
    /// Its end, if it was deleted.
    pub(crate) gone: bool,
}

/// An image that was made stricter while a PATCH was under way, of which the engine was told at once.
pub(crate) struct Watched {
    pub(crate) image: ImageId,
    pub(crate) since: Instant,
    pub(crate) is: Stricter,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stricter {
    Private,
    Deactivated,
    Protected,
}

impl Stricter {
    pub(crate) fn holds(self, image: &Image) -> bool {
        match self {
            Self::Private => image.visibility == Visibility::Private,
            Self::Deactivated => image.status == ImageStatus::Deactivated,
            Self::Protected => image.protected,
        }
    }
}

pub(crate) struct Notice {
    pub(crate) event: ImageEvent,
    /// The step at which this engine was given it.
    pub(crate) delivered: Option<u64>,
}

impl World {
    pub(crate) fn new(setup: Setup, dice: Dice, is_told: bool) -> Arc<Self> {
        let mut stores: Vec<FakeStore> = Vec::new();
        for store in &setup.stores {
            let built = store.build(&stores);
            stores.push(built);
        }
        let state = State {
            dice,
            weather: Weather::fair(stores.len()),
            witness: Witness::default(),
            truths: BTreeMap::new(),
            unacknowledged: Vec::new(),
            sender: None,
            watched: Vec::new(),
            jumped: 0,
            steps: 0,
            broken: None,
            trace: is_told.then(Vec::new),
        };
        let registry = FakeRegistry::default();
        let reached = stores.iter().zip(&setup.stores).filter(|(_, setup)| setup.reached);
        reached.for_each(|(store, _)| registry.reaches(store));
        Arc::new(Self {
            registry,
            ledger: MemoryLedger::default(),
            stores,
            setup,
            held: Arc::default(),
            open: Arc::default(),
            bell: Notify::new(),
            began: Instant::now(),
            state: Mutex::new(state),
            ghosts: Mutex::new(JoinSet::new()),
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn tell(&self, line: impl FnOnce() -> String) {
        let mut state = self.lock();
        if let Some(trace) = &mut state.trace {
            let line = format!("{:>10.3} {}", self.began.elapsed().as_secs_f64(), line());
            trace.push(line);
        }
    }

    pub(crate) fn take_trace(&self) -> Vec<String> {
        self.lock().trace.take().unwrap_or_default()
    }

    /// One thing has happened: every promise is checked.
    pub(crate) fn step(&self, step: &Step<'_>) {
        let broken = promises::check(self, step);
        let mut state = self.lock();
        state.steps += 1;
        if let Some(broken) = broken
            && state.broken.is_none()
        {
            state.broken = Some(broken);
            self.bell.notify_one();
        }
    }

    pub(crate) fn store_location(&self, at: usize, object: &ObjectName) -> String {
        let plain = self.stores[at].location(object);
        match self.setup.stores[at].secret {
            true => plain.replacen("://", &format!("://mimeo:{}@", crate::setup::SECRET), 1),
            false => plain,
        }
    }

    /// The store and the object that a URL leads to.
    pub(crate) fn object_at(&self, url: &str) -> Option<(usize, ObjectName)> {
        let bare = bare(url);
        let (_, rest) = bare.split_once("://")?;
        self.stores.iter().enumerate().find_map(|(at, store)| {
            let object = rest.strip_prefix(&format!("{}.example/", store.name()))?;
            Some((at, object.parse().ok()?))
        })
    }

    pub(crate) fn store_name(&self, at: usize) -> &str {
        self.stores[at].name().as_str()
    }

    pub(crate) fn state_of(&self, place: &Place) -> Option<ObjectState> {
        self.ledger.object_state(self.stores[place.0].name(), &place.1)
    }

    /// Whether the ledger has a row of the object.
    pub(crate) fn is_known(&self, place: &Place) -> bool {
        self.state_of(place).is_some()
    }

    /// The active images with bits that nobody has touched for so long.
    pub(crate) fn settled_images(&self, long: Duration) -> Vec<Image> {
        let state = self.lock();
        let settled = state.truths.iter().filter(|(_, truth)| !truth.gone && truth.changed.elapsed() >= long);
        let images = settled.filter_map(|(id, _)| self.registry.image(id));
        images.filter(|image| image.status == ImageStatus::Active && !image.importing && image.size > Some(0)).collect()
    }

    /// The image, unless it was deleted.
    pub(crate) fn image(&self, id: &ImageId) -> Option<Image> {
        self.registry.image(id)
    }

    pub(crate) fn wall(&self) -> Timestamp {
        let jumped = self.lock().jumped;
        let elapsed = sample::time(0).saturating_add(self.began.elapsed()).unwrap();
        elapsed.saturating_add(jiff_seconds(jumped)).unwrap()
    }

    /// Goes on by itself, whatever becomes of the engine.
    pub(crate) fn later(&self, wait: Duration, work: impl Future<Output = ()> + Send + 'static) {
        let mut ghosts = self.ghosts.lock().unwrap_or_else(PoisonError::into_inner);
        while ghosts.try_join_next().is_some() {}
        ghosts.spawn(async move {
            tokio::time::sleep(wait).await;
            work.await;
        });
    }

    /// Whether a request that was broken off has its effect all the same, and when: within so many milliseconds.
    pub(crate) fn ghost(&self, within: u64) -> Option<Duration> {
        let mut state = self.lock();
        state.dice.falls(self.setup.temper.ghosts).then(|| state.dice.millis(1..within))
    }

    /// Nothing goes on without the engine any more.
    pub(crate) fn has_no_ghosts(&self) -> bool {
        let mut ghosts = self.ghosts.lock().unwrap_or_else(PoisonError::into_inner);
        while ghosts.try_join_next().is_some() {}
        ghosts.is_empty()
    }

    /// Where each object of Mimeo's is named is read from the images as they are now.
    pub(crate) fn locations_changed(&self) {
        let images: Vec<Image> = self.lock().truths.keys().filter_map(|id| self.registry.image(id)).collect();
        let urls = images.iter().flat_map(|image| image.locations.iter().map(|location| (&image.id, &location.url)));
        let named = urls.filter_map(|(id, url)| Some((self.object_at(url)?, id.clone())));
        self.lock().witness.named(named.collect());
    }

    /// Sends an event, or loses it, or sends it late or twice. True: it was sent at once.
    pub(crate) fn notify(self: &Arc<Self>, event: ImageEvent) -> bool {
        let (lost, late, twice) = {
            let mut state = self.lock();
            let temper = self.setup.temper;
            (
                state.dice.falls(temper.lost_events),
                state.dice.falls(temper.late_events).then(|| state.dice.millis(1..8000)),
                state.dice.falls(temper.late_events),
            )
        };
        self.tell(|| format!("event {:?} of {} (lost {lost}, late {late:?}, twice {twice})", event.kind, event.image));
        if lost {
            return false;
        }
        if twice {
            self.deliver(event.clone());
        }
        match late {
            None => self.deliver(event),
            Some(wait) => {
                let world = Arc::clone(self);
                self.later(wait, async move { world.deliver(event) });
            }
        }
        late.is_none()
    }

    fn deliver(&self, event: ImageEvent) {
        let mut state = self.lock();
        if let Some(sender) = &state.sender {
            sender.send(event.clone());
        }
        state.unacknowledged.push(Notice { event, delivered: None });
    }
}

fn jiff_seconds(seconds: i64) -> std::time::Duration {
    // Jumps back are made by starting ahead: the wall clock never comes before the world's own beginning.
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// One engine's life. What it calls when it is dead never happens.
pub(crate) struct Life {
    pub(crate) world: Arc<World>,
    dead: AtomicBool,
}

impl Life {
    pub(crate) fn new(world: &Arc<World>) -> Arc<Self> {
        Arc::new(Self { world: Arc::clone(world), dead: AtomicBool::new(false) })
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    /// From now on nothing that it does has an effect.
    pub(crate) fn end(&self) {
        self.dead.store(true, Ordering::SeqCst);
        self.world.ledger.set_down(true);
    }

    /// The power goes out.
    pub(crate) async fn die(&self) -> ! {
        self.world.tell(|| "CRASH".into());
        self.end();
        self.world.bell.notify_one();
        std::future::pending().await
    }

    pub(crate) async fn alive(&self) {
        if self.is_dead() {
            std::future::pending::<()>().await;
        }
    }

    /// One call of the engine's: what the weather makes of it, and what it does if it gets that far.
    pub(crate) async fn call<T>(
        &self,
        part: Part,
        name: impl FnOnce() -> String,
        act: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let fate = self.begin(part).await;
        match fate {
            Fate::Fails(reason) => {
                self.world.tell(|| format!("{}: fails, {}", name(), reason.code()));
                return Err(failure(reason));
            }
            Fate::DiesBefore => {
                self.world.tell(|| format!("{}: not begun", name()));
                self.die().await;
            }
            _ => {}
        }
        let result = act.await;
        self.alive().await;
        let how = |error: &Error| format!("error {}", error.reason.code());
        self.world.tell(|| format!("{}: {}", name(), result.as_ref().err().map_or("done".into(), how)));
        match fate {
            Fate::DiesAfter => self.die().await,
            Fate::LosesAnswer(reason) if result.is_ok() => {
                self.world.tell(|| "  and the answer is lost".into());
                Err(failure(reason))
            }
            _ => result,
        }
    }

    /// Waits as long as the weather has it, and says how the call is to go.
    pub(crate) async fn begin(&self, part: Part) -> Fate {
        self.alive().await;
        let (wait, fate) = {
            let mut state = self.world.lock();
            let State { weather, dice, .. } = &mut *state;
            weather.fate(part, dice, self.world.setup.temper)
        };
        match wait {
            Some(wait) if wait.is_zero() => tokio::task::yield_now().await,
            Some(wait) => tokio::time::sleep(wait).await,
            None => {}
        }
        self.alive().await;
        fate
    }
}

pub(crate) fn failure(reason: Reason) -> Error {
    Error::new(reason, "as the weather has it")
}

pub(crate) struct WallClock(pub(crate) Arc<Life>);

impl Clock for WallClock {
    fn now(&self) -> Timestamp {
        self.0.world.wall()
    }
}

/// The result of a call that never waits.
pub(crate) fn at_once<T>(work: impl Future<Output = T>) -> T {
    work.now_or_never().expect("an answer at once")
}
