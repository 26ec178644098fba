//! When a store makes a copy by itself from another's.

use super::*;

/// `a` has a proven copy, and `b` takes objects from it.
fn world() -> World {
    let mut world = World::new().holds("a", ReplicaState::Registered).shows("a");
    world.image.size = Some(1);
    world.conditions.takes.insert(store("b"), [store("a")].into());
    world
}

fn store(name: &str) -> StoreName {
    name.parse().unwrap()
}

fn failed(reason: Reason) -> Replica {
    let backoff = Backoff { first: Duration::ZERO, max: Duration::ZERO };
    Replica::wanted(store("b")).failed(ReplicaState::Failed, &Error::new(reason, "no"), backoff, Timestamp::UNIX_EPOCH)
}

fn taken(world: &World) -> bool {
    let plan = world.plan();
    match (&plan.take[..], &plan.copy[..]) {
        ([(taker, giver)], []) => taker.as_str() == "b" && giver.as_str() == "a" && plan.has_work(),
        ([], [copied]) => {
            assert_eq!(copied.as_str(), "b");
            false
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_proven_copy_is_taken() {
    assert!(taken(&world()));
    assert!(world().plan().sources.is_empty(), "nothing is read");
}

#[test]
fn what_is_not_shown_to_be_good_is_not_taken() {
    assert!(!taken(&world().record(|record| record.objects.clear())));
    assert!(!taken(&world().image(|image| image.hash = None)));
    let mut failing = world();
    failing.conditions.failing.insert(store("a"));
    assert!(!taken(&failing));
    let mut other = world();
    other.conditions.takes.clear();
    assert!(!taken(&other));
}

#[test]
fn nobody_waits_for_a_copy_that_is_not_proven_yet() {
    let mut world = World::new();
    world.conditions.takes.insert(store("b"), [store("a")].into());
    assert_eq!(names(&world.plan().copy), ["a", "b"]);
    let stored = World { conditions: world.conditions.clone(), ..World::new().holds("a", ReplicaState::Stored) };
    let plan = stored.plan();
    assert_eq!((names(&plan.prove), names(&plan.copy)), (vec!["a"], vec!["b"]));
}

#[test]
fn after_a_failure_of_the_store_the_bits_are_copied_and_after_a_wait_they_are_not() {
    for (reason, expected) in [(Reason::StoreError, false), (Reason::ProofMismatch, false), (Reason::StoreBusy, true)] {
        let world = world().record(|record| drop(record.replicas.insert(store("b"), failed(reason))));
        assert_eq!(taken(&world), expected, "{reason:?}");
    }
}

#[test]
fn what_is_there_in_part_is_gone_on_with() {
    let name = ObjectName::new(&World::new().image.id, 5);
    let object = Object {
        store: store("b"),
        name: name.clone(),
        url: format!("http://b/{name}"),
        state: ObjectState::Open,
        since: Timestamp::UNIX_EPOCH,
    };
    let replica = Replica { state: ReplicaState::Copying, object: Some(name), ..Replica::wanted(store("b")) };
    for (size, expected) in [(2 * CHUNK, false), (2 * CHUNK - 1, true)] {
        let world = world().record(|record| {
            record.objects.push(object.clone());
            record.replicas.insert(store("b"), replica.clone());
            record.replicas.get_mut(&store("a")).unwrap().size = Some(size);
        });
        assert_eq!(taken(&world.image(|image| image.size = Some(size))), expected, "{size}");
    }
}
