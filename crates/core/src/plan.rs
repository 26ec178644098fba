//! The plan: from what was observed of one image to what is to be done about it. Pure.
//!
//! Executing makes no choices; everything that depends on a rule, a state or the time is decided here.

mod adopt;
mod glance;
mod live;
mod order;
mod retire;
mod staged;
#[cfg(test)]
mod tests;
mod withdraw;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    Backoff, Change, Error, Failure, Image, ImageId, ImageRow, ImageState, ImageStatus, Object, ObjectName,
    ObjectState, ProofKind, Reason, Record, Replica, ReplicaState, StoreName, Timestamp,
    policy::{Rules, StoreFacts},
};

pub use adopt::Shown;

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
    /// What the image's locations show of Mimeo's own objects, known or not.
    pub shown: &'a [Shown],
    /// Enabled stores whose copy of this image was made at another place than where the configuration now puts them.
    pub elsewhere: &'a BTreeSet<StoreName>,
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
    /// Stores that are to become empty: they take no copies, and those that they have go when others are registered.
    pub draining: BTreeSet<StoreName>,
    /// Stores that were renamed in the configuration, and the names under which the ledger has their copies.
    pub renamed: BTreeMap<StoreName, StoreName>,
    /// Stores that were moved to another URL, and whose copies are to be proven there.
    pub moving: BTreeSet<StoreName>,
    /// Copies that no rule wants any more, and did not before this, may go.
    pub unwanted_before: Timestamp,
    /// Stores that do not answer: nothing is begun there.
    pub down: BTreeMap<StoreName, Outage>,
    /// Stores that answered when they were last asked. Of one in neither list nobody knows yet.
    pub answering: BTreeSet<StoreName>,
    /// How old the proof of a registered copy may become; `None`: of any age.
    pub scrub: Option<Duration>,
    /// Stores at which as many copies are read again, for their age, as may be.
    pub scrubbing: BTreeSet<StoreName>,
}

/// A store that does not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outage {
    pub since: Timestamp,
    pub error: String,
}

impl Outage {
    /// As the reason why something waits. What had failed before goes on being counted.
    fn failure(&self, before: Option<Failure>, next_try: Timestamp) -> Failure {
        let Self { since, error } = self;
        let message = format!("the store does not answer since {since:.0}; it all goes on when it does: {error}");
        let tries = before.map_or(0, |before| before.tries);
        Failure { reason: Reason::StoreDown, message, tries, next_try: Some(next_try) }
    }
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
    /// The URLs of locations that lead to objects which are to go.
    pub withdraw: Vec<String>,
    /// Proven, and not among the image's locations.
    pub register: Vec<StoreName>,
    /// Closed at the store with a known digest, not yet read back.
    pub prove: Vec<StoreName>,
    /// Registered, and to be read again.
    pub verify: Vec<Verification>,
    /// As `verify`, but other copies are being read at the store.
    pub verify_later: Vec<StoreName>,
    /// The order in which the image's locations are to stand, by their URLs, if it is another one than now.
    pub order: Option<Vec<String>>,
    /// To be written anew.
    pub copy: Vec<StoreName>,
    /// To be copied by Glance, to these of its own stores.
    pub ask: Vec<StoreName>,
    /// Stores whose copy goes because no rule wants it any more.
    pub retired: Vec<StoreName>,
    /// Where copies are to be read from, the cheapest first; for when there are any to be made.
    pub sources: Vec<SourceOf>,
    /// Work already running for this image is to stop: its bits are no longer to be had, or no longer wanted.
    pub stop: bool,
    /// When to look again although nothing happens.
    pub next_look: Option<Timestamp>,
}

/// A registered copy that is to be read again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    pub store: StoreName,
    /// Because somebody asked for it, and not only for the age of its proof.
    pub asked: bool,
}

impl Plan {
    pub fn has_work(&self) -> bool {
        self.has_own_work() || !self.ask.is_empty()
    }

    fn has_own_work(&self) -> bool {
        let arranged = self.withdraw.is_empty() && self.register.is_empty() && self.order.is_none();
        !(arranged && self.prove.is_empty() && self.verify.is_empty() && self.copy.is_empty())
    }

