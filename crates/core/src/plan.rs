//! The plan: from what was observed of one image to what is to be done about it. Pure.
//!
//! Executing makes no choices; everything that depends on a rule, a state or the time is decided here.

mod absent;
mod adopt;
mod glance;
mod live;
mod order;
mod replica;
mod retire;
mod sources;
mod staged;
mod take;
#[cfg(test)]
mod tests;
mod withdraw;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    Backoff, Change, Failure, Image, ImageRow, ImageState, ImageStatus, ObjectName, ObjectState, Proof, Reason, Record,
    Replica, ReplicaState, StoreName, Timestamp,
    policy::{Rules, StoreFacts, Wanted},
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
    /// Stores that take objects by themselves, each with those that they take them from.
    pub takes: BTreeMap<StoreName, BTreeSet<StoreName>>,
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
    /// Locations of Mimeo's own stand twice, and are to stand once.
    pub doubled: bool,
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
    /// To be made by the store itself, each from a proven copy at another.
    pub take: Vec<(StoreName, StoreName)>,
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

    pub fn has_locations_to_arrange(&self) -> bool {
        !self.withdraw.is_empty() || self.doubled || self.order.is_some()
    }

    fn has_own_work(&self) -> bool {
        let arranged = !self.has_locations_to_arrange() && self.register.is_empty();
        let proven = self.prove.is_empty() && self.verify.is_empty();
        !(arranged && proven && self.copy.is_empty() && self.take.is_empty())
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
        Sight::Gone => absent::gone(seen),
        Sight::NotVisible => absent::not_visible(policy, seen),
    }
}

/// An image's own state, from what the ledger holds of it.
pub fn state(record: &Record) -> ImageState {
    let state = |store| record.replicas.get(store).map_or(ReplicaState::Wanted, |replica: &Replica| replica.state);
    let states: Vec<ReplicaState> = record.image.wanted.iter().map(state).collect();
    ImageState::of(record.image.gone_at.is_some(), &states)
}

fn present(policy: &Policy, seen: &Observation<'_>, image: &Image) -> Plan {
    let Wanted { stores: wanted, rules } = match image.properties.contains_key(CHECK_PROPERTY) {
        true => Wanted::default(),
        false => policy.rules.wanted(image, &policy.stores, seen.conditions, &seen.record.replicas),
    };
    let mut plan = Plan { stop: !has_bits(image), ..Plan::default() };
    if seen.record.image.verify_asked.is_some_and(|asked| is_ahead(asked, seen.now)) {
        plan.changes.push(Change::VerifyAsked(image.id.clone(), seen.now));
    }
    if seen.record.image.delete_seen.is_some() {
        plan.changes.push(Change::DeleteUnseen(image.id.clone()));
    }
    let stores = wanted.iter().filter(|store| !seen.running.contains(*store));
    // Glance's stores at last: whether they are its turn depends on what there is to do at the others.
    let (glances, own): (Vec<_>, Vec<_>) = stores.partition(|store| policy.backend(store).is_some());
    let fresh = |store: &StoreName| Replica::wanted(store.clone());
    let known = |store: &StoreName| {
        seen.record.replicas.get(store).map_or_else(|| fresh(store), |replica| not_ahead(replica.clone(), seen.now))
    };
    let mut settled = Vec::new();
    for store in own {
        let replica = replica::step(&mut plan, seen, image, true, known(store), policy);
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
    take::divert(&mut plan, policy, seen, image);
    if !plan.copy.is_empty() {
        plan.sources = sources::sources(policy, seen, image);
    }
    plan.look_again(trouble.as_ref().and_then(|trouble| trouble.next_try));
    let row = ImageRow {
        name: image.name.clone(),
        status: Some(image.status.to_string()),
        size: image.size,
        owner: image.owner.clone(),
        wanted,
        rules,
        trouble,
        observed_at: Some(seen.now),
        gone_at: None,
        ..seen.record.image.clone()
    };
    plan.changes.insert(0, Change::Image(row));
    plan
}

/// A clock that is merely adjusted is none of our business.
const ADJUSTED: Duration = Duration::from_mins(1);

/// Whether it was noted under a clock that was ahead.
pub fn is_ahead(at: Timestamp, now: Timestamp) -> bool {
    at > now.saturating_add(ADJUSTED).unwrap_or(Timestamp::MAX)
}

/// As it was noted under a clock that was ahead, and as it is to be: a proof from the future would never grow old.
fn not_ahead(replica: Replica, now: Timestamp) -> Replica {
    let capped = |at: Timestamp| if is_ahead(at, now) { now } else { at };
    Replica {
        proof: replica.proof.map(|proof| Proof { at: capped(proof.at), ..proof }),
        seen_at: replica.seen_at.map(capped),
        unwanted_since: replica.unwanted_since.map(capped),
        ..replica
    }
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
        let known = seen.record.replicas.get(store).cloned();
        let before = known.map_or_else(|| Replica::wanted(store.clone()), |replica| not_ahead(replica, seen.now));
        let is_enabled = policy.enables(store);
        let after = match policy.backend(store) {
            _ if !is_enabled => retire::absent(seen, image, before),
            Some(backend) => glance::delegated_step(plan, seen, image, false, before, (backend, policy)),
            None => {
                let replica = replica::step(plan, seen, image, false, before, policy);
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

fn is_kept(record: &Record, replica: &Replica) -> bool {
    record.object_of(replica).is_some_and(|object| object.state == ObjectState::Kept)
}

fn is_doomed(record: &Record, replica: &Replica) -> bool {
    record.object_of(replica).is_some_and(|object| object.state.is_to_go())
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
