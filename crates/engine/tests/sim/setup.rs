//! What a seed makes of the world and of Mimeo's configuration.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroUsize,
    sync::Arc,
    time::Duration,
};

use mimeo_core::{
    Backoff, Hours, Image, Limits, TimeZone, Visibility,
    plan::Policy,
    policy::{RuleSpec, Rules, StoreFacts},
};
use mimeo_engine::{Engine, GcSettings, Parts, ScrubSettings, Settings, StorePart};
use mimeo_testkit::FakeStore;

use crate::{
    dice::Dice,
    ports::{ledger::SimLedger, registry::SimRegistry, store::SimStore},
    world::{Life, WallClock},
};

/// The password that some stores' locations bear.
pub(crate) const SECRET: &str = "hunter2";
/// Glance's own id of the store that only Glance can write.
pub(crate) const BACKEND: &str = "ceph";

/// Images are a few of these long.
pub(crate) const CHUNK: u64 = 1024;
/// Pieces in which bits are read.
pub(crate) const PIECE: usize = 512;
pub(crate) const CONCURRENCY: usize = 2;
pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);
pub(crate) const GRACE: Duration = Duration::from_mins(1);
/// Within this a copy that went bad is found.
pub(crate) const PERIOD: Duration = Duration::from_mins(5);
/// More images than this are not removed within an hour without an operator.
pub(crate) const MAX_IMAGES: u64 = 5;
const INTERVAL: Duration = Duration::from_secs(10);

/// How often, in 10,000 calls or events, something happens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Temper {
    pub(crate) crashes: u64,
    /// Other work comes in between.
    pub(crate) yields: u64,
    pub(crate) waits: u64,
    pub(crate) lost_events: u64,
    pub(crate) late_events: u64,
    /// A PATCH that takes its time.
    pub(crate) patch_windows: u64,
    /// Requests that were broken off and have their effect later.
    pub(crate) ghosts: u64,
}

#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
pub(crate) struct Setup {
    pub(crate) stores: Vec<StoreSetup>,
    /// Glance has a store of its own.
    pub(crate) glance: bool,
    pub(crate) temper: Temper,
    /// Bytes of all images in memory.
    pub(crate) memory: usize,
    /// There are many images from the beginning.
    pub(crate) crowd: bool,
    /// The wall clock may jump.
    pub(crate) jumps: bool,
    /// Copies are read again, and bits may rot.
    pub(crate) scrubs: bool,
    /// Stores are drained now and then.
    pub(crate) drains: bool,
    /// The ledger may be lost, or an old one come back.
    pub(crate) loses_ledger: bool,
}

#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "they are what a store can do, each by itself")]
pub(crate) struct StoreSetup {
    name: String,
    resumable: bool,
    sparse: bool,
    pub(crate) listable: bool,
    /// It is told of objects that are much the same, and finds by itself what it has of one that was not closed.
    compares: bool,
    /// It takes objects from the stores before it by itself.
    takes: bool,
    /// Its locations bear a password.
    pub(crate) secret: bool,
    /// Glance can write it too, and removes the bits with a location.
    pub(crate) reached: bool,
}

impl Setup {
    pub(crate) fn roll(dice: &mut Dice) -> Self {
        let store = |number: u64, dice: &mut Dice| StoreSetup {
            name: format!("store{number}"),
            resumable: dice.falls(4000),
            sparse: dice.falls(2000),
            listable: dice.falls(5000),
            secret: dice.falls(2000),
            reached: dice.falls(3000),
            compares: dice.falls(2000),
            takes: dice.falls(3000),
        };
        let count = dice.of(2..4);
        let stores = (0..count).map(|number| store(number, dice)).collect();
        let temper = Temper {
            crashes: dice.pick(&[0, 0, 15, 40]),
            yields: dice.pick(&[0, 1000, 5000]),
            waits: dice.pick(&[0, 300, 1500]),
            lost_events: dice.pick(&[0, 2000, 10_000]),
            late_events: dice.pick(&[0, 0, 3000]),
            patch_windows: dice.pick(&[0, 3000, 10_000]),
            ghosts: dice.pick(&[0, 9000]),
        };
        let memory = dice.pick(&[CONCURRENCY * 1024, CONCURRENCY * 4096]);
        Self {
            stores,
            glance: dice.falls(1500),
            temper,
            memory,
            crowd: dice.falls(1500),
            jumps: dice.falls(2000),
            scrubs: dice.falls(2500),
            drains: dice.falls(2500),
            loses_ledger: dice.falls(1500),
        }
    }
}

impl StoreSetup {
    /// The store, after the others that are there.
    pub(crate) fn build(&self, others: &[FakeStore]) -> FakeStore {
        let store = FakeStore::new(&self.name);
        let store = if self.resumable { store.resumable() } else { store };
        let store = if self.listable { store.listable() } else { store };
        let store = if self.reached { store.removed_with_its_locations() } else { store };
        let store = if self.sparse { store.sparse() } else { store };
        let store = if self.compares { store.comparing().reopening() } else { store };
        let others = if self.takes { others } else { &[] };
        others.iter().fold(store, FakeStore::taking_from)
    }
}

