//! What is counted for those who watch the service over time. Knows no format of theirs.
//!
//! What became of copies is read from the ledger's numbered lines, when somebody asks: so it costs nothing where nobody
//! does, and a lag is the difference of two times in the ledger, whichever process wrote them. A try that failed is counted
//! where it is noted: in the ledger one that fails again replaces its line.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use mimeo_core::{
    Backlog, FORGOTTEN, HistoryLine, ImageId, Reason, Record, ReplicaState, Result, StoreName, Tally, Timestamp, Told,
};
use tokio::time::Instant;

use crate::{
    Engine, Phase, Traffic,
    status::{EventsReport, StoreHealth},
};

/// The upper bounds of a lag's buckets, in seconds: from a small image to a night's transfer.
pub const LAG_BOUNDS: [f64; 14] =
    [1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 10_800.0, 21_600.0, 86_400.0];

/// Lines that are read for one answer; the rest is for the next.
const MOST_LINES: usize = 5000;
/// Copies whose mark is remembered. Of further ones the lag counts from the first line in the ledger.
const MOST_AWAITED: usize = 20_000;
/// What somebody has to do something about. It is counted from 0 on at every store: an alert sees a counter grow, and
/// not one appear.
const GRAVE: [Reason; 11] = [
    Reason::LocationLost,
    Reason::LocationQuota,
    Reason::LocationRefused,
    Reason::LocationsForbidden,
    Reason::NotAllowed,
    Reason::ObjectMissing,
    Reason::ProofMismatch,
    Reason::SourceMismatch,
    Reason::StoreFull,
    Reason::StoreMoved,
    Reason::StoreRefused,
];
/// What the ledger counts is asked again after this, and not before twenty times as long as the last answer took.
const PAUSE: Duration = Duration::from_secs(5);
const SHARE: u32 = 20;

#[derive(Default)]
pub(crate) struct Meter {
    counts: Mutex<Counts>,
    awaited: Mutex<BTreeMap<ImageId, Awaited>>,
    /// Held while lines are counted, so that each is counted once.
    cursor: tokio::sync::Mutex<Cursor>,
}

#[derive(Default)]
struct Cursor {
    /// The last line that was counted.
    last: u64,
    /// What the ledger said last, and until when that is good enough.
    ledger: Option<(Instant, Tally, Backlog)>,
}

/// Copies of one image that somebody waits for: since when, by the mark in the ledger, and by which rule.
type Awaited = BTreeMap<StoreName, (Timestamp, String)>;

/// What has been counted since this process began.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// From the mark that an event, or a scan, left in the ledger to the registration, by rule and store.
    pub lags: BTreeMap<(String, StoreName), Lags>,
    /// Tries that failed, and what looks found to be wrong, by store (`None`: an image as a whole, or a scan) and reason.
    pub failures: BTreeMap<(Option<StoreName>, &'static str), u64>,
    /// When each of the loops last did its work.
    pub loops: BTreeMap<&'static str, Timestamp>,
    pub turns: u64,
    pub broken_turns: u64,
}

/// How many lags there were of each size.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Lags {
    /// Of each bucket alone, in the order of [`LAG_BOUNDS`].
    pub buckets: [u64; LAG_BOUNDS.len()],
    pub count: u64,
    /// In seconds.
    pub sum: f64,
}

impl Counts {
    fn fail(&mut self, store: Option<StoreName>, reason: Reason) {
        *self.failures.entry((store, reason.code())).or_default() += 1;
    }
}

impl Lags {
    fn add(&mut self, lag: f64) {
        if let Some(bucket) = LAG_BOUNDS.iter().position(|bound| lag <= *bound) {
            self.buckets[bucket] += 1;
        }
        self.count += 1;
        self.sum += lag;
    }
}

/// Everything there is to measure, at one moment.
#[derive(Debug, Clone)]
pub struct Measured {
    pub now: Timestamp,
    pub counts: Counts,
    /// `None`: the ledger does not answer.
    pub ledger: Option<(Tally, Backlog)>,
    /// Whether the ledger took what was written last.
    pub ledger_takes: bool,
    /// Whether the last look at the image service succeeded.
    pub service_answers: bool,
    /// Only those of which it is known.
    pub stores_up: BTreeMap<StoreName, bool>,
    pub draining: Vec<StoreName>,
    pub traffic: BTreeMap<StoreName, Traffic>,
    pub transfers: BTreeMap<(StoreName, Phase), u64>,
    pub turns: u64,
    /// `None`: the scan alone finds images.
    pub events: Option<EventsReport>,
    pub held_deletes: u64,
    pub observe: bool,
}

