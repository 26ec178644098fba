//! The plan: from what was observed of one image to what is to be done about it. Pure.
//!
//! Executing makes no choices; everything that depends on a rule, a state or the time is decided here.

mod glance;
mod take;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    Backoff, Change, Error, Failure, Image, ImageId, ImageRow, ImageState, ImageStatus, ObjectName, ObjectState,
    ProofKind, Reason, Record, Replica, ReplicaState, StoreName, Timestamp,
    policy::{Rules, StoreFacts},
};

/// A property that marks `mimeo check`'s own test image: `serve` leaves it to the command that made it.
pub const CHECK_PROPERTY: &str = "mimeo_check";

/// What of the configuration planning depends on.
#[derive(Debug)]
pub struct Policy {
    pub rules: Rules,
    /// The enabled stores, in the operator's order.
    pub stores: Vec<StoreFacts>,
    pub backoff: Backoff,
    /// What an image is cut into for the digests that let an interrupted copy go on, in bytes: [`CHUNK`](crate::CHUNK),
    /// but for tests with tiny images. The last chunk may be shorter.
    pub chunk: u64,
}

/// What a look at the image service gave.
#[derive(Debug, Clone, PartialEq)]
pub enum Sight {
    Present(Box<Image>),
    /// A 404, with evidence that this is a deletion.
    Gone,
    /// A 404 without any.
    NotVisible,
}

#[derive(Debug)]
pub struct Observation<'a> {
    pub now: Timestamp,
    pub record: &'a Record,
    pub sight: &'a Sight,
    /// Stores to which this very image is being copied or proven at this moment.
    pub running: &'a BTreeSet<StoreName>,
    pub conditions: &'a Conditions,
}

/// How things stand for all images alike.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conditions {
    /// Stores that start no copies now, and when they will.
    pub closed: BTreeMap<StoreName, Timestamp>,
    /// How fast bits could be read from each store lately, in bytes per second.
    pub read_rates: BTreeMap<StoreName, u64>,
    /// And through the image service.
    pub service_rate: Option<u64>,
    /// Stores whose last copy, or read, failed.
    pub failing: BTreeSet<StoreName>,
    /// Stores that take objects by themselves, each with those that they take them from.
    pub takes: BTreeMap<StoreName, BTreeSet<StoreName>>,
}

/// Where an image's bits can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceOf {
    /// Through the image service.
    Service,
    /// A proven copy, directly.
    Copy(StoreName),
}

/// What is to be done. `changes` are committed first; then the locations are registered, and copies and proofs run
/// side by side.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    pub changes: Vec<Change>,
    /// Proven, and not among the image's locations.
    pub register: Vec<StoreName>,
    /// Closed at the store with a known digest, not yet read back.
    pub prove: Vec<StoreName>,
    /// To be written anew.
    pub copy: Vec<StoreName>,
    /// To be made by the store itself, each from a proven copy at another.
    pub take: Vec<(StoreName, StoreName)>,
    /// To be copied by Glance, to these of its own stores.
    pub ask: Vec<StoreName>,
    /// Where copies are to be read from, the cheapest first; for when there are any to be made.
    pub sources: Vec<SourceOf>,
    /// Work already running for this image is to stop: its bits are no longer to be had, or no longer wanted.
    pub stop: bool,
    /// When to look again although nothing happens.
    pub next_look: Option<Timestamp>,
}

impl Plan {
    pub fn has_work(&self) -> bool {
        self.has_own_work() || !self.ask.is_empty()
    }

    fn has_own_work(&self) -> bool {
        !(self.register.is_empty() && self.prove.is_empty() && self.copy.is_empty() && self.take.is_empty())
    }

