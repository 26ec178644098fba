//! The weather: how each part of the world fares for a while, and what becomes of a call in it.

use std::time::Duration;

use mimeo_core::{Reason, ReplicaState, ports::Store};
use tokio::time::Instant;

use crate::{
    dice::Dice,
    setup::Temper,
    witness::Place,
    world::{State, World},
};

/// What a call is made to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// The image service.
    Service,
    Ledger,
    Store(usize),
    /// A store, by a call for which it needs room.
    Room(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Good,
    /// Each call fails.
    Down(Reason),
    /// Some calls fail, some answers are lost, some calls take long.
    Flaky,
    /// Each call takes its time.
    Slow,
    /// No call is answered in time.
    Stalled,
    Full,
    /// Says that all is well, and keeps, or gives, other bytes.
    Lying(Lie),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lie {
    Truncates,
    Garbles,
    /// Gives other bytes than it keeps.
    Misreads,
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Goes,
    Fails(Reason),
    LosesAnswer(Reason),
    DiesBefore,
    DiesAfter,
}

/// A mood, and since when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spell {
    pub(crate) mood: Mood,
    since: Instant,
}

#[derive(Debug)]
pub(crate) struct Weather {
    pub(crate) service: Spell,
    pub(crate) ledger: Spell,
    pub(crate) stores: Vec<Spell>,
    /// What the image service does not show, because the role is lost, or by its configuration.
    pub(crate) blind: Blindness,
    /// Engines may still die.
    pub(crate) deadly: bool,
    seeing_since: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blindness {
    None,
    /// To what is not public.
    Private,
    /// To the locations of images: `show_multiple_locations` is off.
    Locations,
    All,
}

/// Longer than every time limit of the engine's.
const STALL: Duration = Duration::from_secs(100);

impl Weather {
    pub(crate) fn fair(stores: usize) -> Self {
        let now = Instant::now();
        let spell = Spell { mood: Mood::Good, since: now };
        let (service, ledger, stores) = (spell, spell, vec![spell; stores]);
        Self { service, ledger, stores, blind: Blindness::None, deadly: true, seeing_since: now }
    }

    pub(crate) fn spell(&mut self, part: Part) -> &mut Spell {
        match part {
            Part::Service => &mut self.service,
            Part::Ledger => &mut self.ledger,
            Part::Store(at) | Part::Room(at) => &mut self.stores[at],
        }
    }

    pub(crate) fn turn(&mut self, part: Part, mood: Mood) {
        let spell = self.spell(part);
        if spell.mood != mood {
            *spell = Spell { mood, since: Instant::now() };
        }
    }

    /// Nothing fails any more.
    pub(crate) fn clear(&mut self, stores: usize) {
        for part in (0..stores).map(Part::Store).chain([Part::Service, Part::Ledger]) {
            self.turn(part, Mood::Good);
        }
        self.set_blind(Blindness::None);
        self.deadly = false;
    }

    pub(crate) fn set_blind(&mut self, blind: Blindness) {
        if blind != self.blind {
            (self.blind, self.seeing_since) = (blind, Instant::now());
        }
    }

    /// Since when the image service, the ledger and this store have been well; `None`: one is not.
    pub(crate) fn calm_since(&self, store: usize) -> Option<Instant> {
        let spells = [self.service, self.ledger, self.stores[store]];
        let is_calm = self.blind == Blindness::None && spells.iter().all(|spell| spell.mood == Mood::Good);
        let since = spells.iter().map(|spell| spell.since).max().unwrap_or(self.seeing_since);
        is_calm.then(|| since.max(self.seeing_since))
    }

    /// Whether the image service and the ledger have been well since then.
    pub(crate) fn was_well(&self, then: Instant) -> bool {
        let spells = [self.service, self.ledger];
        let is_well = spells.iter().all(|spell| spell.mood == Mood::Good && spell.since <= then);
        is_well && self.blind == Blindness::None && self.seeing_since <= then
    }

