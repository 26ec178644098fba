//! What this process has seen of the world since it started: for the status, and for how many try a failing store.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use mimeo_core::{Error, Reason, StoreName, Timestamp, ports::EventsHealth};

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

    /// Why the last copy to the store failed, if it did, and for the store's own sake.
    pub(crate) fn last_failure(&self, store: &StoreName) -> Option<(Reason, String)> {
        let seen = self.lock();
        let failure = seen.stores.get(store)?.failure.as_ref()?;
        Some((Reason::from_code(&failure.code)?, failure.message.clone()))
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
