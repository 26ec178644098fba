//! What this process has seen of the world since it started: for the status, and for how many try a failing store.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use mimeo_core::{Error, Reason, Result, StoreName, Timestamp, plan::Conditions, ports::EventsHealth};

use crate::status::ReasonReport;

/// A copy of less than this says nothing of how fast a store is.
const LEAST_MEASURED: u64 = 8 << 20;

#[derive(Default)]
pub(crate) struct Health(Mutex<Seen>);

#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) stores: BTreeMap<StoreName, StoreSeen>,
    pub(crate) last_scan: Option<Timestamp>,
    /// Why the image service could not be looked at, until it could be again.
    pub(crate) trouble: Option<ReasonReport>,
    /// How often it could not be, by the reason's code.
    pub(crate) failed_looks: BTreeMap<&'static str, u64>,
    /// Why the ledger did not take something, until it took something again.
    pub(crate) ledger: Option<ReasonReport>,
    pub(crate) events: Option<Arc<EventsHealth>>,
    pub(crate) held_deletes: u64,
    service_rate: Option<u64>,
}

#[derive(Default, Clone)]
pub(crate) struct StoreSeen {
    pub(crate) last_success: Option<Timestamp>,
    pub(crate) failure: Option<ReasonReport>,
    /// How fast bits could be written to it, and read from it, last, in bytes per second.
    write_rate: Option<u64>,
    read_rate: Option<u64>,
}

impl Health {
    pub(crate) fn succeeded(&self, store: &StoreName, now: Timestamp) {
        let mut seen = self.lock();
        let store = seen.stores.entry(store.clone()).or_default();
        (store.last_success, store.failure) = (Some(now), None);
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

    /// Bits that were written to the store, in so much time.
    pub(crate) fn wrote(&self, store: &StoreName, bytes: u64, time: Duration) {
        if let Some(rate) = rate(bytes, time) {
            self.lock().stores.entry(store.clone()).or_default().write_rate = Some(rate);
        }
    }

    /// The store took so many bytes in so much time, and the others took more: the next images do not wait for it.
    pub(crate) fn fell_behind(&self, store: &StoreName, bytes: u64, time: Duration) {
        let rate = u64::try_from(u128::from(bytes) * 1000 / time.as_millis().max(1)).unwrap_or(u64::MAX);
        self.lock().stores.entry(store.clone()).or_default().write_rate = Some(rate);
    }

    /// Bits that were read from the store, in so much time.
    pub(crate) fn read(&self, store: &StoreName, bytes: u64, time: Duration) {
        if let Some(rate) = rate(bytes, time) {
            self.lock().stores.entry(store.clone()).or_default().read_rate = Some(rate);
        }
    }

    /// Bits that came through the image service, in so much time: it may be able to do more.
    pub(crate) fn served(&self, bytes: u64, time: Duration) {
        if let Some(rate) = rate(bytes, time) {
            self.lock().service_rate = Some(rate);
        }
    }

    pub(crate) fn rates(&self) -> Conditions {
        let seen = self.lock();
        let rates = seen.stores.iter().filter_map(|(store, seen)| Some((store.clone(), seen.read_rate?)));
        let failing = seen.stores.iter().filter(|(_, seen)| seen.failure.is_some()).map(|(store, _)| store.clone());
        Conditions {
            read_rates: rates.collect(),
            service_rate: seen.service_rate,
            failing: failing.collect(),
            ..Conditions::default()
        }
    }

    pub(crate) fn write_rate(&self, store: &StoreName) -> Option<u64> {
        self.lock().stores.get(store)?.write_rate
    }

    pub(crate) fn trouble(&self, error: &Error) {
        let mut seen = self.lock();
        seen.trouble = Some(error.into());
        if error.reason.is_a_failure() {
            *seen.failed_looks.entry(error.reason.code()).or_default() += 1;
        }
    }

    pub(crate) fn clear_trouble(&self) {
        self.lock().trouble = None;
    }

    /// How the last write to the ledger went.
    pub(crate) fn wrote_down<T>(&self, result: &Result<T>) {
        match result {
            Ok(_) => self.lock().ledger = None,
            Err(error) if error.reason == Reason::Ledger => self.lock().ledger = Some(error.into()),
            Err(_) => {}
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `None` for so little that its time says nothing of the rate.
fn rate(bytes: u64, time: Duration) -> Option<u64> {
    let millis = u64::try_from(time.as_millis()).ok().filter(|millis| *millis > 0)?;
    (bytes >= LEAST_MEASURED).then(|| bytes.saturating_mul(1000) / millis)
}
