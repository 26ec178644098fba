//! A ledger that does not know what is there.

use super::*;

impl World {
    /// The image's locations show this attempt's object at `store`.
    fn shows_object(mut self, store: &str, attempt: u64) -> Self {
        let shown = self.shown(store, attempt);
        self.image.locations.push(Location::ours(shown.url.clone(), &shown.store));
        self.shown.push(shown);
        self
    }

    fn shown(&self, store: &str, attempt: u64) -> Shown {
        let object = ObjectName::new(&self.image.id, attempt);
        Shown { store: store.parse().unwrap(), url: format!("http://{store}/{object}"), object }
    }

    fn has(self, store: &str, attempt: u64, state: ObjectState) -> Self {
        let Shown { store, object: name, url } = self.shown(store, attempt);
        self.record(|record| record.objects.push(Object { store, name, url, state, since: Timestamp::UNIX_EPOCH }))
    }
}

/// What becomes of the objects, by their attempts.
fn objects(plan: &Plan) -> Vec<(u64, ObjectState)> {
    let object = |change: &Change| match change {
        Change::Object(object) => Some((object.name.attempt(), object.state)),
        Change::Doom(_, name, _) => Some((name.attempt(), ObjectState::Doomed)),
        _ => None,
    };
    plan.changes.iter().filter_map(object).collect()
}

#[test]
fn a_copy_that_the_image_shows_is_proven_and_not_made_again() {
    let plan = World::new().shows_object("a", 7).plan();
    assert_eq!((names(&plan.prove), names(&plan.copy)), (vec!["a"], vec!["b"]));
    assert_eq!(objects(&plan), [(7, ObjectState::Kept)]);
    let adopted = replica(&plan, "a").unwrap();
    assert_eq!((adopted.state, adopted.digest.clone(), adopted.proof), (ReplicaState::Stored, None, None));
    assert_eq!((adopted.object.as_ref().unwrap().attempt(), adopted.size), (7, Some(1)));
}

#[test]
fn one_that_no_rule_wants_is_proven_too_and_one_that_no_location_shows_is_not() {
    let mut world = World::new().shows_object("b", 7).has("b", 8, ObjectState::Found);
    let at_a = policy::RuleSpec { name: "a".into(), when: None, stores: vec!["a".parse().unwrap()], copies: None };
    world.policy.rules = Rules::compile(vec![at_a]).unwrap();
    let plan = world.plan();
    assert_eq!((names(&plan.prove), names(&plan.copy)), (vec!["b"], vec!["a"]));
    assert_eq!(objects(&plan), [(7, ObjectState::Kept)]);
}

#[test]
fn what_the_record_holds_stays_while_it_is_shown() {
    let world = World::new().holds("a", ReplicaState::Registered).holds("b", ReplicaState::Registered);
    let plan = world.shows_object("a", 1).shows_object("b", 2).plan();
    assert!(!plan.has_work() && objects(&plan).is_empty());
}

#[test]
fn an_old_record_takes_the_object_that_is_shown_now_and_drops_its_own_once_that_is_registered() {
    let world = World::new().holds("a", ReplicaState::Registered).shows_object("a", 7);
    let plan = world.plan();
    assert_eq!(names(&plan.prove), ["a"]);
    assert_eq!(objects(&plan), [(7, ObjectState::Kept)], "the old one may yet be needed");
    let object = Some(ObjectName::new(&world.image.id, 7));
    let proven = Replica {
        state: ReplicaState::Proven,
        object,
        url: Some(world.shown[0].url.clone()),
        digest: Some(Digest::from_hex("00")),
        ..replica(&plan, "a").unwrap().clone()
    };
    let world =
        world.has("a", 7, ObjectState::Kept).record(|it| drop(it.replicas.insert(proven.store.clone(), proven)));
    let plan = world.plan();
    assert_eq!(replica(&plan, "a").unwrap().state, ReplicaState::Registered);
    assert_eq!(objects(&plan), [(1, ObjectState::Doomed)]);
}

#[test]
fn one_that_was_open_in_an_old_record_was_closed_if_a_location_shows_it() {
    let object = ObjectName::new(&World::new().image.id, 7);
    let copying =
        Replica { state: ReplicaState::Copying, object: Some(object), ..Replica::wanted("a".parse().unwrap()) };
    let world = World::new().has("a", 7, ObjectState::Open).has("a", 6, ObjectState::Open).shows_object("a", 7);
    let plan = world.record(|record| drop(record.replicas.insert(copying.store.clone(), copying))).plan();
    assert_eq!(objects(&plan), [(7, ObjectState::Kept), (6, ObjectState::Doomed)]);
    assert_eq!((names(&plan.prove), names(&plan.copy)), (vec!["a"], vec!["b"]));
}

#[test]
fn what_is_doomed_is_not_adopted_however_it_is_shown() {
    let plan = World::new().has("a", 7, ObjectState::Doomed).shows_object("a", 7).plan();
    assert_eq!((names(&plan.copy), objects(&plan)), (vec!["a", "b"], vec![]));
}

#[test]
fn without_a_hash_a_copy_is_entered_and_made_anew() {
    let world = World::new().shows_object("a", 7).image(|image| image.hash = None);
    let plan = world.plan();
    assert_eq!((names(&plan.copy), objects(&plan)), (vec!["a", "b"], vec![(7, ObjectState::Kept)]));
    // And the old one goes when the new one is registered.
    let world = world.has("a", 7, ObjectState::Kept).holds("a", ReplicaState::Registered).shows_object("a", 2);
    assert_eq!(objects(&world.plan()), [(7, ObjectState::Doomed)]);
}

#[test]
fn a_listing_gives_what_is_wanted_and_nobody_holds_the_newest_first() {
    let world = World::new().has("a", 7, ObjectState::Found).has("a", 8, ObjectState::Found);
    let plan = world.plan();
    assert_eq!((names(&plan.prove), objects(&plan)), (vec!["a"], vec![(8, ObjectState::Kept)]));
    let held = World::new().holds("a", ReplicaState::Registered).shows("a").has("a", 7, ObjectState::Found).plan();
    assert!(names(&held.prove).is_empty() && objects(&held).is_empty(), "what nobody made waits for an operator");
}

#[test]
fn an_adopted_copy_that_was_bad_is_not_taken_again() {
    let failed = Replica { state: ReplicaState::Failed, ..Replica::wanted("a".parse().unwrap()) };
    let world = World::new().has("a", 7, ObjectState::Doomed).has("a", 6, ObjectState::Kept).shows_object("a", 7);
    let plan = world.record(|record| drop(record.replicas.insert(failed.store.clone(), failed))).plan();
    assert_eq!((names(&plan.prove), names(&plan.copy)), (vec!["a"], vec!["b"]), "the one before it is tried first");
    assert_eq!(replica(&plan, "a").unwrap().object.as_ref().unwrap().attempt(), 6);
}

#[test]
fn what_the_record_has_at_a_store_of_another_name_is_not_entered_again() {
    // As after a store was given another name in the configuration, or of two stores that are one place.
    let object = ObjectName::new(&World::new().image.id, 1);
    let world = World::new().holds("old", ReplicaState::Registered).shows("old");
    let world =
        World { shown: vec![Shown { store: "a".parse().unwrap(), object, url: "http://old/x".into() }], ..world };
    assert!(objects(&world.plan()).is_empty() && names(&world.plan().prove).is_empty());
}