    fn look_again(&mut self, at: Option<Timestamp>) {
        self.next_look = match (self.next_look, at) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
}

impl Policy {
    /// Glance's own id of a store that only Glance can write.
    pub fn backend(&self, store: &StoreName) -> Option<&str> {
        self.stores.iter().find(|facts| facts.name == *store)?.backend.as_deref()
    }
}

pub fn plan(policy: &Policy, seen: &Observation<'_>) -> Plan {
    match seen.sight {
        Sight::Present(image) => present(policy, seen, image),
        Sight::Gone => gone(seen),
        Sight::NotVisible => not_visible(policy, seen),
    }
}

/// An image's own state, from what the ledger holds of it.
pub fn state(record: &Record) -> ImageState {
    let state = |store| record.replicas.get(store).map_or(ReplicaState::Wanted, |replica: &Replica| replica.state);
    let states: Vec<ReplicaState> = record.image.wanted.iter().map(state).collect();
    ImageState::of(record.image.gone_at.is_some(), &states)
}

fn present(policy: &Policy, seen: &Observation<'_>, image: &Image) -> Plan {
    let wanted = match image.properties.contains_key(CHECK_PROPERTY) {
        true => Vec::new(),
        false => policy.rules.wanted(image, &policy.stores, &seen.record.replicas),
    };
    let trouble = trouble(image, seen, policy.backoff);
    let mut plan = Plan { stop: image.status != ImageStatus::Active, ..Plan::default() };
    plan.look_again(trouble.as_ref().and_then(|trouble| trouble.next_try));
    plan.changes.push(Change::Image(ImageRow {
        name: image.name.clone(),
        status: Some(image.status.to_string()),
        size: image.size,
        wanted: wanted.clone(),
        trouble,
        observed_at: Some(seen.now),
        gone_at: None,
        ..seen.record.image.clone()
    }));
    if seen.record.image.delete_seen.is_some() {
        plan.changes.push(Change::DeleteUnseen(image.id.clone()));
    }
    let held = seen.record.replicas.keys().filter(|store| !wanted.contains(store));
    let stores = wanted.iter().chain(held).filter(|store| !seen.running.contains(*store));
    // Glance's stores at last: whether they are its turn depends on what there is to do at the others.
    let (glances, own): (Vec<_>, Vec<_>) = stores.partition(|store| policy.backend(store).is_some());
    for store in own.into_iter().chain(glances) {
        let is_wanted = wanted.contains(store);
        let before = seen.record.replicas.get(store);
        let replica = before.cloned().unwrap_or_else(|| Replica::wanted(store.clone()));
        let after = match policy.backend(store) {
            Some(backend) => glance::delegated_step(&mut plan, seen, image, is_wanted, replica, (backend, policy)),
            None => replica_step(&mut plan, seen, image, is_wanted, replica, policy),
        };
        if before != Some(&after) {
            plan.changes.push(Change::Replica(image.id.clone(), after));
        }
    }
    take::divert(&mut plan, policy, seen, image);
    if !plan.copy.is_empty() {
        plan.sources = sources(policy, seen, image);
    }
    plan
}

/// A direct read of a proven copy spares the image service, and is cheaper unless it is known to be much slower.
fn sources(policy: &Policy, seen: &Observation<'_>, image: &Image) -> Vec<SourceOf> {
    if image.hash.is_none() {
        // Nothing would show that the copy is no longer what it was.
        return vec![SourceOf::Service];
    }
    let readable = |store: &&StoreName| is_good(seen, image, store);
    let conditions = seen.conditions;
    let rate = |store: &StoreName| conditions.read_rates.get(store).copied();
    let mut copies: Vec<&StoreName> = policy.stores.iter().map(|facts| &facts.name).filter(readable).collect();
    copies.sort_by_key(|store| std::cmp::Reverse(rate(store)));
    let is_slow = |store: &&StoreName| {
        let rates = rate(store).zip(conditions.service_rate);
        conditions.failing.contains(*store) || rates.is_some_and(|(copy, service)| copy < service / 2)
    };
    let (slow, fast): (Vec<_>, Vec<_>) = copies.into_iter().partition(is_slow);
    let copy = |store: &StoreName| SourceOf::Copy(store.clone());
    fast.into_iter().map(copy).chain([SourceOf::Service]).chain(slow.into_iter().map(copy)).collect()
}

/// Whether the store's copy is proven, and nothing is done with it.
fn is_good(seen: &Observation<'_>, image: &Image, store: &StoreName) -> bool {
    use ReplicaState as R;
    seen.record.replicas.get(store).is_some_and(|replica| {
        let proven = matches!(replica.state, R::Proven | R::Registered) && replica.size == image.size;
        proven && kept(seen.record, replica) && !seen.running.contains(store)
    })
}

/// What stands in the way of the image as a whole.
fn trouble(image: &Image, seen: &Observation<'_>, backoff: Backoff) -> Option<Failure> {
    let failure = |reason, message: String, next_try| Some(Failure { reason, message, tries: 1, next_try });
    match image.status {
        ImageStatus::Active if image.importing => {
            let before = seen.record.image.trouble.as_ref().filter(|before| before.reason == Reason::ImageImporting);
            let tries = before.map_or(0, |before| before.tries).saturating_add(1);
            let message = "Glance imports or copies this image itself; its locations are left alone until that ends";
            let next_try = Some(backoff.next(seen.now, tries));
            Some(Failure { reason: Reason::ImageImporting, message: message.into(), tries, next_try })
        }
        ImageStatus::Active => None,
        ImageStatus::Deactivated => failure(
            Reason::ImageDeactivated,
            "the image is deactivated: Glance takes no locations until `openstack image set --activate`".into(),
            None,
        ),
        status => failure(Reason::ImageNotActive, format!("the image is {status}: it has no bits to copy"), None),
    }
}

/// Decides what one replica needs now, adds that to the plan, and gives the replica as it is to be recorded.
fn replica_step(
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
    if matches!(replica.state, R::Proven | R::Registered | R::Suspect) {
        return registration_step(plan, image, is_wanted, replica, (now, backoff));
    }
    if replica.state == R::Retiring {
        // The image is back, or was never away: a copy that is still there must show anew that it is right.
        let state = if kept(seen.record, &replica) { R::Stored } else { R::Gone };
        replica = Replica { state, failure: None, proof: None, ..replica };
    }
    if matches!(replica.state, R::Wanted | R::Copying | R::Failed | R::Gone) && !kept(seen.record, &replica) {
        // Left behind by a writer that is no longer there. What it has of a large image may be gone on with.
        let is_of_use = is_wanted && image.status == ImageStatus::Active && image.size >= Some(2 * policy.chunk);
        let partial = replica.object.take().filter(|name| is_of_use && is_open(seen.record, &replica.store, name));
        plan.changes.extend(doom(seen.record, &replica.store, partial.as_ref(), now));
        let url = replica.url.filter(|_| partial.is_some());
        replica = Replica { object: partial, url, size: None, digest: None, proof: None, ..replica };
    }
    if replica.state == R::Copying {
        replica.state = R::Wanted;
    }
    if !is_wanted || image.status != ImageStatus::Active {
        return replica;
    }
    if let Some(store) = due(plan, seen, &mut replica) {
        match replica.state {
            R::Stored => plan.prove.push(store),
            _ => plan.copy.push(store),
        }
    }
    replica
}

/// Whether something is to be begun for the replica now; otherwise it says when, and why not now.
fn due(plan: &mut Plan, seen: &Observation<'_>, replica: &mut Replica) -> Option<StoreName> {
    let waited = replica.failure.take_if(|failure| failure.reason == Reason::OutsideHours);
    if !replica.is_due(seen.now) {
        plan.look_again(replica.failure.as_ref().and_then(|failure| failure.next_try));
        return None;
    }
    let opens = seen.conditions.closed.get(&replica.store).filter(|_| replica.state != ReplicaState::Stored);
    if let Some(opens) = opens {
        plan.look_again(Some(*opens));
        replica.failure = Some(outside_hours(*opens, replica.failure.take().or(waited)));
        return None;
    }
    Some(replica.store.clone())
}

/// A location is gone. Glance takes those of an image that is being deleted away one by one, and shows it as active until
/// the last: so it is looked at again before anything is done about it.
fn lost(message: &str, now: Timestamp, backoff: Backoff) -> Failure {
    let next_try = Some(backoff.next(now, 1));
    Failure { reason: Reason::LocationLost, message: message.into(), tries: 1, next_try }
}

/// Says that the copy waits for the store's hours; what had failed before goes on being counted.
fn outside_hours(opens: Timestamp, before: Option<Failure>) -> Failure {
    let tries = before.map_or(0, |failure| failure.tries);
    let message = "copies to this store start at other hours only: see `hours` in its section or in [transfer]";
    Failure { reason: Reason::OutsideHours, message: message.into(), tries, next_try: Some(opens) }
}

/// A proven replica: registered if the image shows its location, else to be registered.
fn registration_step(
    plan: &mut Plan,
    image: &Image,
    is_wanted: bool,
    mut replica: Replica,
    (now, backoff): (Timestamp, Backoff),
) -> Replica {
    use ReplicaState as R;
    if replica.url.as_deref().is_some_and(|url| image.has_location(url)) {
        return Replica { state: R::Registered, seen_at: Some(now), failure: None, ..replica };
    }
    if replica.state != R::Proven {
        let message = "the location that Mimeo registered is no longer among the image's; it is registered again";
        replica = Replica { state: R::Proven, failure: Some(lost(message, now, backoff)), ..replica };
    }
    let possible = is_wanted && image.status == ImageStatus::Active && !image.importing;
    if possible && replica.is_due(now) {
        plan.register.push(replica.store.clone());
    } else if possible {
        plan.look_again(replica.failure.as_ref().and_then(|failure| failure.next_try));
    }
    replica
}

/// Glance takes no location of size 0: said once, never tried.
fn empty(replica: Replica, is_wanted: bool, backoff: Backoff, now: Timestamp) -> Replica {
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

fn kept(record: &Record, replica: &Replica) -> bool {
    let object = replica.object.as_ref().and_then(|name| record.object(&replica.store, name));
    object.is_some_and(|object| object.state == ObjectState::Kept)
}

fn is_open(record: &Record, store: &StoreName, name: &ObjectName) -> bool {
    record.object(store, name).is_some_and(|object| object.state == ObjectState::Open)
}

/// Hands every object of this image at `store` that nobody writes and nobody keeps to the sweeper, but for `partial`.
fn doom(record: &Record, store: &StoreName, partial: Option<&ObjectName>, now: Timestamp) -> Vec<Change> {
    let stray = record.objects.iter().filter(|object| object.store == *store && object.state == ObjectState::Open);
    let stray = stray.filter(|object| partial != Some(&object.name));
    stray.map(|object| Change::Doom(store.clone(), object.name.clone(), now)).collect()
}

fn gone(seen: &Observation<'_>) -> Plan {
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
        let retiring = Replica { state: ReplicaState::Retiring, failure: Some(failure), ..replica.clone() };
        if retiring != *replica {
            changes.push(Change::Replica(id.clone(), retiring));
        }
    }
    Plan { changes, stop: true, ..Plan::default() }
}

fn not_visible(policy: &Policy, seen: &Observation<'_>) -> Plan {
    let (record, now) = (seen.record, seen.now);
    let id = &record.image.id;
    if record.objects.is_empty() && record.replicas.is_empty() && seen.running.is_empty() {
        return Plan { changes: vec![Change::Forget(id.clone())], stop: true, ..Plan::default() };
    }
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
