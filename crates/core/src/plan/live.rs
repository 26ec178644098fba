//! A copy that was proven: whether the image shows it, in which place, and when it is read again.

use std::time::Duration;

use super::{Observation, Plan, Policy, Verification, order};
use crate::{Backoff, Failure, Image, ImageStatus, ProofKind, Reason, Replica, ReplicaState, Timestamp};

/// So often it is tried to put a location back in its place. Glance may have an order of its own, by its stores' weights.
const RETURNS: u32 = 3;
/// A copy that was lost to another writer has to stay so many times the longest wait until that is forgotten.
const FORGIVING: u32 = 6;
/// A copy that waits to be read again is not forgotten even if nobody tells it that it is its turn.
const TURN: Duration = Duration::from_hours(1);

/// Registered if the image shows its location, else to be registered.
pub(super) fn step(
    plan: &mut Plan,
    seen: &Observation<'_>,
    image: &Image,
    is_wanted: bool,
    mut replica: Replica,
    policy: &Policy,
) -> Replica {
    let (now, backoff) = (seen.now, policy.backoff);
    if replica.url.as_deref().is_some_and(|url| image.has_location(url)) {
        let replica = shown(plan, seen, image, replica, policy);
        if policy.enables(&replica.store) {
            verify(plan, seen, image, &replica);
        }
        return replica;
    }
    if replica.state != ReplicaState::Proven {
        let message = "the location that Mimeo registered is no longer among the image's; it is registered again";
        let failure = lost(message, replica.failure.take(), now, backoff);
        replica = Replica { state: ReplicaState::Proven, failure: Some(failure), ..replica };
    }
    if !is_wanted || !may_arrange(image) {
        return replica;
    }
    let waited = replica.failure.take_if(|failure| failure.reason == Reason::StoreDown);
    if let Some(outage) = seen.conditions.down.get(&replica.store) {
        replica.failure = Some(outage.failure(replica.failure.take().or(waited), backoff.next(now, u32::MAX)));
    } else if replica.is_due(now) {
        plan.register.push(replica.store.clone());
        return replica;
    }
    plan.look_again(replica.failure.as_ref().and_then(|failure| failure.next_try));
    replica
}

/// A location is gone. Glance takes those of an image that is being deleted away one by one, and shows it as active until
/// the last: so it is looked at again before anything is done about it. The wait grows with each loss.
pub(super) fn lost(message: &str, before: Option<Failure>, now: Timestamp, backoff: Backoff) -> Failure {
    let before = before.filter(|before| before.reason == Reason::LocationLost);
    let tries = before.map_or(0, |before| before.tries).saturating_add(1);
    let message = match tries {
        1 => message.to_owned(),
        _ => format!("{message} (lost {tries} times by now: another writer keeps removing it)"),
    };
    Failure { reason: Reason::LocationLost, message, tries, next_try: Some(backoff.next(now, tries)) }
}

/// The image shows the location: the copy is registered, unless its store does not answer.
fn shown(plan: &mut Plan, seen: &Observation<'_>, image: &Image, mut replica: Replica, policy: &Policy) -> Replica {
    let was_registered = replica.state == ReplicaState::Registered;
    replica.seen_at = replica.seen(seen.now);
    let before = replica.failure.take();
    let was_down = before.as_ref().is_some_and(|failure| failure.reason == Reason::StoreDown);
    if let Some(outage) = seen.conditions.down.get(&replica.store) {
        let before = before.filter(|_| was_down);
        let failure = demoted(plan, seen, image, before, policy, |next| outage.failure(None, next));
        return Replica { state: ReplicaState::Suspect, failure: Some(failure), ..replica };
    }
    if was_down && !seen.conditions.answering.contains(&replica.store) {
        let is_enabled = policy.enables(&replica.store);
        if !is_enabled {
            // Nobody ever will: what was last known of it stands.
            return Replica { state: ReplicaState::Suspect, failure: before, ..replica };
        }
        // Nobody has asked the store yet.
        let failure = before.map(|failure| Failure { next_try: Some(policy.backoff.next(seen.now, 3)), ..failure });
        plan.look_again(failure.as_ref().and_then(|failure| failure.next_try));
        return Replica { state: ReplicaState::Suspect, failure, ..replica };
    }
    let failure = before.and_then(|before| match before.reason {
        Reason::StoreDown | Reason::Demoted => returned(plan, seen, image, before, policy),
        Reason::LocationLost => remembered(plan, seen.now, before, policy.backoff),
        // Why it could not be read again.
        _ => was_registered.then_some(before),
    });
    Replica { state: ReplicaState::Registered, failure, ..replica }
}

