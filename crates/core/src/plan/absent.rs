//! An image that Glance does not show.

use std::collections::BTreeSet;

use super::{Observation, Plan, Policy, doom};
use crate::{Change, Failure, ImageId, ImageRow, ProofKind, Reason, Replica, ReplicaState, StoreName};

/// It was deleted: its copies go, after a while.
pub(super) fn gone(seen: &Observation<'_>) -> Plan {
    let (record, now) = (seen.record, seen.now);
    let id: &ImageId = &record.image.id;
    if record.objects.is_empty() && seen.running.is_empty() {
        return Plan { changes: vec![Change::Forget(id.clone())], stop: true, ..Plan::default() };
    }
    let gone_at = record.image.gone_at.unwrap_or(now);
    let row = ImageRow { gone_at: Some(gone_at), observed_at: Some(now), trouble: None, ..record.image.clone() };
    let mut changes = vec![Change::Image(row)];
    // Also of attempts without a replica: those of a check that was cut off.
    let stores: BTreeSet<&StoreName> = record.objects.iter().map(|object| &object.store).collect();
    for store in stores.into_iter().filter(|store| !seen.running.contains(*store)) {
        changes.extend(doom(record, store, None, now));
    }
    for replica in record.replicas.values().filter(|replica| !seen.running.contains(&replica.store)) {
        if replica.proof.is_some_and(|proof| proof.kind == ProofKind::Glance) {
            // Glance removes its own with the image.
            changes.push(Change::Replica(id.clone(), Replica { state: ReplicaState::Gone, ..replica.clone() }));
            continue;
        }
        let failure = Failure {
            reason: Reason::ImageDeleted,
            message: "the image was deleted; this copy is removed after the grace period".into(),
            tries: 1,
            next_try: None,
        };
        let (failure, unwanted_since) = (Some(failure), None);
        let retiring = Replica { state: ReplicaState::Retiring, failure, unwanted_since, ..replica.clone() };
        if retiring != *replica {
            changes.push(Change::Replica(id.clone(), retiring));
        }
    }
    Plan { changes, stop: true, ..Plan::default() }
}

/// Nobody knows whether it was deleted: every copy stays.
pub(super) fn not_visible(policy: &Policy, seen: &Observation<'_>) -> Plan {
    let (record, now) = (seen.record, seen.now);
    let id = &record.image.id;
    let failure = Failure {
        reason: Reason::ImageNotVisible,
        message: "Glance answers 404, but Mimeo's token is not shown to see every project's private images, so this \
                  may be a lost role and not a deletion; every copy is kept. Give Mimeo's user its role back (admin), \
                  or wait for the image.delete event"
            .into(),
        tries: 1,
        next_try: Some(policy.backoff.next(now, u32::MAX)),
    };
    let next_look = failure.next_try;
    let row = ImageRow { trouble: Some(failure.clone()), observed_at: Some(now), ..record.image.clone() };
    let mut changes = vec![Change::Image(row)];
    for replica in record.replicas.values().filter(|replica| replica.state == ReplicaState::Registered) {
        let suspect = Replica { state: ReplicaState::Suspect, failure: Some(failure.clone()), ..replica.clone() };
        changes.push(Change::Replica(id.clone(), suspect));
    }
    Plan { changes, stop: true, next_look, ..Plan::default() }
}
