//! What this process has seen of the world since it started: for the status only.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use mimeo_core::{Error, StoreName, Timestamp, ports::EventsHealth};

use crate::status::ReasonReport;

#[derive(Default)]
pub(crate) struct Health(Mutex<Seen>);

#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) stores: BTreeMap<StoreName, StoreSeen>,
    pub(crate) last_scan: Option<Timestamp>,
    /// Why the image service could not be looked at, until it could be again.
    pub(crate) trouble: Option<ReasonReport>,
    pub(crate) events: Option<Arc<EventsHealth>>,
    pub(crate) held_deletes: u64,
}

#[derive(Default, Clone)]
pub(crate) struct StoreSeen {
    pub(crate) last_success: Option<Timestamp>,
    pub(crate) failure: Option<ReasonReport>,
}

impl Health {
    pub(crate) fn succeeded(&self, store: &StoreName, now: Timestamp) {
        self.lock().stores.insert(store.clone(), StoreSeen { last_success: Some(now), failure: None });
    }

    pub(crate) fn failed(&self, store: &StoreName, error: &Error) {
        self.lock().stores.entry(store.clone()).or_default().failure = Some(error.into());
    }

    /// Whether the last copy to it failed, and for the store's own sake.
    pub(crate) fn is_failing(&self, store: &StoreName) -> bool {
        self.lock().stores.get(store).is_some_and(|seen| seen.failure.is_some())
    }

    pub(crate) fn trouble(&self, error: &Error) {
        self.lock().trouble = Some(error.into());
    }

    pub(crate) fn clear_trouble(&self) {
        self.lock().trouble = None;
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
