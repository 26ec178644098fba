use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use mimeo_core::{Timestamp, ports::Clock};

/// A clock that stands still until a test moves it.
#[derive(Debug)]
pub struct FakeClock(Mutex<Timestamp>);

impl FakeClock {
    pub fn at(now: Timestamp) -> Self {
        Self(Mutex::new(now))
    }

    pub fn set(&self, now: Timestamp) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    pub fn advance(&self, by: Duration) {
        self.set(self.now().saturating_add(by).unwrap());
    }
}

impl Default for FakeClock {
    /// Starts at [`crate::sample::time`]`(0)`.
    fn default() -> Self {
        Self::at(crate::sample::time(0))
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