impl Engine {
    /// For a monitoring system. It answers also while the ledger does not.
    pub async fn measured(&self) -> Measured {
        let ledger = self.ask_ledger().await.ok();
        let (mut stores_up, mut transfers) = (BTreeMap::new(), BTreeMap::new());
        for store in self.stores.keys() {
            match self.breakers.report(store).0.into() {
                StoreHealth::Unknown => {}
                health => drop(stores_up.insert(store.clone(), health == StoreHealth::Up)),
            }
            for phase in [Phase::Copying, Phase::Proving] {
                transfers.insert((store.clone(), phase), 0);
            }
        }
        for running in self.running() {
            *transfers.entry((running.store, running.progress.phase)).or_default() += 1;
        }
        let mut counts = self.meter.lock().clone();
        for (store, reason) in self.stores.keys().flat_map(|store| GRAVE.map(|reason| (store, reason))) {
            counts.failures.entry((Some(store.clone()), reason.code())).or_default();
        }
        let draining = self.orders.lock().draining.keys().cloned().collect();
        let turns = self.turns.images().len() as u64;
        let seen = self.health.lock();
        for (reason, count) in &seen.failed_looks {
            *counts.failures.entry((None, *reason)).or_default() += count;
        }
        Measured {
            now: self.clock.now(),
            counts,
            ledger_takes: seen.ledger.is_none() && ledger.is_some(),
            ledger,
            service_answers: seen.trouble.is_none(),
            stores_up,
            draining,
            traffic: self.traffic(),
            transfers,
            turns,
            events: seen.events.as_ref().map(|health| EventsReport::from(health.state())),
            held_deletes: seen.held_deletes,
            observe: self.settings.observe,
        }
    }

    async fn ask_ledger(&self) -> Result<(Tally, Backlog)> {
        let mut cursor = self.meter.cursor.lock().await;
        let mut left = MOST_LINES;
        while left > 0 {
            let told = self.ledger.told(cursor.last, left.min(500)).await?;
            let Some(last) = told.last() else { break };
            let number = last.number;
            for told in &told {
                self.count(told).await?;
            }
            (cursor.last, left) = (number, left.saturating_sub(told.len()));
        }
        if let Some((_, tally, backlog)) = cursor.ledger.as_ref().filter(|(until, ..)| Instant::now() < *until) {
            return Ok((tally.clone(), backlog.clone()));
        }
        let began = Instant::now();
        let (tally, backlog) = (self.ledger.tally().await?, self.ledger.backlog(self.clock.now()).await?);
        let until = Instant::now() + PAUSE.max(began.elapsed() * SHARE);
        cursor.ledger = Some((until, tally.clone(), backlog.clone()));
        Ok((tally, backlog))
    }

    /// Counts what a line tells.
    async fn count(&self, told: &Told) -> Result<()> {
        let what = &told.line.what;
        let is_registered = what.state == ReplicaState::Registered.to_string();
        // How often a location was lost is kept beside one that is back.
        if let Some(reason) = what.reason.filter(|reason| !is_registered && is_found(*reason)) {
            self.meter.lock().fail(what.store.clone(), reason);
        }
        if what.state == FORGOTTEN {
            self.meter.awaited().remove(&told.image);
        }
        let Some(store) = what.store.as_ref().filter(|_| is_registered) else { return Ok(()) };
        let awaited = self.meter.awaited().get_mut(&told.image).and_then(|awaited| awaited.remove(store));
        let lines = self.ledger.history(&told.image).await?;
        let Some(first) = first_line(&lines, &told.line) else { return Ok(()) };
        let (since, rule) = match awaited {
            Some((mark, rule)) => (mark.min(first), rule),
            // Begun before a restart, and registered at the first look after it.
            None => (first, self.rule_of(self.ledger.load(&told.image).await?.as_ref(), store)),
        };
        let lag = told.line.at.duration_since(since).as_secs_f64().max(0.0);
        self.meter.lock().lags.entry((rule, store.clone())).or_default().add(lag);
        Ok(())
    }

    /// Remembers since when the image's copies are waited for, which are not where they should be.
    pub(crate) fn await_copies(&self, record: &Record, since: Timestamp) {
        let is_registered =
            |store| record.replicas.get(store).is_some_and(|replica| replica.state == ReplicaState::Registered);
        let missing: Vec<&StoreName> = record.image.wanted.iter().filter(|store| !is_registered(store)).collect();
        let mut all = self.meter.awaited();
        if missing.is_empty() {
            return;
        }
        if all.len() >= MOST_AWAITED && !all.contains_key(&record.image.id) {
            return;
        }
        let awaited = all.entry(record.image.id.clone()).or_default();
        if missing.iter().all(|store| awaited.contains_key(store)) {
            return;
        }
        for store in missing {
            awaited.entry(store.clone()).or_insert_with(|| (since, self.rule_of(Some(record), store)));
        }
    }

