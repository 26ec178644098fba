//! Copies that were made while the image's bits were staged: what they are to be shows only after the import.

use super::{Observation, Plan, adopt::can_be_proven};
use crate::{Change, Image, ImageStatus, Replica, ReplicaState};

/// Gives up a copy of staged bits of which the image was not made: they were thrown away, or converted.
pub(super) fn outdated(plan: &mut Plan, seen: &Observation<'_>, image: &Image, replica: Replica) -> Replica {
    let is_unproven = replica.state == ReplicaState::Stored && replica.digest.is_none();
    let is_outdated = match image.status {
        ImageStatus::Queued => true,
        ImageStatus::Active => !can_be_proven(image) || replica.size != image.size,
        _ => false,
    };
    if !(is_unproven && is_outdated) {
        return replica;
    }
    let gone = replica.object.map(|name| Change::Doom(replica.store.clone(), name, seen.now));
    plan.changes.extend(gone);
    Replica::wanted(replica.store)
}
