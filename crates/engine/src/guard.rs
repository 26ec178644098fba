//! The guard against mass deletion: counts the images that lose copies, those of deleted images and those that no rule
//! wants any more together, and lets many at once wait for an operator. What it counted outlives a restart.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use mimeo_core::{Change, Object, ObjectState, Reason, Record, Replica, ReplicaState, Result, Timestamp, plan};

use crate::{
    Engine,
    sabotage::{self, Bug},
    walk::Records,
};

/// So few removals are never a mass, whatever their share: a cloud of ten images must be able to lose two.
const FEW: u64 = 5;
/// Removals within so many minutes count as one: a mass deletion is one however slowly it comes. By the wall clock, since
/// they outlive a restart: where that is set an hour ahead, another hour begins.
const WINDOW: i64 = 60;
/// Until when removals were let through by an operator.
const CONFIRMED: &str = "deletes-confirmed";
/// How many images lost copies in each minute of the window, as in `29400000:3 29400001:1`.
const LATELY: &str = "deletes-lately";

#[derive(Default)]
pub(crate) struct Guard(Mutex<State>);

#[derive(Default)]
struct State {
    /// What was unwanted before this may go.
    cleared: Timestamp,
    lately: BTreeMap<i64, u64>,
}

impl Guard {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an image that loses copies now; the change keeps the count.
    pub(crate) fn note(&self, now: Timestamp) -> Change {
        let mut state = self.lock();
        *state.lately.entry(minute(now)).or_default() += 1;
        state.forget_old(now);
        let counts = state.lately.iter().map(|(minute, count)| format!("{minute}:{count}"));
        Change::Bookmark(LATELY.into(), counts.collect::<Vec<_>>().join(" "))
    }

    fn lately(&self, now: Timestamp) -> u64 {
        let mut state = self.lock();
        state.forget_old(now);
        state.lately.values().sum()
    }

    /// Copies that no rule wanted any more before this may go.
    pub(crate) fn unwanted_before(&self, now: Timestamp, grace: Duration) -> Timestamp {
        self.lock().cleared.min(now.saturating_sub(grace).unwrap_or(Timestamp::MIN))
    }
}

impl State {
    /// What is from after now, when the clock was ahead, counts as from now: neither for ever nor not at all.
    fn forget_old(&mut self, now: Timestamp) {
        let now = minute(now);
        let ahead: u64 = self.lately.split_off(&(now + 1)).into_values().sum();
        if ahead > 0 {
            *self.lately.entry(now).or_default() += ahead;
        }
        self.lately.retain(|at, _| *at >= now - WINDOW);
    }
}

fn minute(at: Timestamp) -> i64 {
    at.as_second().div_euclid(60)
}

/// Reads what was counted before this process began.
pub(crate) async fn recall(engine: &Engine) -> Result<()> {
    let text = engine.ledger.bookmark(LATELY).await?.unwrap_or_default();
    let count = |word: &str| {
        let (minute, count) = word.split_once(':')?;
        Some((minute.parse().ok()?, count.parse().ok()?))
    };
    engine.guard.lock().lately = text.split_whitespace().filter_map(count).collect();
    Ok(())
}

/// Lets through what was to go at that time, however many they are, and nothing that came to it since.
pub(crate) async fn confirm(engine: &Engine, seen: Timestamp) -> Result<()> {
    let seen = seen.max(confirmed(engine).await?);
    engine.ledger.commit(&[Change::Bookmark(CONFIRMED.into(), seen.to_string())]).await
}

/// When an operator last did so.
pub(crate) async fn confirmed(engine: &Engine) -> Result<Timestamp> {
    let text = engine.ledger.bookmark(CONFIRMED).await?;
    let confirmed = text.and_then(|text| text.parse::<Timestamp>().ok());
    // Under a clock that was ahead a word was given for what nobody had seen yet.
    let now = engine.clock.now();
    Ok(confirmed.filter(|at| !plan::is_ahead(*at, now)).unwrap_or(Timestamp::UNIX_EPOCH))
}

/// What the guard says at the beginning of a sweep.
pub(crate) struct Verdict {
    /// How many images' copies wait for an operator.
    pub(crate) held: u64,
    pub(crate) confirmed: Timestamp,
    /// What goes after that was not counted.
    judged: Timestamp,
}

