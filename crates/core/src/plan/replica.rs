//! What one copy of an image needs now.

use super::{Observation, Plan, Policy, adopt, doom, is_doomed, is_kept, is_open, live, retire, staged};
use crate::{
    Backoff, Change, Error, Failure, Image, ImageStatus, Object, ObjectState, ProofKind, Reason, Record, Replica,
    ReplicaState, StoreName, Timestamp,
};

/// Decides what one replica needs now, adds that to the plan, and gives the replica as it is to be recorded.
pub(super) fn step(
    plan: &mut Plan,
    seen: &Observation<'_>,
    image: &Image,
    is_wanted: bool,
    mut replica: Replica,
    policy: &Policy,
) -> Replica {
    use ReplicaState as R;
    let (now, backoff) = (seen.now, policy.backoff);
    if image.size == Some(0) && image.status == ImageStatus::Active {
        return empty(replica, is_wanted, backoff, now);
    }
    if replica.proof.is_some_and(|proof| proof.kind == ProofKind::Glance) {
        // The store was Glance's, and is Mimeo's now: what Glance made there is none of its copies.
        replica = Replica::wanted(replica.store);
    }
    if replica.state == R::Retiring {
        replica = retire::resumed(seen, image, replica);
    }
    if is_wanted && replica.state == R::Retiring {
        // The former copy is the sweeper's, who may have to leave it for long: another image may name it.
        let former = replica.object.filter(|_| replica.proof.is_some() && adopt::can_be_proven(image));
        plan.changes.extend(former.map(|object| Change::Regret(replica.store.clone(), object)));
        replica = Replica::wanted(replica.store);
    }
    replica.unwanted_since.take_if(|_| is_wanted);
    replica = adopt::shown(plan, seen, image, replica);
    replica = staged::outdated(plan, seen, image, replica);
    if seen.elsewhere.contains(&replica.store) && is_kept(seen.record, &replica) {
        return moved_step(plan, seen, image, replica);
    }
    let is_live = matches!(replica.state, R::Proven | R::Registered | R::Suspect);
    if is_live && is_doomed(seen.record, &replica) {
        // Its bits are to go, and its location before them: it is a copy no more.
        replica = Replica { failure: replica.failure, ..Replica::wanted(replica.store) };
    } else if is_live {
        return live::step(plan, seen, image, is_wanted, replica, policy);
    }
    if matches!(replica.state, R::Wanted | R::Copying | R::Failed | R::Gone) && !is_kept(seen.record, &replica) {
        // Left behind by a writer that is no longer there. What it has of a large image may be gone on with.
        let is_of_use = is_wanted && image.status == ImageStatus::Active && image.size >= Some(2 * policy.chunk);
        let is_of_use = is_of_use && !has_failed_too_often(&replica) && !adopt::has_whole(seen, image, &replica.store);
        let partial = replica.object.take().filter(|name| is_of_use && is_open(seen.record, &replica.store, name));
        plan.changes.extend(doom(seen.record, &replica.store, partial.as_ref(), now));
        let url = replica.url.filter(|_| partial.is_some());
        replica = Replica { object: partial, url, size: None, digest: None, proof: None, ..replica };
    }
    if replica.state == R::Copying {
        replica.state = R::Wanted;
    }
    replica = adopt::unheld(plan, seen, image, is_wanted, replica);
    // One that a location shows must be right, wanted or not.
    let is_shown = replica.state == R::Stored && replica.url.as_deref().is_some_and(|url| image.has_location(url));
    if !(is_wanted || is_shown) || image.status != ImageStatus::Active {
        return replica;
    }
    if let Some(failure) = replica.failure.as_mut().filter(|it| it.reason == Reason::SourceMismatch && it.tries == 1)
        && has_proven_copy(seen.record, image)
    {
        // Glance may have given a copy that went bad, and there is one that is right.
        failure.next_try = Some(now);
    }
    if let Some(store) = due(plan, seen, &mut replica, backoff) {
        match replica.state {
            R::Stored => plan.prove.push(store),
            _ => plan.copy.push(store),
        }
    }
    replica
}

