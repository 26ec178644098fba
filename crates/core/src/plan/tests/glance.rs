//! What the planner decides of stores that only Glance can write.

use super::*;
use crate::plan::glance::LOOKS_BEFORE_ASKING;

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

/// Glance has its own copy there.
fn at_ceph(image: &mut Image) {
    image.backends = ["ceph".to_owned()].into();
    let metadata = BTreeMap::from([("store".to_owned(), "ceph".into())]);
    image.locations.push(Location { url: "rbd://fsid/images/id/snap".into(), metadata });
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
    let shown = asked(both_registered()).image(at_ceph);
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
    let lost = replica(&plan, "g").unwrap().clone();
    assert_eq!((lost.failure.as_ref().unwrap().reason, names(&plan.ask)), (Reason::LocationLost, vec![]));
    assert_eq!(names(&world.a_while_later(lost).plan().ask), ["g"]);
}

#[test]
fn a_copy_that_could_not_be_read_from_glance_holds_up_no_other_store() {
    let mut world = world().holds("a", ReplicaState::Registered).shows("a");
    let error = Error::new(Reason::ImageServiceUnreachable, "GET … broke off");
    let replica = Replica::wanted("b".parse().unwrap());
    let replica = replica.failed(ReplicaState::Failed, &error, world.policy.backoff, world.now);
    world.record.replicas.insert(replica.store.clone(), replica);
    assert_eq!(names(&world.plan().ask), ["g"]);
}

#[test]
fn glance_removes_its_own_copy_with_the_image() {
    let shown = asked(both_registered()).image(at_ceph);
    let replica_of_glance = replica(&shown.plan(), "g").unwrap().clone();
    let world = shown.record(|record| drop(record.replicas.insert("g".parse().unwrap(), replica_of_glance)));
    let plan = world.plan_at(&Sight::Gone, &[]);
    assert_eq!(replica(&plan, "g").unwrap().state, ReplicaState::Gone);
    assert_eq!(replica(&plan, "a").unwrap().state, ReplicaState::Retiring);
}

#[test]
fn a_store_that_was_glances_and_is_mimeos_now_gets_its_copy() {
    // `a` was of type "glance" in a Glance that shows no locations: no object, no url, proof "glance".
    let mut world = World::new();
    let store: StoreName = "a".parse().unwrap();
    let proof = Some(Proof { kind: ProofKind::Glance, at: world.now });
    let replica = Replica { state: ReplicaState::Registered, size: Some(1), proof, ..Replica::wanted(store.clone()) };
    world.record.replicas.insert(store, replica);
    let plan = world.plan();
    // The registrar passes over a replica without an object: the plan stays like this for ever.
    assert_eq!((names(&plan.register), names(&plan.copy)), (vec![], vec!["a", "b"]));
}

#[test]
fn what_only_glance_has_proven_is_not_registered_as_mimeos_own() {
    // The same in a Glance that shows locations: the copy that Glance made is counted as Mimeo's own store's.
    let mut world = World::new();
    let store: StoreName = "a".parse().unwrap();
    let (proof, url) = (Some(Proof { kind: ProofKind::Glance, at: world.now }), "rbd://fsid/images/x/snap".to_owned());
    let replica = Replica {
        state: ReplicaState::Registered,
        size: Some(1),
        url: Some(url.clone()),
        proof,
        ..Replica::wanted(store.clone())
    };
    world.record.replicas.insert(store, replica);
    world.image.locations.push(Location { url, metadata: BTreeMap::new() });
    assert_eq!(names(&world.plan().copy), ["a", "b"]);
}

#[test]
fn slow_copies_hold_up_glance_for_a_bounded_time_although_none_is_registered() {
    let mut world = world();
    let sight = Sight::Present(Box::new(world.image.clone()));
    let mut waits = 0;
    loop {
        let plan = world.plan_at(&sight, &["a", "b"]);
        if names(&plan.ask) == ["g"] {
            break;
        }
        let waiting = replica(&plan, "g").unwrap().clone();
        assert_eq!(waiting.failure.as_ref().unwrap().reason, Reason::AfterOthers);
        world = world.a_while_later(waiting);
        waits += 1;
    }
    assert_eq!(waits, LOOKS_BEFORE_ASKING);
}

