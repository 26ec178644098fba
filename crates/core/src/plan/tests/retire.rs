//! Copies that nothing wants where they are, and stores under another name or at another place.

use super::*;

/// Registered on `a`, and on `b` from where the rules have moved away.
fn moved_away() -> World {
    let rules = Rules::compile(vec![to_a()]).unwrap();
    let mut world = World::new().holds("a", ReplicaState::Registered).holds("b", ReplicaState::Registered);
    world.policy.rules = rules;
    world.conditions.unwanted_before = Timestamp::MAX;
    world.shows("a").shows("b")
}

fn to_a() -> policy::RuleSpec {
    policy::RuleSpec { name: "rule".into(), when: None, stores: vec!["a".parse().unwrap()], copies: None }
}

fn draining(mut world: World, store: &str) -> World {
    world.conditions.draining.insert(store.parse().unwrap());
    world
}

fn doomed(plan: &Plan) -> Vec<&str> {
    let mut doomed = Vec::new();
    for change in &plan.changes {
        if let Change::Doom(store, ..) = change {
            doomed.push(store.as_str());
        }
    }
    doomed
}

fn reason(plan: &Plan, store: &str) -> Option<Reason> {
    replica(plan, store)?.failure.as_ref().map(|failure| failure.reason)
}

#[test]
fn an_unwanted_copy_goes_when_every_wanted_one_is_registered() {
    let plan = moved_away().plan();
    assert_eq!((doomed(&plan), names(&plan.retired)), (vec!["b"], vec!["b"]));
    let retiring = replica(&plan, "b").unwrap();
    assert_eq!((retiring.state, retiring.unwanted_since), (ReplicaState::Retiring, Some(plan.next_look.unwrap())));
}

#[test]
fn an_unwanted_copy_stays_while_a_wanted_one_is_not_registered() {
    for state in [ReplicaState::Proven, ReplicaState::Suspect, ReplicaState::Stored, ReplicaState::Failed] {
        let world = moved_away().image(|image| drop(image.locations.remove(0))).record(|record| {
            record.replicas.get_mut(&"a".parse().unwrap()).unwrap().state = state;
        });
        let plan = world.plan();
        assert!(doomed(&plan).is_empty(), "{state}");
        assert_eq!(replica(&plan, "b").unwrap().state, ReplicaState::Retiring);
        assert!(replica(&plan, "b").unwrap().failure.as_ref().unwrap().message.contains("registered at a"));
    }
    let busy = moved_away();
    let plan = busy.plan_at(&Sight::Present(Box::new(busy.image.clone())), &["a"]);
    assert!(doomed(&plan).is_empty(), "what runs at a may still fail");
}

#[test]
fn an_unwanted_copy_waits_for_the_grace_period_and_the_guard() {
    let mut world = moved_away();
    world.conditions.unwanted_before = world.now.saturating_sub(Duration::from_secs(1)).unwrap();
    let plan = world.plan();
    assert!(doomed(&plan).is_empty());
    let waiting = replica(&plan, "b").unwrap().clone();
    let since = world.now;
    world.record.replicas.insert(waiting.store.clone(), waiting);
    world.now = world.now.saturating_add(Duration::from_mins(1)).unwrap();
    assert_eq!(replica(&world.plan(), "b").unwrap().unwanted_since, Some(since), "since the first look");
    world.conditions.unwanted_before = since;
    assert_eq!(doomed(&world.plan()), ["b"]);
}

#[test]
fn a_copy_that_is_wanted_again_is_kept() {
    let mut world = moved_away();
    world.conditions.unwanted_before = Timestamp::UNIX_EPOCH;
    let waiting = replica(&world.plan(), "b").unwrap().clone();
    world.record.replicas.insert(waiting.store.clone(), waiting);
    world.policy.rules = Rules::default();
    let plan = world.plan();
    assert!(!plan.has_work() && doomed(&plan).is_empty());
    let kept = replica(&plan, "b").unwrap();
    assert_eq!((kept.state, kept.unwanted_since), (ReplicaState::Registered, None));
    assert!(kept.failure.is_none());
}

#[test]
fn what_the_sweeper_has_already_is_copied_anew_whether_or_not_it_may_go() {
    let mut world = moved_away();
    let going = replica(&world.plan(), "b").unwrap().clone();
    world.record.replicas.insert(going.store.clone(), going);
    world.policy.rules = Rules::default();
    world.image.locations.truncate(1);
    let world = world.record(|record| record.objects[1].state = ObjectState::Doomed);
    assert_eq!(names(&world.plan().copy), ["b"]);
    let world = world.record(|record| drop(record.objects.remove(1)));
    assert_eq!(names(&world.plan().copy), ["b"]);
}

#[test]
fn a_copy_that_is_gone_is_noted_and_its_row_goes() {
    let mut world = moved_away();
    let going = replica(&world.plan(), "b").unwrap().clone();
    world.record.replicas.insert(going.store.clone(), going);
    world.image.locations.truncate(1);
    let plan = world.record(|record| drop(record.objects.remove(1))).plan();
    assert_eq!(replica(&plan, "b").unwrap().state, ReplicaState::Gone);
    assert!(matches!(plan.changes.last(), Some(Change::ReplicaGone(_, store)) if store.as_str() == "b"));
}

#[test]
fn an_image_that_nothing_wants_is_left_alone() {
    let mut world = moved_away();
    world.policy.rules = Rules::compile(vec![policy::RuleSpec { when: Some("false".into()), ..to_a() }]).unwrap();
    let plan = world.plan();
    assert!(doomed(&plan).is_empty());
    assert!(["a", "b"].iter().all(|store| replica(&plan, store).unwrap().state == ReplicaState::Registered));
}