/// Has the location put behind those of stores that answer, tried ever less often.
fn demoted(
    plan: &mut Plan,
    seen: &Observation<'_>,
    image: &Image,
    before: Option<Failure>,
    policy: &Policy,
    failure: impl Fn(Timestamp) -> Failure,
) -> Failure {
    let order = order::demoted(seen, image).filter(|_| may_arrange(image));
    let is_due = before.as_ref().is_none_or(|before| before.next_try.is_none_or(|at| at <= seen.now));
    let tries = before.as_ref().map_or(0, |before| before.tries);
    let after = match (before, order) {
        (Some(before), Some(_)) if !is_due => before,
        (_, Some(order)) => {
            plan.order = Some(order);
            let tries = tries.saturating_add(1);
            Failure { tries, ..failure(policy.backoff.next(seen.now, tries)) }
        }
        (Some(before), None) if !is_due => before,
        (_, None) => failure(policy.backoff.next(seen.now, u32::MAX)),
    };
    plan.look_again(after.next_try);
    after
}

/// The store answers again: has the location put back in its place, unless Glance keeps another order.
fn returned(
    plan: &mut Plan,
    seen: &Observation<'_>,
    image: &Image,
    before: Failure,
    policy: &Policy,
) -> Option<Failure> {
    let tries = if before.reason == Reason::Demoted { before.tries } else { 0 };
    let is_due = before.reason != Reason::Demoted || before.next_try.is_none_or(|at| at <= seen.now);
    let order = order::returned(policy, seen, image)?;
    if !is_due || !may_arrange(image) {
        let next_try = before.next_try.filter(|at| *at > seen.now);
        let next_try = next_try.or(Some(policy.backoff.next(seen.now, 3)));
        plan.look_again(next_try);
        return Some(Failure { reason: Reason::Demoted, tries, next_try, ..before });
    }
    if tries >= RETURNS {
        return None;
    }
    plan.order = Some(order);
    let (tries, message) = (
        tries + 1,
        "the store did not answer for a while: its location stands behind others, and is put \
         back in its place",
    );
    let next_try = Some(policy.backoff.next(seen.now, tries));
    plan.look_again(next_try);
    Some(Failure { reason: Reason::Demoted, message: message.into(), tries, next_try })
}

/// That it was lost is remembered until it has stayed for a while.
fn remembered(plan: &mut Plan, now: Timestamp, before: Failure, backoff: Backoff) -> Option<Failure> {
    let until = before.next_try?.saturating_add(backoff.max * FORGIVING).ok()?;
    plan.look_again(Some(until));
    (now < until).then_some(before)
}

/// Has a registered copy read again when its proof grows old, or somebody asked for it.
fn verify(plan: &mut Plan, seen: &Observation<'_>, image: &Image, replica: &Replica) {
    let Some(proof) = replica.proof.filter(|proof| proof.kind == ProofKind::Readback) else { return };
    if replica.state != ReplicaState::Registered || image.status != ImageStatus::Active {
        return;
    }
    let asked = seen.record.image.verify_asked.is_some_and(|asked| proof.at < asked);
    // A little earlier than the end of the period, so that the last one is read within it.
    let ages = |period: Duration| proof.at.saturating_add(period / 10 * 9).unwrap_or(Timestamp::MAX);
    let due = seen.conditions.scrub.map(ages);
    if !asked && due.is_none_or(|due| due > seen.now) {
        return plan.look_again(due);
    }
    let is_its_own = |failure: &&Failure| !matches!(failure.reason, Reason::Demoted | Reason::LocationLost);
    let failed = replica.failure.as_ref().filter(is_its_own).and_then(|failure| failure.next_try);
    let opens = seen.conditions.closed.get(&replica.store).filter(|_| !asked).copied();
    if let Some(later) = failed.max(opens).filter(|at| *at > seen.now) {
        return plan.look_again(Some(later));
    }
    if !asked && seen.conditions.scrubbing.contains(&replica.store) {
        plan.verify_later.push(replica.store.clone());
        return plan.look_again(seen.now.saturating_add(TURN).ok());
    }
    plan.verify.push(Verification { store: replica.store.clone(), asked });
}

/// Whether Glance takes a change of the image's locations now.
fn may_arrange(image: &Image) -> bool {
    image.status == ImageStatus::Active && !image.importing
}
