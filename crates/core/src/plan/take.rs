//! Copies that a store makes by itself from what another has, so that the image is not read for them.

use super::{Observation, Plan, Policy, is_open, sources::is_good};
use crate::{Image, Replica, ReplicaState, StoreName};

/// Of the copies to be made, those that can be taken from a proven one. Nobody waits for a copy that is not proven yet:
/// what is to go to several stores now is read once for all of them.
pub(super) fn divert(plan: &mut Plan, policy: &Policy, seen: &Observation<'_>, image: &Image) {
    plan.copy.retain(|store| match giver(policy, seen, image, store) {
        Some(giver) => {
            plan.take.push((store.clone(), giver));
            false
        }
        None => true,
    });
}

/// Whose copy the store is to take. One that failed is made from the image's own bits the next time: the failure may
/// have been the other copy's. And what is there in part is gone on with.
fn giver(policy: &Policy, seen: &Observation<'_>, image: &Image, store: &StoreName) -> Option<StoreName> {
    let givers = seen.conditions.takes.get(store)?;
    let failed = |replica: &Replica| {
        replica.state == ReplicaState::Failed && replica.failure.as_ref().is_some_and(|it| it.reason.is_the_stores())
    };
    let in_part = |replica: &Replica| {
        let open = replica.object.as_ref().is_some_and(|name| is_open(seen.record, store, name));
        open && image.size >= Some(2 * policy.chunk)
    };
    let is_other = seen.record.replicas.get(store).is_some_and(|replica| failed(replica) || in_part(replica));
    if is_other || image.hash.is_none() || seen.conditions.failing.contains(store) {
        return None;
    }
    let good = |giver: &&StoreName| {
        givers.contains(*giver) && !seen.conditions.failing.contains(*giver) && is_good(seen, image, giver)
    };
    policy.stores.iter().map(|facts| &facts.name).find(good).cloned()
}
