//! What the planner decides, from plain values.
#![allow(clippy::unwrap_used)]

mod adopt;
mod glance;
mod live;
mod retire;
mod staged;
mod take;
mod withdraw;

use std::time::Duration;

use super::*;
use crate::{CHUNK, ContentHash, Digest, Error, HashAlgorithm, Location, Object, ObjectName, Proof, ProofKind, policy};

struct World {
    record: Record,
    image: Image,
    policy: Policy,
    now: Timestamp,
    conditions: Conditions,
    shown: Vec<Shown>,
    elsewhere: BTreeSet<StoreName>,
}

impl World {
    /// An active image that is wanted on stores `a` and `b`, of which the ledger knows nothing yet.
    fn new() -> Self {
        let hash = ContentHash { algorithm: HashAlgorithm::Sha512, value: "00".into() };
        let image = Image { hash: Some(hash), ..policy::sample() };
        let store = |name: &str| StoreFacts::new(name.parse().unwrap());
        let backoff = Backoff { first: Duration::from_secs(1), max: Duration::from_mins(1) };
        let policy = Policy { rules: Rules::default(), stores: vec![store("a"), store("b")], backoff, chunk: CHUNK };
        let (now, conditions) = (Timestamp::from_second(1000).unwrap(), Conditions::default());
        let (shown, elsewhere) = (Vec::new(), BTreeSet::new());
        Self { record: Record::new(image.id.clone()), image, policy, now, conditions, shown, elsewhere }
    }

    /// A replica on `store` in `state`, with a kept object and all that belongs to it.
    fn holds(mut self, store: &str, state: ReplicaState) -> Self {
        let store: StoreName = store.parse().unwrap();
        let name = ObjectName::new(&self.image.id, self.record.objects.len() as u64 + 1);
        let url = format!("http://{store}/{name}");
        let proof = Proof { kind: ProofKind::Readback, at: self.now };
        let object = Object {
            store: store.clone(),
            name: name.clone(),
            url: url.clone(),
            state: ObjectState::Kept,
            since: self.now,
        };
        let replica = Replica {
            state,
            object: Some(name),
            url: Some(url),
            size: Some(1),
            digest: Some(Digest::from_hex("00")),
            proof: Some(proof),
            ..Replica::wanted(store.clone())
        };
        self.record.objects.push(object);
        self.record.replicas.insert(store, replica);
        self
    }

    fn shows(mut self, store: &str) -> Self {
        let url = self.record.replicas[&store.parse().unwrap()].url.clone().unwrap();
        self.image.locations.push(Location::ours(url, &store.parse().unwrap()));
        self
    }

    fn image(mut self, change: impl FnOnce(&mut Image)) -> Self {
        change(&mut self.image);
        self
    }

    fn record(mut self, change: impl FnOnce(&mut Record)) -> Self {
        change(&mut self.record);
        self
    }

    /// When the replica's next try is due.
    fn a_while_later(mut self, replica: Replica) -> Self {
        self.now = replica.failure.as_ref().unwrap().next_try.unwrap();
        self.record.replicas.insert(replica.store.clone(), replica);
        self
    }

    fn plan(&self) -> Plan {
        self.plan_at(&Sight::Present(Box::new(self.image.clone())), &[])
    }

    fn plan_at(&self, sight: &Sight, running: &[&str]) -> Plan {
        let running = running.iter().map(|name| name.parse().unwrap()).collect();
        let (record, conditions, elsewhere) = (&self.record, &self.conditions, &self.elsewhere);
        let shown = &self.shown;
        let seen = Observation { now: self.now, record, sight, running: &running, shown, elsewhere, conditions };
        plan(&self.policy, &seen)
    }
}

fn names(stores: &[StoreName]) -> Vec<&str> {
    stores.iter().map(StoreName::as_str).collect()
}

fn replica<'a>(plan: &'a Plan, store: &str) -> Option<&'a Replica> {
    plan.changes.iter().find_map(|change| match change {
        Change::Replica(_, replica) if replica.store.as_str() == store => Some(replica),
        _ => None,
    })
}

fn row(plan: &Plan) -> &ImageRow {
    let row = plan.changes.iter().find_map(|change| match change {
        Change::Image(row) => Some(row),
        _ => None,
    });
    row.unwrap()
}