#[test]
fn a_drained_store_takes_no_copy_and_what_it_has_goes_at_once() {
    assert_eq!(names(&draining(World::new(), "b").plan().copy), ["a"]);
    let mut world = draining(moved_away(), "b");
    world.policy.rules = Rules::default();
    world.conditions.unwanted_before = Timestamp::UNIX_EPOCH;
    let plan = world.plan();
    assert_eq!(doomed(&plan), ["b"]);
    assert!(plan.retired.is_empty(), "an operator named the store: it is no slip of a rule");
}

#[test]
fn a_drain_leaves_an_image_that_has_no_other_place() {
    let plan = draining(moved_away(), "a").plan();
    assert!(doomed(&plan).is_empty());
    assert_eq!(reason(&plan, "a"), Some(Reason::NoOtherPlace));
}

#[test]
fn the_only_copy_that_was_proven_stays() {
    let mut world = draining(moved_away(), "b").image(|image| {
        image.backends.insert("files".into());
        let metadata = BTreeMap::from([("store".to_owned(), "files".into())]);
        image.locations[0] = Location { url: "file:///x".into(), metadata };
    });
    world.policy.rules = Rules::default();
    world.policy.stores[0].backend = Some("files".into());
    world.record.replicas.remove(&"a".parse().unwrap());
    let plan = world.plan();
    assert!(doomed(&plan).is_empty());
    assert_eq!(reason(&plan, "b"), Some(Reason::LastProvenCopy));
    world.record.replicas.insert("a".parse().unwrap(), replica(&plan, "a").unwrap().clone());
    let plan = draining(world, "a").plan();
    assert_eq!(reason(&plan, "a"), Some(Reason::GlancesCopy));
}

#[test]
fn nothing_goes_while_locations_cannot_be_changed() {
    for change in
        [|image: &mut Image| image.status = ImageStatus::Deactivated, |image: &mut Image| image.importing = true]
    {
        assert!(doomed(&moved_away().image(change).plan()).is_empty());
    }
}

#[test]
fn a_copy_that_goes_is_read_from_as_long_as_it_is_there() {
    let mut world = draining(moved_away(), "b").record(|record| {
        record.replicas.remove(&"a".parse().unwrap());
        record.objects.remove(0);
    });
    let retiring = replica(&world.plan(), "b").unwrap().clone();
    world.record.replicas.insert(retiring.store.clone(), retiring);
    assert_eq!(world.plan().sources, [SourceOf::Copy("b".parse().unwrap()), SourceOf::Service]);
}

#[test]
fn a_store_that_is_not_enabled_keeps_its_copies_as_they_are() {
    let mut world = moved_away();
    world.policy.stores.truncate(1);
    let plan = world.plan();
    assert!(doomed(&plan).is_empty());
    assert_eq!(replica(&plan, "b").unwrap().state, ReplicaState::Registered);
    let unseen = world.image(|image| image.locations.truncate(1)).plan();
    assert_eq!(replica(&unseen, "b").unwrap().state, ReplicaState::Suspect, "no longer seen, no longer registered");
}

#[test]
fn a_renamed_store_waits_for_the_word_and_copies_nothing_anew() {
    let mut world = World::new().holds("a", ReplicaState::Registered).holds("old", ReplicaState::Registered);
    world = world.shows("a").shows("old");
    world.conditions.renamed.insert("b".parse().unwrap(), "old".parse().unwrap());
    let plan = world.plan();
    assert!(!plan.has_work() && doomed(&plan).is_empty());
    assert_eq!(reason(&plan, "b"), Some(Reason::StoreRenamed));
    world.record.replicas.insert("b".parse().unwrap(), replica(&plan, "b").unwrap().clone());
    world.conditions.renamed.clear();
    assert_eq!(names(&world.plan().copy), ["b"], "it was another store after all");
}

#[test]
fn a_moved_store_keeps_its_copies_until_they_are_to_be_proven_at_the_new_place() {
    let mut world = moved_away();
    world.policy.rules = Rules::default();
    world.elsewhere.insert("b".parse().unwrap());
    let plan = world.plan();
    assert!(!plan.has_work() && doomed(&plan).is_empty());
    assert_eq!(replica(&plan, "b").unwrap().state, ReplicaState::Registered);
    assert_eq!(reason(&plan, "b"), Some(Reason::StoreMoved));
    let lost = world.image.locations.pop().unwrap();
    assert!(!world.plan().has_work(), "its location is not registered again, as it is not where the store is");
    world.image.locations.push(lost);
    world.conditions.moving.insert("b".parse().unwrap());
    assert_eq!(names(&world.plan().prove), ["b"]);
    let plan = draining(world, "b").plan();
    assert!(doomed(&plan).is_empty(), "nothing could be removed where the store is now");
}

#[test]
fn the_former_location_of_a_copy_that_was_proven_at_a_new_place_is_withdrawn() {
    let mut world = moved_away();
    world.policy.rules = Rules::default();
    let name = world.record.objects[1].name.clone();
    let (former, other) = (format!("http://former/{name}"), "http://elsewhere/mirror".to_owned());
    world.image.locations.insert(0, Location::ours(former.clone(), &"b".parse().unwrap()));
    world.image.locations.push(Location::ours(other, &"b".parse().unwrap()));
    assert_eq!(world.plan().withdraw, [former]);
    world.image.locations.remove(2);
    assert!(world.plan().withdraw.is_empty(), "not before the new one is registered");
    world.image.locations[0].metadata.clear();
    assert!(world.plan().withdraw.is_empty(), "nor what others registered");
}