/// Whether something is to be begun for the replica now; otherwise it says when, and why not now.
pub(super) fn due(
    plan: &mut Plan,
    seen: &Observation<'_>,
    replica: &mut Replica,
    backoff: Backoff,
) -> Option<StoreName> {
    if let Some(former) = awaits_rename(seen, &replica.store) {
        let message = format!(
            "the copy is there under the store's former name: `mimeo stores rename {former} {}` makes it this store's",
            replica.store
        );
        replica.failure = Some(Failure { reason: Reason::StoreRenamed, message, tries: 1, next_try: None });
        return None;
    }
    replica.failure.take_if(|failure| failure.reason == Reason::StoreRenamed);
    let waited = replica.failure.take_if(|it| matches!(it.reason, Reason::OutsideHours | Reason::StoreDown));
    if !replica.is_due(seen.now) {
        plan.look_again(replica.failure.as_ref().and_then(|failure| failure.next_try));
        return None;
    }
    if let Some(outage) = seen.conditions.down.get(&replica.store) {
        let failure = outage.failure(replica.failure.take().or(waited), backoff.next(seen.now, u32::MAX));
        plan.look_again(failure.next_try);
        replica.failure = Some(failure);
        return None;
    }
    let opens = seen.conditions.closed.get(&replica.store).filter(|_| replica.state != ReplicaState::Stored);
    if let Some(opens) = opens {
        plan.look_again(Some(*opens));
        replica.failure = Some(outside_hours(*opens, replica.failure.take().or(waited)));
        return None;
    }
    if replica.failure.is_none() && replica.state == ReplicaState::Failed {
        // It only waited; a failure without a reason would tell nobody anything.
        replica.state = ReplicaState::Wanted;
    }
    Some(replica.store.clone())
}

/// The former name of a store that was renamed, where this image has a copy under it.
fn awaits_rename<'a>(seen: &Observation<'a>, store: &StoreName) -> Option<&'a StoreName> {
    let former = seen.conditions.renamed.get(store)?;
    let is_kept = |object: &Object| object.store == *former && object.state == ObjectState::Kept;
    seen.record.objects.iter().any(is_kept).then_some(former)
}

/// A copy that is not where its store is now: it stays as it is, until an operator lets it be proven at the new place.
fn moved_step(plan: &mut Plan, seen: &Observation<'_>, image: &Image, replica: Replica) -> Replica {
    use ReplicaState as R;
    let is_shown = replica.url.as_deref().is_some_and(|url| image.has_location(url));
    let before = replica.failure.filter(|failure| failure.reason == Reason::StoreMoved);
    let is_due = before.as_ref().is_none_or(|failure| failure.next_try.is_none_or(|at| at <= seen.now));
    if seen.conditions.moving.contains(&replica.store) && image.status == ImageStatus::Active && is_due {
        plan.prove.push(replica.store.clone());
    }
    let message = retire::moved(&replica.store);
    let told = Failure { reason: Reason::StoreMoved, message, tries: 1, next_try: None };
    let (state, seen_at) = match replica.state {
        _ if is_shown && replica.proof.is_some() => (R::Registered, Some(seen.now)),
        R::Registered => (R::Suspect, replica.seen_at),
        state => (state, replica.seen_at),
    };
    Replica { state, seen_at, failure: Some(before.unwrap_or(told)), ..replica }
}

/// Says that the copy waits for the store's hours; what had failed before goes on being counted.
fn outside_hours(opens: Timestamp, before: Option<Failure>) -> Failure {
    let tries = before.map_or(0, |failure| failure.tries);
    let message = "copies to this store start at other hours only: see `hours` in its section or in [transfer]";
    Failure { reason: Reason::OutsideHours, message: message.into(), tries, next_try: Some(opens) }
}

/// Glance takes no location of size 0: said once, never tried.
pub(super) fn empty(replica: Replica, is_wanted: bool, backoff: Backoff, now: Timestamp) -> Replica {
    let told = replica
        .failure
        .as_ref()
        .is_some_and(|failure| failure.reason == Reason::EmptyImage && failure.next_try.is_none());
    if told || !is_wanted {
        return replica;
    }
    let error = Error::new(
        Reason::EmptyImage,
        "the image is empty, and Glance registers no location of size 0; upload its bits as a new image",
    );
    replica.failed(ReplicaState::Failed, &error, backoff, now)
}

/// After so many failures in a row at a store that answers, what there is of an object is given up for a new one.
const RESUMES: u32 = 5;

fn has_failed_too_often(replica: &Replica) -> bool {
    let answers = |reason: Reason| reason.is_the_stores() && reason != Reason::StoreUnreachable;
    replica
        .failure
        .as_ref()
        .is_some_and(|failure| failure.tries > 0 && failure.tries.is_multiple_of(RESUMES) && answers(failure.reason))
}

fn has_proven_copy(record: &Record, image: &Image) -> bool {
    let proven = |it: &&Replica| matches!(it.state, ReplicaState::Proven | ReplicaState::Registered);
    image.hash.is_some() && record.replicas.values().filter(proven).any(|replica| is_kept(record, replica))
}
