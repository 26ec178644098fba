//! What the planner decides of stores that only Glance can write.

use super::*;

/// As [`World::new`], and `g` is Glance's store `ceph`.
fn world() -> World {
    let mut world = World::new();
    world.policy.stores.push(StoreFacts { backend: Some("ceph".into()), ..StoreFacts::new("g".parse().unwrap()) });
    world
}

fn both_registered() -> World {
    world().holds("a", ReplicaState::Registered).shows("a").holds("b", ReplicaState::Registered).shows("b")
}

fn asked(mut world: World) -> World {
    let store: StoreName = "g".parse().unwrap();
    let replica = Replica { state: ReplicaState::Copying, ..Replica::wanted(store.clone()) };
    world.record.replicas.insert(store, replica);
    world
}

#[test]
fn glance_is_asked_when_mimeos_own_copies_are_registered() {
    let busy = world().plan();
    assert_eq!((names(&busy.copy), names(&busy.ask)), (vec!["a", "b"], vec![]));
    assert!(busy.next_look.is_some(), "and looks again whether it is Glance's turn");
    assert_eq!(names(&both_registered().plan().ask), ["g"]);
}

#[test]
fn a_slow_copy_of_mimeos_holds_up_glance_no_longer_than_the_quick_ones_take() {
    let world = world().holds("a", ReplicaState::Registered).shows("a");
    let sight = Sight::Present(Box::new(world.image.clone()));
    assert_eq!(names(&world.plan_at(&sight, &["b"]).ask), ["g"]);
    let proven = world.holds("b", ReplicaState::Proven).plan();
    assert_eq!((names(&proven.register), names(&proven.ask)), (vec!["b"], vec![]), "no PATCH beside an import");
}

#[test]
fn what_glance_shows_is_registered_and_proven_by_glance_alone() {
    let shown = asked(both_registered()).image(|image| image.backends = ["ceph".to_owned()].into());
    let plan = shown.plan();
    let replica = replica(&plan, "g").unwrap();
    let proof = Proof { kind: ProofKind::Glance, at: shown.now };
    assert_eq!((replica.state, replica.proof), (ReplicaState::Registered, Some(proof)));
    assert!(!plan.has_work());
}

#[test]
fn nothing_is_asked_while_glance_imports_and_a_copy_that_did_not_come_has_failed() {
    let importing = both_registered().image(|image| image.importing = true).plan();
    assert!(importing.ask.is_empty() && importing.next_look.is_some());
    let ended = asked(both_registered()).image(|image| image.failed_backends = ["ceph".to_owned()].into()).plan();
    let failure = replica(&ended, "g").unwrap().failure.clone().unwrap();
    assert_eq!(failure.reason, Reason::GlanceCopyFailed);
    assert!(failure.message.contains("could not write"), "{}", failure.message);
    assert!(ended.ask.is_empty() && ended.next_look == failure.next_try);
}

#[test]
fn a_copy_that_glance_lost_is_asked_for_again() {
    let mut world = asked(both_registered());
    world.record.replicas.get_mut(&"g".parse().unwrap()).unwrap().state = ReplicaState::Registered;
    let plan = world.plan();
    assert_eq!(names(&plan.ask), ["g"]);
    assert_eq!(replica(&plan, "g").unwrap().failure.as_ref().unwrap().reason, Reason::LocationLost);
}

#[test]
fn glance_removes_its_own_copy_with_the_image() {
    let shown = asked(both_registered()).image(|image| image.backends = ["ceph".to_owned()].into());
    let replica_of_glance = replica(&shown.plan(), "g").unwrap().clone();
    let world = shown.record(|record| drop(record.replicas.insert("g".parse().unwrap(), replica_of_glance)));
    let plan = world.plan_at(&Sight::Gone, &[]);
    assert_eq!(replica(&plan, "g").unwrap().state, ReplicaState::Gone);
    assert_eq!(replica(&plan, "a").unwrap().state, ReplicaState::Retiring);
}
