//! Bytes per second: how fast everything together, and each store, may go. Changeable at any time.

use std::{
    collections::BTreeMap,
    num::NonZeroU64,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use mimeo_core::{Limits, StoreName};
use tokio::{sync::Notify, time::Instant};

/// With a limit bytes are granted in parts, so many a second, so that they flow evenly.
const GRAINS_PER_SECOND: u64 = 10;
const LEAST_GRAIN: u64 = 4 << 10;

/// One rate that many share. Who asks for bytes waits until those granted before have had their time.
#[derive(Debug, Default)]
struct Pace {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    rate: Option<NonZeroU64>,
    /// When all that was granted has had its time.
    free_at: Option<Instant>,
}

impl Pace {
    fn set(&self, rate: Option<NonZeroU64>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.rate != rate {
            *state = State { rate, free_at: None };
            drop(state);
            self.changed.notify_waiters();
        }
    }

    /// How many bytes to ask for at a time; `None`: any number.
    fn grain(&self) -> Option<u64> {
        let rate = self.state.lock().unwrap_or_else(PoisonError::into_inner).rate?.get();
        Some((rate / GRAINS_PER_SECOND).max(LEAST_GRAIN))
    }

    /// Waits until so many bytes may go. A change of the rate is felt at once.
    async fn take(&self, bytes: usize) {
        loop {
            let changed = self.changed.notified();
            let Some(at) = self.grant(bytes) else { return };
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(at) => return,
                () = changed => {}
            }
        }
    }

    fn grant(&self, bytes: usize) -> Option<Instant> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let rate = state.rate?;
        let now = Instant::now();
        let at = state.free_at.map_or(now, |free_at| free_at.max(now));
        let nanos = (bytes as u64).saturating_mul(1_000_000_000) / rate;
        state.free_at = Some(at + Duration::from_nanos(nanos));
        Some(at)
    }
}

/// All rates: the one of everything, and each store's.
#[derive(Debug, Default)]
pub(crate) struct Paces {
    all: Pace,
    stores: BTreeMap<StoreName, Pace>,
    /// Of what is read again for the age of its proof alone.
    scrubs: BTreeMap<StoreName, Pace>,
}

impl Paces {
    pub(crate) fn new<'a>(stores: impl Iterator<Item = &'a StoreName>, scrub: Option<NonZeroU64>) -> Self {
        let mut paces = Self::default();
        for store in stores {
            paces.stores.insert(store.clone(), Pace::default());
            paces.scrubs.insert(store.clone(), Pace::default());
        }
        paces.scrubs.values().for_each(|pace| pace.set(scrub));
        paces
    }

    pub(crate) fn set(&self, limits: &Limits) {
        self.all.set(limits.bandwidth);
        for (store, pace) in &self.stores {
            pace.set(limits.stores.get(store).and_then(|limits| limits.bandwidth));
        }
    }

    /// Waits until so many bytes may go to the store or come from it, as far as the store's own limit goes.
    pub(crate) async fn take(&self, store: &StoreName, bytes: usize) {
        if let Some(pace) = self.stores.get(store) {
            pace.take(bytes).await;
        }
    }

    /// Waits until so many bytes may be read again, as far as the limit of scrubbing goes.
    pub(crate) async fn take_for_scrub(&self, store: &StoreName, bytes: usize) {
        if let Some(pace) = self.scrubs.get(store) {
            pace.take(bytes).await;
        }
    }

    /// Waits until so many bytes may go, as far as the limit of everything goes.
    pub(crate) async fn take_of_all(&self, bytes: usize) {
        self.all.take(bytes).await;
    }

    /// The most bytes to take at a time, where there is a limit.
    pub(crate) fn grain(&self, store: &StoreName) -> Option<usize> {
        let own = self.stores.get(store).and_then(Pace::grain);
        let least = own.into_iter().chain(self.all.grain()).min()?;
        Some(usize::try_from(least).unwrap_or(usize::MAX))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mimeo_core::{Hours, StoreLimits};
    use tokio::time::{Instant, sleep};

    use super::*;

    fn store(name: &str) -> StoreName {
        name.parse().unwrap()
    }

    fn paces(all: Option<u64>, far: Option<u64>) -> Paces {
        let paces = Paces::new([store("far"), store("near")].iter(), None);
        paces.set(&limits(all, far));
        paces
    }

    fn limits(all: Option<u64>, far: Option<u64>) -> Limits {
        let own = StoreLimits { bandwidth: far.and_then(NonZeroU64::new), ..StoreLimits::default() };
        Limits {
            concurrency: std::num::NonZeroUsize::MIN,
            memory: std::num::NonZeroUsize::MIN,
            bandwidth: all.and_then(NonZeroU64::new),
            hours: Hours::default(),
            stores: BTreeMap::from([(store("far"), own)]),
        }
    }

    /// How long `count` grants of 1000 bytes take, virtually, after which the next could go.
    async fn time(paces: &Paces, name: &str, count: usize) -> Duration {
        let began = Instant::now();
        for _ in 0..=count {
            paces.take(&store(name), 1000).await;
            paces.take_of_all(1000).await;
        }
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_take_the_time_that_the_rate_gives_them() {
        assert_eq!(time(&paces(None, Some(500)), "far", 10).await.as_secs(), 20);
        assert_eq!(time(&paces(None, Some(500)), "near", 10).await.as_secs(), 0);
        assert_eq!(time(&paces(Some(1000), None), "near", 10).await.as_secs(), 10);
        // The slower of the two counts.
        assert_eq!(time(&paces(Some(1000), Some(500)), "far", 10).await.as_secs(), 20);
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_share_a_rate_have_it_together_and_idle_time_is_not_saved_up() {
        let paces = paces(Some(1000), None);
        sleep(Duration::from_mins(1)).await;
        let (near, far) = (time(&paces, "near", 4), time(&paces, "far", 4));
        let (near, far) = tokio::join!(near, far);
        assert!(near.max(far).as_secs() >= 9, "{near:?} {far:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_rate_is_felt_by_who_waits_already() {
        let paces = Arc::new(paces(None, Some(1)));
        let began = Instant::now();
        let waiting = async {
            paces.take(&store("far"), 1_000_000).await;
            paces.take(&store("far"), 1000).await;
        };
        let raising = async {
            sleep(Duration::from_secs(5)).await;
            paces.set(&limits(None, None));
        };
        tokio::join!(waiting, raising);
        assert_eq!(began.elapsed().as_secs(), 5);
    }
}
