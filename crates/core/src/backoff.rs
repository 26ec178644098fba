use std::time::Duration;

use crate::Timestamp;

/// How long to wait after the n-th failure in a row: doubling from `first`, never more than `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    pub first: Duration,
    pub max: Duration,
}

impl Backoff {
    /// The wait after `tries` failures in a row (1 is the first).
    pub fn delay(&self, tries: u32) -> Duration {
        let doublings = tries.saturating_sub(1).min(20);
        self.first.saturating_mul(1 << doublings).min(self.max)
    }

    /// When to try again after `tries` failures in a row, seen from `now`.
    pub fn next(&self, now: Timestamp, tries: u32) -> Timestamp {
        now.saturating_add(self.delay(tries)).unwrap_or(Timestamp::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), max: Duration::from_secs(10) };

    #[test]
    fn doubles_from_the_first_wait_and_stops_at_the_longest() {
        let waits: Vec<u64> = (1..=6).map(|tries| BACKOFF.delay(tries).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 10, 10]);
    }

    #[test]
    fn survives_absurd_counts_and_times() {
        assert_eq!(BACKOFF.delay(u32::MAX), BACKOFF.max);
        assert_eq!(BACKOFF.next(Timestamp::MAX, 3), Timestamp::MAX);
    }
}