#[test]
fn a_location_that_cannot_be_withdrawn_does_not_hold_up_glance_for_ever() {
    let mut world = both_registered();
    let name = ObjectName::new(&world.image.id, 7);
    let url = format!("http://a/{name}");
    world.image.locations.push(Location { url: url.clone(), metadata: BTreeMap::new() });
    let store: StoreName = "a".parse().unwrap();
    world.record.objects.push(Object { store, name, url, state: ObjectState::Doomed, since: world.now });
    let failure =
        Failure { reason: Reason::AfterOthers, message: String::new(), tries: 300, next_try: Some(world.now) };
    let waiting = Replica { failure: Some(failure), ..Replica::wanted("g".parse().unwrap()) };
    world.record.replicas.insert(waiting.store.clone(), waiting);
    let plan = world.plan();
    assert!(plan.ask.is_empty() && !plan.withdraw.is_empty());
    // It fails, and is tried again as seldom.
    let next_try = Some(world.policy.backoff.next(world.now, 300));
    let failure = Failure { reason: Reason::NotWithdrawn, message: String::new(), tries: 300, next_try };
    world.record.image.trouble = Some(failure);
    let waiting = replica(&plan, "g").unwrap().clone();
    assert!(waiting.failure.as_ref().unwrap().next_try < next_try);
    assert_eq!(names(&world.a_while_later(waiting).plan().ask), ["g"]);
}

#[test]
fn mimeos_own_location_in_glances_store_is_no_copy_of_glances() {
    let ours = Location::ours("rbd://fsid/images/x/snap", &"a".parse().unwrap()).of_backend(Some("ceph"));
    let world = both_registered().image(|image| {
        image.backends = ["ceph".to_owned()].into();
        image.locations.push(ours);
    });
    assert_eq!(names(&world.plan().ask), ["g"]);
}

#[test]
fn a_copy_that_glance_has_already_counts_for_any_k_of_these() {
    let mut world = world();
    let spec = policy::RuleSpec {
        name: "one".into(),
        when: None,
        stores: ["a", "b", "g"].map(|name| name.parse().unwrap()).into(),
        copies: Some(1),
    };
    world.policy.rules = Rules::compile(vec![spec]).unwrap();
    let plan = world.image(at_ceph).plan();
    assert_eq!(names(&row(&plan).wanted), ["g"]);
}

#[test]
fn glance_is_not_asked_while_it_may_be_at_work_on_a_patch_without_an_answer() {
    // The PATCH of `b` timed out a moment ago (a URL that hangs). Glance writes the whole image back once it is done with
    // it: beside an import that undoes the import's own record, or is wiped.
    let mut world = world().holds("a", ReplicaState::Registered).shows("a").holds("b", ReplicaState::Proven);
    let error = Error::new(Reason::ImageServiceUnreachable, "PATCH … had no answer in time");
    let replica = world.record.replicas.remove(&"b".parse().unwrap()).unwrap();
    let replica = replica.failed(ReplicaState::Proven, &error, world.policy.backoff, world.now);
    world.record.replicas.insert(replica.store.clone(), replica);
    let plan = world.plan();
    assert_eq!((names(&plan.register), names(&plan.ask)), (vec![], vec![]));
}

#[test]
fn an_import_that_died_is_asked_for_again_and_one_that_lives_is_left_alone() {
    let world = |minutes: i64| {
        let world = asked(both_registered()).image(|image| image.importing = true);
        let since = Timestamp::from_second(world.now.as_second() - minutes * 60).unwrap();
        world.image(|image| image.updated_at = since)
    };
    let young = world(60).plan();
    assert!(young.ask.is_empty() && young.next_look.is_some());
    assert_eq!(names(&world(71).plan().ask), ["g"]);
    let refused = world(71).record(|record| {
        let error = Error::new(Reason::Conflict, "it lives");
        let g = record.replicas.get_mut(&"g".parse().unwrap()).unwrap();
        let backoff = Backoff { first: Duration::from_secs(9), max: Duration::from_secs(9) };
        *g = g.clone().failed(ReplicaState::Failed, &error, backoff, Timestamp::from_second(1000).unwrap());
    });
    assert!(refused.plan().ask.is_empty(), "not at once");
}

#[test]
fn a_patch_without_an_answer_to_a_store_that_is_no_longer_there_does_not_hold_up_glance_for_ever() {
    let mut world = world().holds("a", ReplicaState::Registered).shows("a").holds("b", ReplicaState::Proven);
    let error = Error::new(Reason::ImageServiceUnreachable, "PATCH … had no answer in time");
    let replica = world.record.replicas.remove(&"b".parse().unwrap()).unwrap();
    let replica = replica.failed(ReplicaState::Proven, &error, world.policy.backoff, world.now);
    world.policy.stores.retain(|facts| facts.name != replica.store);
    assert_eq!(names(&world.a_while_later(replica).plan().ask), ["g"]);
}

#[test]
fn a_copy_that_glance_does_not_show_is_not_called_registered_while_it_imports() {
    let mut world = asked(both_registered()).image(|image| image.importing = true);
    world.record.replicas.get_mut(&"g".parse().unwrap()).unwrap().state = ReplicaState::Registered;
    assert_eq!(replica(&world.plan(), "g").unwrap().state, ReplicaState::Wanted);
}
