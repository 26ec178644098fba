//! Copies that nothing wants where they are: when they may go, and why they are still there.

use super::{Observation, Plan};
use crate::{Change, Failure, Image, ImageStatus, ObjectState, Reason, Replica, ReplicaState, StoreName};

/// What the rules want of the image, and the replicas of these stores as this look leaves them.
pub(super) struct Wanted<'a> {
    pub(super) stores: &'a [StoreName],
    pub(super) replicas: &'a [Replica],
}

/// A copy at an enabled store that nothing wants there: hands it to the sweeper when every wanted copy is registered,
/// and says until then why it stays. Where nothing is wanted anywhere the image is left alone.
pub(super) fn retire(
    plan: &mut Plan,
    seen: &Observation<'_>,
    image: &Image,
    wanted: &Wanted<'_>,
    replica: Replica,
) -> Replica {
    let is_drained = seen.conditions.draining.contains(&replica.store);
    let object = seen.record.object_of(&replica).filter(|object| object.state == ObjectState::Kept);
    let Some(object) = object.filter(|_| is_drained || !wanted.stores.is_empty()) else {
        let is_going = replica.state == ReplicaState::Retiring;
        return Replica { unwanted_since: replica.unwanted_since.filter(|_| is_going), ..replica };
    };
    let since = replica.unwanted_since.unwrap_or(seen.now);
    let is_due = is_drained || since <= seen.conditions.unwanted_before;
    let (reason, message) = match hold(seen, image, wanted, &replica) {
        Some((reason, why)) => (reason, why),
        None if is_due => {
            plan.changes.push(Change::Doom(replica.store.clone(), object.name.clone(), seen.now));
            plan.look_again(Some(seen.now));
            if !is_drained {
                plan.retired.push(replica.store.clone());
            }
            (Reason::NotWanted, "it is being removed".to_owned())
        }
        None => (
            Reason::NotWanted,
            "it goes after [gc] grace, and with many others only after `mimeo gc --confirm`".to_owned(),
        ),
    };
    let cause = if is_drained { "the store is drained" } else { "no rule wants it here any more" };
    // What waits for its store's move is not counted by the guard: its grace begins when it could go.
    let since = if reason == Reason::StoreMoved { seen.now } else { since };
    let failure = Failure { reason, message: format!("{cause}; {message}"), tries: 1, next_try: None };
    Replica { state: ReplicaState::Retiring, unwanted_since: Some(since), failure: Some(failure), ..replica }
}

/// Why the copy has to stay for now.
fn hold(seen: &Observation<'_>, image: &Image, wanted: &Wanted<'_>, replica: &Replica) -> Option<(Reason, String)> {
    if wanted.stores.is_empty() {
        let message = "the rules give this image no other place: name another store for it, or delete the image";
        return Some((Reason::NoOtherPlace, message.into()));
    }
    if seen.elsewhere.contains(&replica.store) {
        return Some((Reason::StoreMoved, format!("but {}", moved(&replica.store))));
    }
    let registered = |store: &&StoreName| {
        wanted.replicas.iter().any(|other| other.store == **store && other.state == ReplicaState::Registered)
    };
    let missing: Vec<&str> = wanted.stores.iter().filter(|store| !registered(store)).map(StoreName::as_str).collect();
    if !missing.is_empty() {
        let message = format!("it goes when the image is registered at {}", missing.join(", "));
        return Some((Reason::NotWanted, message));
    }
    if !wanted.replicas.iter().any(Replica::is_proven) {
        let message = "it is the only copy that Mimeo has proven, and stays: let a rule name a store that Mimeo writes";
        return Some((Reason::LastProvenCopy, message.into()));
    }
    if image.status != ImageStatus::Active || image.importing {
        return Some((Reason::NotWanted, "it goes when Glance takes changes of the image's locations".into()));
    }
    None
}

pub(super) fn moved(store: &StoreName) -> String {
    format!(
        "the copy is not where the configuration now puts {store}: put the old URL back, or bring the files to the new \
         place and let `mimeo stores move {store}` prove them there"
    )
}

/// A copy at a store that is not enabled: it is left as it is, for when the store comes back. Only what the image shows
/// of it is noted.
pub(super) fn absent(seen: &Observation<'_>, image: &Image, replica: Replica) -> Replica {
    use ReplicaState as R;
    let is_shown = replica.url.as_deref().is_some_and(|url| image.has_location(url));
    let failure = |reason, message: &str| Some(Failure { reason, message: message.into(), tries: 1, next_try: None });
    match replica.state {
        R::Registered | R::Suspect if is_shown => {
            Replica { state: R::Registered, seen_at: replica.seen(seen.now), failure: None, ..replica }
        }
        R::Registered => {
            let message = "its location is no longer among the image's, and its store is not enabled";
            Replica { state: R::Suspect, failure: failure(Reason::LocationLost, message), ..replica }
        }
        // Once the store is enabled again, it is begun at once.
        R::Copying => Replica { state: R::Wanted, failure: None, ..replica },
        _ => replica,
    }
}

/// What stands in the ledger of a copy that was to go when the image is looked at again: it may be wanted again.
pub(super) fn resumed(seen: &Observation<'_>, image: &Image, replica: Replica) -> Replica {
    use ReplicaState as R;
    let was_unwanted = replica.unwanted_since.is_some();
    match seen.record.object_of(&replica).map(|object| object.state) {
        Some(ObjectState::Kept) if was_unwanted && replica.proof.is_some() => {
            Replica { state: R::Proven, failure: None, ..replica }
        }
        // The image is back, or was never away: a copy that is still there must show anew that it is right. Under the same id it may
        // be another image: what Glance says of its bits counts, where it does.
        Some(ObjectState::Kept) => {
            let (digest, size) = match image.hash {
                Some(_) => (None, image.size.or(replica.size)),
                None => (replica.digest, replica.size),
            };
            Replica { state: R::Stored, failure: None, proof: None, digest, size, ..replica }
        }
        Some(state) if state.is_to_go() && was_unwanted => replica,
        _ => Replica { state: R::Gone, failure: None, proof: None, ..replica },
    }
}
