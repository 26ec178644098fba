//! Stores that only Glance can write: it is asked for the copy, and the image shows what came of it.

use std::time::Duration;

use super::{
    Observation, Plan, Policy,
    live::lost,
    replica::{due, empty},
};
use crate::{
    Error, Failure, Image, ImageStatus, Location, Proof, ProofKind, Reason, Replica, ReplicaState, STORE_KEY, Timestamp,
};

/// A copy that Glance makes itself: asked for once, followed, and believed when the image shows it.
pub(super) fn delegated_step(
    plan: &mut Plan,
    seen: &Observation<'_>,
    image: &Image,
    is_wanted: bool,
    mut replica: Replica,
    (backend, policy): (&str, &Policy),
) -> Replica {
    use ReplicaState as R;
    let (now, backoff) = (seen.now, policy.backoff);
    if let Some(url) = at_glance(image, backend) {
        let is_drained = seen.conditions.draining.contains(&replica.store);
        let before = replica.proof.filter(|proof| proof.kind == ProofKind::Glance);
        return Replica {
            state: R::Registered,
            url,
            size: image.size,
            proof: before.or(Some(Proof { kind: ProofKind::Glance, at: now })),
            seen_at: replica.seen(now),
            failure: is_drained.then(|| glances_copy(backend)),
            ..replica
        };
    }
    if image.size == Some(0) && image.status == ImageStatus::Active {
        return empty(replica, is_wanted, backoff, now);
    }
    if matches!(replica.state, R::Registered | R::Suspect) {
        let message = "the image is no longer in Glance's store; Glance is asked for it again";
        let failure = lost(message, replica.failure.take(), now, backoff);
        replica = Replica { failure: Some(failure), ..Replica::wanted(replica.store) };
    }
    if image.importing {
        return imported(plan, seen, image, is_wanted, replica);
    }
    if replica.state == R::Copying {
        let why = match image.failed_backends.contains(backend) {
            true => "Glance could not write it there",
            false => "Glance ended the copy without it",
        };
        let message = format!("{}: {why}; the log of glance-api, and the task of the image, say more", replica.store);
        replica = replica.failed(R::Failed, &Error::new(Reason::GlanceCopyFailed, message), backoff, now);
    }
    if !is_wanted || image.status != ImageStatus::Active {
        return replica;
    }
    let waited = replica.failure.as_ref().filter(|failure| failure.reason == Reason::AfterOthers);
    let waited = waited.map_or(0, |failure| failure.tries);
    if let Some(store) = due(plan, seen, &mut replica, backoff) {
        if is_glances_turn(plan, seen, policy, waited) {
            plan.ask.push(store);
        } else {
            let tries = waited.saturating_add(1);
            // Locations that cannot be put right are tried again ever more seldom too: not at the same moments.
            let after = if plan.has_locations_to_arrange() { 1 } else { tries };
            let next_try = Some(backoff.next(now, after));
            let message = "Glance is asked for it when Mimeo's own copies are registered, or take too long";
            replica.failure = Some(Failure { reason: Reason::AfterOthers, message: message.into(), tries, next_try });
            plan.look_again(next_try);
        }
    }
    replica
}

/// Why a drain does not remove it.
fn glances_copy(backend: &str) -> Failure {
    let message = format!(
        "the store is drained, but Glance made this copy and only Glance can remove it: `glance stores-delete --store \
         {backend} IMAGE`"
    );
    Failure { reason: Reason::GlancesCopy, message, tries: 1, next_try: None }
}

/// After so long without a change of the image, its import may have died with the glance-api that did it. Glance itself
/// then lets another import take the image over; one that lives it protects, with a conflict.
const DEAD: Duration = Duration::from_mins(70);

/// Glance imports the image: it is waited for, unless that seems to have died with what Mimeo asked for.
fn imported(plan: &mut Plan, seen: &Observation<'_>, image: &Image, is_wanted: bool, replica: Replica) -> Replica {
    let asked = matches!(replica.state, ReplicaState::Copying | ReplicaState::Failed);
    let dead_at = image.updated_at.saturating_add(DEAD).unwrap_or(Timestamp::MAX);
    if !asked || !is_wanted || image.status != ImageStatus::Active {
        return replica;
    }
    if dead_at <= seen.now && replica.is_due(seen.now) {
        plan.ask.push(replica.store.clone());
    } else {
        let retry = replica.failure.as_ref().and_then(|failure| failure.next_try);
        plan.look_again(retry.max(Some(dead_at)));
    }
    replica
}

/// The location of the copy that Glance has in a store of its own, where locations are shown. Those that Mimeo registered
/// are of no copy of Glance's.
fn at_glance(image: &Image, backend: &str) -> Option<Option<String>> {
    let is_glances =
        |location: &&Location| location.backend() == Some(backend) && !location.metadata.contains_key(STORE_KEY);
    let location = image.locations.iter().find(is_glances);
    let is_there = image.backends.contains(backend) && (location.is_some() || !image.locations_shown);
    is_there.then(|| location.map(|location| location.url.clone()))
}

/// So often it is looked whether Mimeo's own copies are registered before Glance is asked beside them.
pub(super) const LOOKS_BEFORE_ASKING: u32 = 6;

/// No location can be registered while Glance copies an image: it is asked for its own copies when Mimeo's are
/// registered, without waiting long for those that are slow. And never while it may still be at work on a PATCH.
fn is_glances_turn(plan: &Plan, seen: &Observation<'_>, policy: &Policy, waited: u32) -> bool {
    let mut own = seen.record.replicas.values().filter(|replica| policy.backend(&replica.store).is_none());
    // Where it is due again it is registered now, or no longer wanted: then that PATCH was long ago.
    let is_unanswered = |replica: &Replica| {
        let failure = replica.failure.as_ref().filter(|_| replica.state == ReplicaState::Proven);
        let is_new = failure.is_some_and(|failure| failure.reason == Reason::ImageServiceUnreachable);
        is_new && !replica.is_due(seen.now)
    };
    if !plan.register.is_empty() || plan.has_locations_to_arrange() || own.clone().any(is_unanswered) {
        return false;
    }
    let is_idle = !plan.has_own_work() && seen.running.is_empty();
    is_idle || waited >= LOOKS_BEFORE_ASKING || own.any(|replica| replica.state == ReplicaState::Registered)
}