    /// How long a call to the part takes (zero: others come first), and what becomes of it.
    pub(crate) fn fate(&mut self, part: Part, dice: &mut Dice, temper: Temper) -> (Option<Duration>, Fate) {
        let (mood, deadly) = (self.spell(part).mood, self.deadly);
        let mut wait = dice.falls(temper.yields).then_some(Duration::ZERO);
        if dice.falls(temper.waits) {
            wait = Some(dice.millis(1..40));
        }
        if deadly && dice.falls(temper.crashes) {
            return (wait, dice.pick(&[Fate::DiesBefore, Fate::DiesAfter]));
        }
        let lost = match part {
            Part::Service => Reason::ImageServiceUnreachable,
            Part::Ledger => Reason::Ledger,
            Part::Store(_) | Part::Room(_) => Reason::StoreUnreachable,
        };
        let is_ledger = part == Part::Ledger;
        match mood {
            Mood::Full if matches!(part, Part::Room(_)) => (wait, Fate::Fails(Reason::StoreFull)),
            Mood::Good | Mood::Lying(_) | Mood::Full => (wait, Fate::Goes),
            Mood::Down(reason) => (wait, Fate::Fails(reason)),
            Mood::Stalled => (Some(STALL), Fate::Goes),
            Mood::Slow => (Some(dice.millis(10..900)), Fate::Goes),
            Mood::Flaky => match dice.of(0..100) {
                0..12 => (wait, Fate::Fails(lost)),
                // A ledger that has committed and does not say so is a crash: its answer is a local one.
                12..18 if !is_ledger => (wait, Fate::LosesAnswer(lost)),
                18..22 if !is_ledger => (Some(dice.millis(500..7000)), Fate::Goes),
                _ => (wait, Fate::Goes),
            },
        }
    }
}

/// The weather changes for one part of the world.
pub(crate) fn change(world: &World) {
    let mut state = world.lock();
    let State { weather, dice, .. } = &mut *state;
    let (part, mood) = match dice.of(0..100) {
        0..20 => {
            let reasons = [Reason::ImageServiceUnreachable, Reason::ImageServiceError, Reason::NotAllowed];
            let down = Mood::Down(dice.pick(&reasons));
            let lie = Mood::Lying(dice.pick(&[Lie::Truncates, Lie::Garbles]));
            (Part::Service, dice.pick(&[down, Mood::Flaky, Mood::Flaky, Mood::Slow, lie, Mood::Good, Mood::Good]))
        }
        20..30 => (Part::Ledger, dice.pick(&[Mood::Down(Reason::Ledger), Mood::Flaky, Mood::Good, Mood::Good])),
        30..40 => {
            let kinds = [Blindness::Private, Blindness::All, Blindness::Locations];
            let blind = if dice.falls(5000) { Blindness::None } else { dice.pick(&kinds) };
            weather.set_blind(blind);
            drop(state);
            return world.tell(|| format!("the token is {blind:?} blind"));
        }
        _ => {
            let reasons = [Reason::StoreUnreachable, Reason::StoreRefused, Reason::StoreError];
            let down = Mood::Down(dice.pick(&reasons));
            let lie = Mood::Lying(dice.pick(&[Lie::Truncates, Lie::Garbles, Lie::Misreads]));
            let moods = [down, Mood::Flaky, Mood::Slow, Mood::Stalled, Mood::Full, lie, Mood::Good, Mood::Good];
            (Part::Store(dice.below(weather.stores.len())), dice.pick(&moods))
        }
    };
    weather.turn(part, mood);
    drop(state);
    world.tell(|| format!("weather: {part:?} {mood:?}"));
}

/// Bits of a registered copy rot, or go away, behind everybody's back.
pub(crate) fn spoil(world: &World) {
    if !world.setup.scrubs {
        return;
    }
    let held = |at: usize| world.stores[at].objects().into_iter().map(move |object| (at, object));
    let is_registered = |place: &Place| {
        let record = world.ledger.record(&place.1.image());
        let replica = record.and_then(|mut record| record.replicas.remove(world.stores[place.0].name()));
        replica.is_some_and(|it| it.state == ReplicaState::Registered && it.object.as_ref() == Some(&place.1))
    };
    let places: Vec<Place> = (0..world.stores.len()).flat_map(held).filter(is_registered).collect();
    if places.is_empty() {
        return;
    }
    let mut state = world.lock();
    let (at, how) = (state.dice.below(places.len()), state.dice.of(0..3));
    let place = &places[at];
    let bits = world.stores[place.0].bits(&place.1).unwrap_or_default();
    let bits = match how {
        0 => Some(bits.iter().map(|byte| !byte).collect()),
        1 => Some(bits.slice(..bits.len() / 2)),
        _ => None,
    };
    world.stores[place.0].tamper(&place.1, bits);
    state.witness.spoiled.insert(place.clone(), Instant::now());
    drop(state);
    world.tell(|| format!("{} at {} goes bad ({how})", place.1, world.store_name(place.0)));
}