impl Verdict {
    pub(crate) fn lets_through(&self, record: &Record) -> bool {
        let last = if self.held == 0 { self.confirmed.max(self.judged) } else { self.confirmed };
        record.image.gone_at.is_none_or(|at| at <= last)
    }
}

/// Whether those that are to go, with those that went lately, are more than so many, or more than such a share of all.
pub(crate) async fn judge(engine: &Engine) -> Result<Verdict> {
    // Between looks: what one of them concludes later is from later too.
    let concluded = engine.concluding.write().await;
    let (gc, now) = (engine.settings.gc, engine.clock.now());
    drop(concluded);
    let confirmed = confirmed(engine).await?;
    let (waiting, gone) = going(engine, confirmed).await?;
    let lately = engine.guard.lately(now);
    let (images, all) = (waiting + gone + lately, engine.ledger.count().await? + lately);
    let is_mass = images > gc.max_images || (images > FEW && images * 100 > all * gc.max_percent);
    let held = if is_mass && !sabotage::is(Bug::GuardSleeps) { waiting } else { 0 };
    if held > 0 {
        tracing::warn!(images, all, "more removals at once than the guard lets through; see `mimeo gc`");
    }
    engine.guard.lock().cleared = if held > 0 { confirmed } else { now };
    Ok(Verdict { held, confirmed, judged: now })
}

/// The images whose copies are to go, and those whose copies have just gone, which nobody has noted yet.
async fn going(engine: &Engine, confirmed: Timestamp) -> Result<(u64, u64)> {
    let (mut waiting, mut gone, mut walk) = (0, 0, Records::sweepable(engine.ledger.as_ref()));
    while let Some(records) = walk.next().await? {
        let counts = |record: &&Record| match record.image.gone_at {
            Some(gone) => gone > confirmed && record.objects.iter().any(|object| object.state == ObjectState::Kept),
            None => unwanted(engine, record).into_iter().any(|(_, since)| since > confirmed),
        };
        waiting += records.iter().filter(counts).count() as u64;
        gone += records.iter().filter(|record| has_gone(record, confirmed)).count() as u64;
    }
    Ok((waiting, gone))
}

/// Whether the image had copies, and they have gone without an operator's word: that is counted as it is forgotten. What is
/// left of broken copies may be there for long, and a listing from before may have found again what was removed.
pub(crate) fn has_gone(record: &Record, confirmed: Timestamp) -> bool {
    let is_kept = |object: &Object| object.state == ObjectState::Kept;
    let is_away = |object: &Object| object.state == ObjectState::Found;
    let has_lost = |replica: &Replica| replica.object.is_some() && record.object_of(replica).is_none_or(is_away);
    let is_empty = record.objects.is_empty() && !record.replicas.is_empty();
    let has_left = !record.objects.iter().any(is_kept) && record.replicas.values().any(has_lost);
    record.image.gone_at > Some(confirmed) && (is_empty || has_left)
}

/// The copies that are still there and that no rule wants any more, and since when. Not those of drained stores: an
/// operator named the store.
pub(crate) fn unwanted<'a>(engine: &Engine, record: &'a Record) -> Vec<(&'a Replica, Timestamp)> {
    let given = engine.orders.lock();
    let may_go = |replica: &&Replica| {
        let is_kept = record.object_of(replica).is_some_and(|object| object.state == ObjectState::Kept);
        let is_enabled = engine.settings.policy.enables(&replica.store);
        let reason = replica.failure.as_ref().map(|failure| failure.reason);
        let is_going = replica.state == ReplicaState::Retiring && reason == Some(Reason::NotWanted);
        is_kept && is_enabled && is_going && !given.draining.contains_key(&replica.store)
    };
    let since = |replica: &'a Replica| Some((replica, replica.unwanted_since?));
    record.replicas.values().filter(may_go).filter_map(since).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use mimeo_testkit::sample::time;

    use super::*;

    #[test]
    fn what_was_counted_under_a_clock_that_was_ahead_counts_for_an_hour_from_now() {
        let at = |minutes: i64| time(0).saturating_add(Duration::from_secs(60 * minutes.unsigned_abs())).unwrap();
        let mut state =
            State { lately: BTreeMap::from([(minute(at(0)), 1), (minute(at(500)), 20)]), ..State::default() };
        let mut count = |minutes| {
            state.forget_old(at(minutes));
            state.lately.values().sum::<u64>()
        };
        assert_eq!([count(10), count(65), count(71)], [21, 20, 0]);
    }
}