#[test]
fn a_new_image_is_copied_to_every_wanted_store() {
    let plan = World::new().plan();
    assert_eq!(names(&plan.copy), ["a", "b"]);
    assert_eq!(names(&row(&plan).wanted), ["a", "b"]);
    assert!(!plan.stop);
}

#[test]
fn a_registered_image_needs_nothing_and_is_seen() {
    let world =
        World::new().holds("a", ReplicaState::Registered).holds("b", ReplicaState::Registered).shows("a").shows("b");
    let plan = world.plan();
    assert!(!plan.has_work());
    assert_eq!(replica(&plan, "a").unwrap().seen_at, Some(world.now));
    assert_eq!(plan.next_look, None);
}

#[test]
fn proven_is_registered_stored_is_proven_and_neither_is_copied_again() {
    let plan = World::new().holds("a", ReplicaState::Proven).holds("b", ReplicaState::Stored).plan();
    assert_eq!((names(&plan.register), names(&plan.prove)), (vec!["a"], vec!["b"]));
    assert!(plan.copy.is_empty());
}

#[test]
fn a_location_that_vanished_is_no_longer_called_registered_and_is_asserted_again() {
    let world = World::new().holds("a", ReplicaState::Registered);
    let plan = world.plan();
    let lost = replica(&plan, "a").unwrap().clone();
    assert_eq!((lost.state, names(&plan.register)), (ReplicaState::Proven, vec![]), "the image may be about to go");
    assert_eq!(lost.failure.as_ref().unwrap().reason, Reason::LocationLost);
    assert_eq!(names(&world.a_while_later(lost).plan().register), ["a"]);
}

#[test]
fn during_an_import_nothing_is_registered_but_copying_may_go_on() {
    let plan = World::new().holds("a", ReplicaState::Proven).image(|image| image.importing = true).plan();
    assert!(plan.register.is_empty());
    assert_eq!(names(&plan.copy), ["b"]);
    assert!(plan.next_look.is_some());
    assert_eq!(row(&plan).trouble.as_ref().unwrap().reason, Reason::ImageImporting);
}

#[test]
fn an_image_that_is_not_active_is_left_alone_and_running_work_stops() {
    for status in [ImageStatus::Queued, ImageStatus::Saving, ImageStatus::Killed, ImageStatus::Deactivated] {
        let plan = World::new().holds("a", ReplicaState::Proven).image(|image| image.status = status).plan();
        assert!(!plan.has_work() && plan.stop, "{status}");
        assert!(row(&plan).trouble.is_some(), "{status}");
    }
}

#[test]
fn an_empty_image_is_told_once_and_never_tried() {
    let world = World::new().image(|image| image.size = Some(0));
    let plan = world.plan();
    let failed = replica(&plan, "a").unwrap().clone();
    assert_eq!((failed.state, failed.failure.as_ref().unwrap().reason), (ReplicaState::Failed, Reason::EmptyImage));
    assert!(!plan.has_work() && plan.next_look.is_none());
    let again = world.record(|record| {
        record.replicas.insert(failed.store.clone(), failed.clone());
    });
    assert_eq!(replica(&again.plan(), "a"), None);
}

#[test]
fn a_failed_copy_waits_for_its_turn_and_then_starts_anew() {
    let error = Error::new(Reason::StoreError, "500");
    let world = World::new().record(|record| {
        let backoff = Backoff { first: Duration::from_secs(10), max: Duration::from_mins(1) };
        let store: StoreName = "a".parse().unwrap();
        let replica = Replica::wanted(store.clone());
        let failed = replica.failed(ReplicaState::Failed, &error, backoff, Timestamp::from_second(995).unwrap());
        record.replicas.insert(store, failed);
    });
    let plan = world.plan();
    assert_eq!(names(&plan.copy), ["b"]);
    assert_eq!(plan.next_look, Timestamp::from_second(1005).ok());
    let later = World { now: Timestamp::from_second(1005).unwrap(), ..world };
    assert_eq!(names(&later.plan().copy), ["a", "b"]);
}