    /// Adds the replica as it is to be recorded, unless it is recorded so already.
    fn note(&mut self, seen: &Observation<'_>, replica: Replica) {
        if seen.record.replicas.get(&replica.store) != Some(&replica) {
            self.changes.push(Change::Replica(seen.record.image.id.clone(), replica));
        }
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

    pub fn enables(&self, store: &StoreName) -> bool {
        self.stores.iter().any(|facts| facts.name == *store)
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
        false => policy.rules.wanted(image, &policy.stores, &seen.conditions.draining, &seen.record.replicas),
    };
    let mut plan = Plan { stop: !has_bits(image), ..Plan::default() };
    if seen.record.image.delete_seen.is_some() {
        plan.changes.push(Change::DeleteUnseen(image.id.clone()));
    }
    let stores = wanted.iter().filter(|store| !seen.running.contains(*store));
    // Glance's stores at last: whether they are its turn depends on what there is to do at the others.
    let (glances, own): (Vec<_>, Vec<_>) = stores.partition(|store| policy.backend(store).is_some());
    let fresh = |store: &StoreName| Replica::wanted(store.clone());
    let known = |store: &StoreName| seen.record.replicas.get(store).cloned().unwrap_or_else(|| fresh(store));
    let mut settled = Vec::new();
    for store in own {
        let replica = replica_step(&mut plan, seen, image, true, known(store), policy);
        adopt::surplus(&mut plan, seen, &replica);
        settled.push(replica);
    }
    let trouble = trouble(&mut plan, image, seen, policy.backoff);
    for store in glances {
        let backend = (policy.backend(store).unwrap_or_default(), policy);
        settled.push(glance::delegated_step(&mut plan, seen, image, true, known(store), backend));
    }
    for replica in &settled {
        plan.note(seen, replica.clone());
    }
    unwanted(&mut plan, policy, seen, image, &retire::Wanted { stores: &wanted, replicas: &settled });
    if !plan.copy.is_empty() {
        plan.sources = sources(policy, seen, image);
    }
    plan.look_again(trouble.as_ref().and_then(|trouble| trouble.next_try));
    let row = ImageRow {
        name: image.name.clone(),
        status: Some(image.status.to_string()),
        size: image.size,
        wanted,
        trouble,
        observed_at: Some(seen.now),
        gone_at: None,
        ..seen.record.image.clone()
    };
    plan.changes.insert(0, Change::Image(row));
    plan
}

/// Whether copies that run may go on: of what is staged they are made before the image is.
fn has_bits(image: &Image) -> bool {
    matches!(image.status, ImageStatus::Active | ImageStatus::Uploading | ImageStatus::Importing)
}

/// The copies that nothing wants where they are.
fn unwanted(plan: &mut Plan, policy: &Policy, seen: &Observation<'_>, image: &Image, wanted: &retire::Wanted<'_>) {
    use ReplicaState as R;
    let is_free = |store: &&StoreName| !wanted.stores.contains(*store) && !seen.running.contains(*store);
    let shown = seen.shown.iter().map(|shown| &shown.store);
    let held: BTreeSet<&StoreName> = seen.record.replicas.keys().chain(shown).filter(is_free).collect();
    for store in held {
        let before = seen.record.replicas.get(store).cloned().unwrap_or_else(|| Replica::wanted(store.clone()));
        let is_enabled = policy.enables(store);
        let after = match policy.backend(store) {
            _ if !is_enabled => retire::absent(seen, image, before),
            Some(backend) => glance::delegated_step(plan, seen, image, false, before, (backend, policy)),
            None => {
                let replica = replica_step(plan, seen, image, false, before, policy);
                adopt::surplus(plan, seen, &replica);
                retire::retire(plan, seen, image, wanted, replica)
            }
        };
        let is_nothing = !is_enabled || matches!(after.state, R::Wanted | R::Gone);
        plan.note(seen, after);
        if is_nothing && !seen.record.objects.iter().any(|object| object.store == *store) {
            plan.changes.push(Change::ReplicaGone(image.id.clone(), store.clone()));
        }
    }
}

/// A direct read of a proven copy spares the image service, and is cheaper unless it is known to be much slower.
fn sources(policy: &Policy, seen: &Observation<'_>, image: &Image) -> Vec<SourceOf> {
    use ReplicaState as R;
    if image.hash.is_none() {
        // Nothing would show that the copy is no longer what it was.
        return vec![SourceOf::Service];
    }
    let readable = |store: &&StoreName| {
        seen.record.replicas.get(*store).is_some_and(|replica| {
            let is_unwanted = replica.state == R::Retiring && replica.proof.is_some();
            let proven = is_unwanted || matches!(replica.state, R::Proven | R::Registered);
            let is_here = !seen.elsewhere.contains(*store) && !seen.conditions.down.contains_key(*store);
            let is_free = is_here && !seen.running.contains(*store);
            proven && replica.size == image.size && kept(seen.record, replica) && is_free
        })
    };
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

/// What stands in the way of the image as a whole. Where nothing does, locations may be withdrawn.
fn trouble(plan: &mut Plan, image: &Image, seen: &Observation<'_>, backoff: Backoff) -> Option<Failure> {
    let failure = |reason, message: String, next_try| Some(Failure { reason, message, tries: 1, next_try });
    match image.status {
        ImageStatus::Active if image.importing => {
            let before = seen.record.image.trouble.as_ref().filter(|before| before.reason == Reason::ImageImporting);
            let tries = before.map_or(0, |before| before.tries).saturating_add(1);
            let message = "Glance imports or copies this image itself; its locations are left alone until that ends";
            let next_try = Some(backoff.next(seen.now, tries));
            Some(Failure { reason: Reason::ImageImporting, message: message.into(), tries, next_try })
        }
        ImageStatus::Active => withdraw::step(plan, image, seen),
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
    if replica.state == R::Retiring {
        replica = retire::resumed(seen, replica);
    }
    if is_wanted && replica.state == R::Retiring {
        // The former copy is the sweeper's, who may have to leave it for long: another image may name it.
        replica = Replica::wanted(replica.store);
    }
    replica.unwanted_since.take_if(|_| is_wanted);
    replica = adopt::shown(plan, seen, image, replica);
    replica = staged::outdated(plan, seen, image, replica);
    if seen.elsewhere.contains(&replica.store) && kept(seen.record, &replica) {
        return moved_step(plan, seen, image, replica);
    }
    let is_live = matches!(replica.state, R::Proven | R::Registered | R::Suspect);
    if is_live && is_doomed(seen.record, &replica) {
        // Its bits are to go, and its location before them: it is a copy no more.
        replica = Replica { failure: replica.failure, ..Replica::wanted(replica.store) };
    } else if is_live {
        return live::step(plan, seen, image, is_wanted, replica, policy);
    }
    if matches!(replica.state, R::Wanted | R::Copying | R::Failed | R::Gone) && !kept(seen.record, &replica) {
        // Left behind by a writer that is no longer there. What it has of a large image may be gone on with.
        let is_of_use = is_wanted && image.status == ImageStatus::Active && image.size >= Some(2 * policy.chunk);
        let is_of_use = is_of_use && !has_failed_too_often(&replica);
        let partial = replica.object.take().filter(|name| is_of_use && is_open(seen.record, &replica.store, name));
        plan.changes.extend(doom(seen.record, &replica.store, partial.as_ref(), now));
        let url = replica.url.filter(|_| partial.is_some());
        replica = Replica { object: partial, url, size: None, digest: None, proof: None, ..replica };
    }
    if replica.state == R::Copying {
        replica.state = R::Wanted;
    }
    if is_wanted {
        replica = adopt::unheld(plan, seen, image, replica);
    }
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
fn due(plan: &mut Plan, seen: &Observation<'_>, replica: &mut Replica, backoff: Backoff) -> Option<StoreName> {
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

/// After so many failures in a row at a store that answers, what there is of an object is given up for a new one.
const RESUMES: u32 = 5;

fn has_failed_too_often(replica: &Replica) -> bool {
    let answers = |reason: Reason| reason.is_the_stores() && reason != Reason::StoreUnreachable;
    replica
        .failure
        .as_ref()
        .is_some_and(|failure| failure.tries > 0 && failure.tries.is_multiple_of(RESUMES) && answers(failure.reason))
}

fn kept(record: &Record, replica: &Replica) -> bool {
    let object = replica.object.as_ref().and_then(|name| record.object(&replica.store, name));
    object.is_some_and(|object| object.state == ObjectState::Kept)
}

fn has_proven_copy(record: &Record, image: &Image) -> bool {
    let proven = |it: &&Replica| matches!(it.state, ReplicaState::Proven | ReplicaState::Registered);
    image.hash.is_some() && record.replicas.values().filter(proven).any(|replica| kept(record, replica))
}

fn is_doomed(record: &Record, replica: &Replica) -> bool {
    let object = replica.object.as_ref().and_then(|name| record.object(&replica.store, name));
    object.is_some_and(|object| object.state == ObjectState::Doomed)
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
        let (failure, unwanted_since) = (Some(failure), None);
        let retiring = Replica { state: ReplicaState::Retiring, failure, unwanted_since, ..replica.clone() };
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
