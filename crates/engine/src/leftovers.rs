//! What the sweeper could not remove when it last tried, why, and when it tries again; and what it is to think twice
//! about.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use mimeo_core::{Error, ImageId, Object, ObjectName, Reason, StoreName};
use tokio::time::Instant;

use crate::status::ReasonReport;

/// What others hold, or name, is looked at again after this.
const REST: Duration = Duration::from_mins(15);
/// A store that refuses a removal so often in a row does not do so by accident.
const REFUSALS: u32 = 3;

#[derive(Default)]
pub(crate) struct Leftovers {
    left: Mutex<BTreeMap<(StoreName, ObjectName), Leftover>>,
    /// Proven copies that were to go, and whose image is wanted there again.
    regretted: Mutex<BTreeSet<(StoreName, ObjectName)>>,
}

struct Leftover {
    why: ReasonReport,
    refusals: u32,
    rest: Rest,
}

#[derive(PartialEq)]
enum Rest {
    None,
    Until(Instant),
    /// Until somebody has changed something.
    Hopeless,
}

impl Leftovers {
    /// Whether the object is left alone for now.
    pub(crate) fn rests(&self, object: &Object) -> bool {
        self.lock().get(&key(object)).is_some_and(|leftover| match leftover.rest {
            Rest::None => false,
            Rest::Until(until) => Instant::now() < until,
            Rest::Hopeless => true,
        })
    }

    /// Why it is still there.
    pub(crate) fn why(&self, store: &StoreName, object: &ObjectName) -> Option<ReasonReport> {
        Some(self.lock().get(&(store.clone(), object.clone()))?.why.clone())
    }

    /// The object has to stay for a while.
    pub(crate) fn stays(&self, object: &Object, why: &str) {
        let why = ReasonReport::from(&Error::new(Reason::NotWanted, why));
        let rest = Rest::Until(Instant::now() + REST);
        self.lock().insert(key(object), Leftover { why, refusals: 0, rest });
    }

    /// The store did not remove it. True: for another reason than before.
    pub(crate) fn failed(&self, object: &Object, error: &Error) -> bool {
        let mut leftovers = self.lock();
        let before = leftovers.get(&key(object));
        let refused = before.map_or(0, |before| before.refusals).saturating_add(1);
        let refusals = if error.reason == Reason::StoreRefused { refused } else { 0 };
        let (why, rest) = match error.reason {
            Reason::StoreRefused if refusals >= REFUSALS => {
                (ReasonReport::from(&hopeless(object, error)), Rest::Hopeless)
            }
            Reason::StoreInUse => (error.into(), Rest::Until(Instant::now() + REST)),
            _ => (error.into(), Rest::None),
        };
        let is_new = before.is_none_or(|before| before.why != why);
        leftovers.insert(key(object), Leftover { why, refusals, rest });
        is_new
    }

    pub(crate) fn regret(&self, store: &StoreName, object: &ObjectName) {
        self.regretted().insert((store.clone(), object.clone()));
    }

    pub(crate) fn is_regretted(&self, object: &Object) -> bool {
        self.regretted().contains(&key(object))
    }

    /// It does not go.
    pub(crate) fn forgive(&self, object: &Object) {
        self.regretted().remove(&key(object));
    }

    /// The object is gone. True: the store refused others, and seems to do so no more, so that they are tried again.
    pub(crate) fn removed(&self, object: &Object) -> bool {
        self.forgive(object);
        let mut leftovers = self.lock();
        leftovers.remove(&key(object));
        end_rests(leftovers.iter_mut().filter(|((store, _), _)| *store == object.store))
    }

    /// Somebody asks for the image. True: something of it had been given up, and is tried again.
    pub(crate) fn asked(&self, image: &ImageId) -> bool {
        end_rests(self.lock().iter_mut().filter(|((_, object), _)| object.image() == *image))
    }

    fn regretted(&self) -> MutexGuard<'_, BTreeSet<(StoreName, ObjectName)>> {
        self.regretted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(StoreName, ObjectName), Leftover>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn end_rests<'a>(of: impl Iterator<Item = (&'a (StoreName, ObjectName), &'a mut Leftover)>) -> bool {
    let hopeless = of.map(|(_, leftover)| leftover).filter(|leftover| leftover.rest == Rest::Hopeless);
    hopeless.map(|leftover| (leftover.rest, leftover.refusals) = (Rest::None, 0)).count() > 0
}

fn key(object: &Object) -> (StoreName, ObjectName) {
    (object.store.clone(), object.name.clone())
}

fn hopeless(object: &Object, error: &Error) -> Error {
    let message = format!(
        "{}; it was refused {REFUSALS} times in a row. Let Mimeo delete there, then `mimeo replicate {}`: when one object \
         can be removed the store's others are tried too",
        error.chain(),
        object.name.image()
    );
    Error::new(Reason::DeleteRefused, message)
}
