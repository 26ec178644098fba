//! Whether each store answers: what its prober found, and what follows for planning.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use mimeo_core::{
    Error, ObjectName, Reason, StoreName, Timestamp,
    plan::{Conditions, Outage},
};
use tokio::sync::Notify;

/// So many probes in a row without an answer, and the store is down.
const FAILURES: u32 = 3;

/// One for each store. Judged by probes alone: what else fails there only has the prober ask at once.
pub(crate) struct Breakers(BTreeMap<StoreName, Breaker>);

#[derive(Default)]
struct Breaker {
    state: Mutex<State>,
    bell: Arc<Notify>,
}

#[derive(Default)]
struct State {
    answers: Answers,
    /// Since when it is as `answers` says.
    since: Option<Timestamp>,
    failures: u32,
    /// Of the newest probe, if that failed.
    error: Option<String>,
    /// A registered copy, which can be asked for.
    witness: Option<ObjectName>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Answers {
    #[default]
    Unknown,
    Yes,
    No,
}

impl Breakers {
    pub(crate) fn new<'a>(stores: impl Iterator<Item = &'a StoreName>) -> Self {
        Self(stores.map(|store| (store.clone(), Breaker::default())).collect())
    }

    /// The store answered. True: it did not before, or nobody knew.
    pub(crate) fn answered(&self, store: &StoreName, now: Timestamp) -> bool {
        let Some(mut state) = self.lock(store) else { return false };
        (state.failures, state.error) = (0, None);
        state.turn(Answers::Yes, now)
    }

    /// It did not. True: it counts as down from now on.
    pub(crate) fn failed(&self, store: &StoreName, error: &Error, now: Timestamp) -> bool {
        let Some(mut state) = self.lock(store) else { return false };
        state.failures = state.failures.saturating_add(1);
        if state.answers != Answers::No {
            state.error = Some(error.chain());
        }
        state.failures >= FAILURES && state.turn(Answers::No, now)
    }

    pub(crate) fn is_down(&self, store: &StoreName) -> bool {
        self.lock(store).is_some_and(|state| state.answers == Answers::No)
    }

    /// Something failed at the store: its prober asks now.
    pub(crate) fn suspect(&self, store: &StoreName, reason: Reason) {
        let is_no_answer = matches!(
            reason,
            Reason::StoreUnreachable | Reason::StoreStalled | Reason::StoreError | Reason::LocationUnreachable
        );
        if let Some(breaker) = self.0.get(store).filter(|_| is_no_answer) {
            breaker.bell.notify_one();
        }
    }

    pub(crate) fn bell(&self, store: &StoreName) -> Option<Arc<Notify>> {
        self.0.get(store).map(|breaker| Arc::clone(&breaker.bell))
    }

    /// A registered copy was seen.
    pub(crate) fn saw(&self, store: &StoreName, object: &ObjectName) {
        if let Some(mut state) = self.lock(store) {
            state.witness.get_or_insert_with(|| object.clone());
        }
    }

    pub(crate) fn witness(&self, store: &StoreName) -> Option<ObjectName> {
        self.lock(store)?.witness.clone()
    }

    pub(crate) fn forget_witness(&self, store: &StoreName) {
        if let Some(mut state) = self.lock(store) {
            state.witness = None;
        }
    }

    pub(crate) fn tell(&self, conditions: &mut Conditions) {
        for store in self.0.keys() {
            let Some(state) = self.lock(store) else { continue };
            match (state.answers, state.since) {
                (Answers::Yes, _) => drop(conditions.answering.insert(store.clone())),
                (Answers::No, Some(since)) => {
                    let error = state.error.clone().unwrap_or_default();
                    conditions.down.insert(store.clone(), Outage { since, error });
                }
                _ => {}
            }
        }
    }

    /// Whether it answers, since when, and what the newest probe met.
    pub(crate) fn report(&self, store: &StoreName) -> (Answers, Option<Timestamp>, Option<String>) {
        let state = self.lock(store);
        state.map_or((Answers::Unknown, None, None), |state| (state.answers, state.since, state.error.clone()))
    }

    fn lock(&self, store: &StoreName) -> Option<MutexGuard<'_, State>> {
        Some(self.0.get(store)?.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn turn(&mut self, answers: Answers, now: Timestamp) -> bool {
        let turned = self.answers != answers;
        if turned {
            (self.answers, self.since) = (answers, Some(now));
        }
        turned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_failures_in_a_row_open_it_and_one_answer_closes_it() {
        let store: StoreName = "a".parse().unwrap();
        let breakers = Breakers::new([store.clone()].iter());
        let at = |second| Timestamp::from_second(second).unwrap();
        let error = Error::new(Reason::StoreUnreachable, "no connection");
        assert!(!breakers.failed(&store, &error, at(1)) && !breakers.failed(&store, &error, at(2)));
        assert!(breakers.answered(&store, at(3)), "the first answer is news");
        for second in 4..6 {
            assert!(!breakers.failed(&store, &error, at(second)) && !breakers.is_down(&store));
        }
        assert!(breakers.failed(&store, &error, at(6)) && breakers.is_down(&store));
        assert!(!breakers.failed(&store, &Error::new(Reason::StoreStalled, "other"), at(7)), "that is no news");
        let mut conditions = Conditions::default();
        breakers.tell(&mut conditions);
        assert_eq!(conditions.down[&store], Outage { since: at(6), error: "no connection".into() });
        assert!(breakers.answered(&store, at(8)) && !breakers.is_down(&store));
        assert!(!breakers.answered(&store, at(9)));
        assert_eq!(breakers.report(&store), (Answers::Yes, Some(at(8)), None));
    }
}