/// What the operator configured for one engine.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Configuration {
    /// The stores that are enabled, by their numbers.
    pub(crate) enabled: Vec<usize>,
    pub(crate) glance: bool,
    pub(crate) rule: Option<Rule>,
    /// Takes public images only.
    pub(crate) narrow: Option<usize>,
    /// Stores that an operator drains.
    pub(crate) drained: BTreeSet<usize>,
}

/// Any so many of these stores.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rule {
    pub(crate) stores: Vec<usize>,
    pub(crate) copies: Option<usize>,
}

impl Configuration {
    /// Every image everywhere.
    pub(crate) fn plain(setup: &Setup) -> Self {
        Self {
            enabled: (0..setup.stores.len()).collect(),
            glance: setup.glance,
            rule: None,
            narrow: None,
            drained: BTreeSet::new(),
        }
    }

    pub(crate) fn roll(setup: &Setup, dice: &mut Dice) -> Self {
        let mut plain = Self::plain(setup);
        let stores = setup.stores.len();
        if dice.falls(2000) {
            plain.enabled.remove(dice.below(stores));
        }
        if dice.falls(5000) {
            let first = dice.below(stores);
            let some = (0..stores).filter(|at| *at == first || dice.falls(6000)).collect::<Vec<_>>();
            let copies = dice.falls(4000).then(|| 1 + dice.below(some.len()));
            plain.rule = Some(Rule { stores: some, copies });
        }
        if dice.falls(2000) {
            plain.narrow = Some(dice.below(stores));
        }
        plain
    }

    /// Where the image is to be: all of these stores, or so many of them.
    pub(crate) fn wanted(&self, image: &Image) -> (Vec<usize>, Option<usize>) {
        let is_public = image.visibility == Visibility::Public;
        let takes = |at: &&usize| is_public || self.narrow != Some(**at);
        let open = self.enabled.iter().filter(takes).filter(|at| !self.drained.contains(at)).copied();
        match &self.rule {
            None => (open.collect(), None),
            Some(rule) => (open.filter(|at| rule.stores.contains(at)).collect(), rule.copies),
        }
    }

    /// Whether the image is wanted in Glance's own store.
    pub(crate) fn wants_glance(&self) -> bool {
        self.glance && self.rule.is_none()
    }

    /// An engine of this configuration, whose calls go through `life`.
    pub(crate) fn build(&self, life: &Arc<Life>) -> Arc<Engine> {
        let world = &life.world;
        let store =
            |at: &usize| StorePart { store: Arc::new(SimStore::new(life, *at)), timeout: TIMEOUT, backend: None };
        let parts = Parts {
            registry: Arc::new(SimRegistry::new(life)),
            ledger: Arc::new(SimLedger::new(life)),
            clock: Arc::new(WallClock(Arc::clone(life))),
            stores: self.enabled.iter().map(store).collect(),
        };
        let settings = Settings {
            policy: self.policy(&world.setup),
            limits: Limits {
                concurrency: NonZeroUsize::new(CONCURRENCY).unwrap(),
                memory: NonZeroUsize::new(world.setup.memory).unwrap(),
                bandwidth: None,
                hours: Hours::default(),
                stores: BTreeMap::new(),
            },
            time_zone: TimeZone::UTC,
            source_timeout: TIMEOUT,
            scan_interval: Duration::from_mins(1),
            full_scan_interval: Duration::from_mins(5),
            gc: GcSettings { interval: INTERVAL, grace: GRACE, max_images: MAX_IMAGES, max_percent: 100 },
            scrub: ScrubSettings { period: world.setup.scrubs.then_some(PERIOD), bandwidth: None },
            observe: false,
        };
        Engine::new(parts, settings)
    }

    fn policy(&self, setup: &Setup) -> Policy {
        let name = |at: &usize| setup.stores[*at].name.parse().unwrap();
        let facts = |at: &usize| StoreFacts {
            visibility: (self.narrow == Some(*at)).then(|| vec![Visibility::Public]),
            ..StoreFacts::new(name(at))
        };
        let glance = StoreFacts { backend: Some(BACKEND.into()), ..StoreFacts::new("glance".parse().unwrap()) };
        let glance = self.glance.then_some(glance);
        let rule = self.rule.as_ref().map(|rule| RuleSpec {
            name: "rule".into(),
            when: None,
            stores: rule.stores.iter().map(name).collect(),
            copies: rule.copies,
        });
        Policy {
            rules: Rules::compile(rule.into_iter().collect()).ok().unwrap(),
            stores: self.enabled.iter().map(facts).chain(glance).collect(),
            backoff: Backoff { first: Duration::from_secs(1), max: Duration::from_secs(20) },
            chunk: CHUNK,
        }
    }
}
