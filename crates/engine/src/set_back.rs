//! A wall clock that was set back: what waits for a time that was noted before is tried now, and not when that time comes
//! again.

use std::time::Duration;

use mimeo_core::{Failure, Record, Result, Timestamp, plan};
use tokio::time::Instant;

use crate::{Engine, scan};

/// A clock that is merely adjusted is none of our business.
const LEAST: Duration = Duration::from_secs(5);

/// What the clock showed last, and when.
pub(crate) struct Wall {
    shown: Timestamp,
    at: Instant,
}

impl Wall {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self { shown: now, at: Instant::now() }
    }

    /// Whether the clock was set back since it was read last.
    pub(crate) fn was_set_back(&mut self, now: Timestamp) -> bool {
        let expected = self.shown.saturating_add(self.at.elapsed()).unwrap_or(Timestamp::MAX);
        *self = Self::new(now);
        now.saturating_add(LEAST).unwrap_or(Timestamp::MAX) < expected
    }
}

/// Has tried now what waits for longer than it may (a clock that was ahead when it was noted), or (`None`) everything.
pub(crate) async fn retry(engine: &Engine, may_wait: Option<Duration>) -> Result<()> {
    let now = engine.clock.now();
    let latest = may_wait.map(|longest| now.saturating_add(longest).unwrap_or(Timestamp::MAX));
    let is_later = |failure: &Failure| failure.next_try.is_some_and(|at| Some(at) > latest);
    let waits_too_long = |record: &Record| {
        let failures = record.replicas.values().filter_map(|replica| replica.failure.as_ref());
        latest.is_none() || failures.chain(&record.image.trouble).any(is_later) || has_ahead(record, now)
    };
    let images = scan::retry_where(engine, waits_too_long).await?;
    if images > 0 {
        tracing::warn!(images, "the clock was set back: what waits is tried now");
    }
    Ok(())
}

/// Whether anything of it was noted as later than now.
fn has_ahead(record: &Record, now: Timestamp) -> bool {
    let proofs = record.replicas.values().filter_map(|replica| Some(replica.proof?.at));
    proofs.chain(record.image.verify_asked).any(|at| plan::is_ahead(at, now))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use mimeo_testkit::sample::time;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_goes_on_or_is_set_forward_was_not_set_back() {
        let mut wall = Wall::new(time(0));
        tokio::time::advance(Duration::from_secs(100)).await;
        assert!(!wall.was_set_back(time(97)), "adjusted");
        assert!(!wall.was_set_back(time(3600)), "set forward");
        tokio::time::advance(Duration::from_secs(100)).await;
        assert!(wall.was_set_back(time(3690)), "set back by ten seconds");
        assert!(!wall.was_set_back(time(3690)), "told once");
    }
}
