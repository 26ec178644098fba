//! A gate: how many may be inside at the same time, changeable while they are.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

#[derive(Debug, Default)]
pub(crate) struct Gate {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// `None`: any number.
    limit: Option<usize>,
    inside: usize,
}

impl Gate {
    pub(crate) fn set(&self, limit: Option<usize>) {
        self.lock().limit = limit;
        self.changed.notify_waiters();
    }

    /// Goes in, if there is room.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<Pass> {
        self.enter_leaving(0)
    }

    /// Goes in, if there is room for another one still: who may stay for as long as a client likes takes no last place.
    pub(crate) fn enter_before_last(self: &Arc<Self>) -> Option<Pass> {
        self.enter_leaving(1)
    }

    fn enter_leaving(self: &Arc<Self>, free: usize) -> Option<Pass> {
        let mut state = self.lock();
        if !state.has_room(free) {
            return None;
        }
        state.inside += 1;
        Some(Pass(Arc::clone(self)))
    }

    pub(crate) fn has_room(&self) -> bool {
        self.lock().has_room(0)
    }

    /// Waits until there is room; another may be quicker to take it.
    pub(crate) async fn room(&self) {
        loop {
            let changed = self.changed.notified();
            if self.has_room() {
                return;
            }
            changed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// For one more, beside so many places that stay free.
    fn has_room(&self, free: usize) -> bool {
        self.limit.is_none_or(|limit| self.inside + free < limit)
    }
}

/// The right to be inside, until it is dropped.
#[derive(Debug)]
pub(crate) struct Pass(Arc<Gate>);

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.lock().inside -= 1;
        self.0.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nobody_enters_beyond_the_limit_and_who_leaves_or_a_new_limit_makes_room() {
        let gate = Arc::new(Gate::default());
        let first = gate.enter().unwrap();
        gate.set(Some(1));
        assert!(gate.enter().is_none());
        let ((), second) = tokio::join!(async { drop(first) }, async {
            gate.room().await;
            gate.enter()
        });
        assert!(second.is_some() && gate.enter().is_none());
        gate.set(Some(2));
        assert!(gate.enter().is_some());
    }

    #[test]
    fn the_last_place_is_for_those_who_leave_it_by_themselves() {
        let gate = Arc::new(Gate::default());
        let _unlimited = gate.enter_before_last().unwrap();
        gate.set(Some(3));
        let _second = gate.enter_before_last().unwrap();
        assert!(gate.enter_before_last().is_none() && gate.enter().is_some());
    }
}