#[test]
fn what_a_crashed_attempt_left_is_doomed_and_copied_anew() {
    let world = World::new()
        .holds("a", ReplicaState::Copying)
        .record(|record| record.objects.iter_mut().for_each(|object| object.state = ObjectState::Open));
    let plan = world.plan();
    let doomed = plan.changes.iter().any(|change| matches!(change, Change::Doom(store, ..) if store.as_str() == "a"));
    assert!(doomed);
    assert_eq!(names(&plan.copy), ["a", "b"]);
    assert_eq!(replica(&plan, "a").unwrap().object, None);
}

#[test]
fn what_there_is_of_a_large_copy_goes_when_it_is_no_longer_of_use() {
    let world = World::new().holds("a", ReplicaState::Wanted).image(|image| image.size = Some(2 * CHUNK));
    let mut world = world.record(|record| record.objects[0].state = ObjectState::Open);
    let dooms = |plan: &Plan| plan.changes.iter().any(|change| matches!(change, Change::Doom(..)));
    assert!(!dooms(&world.plan()), "it is gone on with");
    let to_b = policy::RuleSpec { name: "b".into(), when: None, stores: vec!["b".parse().unwrap()], copies: None };
    world.policy.rules = Rules::compile(vec![to_b]).unwrap();
    let plan = world.plan();
    assert!(dooms(&plan), "no rule wants it any more");
    assert_eq!(replica(&plan, "a").unwrap().object, None);
}

#[test]
fn what_runs_now_is_not_started_again_nor_taken_for_left_behind() {
    let world = World::new()
        .holds("a", ReplicaState::Copying)
        .record(|record| record.objects.iter_mut().for_each(|object| object.state = ObjectState::Open));
    let plan = world.plan_at(&Sight::Present(Box::new(world.image.clone())), &["a", "b"]);
    assert!(!plan.has_work());
    assert!(plan.changes.iter().all(|change| !matches!(change, Change::Doom(..) | Change::Replica(..))));
}

#[test]
fn a_404_without_evidence_keeps_every_copy_and_says_why() {
    let world = World::new().holds("a", ReplicaState::Registered);
    let plan = world.plan_at(&Sight::NotVisible, &[]);
    let suspect = replica(&plan, "a").unwrap();
    assert_eq!(suspect.state, ReplicaState::Suspect);
    assert_eq!(suspect.failure.as_ref().unwrap().reason, Reason::ImageNotVisible);
    assert_eq!(row(&plan).gone_at, None);
    assert!(plan.next_look.is_some());
    assert!(plan.changes.iter().all(|change| !matches!(change, Change::Doom(..) | Change::Forget(_))));
}

#[test]
fn a_suspect_is_registered_again_when_its_location_is_seen() {
    let plan = World::new().holds("a", ReplicaState::Suspect).shows("a").plan();
    assert_eq!(replica(&plan, "a").unwrap().state, ReplicaState::Registered);
}

#[test]
fn a_gone_image_leaves_a_tombstone_and_keeps_its_first_time() {
    let world = World::new().holds("a", ReplicaState::Registered);
    let plan = world.plan_at(&Sight::Gone, &[]);
    assert_eq!(row(&plan).gone_at, Some(world.now));
    assert_eq!(replica(&plan, "a").unwrap().state, ReplicaState::Retiring);
    let first = Timestamp::from_second(1).unwrap();
    let again = world.record(|record| record.image.gone_at = Some(first)).plan_at(&Sight::Gone, &[]);
    assert_eq!(row(&again).gone_at, Some(first));
}

#[test]
fn a_gone_image_without_objects_is_forgotten() {
    let world = World::new();
    assert_eq!(world.plan_at(&Sight::Gone, &[]).changes, [Change::Forget(world.image.id.clone())]);
}

#[test]
fn an_image_that_is_back_proves_its_copies_anew() {
    let world = World::new().holds("a", ReplicaState::Retiring).record(|record| {
        record.image.gone_at = Some(Timestamp::UNIX_EPOCH);
        record.image.delete_seen = Some(Timestamp::UNIX_EPOCH);
    });
    let plan = world.plan();
    assert_eq!(names(&plan.prove), ["a"]);
    assert_eq!(row(&plan).gone_at, None);
    assert!(plan.changes.contains(&Change::DeleteUnseen(world.image.id.clone())));
    // Under the same id it may be another image: its own hash tells what the copies must be.
    assert_eq!(replica(&plan, "a").unwrap().digest, None);
    let without = world.image(|image| image.hash = None).plan();
    assert!(names(&without.prove) == ["a"] && replica(&without, "a").unwrap().digest.is_some());
}

