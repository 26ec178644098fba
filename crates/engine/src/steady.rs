//! Whether the wall clock has gone as time does. Waits in the ledger are told by it, since they outlive a restart: where
//! it was set ahead, or nobody watched it, the shortest of them have to begin anew.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use mimeo_core::Timestamp;
use tokio::time::Instant;

/// A clock may be corrected by so much between two looks.
const TOLERANCE: Duration = Duration::from_secs(1);

pub(crate) struct Steady(Mutex<Seen>);

struct Seen {
    at: Instant,
    clock: Timestamp,
    since: Instant,
}

impl Steady {
    pub(crate) fn new(clock: Timestamp) -> Self {
        let at = Instant::now();
        Self(Mutex::new(Seen { at, clock, since: at }))
    }

    /// For how long the clock has been watched, and not been set ahead.
    pub(crate) fn lasts(&self, clock: Timestamp) -> Duration {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        // Set back, it lets nothing go too early.
        let told = Duration::try_from(clock.duration_since(seen.clock)).unwrap_or_default();
        let since = if told > now - seen.at + TOLERANCE { now } else { seen.since };
        *seen = Seen { at: now, clock, since };
        now - since
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_set_ahead_begins_anew_and_one_that_is_set_back_goes_on() {
        let second = |second| Timestamp::from_second(second).unwrap();
        let pass = |seconds| tokio::time::advance(Duration::from_secs(seconds));
        let steady = Steady::new(second(1000));
        pass(30).await;
        assert_eq!(steady.lasts(second(1030)).as_secs(), 30);
        pass(30).await;
        assert_eq!(steady.lasts(second(1120)).as_secs(), 0, "60 s too many");
        pass(30).await;
        assert_eq!(steady.lasts(second(1090)).as_secs(), 30, "60 s too few");
        pass(30).await;
        assert_eq!(steady.lasts(second(1120)).as_secs(), 60);
    }
}
