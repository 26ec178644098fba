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

/// One for each store. Judged by probes alone: what else fails there only has the prober ask at once. While there is
/// nothing that it could ask for, it is reported, and no more than that, what copies met.
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
    /// Since when whatever was tried had no answer, and what the newest try met.
    unheard: Option<(Timestamp, String)>,
    /// A copy to it was proven.
    has_worked: bool,
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

    /// Something was tried at the store and failed. Where the reason is another than that there was no answer, nobody
    /// knows whether it answers.
    pub(crate) fn tried(&self, store: &StoreName, error: &Error, now: Timestamp) {
        let Some(mut state) = self.lock(store) else { return };
        let is_no_answer = matches!(error.reason, Reason::StoreUnreachable | Reason::StoreStalled);
        let since = state.unheard.as_ref().map_or(now, |(since, _)| *since);
        state.unheard = is_no_answer.then(|| (since, format!("{}: {}", error.reason.code(), error.chain())));
    }

    /// A copy to the store was proven: from now on its prober alone says that it does not answer.
    pub(crate) fn worked(&self, store: &StoreName) {
        if let Some(mut state) = self.lock(store) {
            (state.unheard, state.has_worked) = (None, true);
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

    /// Whether it answers, since when, and what the newest probe met. Of a store that never worked, what copies met
    /// instead; planning does not go by that, and goes on trying it.
    pub(crate) fn report(&self, store: &StoreName) -> (Answers, Option<Timestamp>, Option<String>) {
        let Some(state) = self.lock(store) else { return (Answers::Unknown, None, None) };
        match &state.unheard {
            Some((since, error)) if state.has_never_worked() => (Answers::No, Some(*since), Some(error.clone())),
            _ => (state.answers, state.since, state.error.clone()),
        }
    }

    fn lock(&self, store: &StoreName) -> Option<MutexGuard<'_, State>> {
        Some(self.0.get(store)?.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    /// As far as this process knows: no copy was proven, and there is none to ask for.
    fn has_never_worked(&self) -> bool {
        self.answers == Answers::Unknown && self.witness.is_none() && !self.has_worked
    }

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

    #[test]
    fn a_store_that_never_worked_is_reported_as_down_and_not_planned_as_such() {
        let store: StoreName = "a".parse().unwrap();
        let breakers = Breakers::new([store.clone()].iter());
        let fails = |reason, message: &str, second| {
            breakers.tried(&store, &Error::new(reason, message), Timestamp::from_second(second).unwrap());
        };
        let down =
            |second, error: &str| (Answers::No, Some(Timestamp::from_second(second).unwrap()), Some(error.to_owned()));
        let unknown = (Answers::Unknown, None, None);
        assert_eq!(breakers.report(&store), unknown);
        fails(Reason::StoreUnreachable, "no route", 1);
        fails(Reason::StoreStalled, "no byte", 2);
        assert_eq!(breakers.report(&store), down(1, "store-stalled: no byte"));
        let mut conditions = Conditions::default();
        breakers.tell(&mut conditions);
        assert!(conditions.down.is_empty() && !breakers.is_down(&store));
        fails(Reason::StoreFull, "it answers", 3);
        assert_eq!(breakers.report(&store), unknown);
        fails(Reason::StoreUnreachable, "no route", 4);
        assert_eq!(breakers.report(&store), down(4, "store-unreachable: no route"));
        breakers.worked(&store);
        assert_eq!(breakers.report(&store), unknown);
        fails(Reason::StoreUnreachable, "no route", 5);
        assert_eq!(breakers.report(&store), unknown, "its prober is to say so");
    }

    #[test]
    fn where_there_is_a_copy_to_ask_for_the_prober_alone_says_that_a_store_is_down() {
        let store: StoreName = "a".parse().unwrap();
        let breakers = Breakers::new([store.clone()].iter());
        breakers.saw(&store, &ObjectName::new(&"0f6a7f1c-93a5-4b39-8d0b-1f0d7a4e2c11".parse().unwrap(), 1));
        breakers.tried(&store, &Error::new(Reason::StoreUnreachable, "no route"), Timestamp::UNIX_EPOCH);
        assert_eq!(breakers.report(&store), (Answers::Unknown, None, None));
    }
}
