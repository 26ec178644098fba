//! What is at a store without the record saying so, as after the ledger was lost or an old one came back: it is entered,
//! and may become the replica's object. Whether it is right is for its proof to say.

use super::{Observation, Plan, doom};
use crate::{Change, Image, ImageStatus, Object, ObjectName, ObjectState, Replica, ReplicaState, StoreName};

/// A location of the image that leads exactly to where a store of the configuration puts an object of Mimeo's own making
/// for this very image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    pub store: StoreName,
    pub object: ObjectName,
    /// As the store writes it now.
    pub url: String,
}

/// Enters what the image's locations show at the replica's store, and makes the first of it the replica's object, unless
/// the replica's own is among it.
pub(super) fn shown(plan: &mut Plan, seen: &Observation<'_>, image: &Image, replica: Replica) -> Replica {
    let known = |shown: &Shown| seen.record.object(&shown.store, &shown.object).map(|object| object.state);
    let mut candidates: Vec<&Shown> = seen.shown.iter().filter(|shown| shown.store == replica.store).collect();
    // Of a store that the record has by another name it is known by that one.
    let is_elsewhere = |shown: &Shown| {
        seen.record.objects.iter().any(|object| object.name == shown.object && object.store != shown.store)
    };
    candidates.retain(|shown| !is_elsewhere(shown));
    candidates.retain(|shown| match known(shown) {
        // To be withdrawn, and removed.
        Some(state) if state.is_to_go() => false,
        // A location was made of it: it was closed, and proven, after this record was written. Not to be relied on where
        // nothing can show that it is whole.
        Some(ObjectState::Open) => can_be_proven(image),
        _ => true,
    });
    for shown in candidates.iter().filter(|shown| known(shown) != Some(ObjectState::Kept)) {
        plan.changes.push(Change::Object(kept(shown, seen)));
    }
    let holds =
        |shown: &&Shown| replica.object.as_ref() == Some(&shown.object) && known(shown) == Some(ObjectState::Kept);
    match candidates.first() {
        Some(first) if can_be_proven(image) && !candidates.iter().any(holds) => {
            // What an attempt left behind beside it is of no use any more.
            let left = doom(seen.record, &replica.store, None, seen.now).into_iter();
            let is_adopted = |change: &Change| matches!(change, Change::Doom(_, name, _) if candidates.iter().any(|shown| shown.object == *name));
            plan.changes.extend(left.filter(|change| !is_adopted(change)));
            taken(image, replica, first.object.clone(), first.url.clone())
        }
        _ => replica,
    }
}

/// A replica that has no object takes one that nobody holds, the newest there is. Where nothing wants it, what was only
/// found is left alone.
pub(super) fn unheld(
    plan: &mut Plan,
    seen: &Observation<'_>,
    image: &Image,
    is_wanted: bool,
    replica: Replica,
) -> Replica {
    let is_of_use = image.status == ImageStatus::Active && can_be_proven(image);
    let is_given_up = |object: &Object| {
        let dooms = |change: &Change| matches!(change, Change::Doom(store, name, _) if *store == object.store && *name == object.name);
        plan.changes.iter().any(dooms)
    };
    let stands_free = |object: &&Object| {
        let is_there = object.state == ObjectState::Kept || (is_wanted && object.state == ObjectState::Found);
        object.store == replica.store && is_there && !is_given_up(object)
    };
    let newest = seen.record.objects.iter().filter(stands_free).max_by_key(|object| object.name.attempt());
    match newest {
        Some(object) if is_of_use && replica.object.is_none() => {
            plan.changes.push(Change::Object(Object { state: ObjectState::Kept, since: seen.now, ..object.clone() }));
            taken(image, replica, object.name.clone(), object.url.clone())
        }
        _ => replica,
    }
}

/// Whether there is an object that was closed, and that a replica which gives up its own may take.
pub(super) fn has_whole(seen: &Observation<'_>, image: &Image, store: &StoreName) -> bool {
    let is_whole = |object: &Object| object.store == *store && object.state == ObjectState::Kept;
    can_be_proven(image) && seen.record.objects.iter().any(is_whole)
}

/// A replica that is registered needs no other object at its store.
pub(super) fn surplus(plan: &mut Plan, seen: &Observation<'_>, replica: &Replica) {
    let Some(own) = replica.object.as_ref().filter(|_| replica.state == ReplicaState::Registered) else { return };
    let is_other = |name: &ObjectName| own != name;
    let held = seen.record.objects.iter().filter(|object| object.store == replica.store);
    let held = held.filter(|object| object.state == ObjectState::Kept).map(|object| &object.name);
    let entered = seen.shown.iter().filter(|shown| shown.store == replica.store).map(|shown| &shown.object);
    let entered = entered.filter(|name| seen.record.objects.iter().all(|object| object.name != **name));
    let others: Vec<_> = held.chain(entered).filter(|name| is_other(name)).collect();
    plan.changes.extend(others.into_iter().map(|name| Change::Doom(replica.store.clone(), name.clone(), seen.now)));
}

/// An image without a hash has nothing that would show that a copy is its own: such a copy is made anew.
pub(super) fn can_be_proven(image: &Image) -> bool {
    image.hash.is_some() && image.size.is_some_and(|size| size > 0)
}

fn kept(shown: &Shown, seen: &Observation<'_>) -> Object {
    Object {
        store: shown.store.clone(),
        name: shown.object.clone(),
        url: shown.url.clone(),
        state: ObjectState::Kept,
        since: seen.now,
    }
}

fn taken(image: &Image, replica: Replica, object: ObjectName, url: String) -> Replica {
    Replica {
        state: ReplicaState::Stored,
        object: Some(object),
        url: Some(url),
        size: image.size,
        digest: None,
        proof: None,
        failure: None,
        ..replica
    }
}