#[test]
fn the_check_commands_own_image_is_left_to_it() {
    let plan = World::new().image(|image| drop(image.properties.insert(CHECK_PROPERTY.into(), "1".into()))).plan();
    assert!(!plan.has_work() && row(&plan).wanted.is_empty());
}

#[test]
fn a_replica_that_no_rule_wants_any_more_is_kept_but_not_worked_on() {
    let world = World::new().holds("b", ReplicaState::Registered).shows("b");
    let world = World { policy: Policy { stores: vec![world.policy.stores[0].clone()], ..world.policy }, ..world };
    let plan = world.plan();
    assert_eq!(names(&plan.copy), ["a"]);
    assert_eq!(replica(&plan, "b").unwrap().state, ReplicaState::Registered);
}

#[test]
fn copies_are_read_from_the_image_service_unless_a_proven_copy_can_be_read_directly() {
    let sources = |world: &World| world.plan().sources;
    let copy = |store: &str| SourceOf::Copy(store.parse().unwrap());
    assert_eq!(sources(&World::new()), [SourceOf::Service]);
    let proven = World::new().holds("a", ReplicaState::Proven);
    assert_eq!(sources(&proven), [copy("a"), SourceOf::Service]);
    assert_eq!(sources(&World::new().holds("a", ReplicaState::Stored)), [SourceOf::Service], "not proven");
    let other_size = World::new().holds("a", ReplicaState::Proven).image(|image| image.size = Some(2));
    assert_eq!(sources(&other_size), [SourceOf::Service], "of another size");
}

#[test]
fn of_several_proven_copies_the_fastest_is_read_and_one_much_slower_than_the_image_service_last() {
    let mut world = World::new().holds("a", ReplicaState::Proven).holds("b", ReplicaState::Proven);
    let third = StoreFacts::new("c".parse().unwrap());
    world.policy.stores.push(third);
    world.conditions.service_rate = Some(100);
    world.conditions.read_rates = [("a".parse().unwrap(), 49), ("b".parse().unwrap(), 50)].into();
    let copy = |store: &str| SourceOf::Copy(store.parse().unwrap());
    assert_eq!(world.plan().sources, [copy("b"), SourceOf::Service, copy("a")]);
    world.conditions.read_rates.insert("a".parse().unwrap(), 51);
    assert_eq!(world.plan().sources, [copy("a"), copy("b"), SourceOf::Service]);
}

#[test]
fn outside_a_stores_hours_its_copy_waits_and_says_until_when_and_the_others_do_not() {
    let mut world = World::new();
    let opens = world.now.saturating_add(Duration::from_mins(1)).unwrap();
    world.conditions.closed = [("a".parse().unwrap(), opens)].into();
    let plan = world.plan();
    assert_eq!((names(&plan.copy), plan.next_look), (vec!["b"], Some(opens)));
    let (state, failure) = noted(&plan, "a");
    assert_eq!((state, failure.reason, failure.next_try), (ReplicaState::Wanted, Reason::OutsideHours, Some(opens)));
    // Once the hours are changed, the copy starts though its next try was later.
    let waiting = Replica { failure: Some(failure), ..Replica::wanted("a".parse().unwrap()) };
    let mut world = world.record(|record| drop(record.replicas.insert("a".parse().unwrap(), waiting)));
    world.conditions.closed.clear();
    assert_eq!(names(&world.plan().copy), ["a", "b"]);
}

fn noted(plan: &Plan, store: &str) -> (ReplicaState, Failure) {
    let replica = plan.changes.iter().find_map(|change| match change {
        Change::Replica(_, replica) if replica.store.as_str() == store => Some(replica.clone()),
        _ => None,
    });
    let replica = replica.unwrap();
    (replica.state, replica.failure.unwrap())
}