    /// The first rule that wants the image there.
    fn rule_of(&self, record: Option<&Record>, store: &StoreName) -> String {
        let matching = record.map_or(&[][..], |record| &record.image.rules);
        let mut rules = self.settings.policy.rules.specs();
        let rule = rules.find(|spec| matching.contains(&spec.name) && spec.stores.contains(store));
        rule.map_or_else(|| "default".to_owned(), |spec| spec.name.clone())
    }
}

impl Meter {
    /// Lines from before are not counted.
    pub(crate) async fn begin(&self, last: u64) {
        self.cursor.lock().await.last = last;
    }

    /// The loop did its work.
    pub(crate) fn beat(&self, name: &'static str, now: Timestamp) {
        self.lock().loops.insert(name, now);
    }

    /// Something was tried at the store, and failed.
    pub(crate) fn failed(&self, store: &StoreName, reason: Reason) {
        if reason.is_a_failure() && !is_found(reason) {
            self.lock().fail(Some(store.clone()), reason);
        }
    }

    pub(crate) fn turned(&self, is_well: bool) {
        let mut counts = self.lock();
        counts.turns += 1;
        counts.broken_turns += u64::from(!is_well);
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn awaited(&self) -> MutexGuard<'_, BTreeMap<ImageId, Awaited>> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether looks find it, rather than tries fail for it. It is counted by its lines, whoever noted it: one line for each time
/// that it came about.
fn is_found(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::Demoted
            | Reason::EmptyImage
            | Reason::GlanceCopyFailed
            | Reason::GlancesCopy
            | Reason::ImageDeactivated
            | Reason::ImageNotVisible
            | Reason::LastLocation
            | Reason::LastProvenCopy
            | Reason::LocationLost
            | Reason::NoOtherPlace
            | Reason::NotWithdrawn
            | Reason::StoreDown
            | Reason::StoreMoved
            | Reason::StoreRenamed
    )
}

/// When the copy that `registered` tells of was first heard of. `None`: it was registered before, and only came back; or
/// nothing is known of how it came about, as with one that was adopted.
fn first_line(lines: &[HistoryLine], registered: &HistoryLine) -> Option<Timestamp> {
    let of_store = lines.iter().rev().filter(|line| line.what.store == registered.what.store);
    let before = of_store.skip_while(|line| line.at > registered.at || *line == registered);
    let mut first = None;
    for line in before {
        match line.what.state.as_str() {
            "registered" => return None,
            "retiring" | "gone" => break,
            _ => first = Some(line.since),
        }
    }
    first
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use mimeo_core::HistoryState;

    use super::*;

    fn line(second: i64, store: &str, state: &str) -> HistoryLine {
        let at = Timestamp::from_second(second).unwrap();
        let store = Some(store.parse().unwrap());
        let what = HistoryState { store, state: state.into(), reason: None, message: None };
        HistoryLine { at, since: at, times: 1, what }
    }

    fn lag(states: &[(i64, &str, &str)]) -> Option<i64> {
        let lines: Vec<HistoryLine> = states.iter().map(|(second, store, state)| line(*second, store, state)).collect();
        let registered = lines.last().unwrap();
        first_line(&lines, registered).map(|first| registered.at.as_second() - first.as_second())
    }

    #[test]
    fn a_lag_is_counted_from_the_first_line_of_the_copy() {
        assert_eq!(
            lag(&[(1, "a", "copying"), (2, "b", "copying"), (5, "a", "stored"), (9, "a", "registered")]),
            Some(8)
        );
        let after_an_outage = [(1, "a", "copying"), (2, "a", "failed"), (60, "a", "copying"), (90, "a", "registered")];
        assert_eq!(lag(&after_an_outage), Some(89));
        assert_eq!(lag(&[(5, "a", "registered")]), None, "it was there");
    }

    #[test]
    fn what_only_comes_back_has_no_lag_and_what_is_wanted_anew_has_its_own() {
        assert_eq!(
            lag(&[(1, "a", "copying"), (2, "a", "registered"), (8, "a", "suspect"), (9, "a", "registered")]),
            None
        );
        let anew = [(1, "a", "registered"), (8, "a", "retiring"), (20, "a", "copying"), (22, "a", "registered")];
        assert_eq!(lag(&anew), Some(2));
    }

    #[test]
    fn a_lag_falls_into_the_first_bucket_that_holds_it() {
        let mut lags = Lags::default();
        for lag in [0.5, 1.0, 1.1, 1e9] {
            lags.add(lag);
        }
        assert_eq!((lags.buckets[0], lags.buckets[1], lags.count), (2, 1, 4));
        assert_eq!(lags.buckets.iter().sum::<u64>(), 3, "longer than all bounds");
    }
}
