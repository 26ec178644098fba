//! What the sweeper could not remove when it last tried, why, and when it tries again.

use std::{
    collections::BTreeMap,
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
pub(crate) struct Leftovers(Mutex<BTreeMap<(StoreName, ObjectName), Leftover>>);

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

    /// The object is gone. True: the store refused others, and seems to do so no more, so that they are tried again.
    pub(crate) fn removed(&self, object: &Object) -> bool {
        let mut leftovers = self.lock();
        leftovers.remove(&key(object));
        end_rests(leftovers.iter_mut().filter(|((store, _), _)| *store == object.store))
    }

    /// Somebody asks for the image. True: something of it had been given up, and is tried again.
    pub(crate) fn asked(&self, image: &ImageId) -> bool {
        end_rests(self.lock().iter_mut().filter(|((_, object), _)| object.image() == *image))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(StoreName, ObjectName), Leftover>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
