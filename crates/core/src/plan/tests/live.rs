//! Registered copies: read again, demoted, returned, lost.

use super::*;

const DAY: i64 = 24 * 3600;

fn registered() -> World {
    World::new().holds("a", ReplicaState::Registered).holds("b", ReplicaState::Registered).shows("a").shows("b")
}

fn later(mut world: World, seconds: i64) -> World {
    world.now = Timestamp::from_second(world.now.as_second() + seconds).unwrap();
    world
}

fn scrubbed(mut world: World) -> World {
    world.conditions.scrub = Some(Duration::from_hours(24 * 30));
    world
}

fn verified(plan: &Plan) -> Vec<(&str, bool)> {
    plan.verify.iter().map(|it| (it.store.as_str(), it.asked)).collect()
}

fn down(mut world: World, store: &str) -> World {
    let outage = Outage { since: world.now, error: "no connection".into() };
    world.conditions.down.insert(store.parse().unwrap(), outage);
    world.conditions.answering.remove(&store.parse::<StoreName>().unwrap());
    world
}

fn up(mut world: World, store: &str) -> World {
    world.conditions.down.clear();
    world.conditions.answering.insert(store.parse().unwrap());
    world
}

/// The world after what the plan says was done.
fn after(mut world: World, plan: &Plan) -> World {
    for change in &plan.changes {
        match change {
            Change::Image(row) => world.record.image = row.clone(),
            Change::Replica(_, replica) => drop(world.record.replicas.insert(replica.store.clone(), replica.clone())),
            _ => {}
        }
    }
    if let Some(order) = &plan.order {
        world.image.locations.sort_by_key(|location| order.iter().position(|url| *url == location.url));
    }
    world
}

fn stands(world: &World) -> Vec<String> {
    let host = |location: &Location| location.url.split('/').nth(2).unwrap().to_owned();
    world.image.locations.iter().map(host).collect()
}

#[test]
fn a_registered_copy_is_read_again_before_its_proof_is_too_old() {
    let young = scrubbed(registered()).plan();
    assert!(young.verify.is_empty() && !young.has_work());
    let due = young.next_look.unwrap().as_second() - 1000;
    assert!((26 * DAY..30 * DAY).contains(&due), "{due}");
    assert_eq!(verified(&later(scrubbed(registered()), due).plan()), [("a", false), ("b", false)]);
    assert!(later(registered(), 1000 * DAY).plan().verify.is_empty(), "scrubbing may be off");
}

#[test]
fn it_waits_its_turn_and_for_the_stores_hours_unless_somebody_asked() {
    let mut world = later(scrubbed(registered()), 30 * DAY);
    world.conditions.scrubbing.insert("a".parse().unwrap());
    let opens = Timestamp::from_second(world.now.as_second() + 60).unwrap();
    world.conditions.closed.insert("b".parse().unwrap(), opens);
    let plan = world.plan();
    assert!(!plan.has_work());
    assert_eq!((names(&plan.verify_later), plan.next_look), (vec!["a"], Some(opens)));
    let asked = Some(world.now);
    assert_eq!(verified(&world.record(|record| record.image.verify_asked = asked).plan()), [("a", true), ("b", true)]);
}

#[test]
fn a_copy_at_a_store_that_is_not_enabled_is_left_alone() {
    let mut world = later(scrubbed(registered()), 30 * DAY);
    world.policy.stores.remove(0);
    assert_eq!(verified(&world.plan()), [("b", false)]);
}

#[test]
fn a_proof_from_after_the_question_answers_it() {
    let asked = registered().record(|record| record.image.verify_asked = Some(Timestamp::from_second(1000).unwrap()));
    assert!(asked.plan().verify.is_empty());
}

#[test]
fn why_it_could_not_be_read_again_is_kept_and_it_is_tried_again_then() {
    let mut world = later(scrubbed(registered()), 30 * DAY);
    let error = Error::new(Reason::StoreStalled, "no byte");
    let a = world.record.replicas.get_mut(&"a".parse().unwrap()).unwrap();
    *a = a.clone().failed(ReplicaState::Registered, &error, world.policy.backoff, world.now);
    let plan = world.plan();
    let a = replica(&plan, "a").unwrap();
    assert_eq!((a.state, a.failure.as_ref().unwrap().reason), (ReplicaState::Registered, Reason::StoreStalled));
    assert_eq!(verified(&plan), [("b", false)]);
    assert_eq!(verified(&world.a_while_later(a.clone()).plan()), [("a", false), ("b", false)]);
}

#[test]
fn several_looks_in_a_row_write_nothing_of_a_copy_that_is_as_it_was() {
    let first = registered().plan();
    let seen_later = |seconds| {
        let world = later(after(registered(), &first), seconds);
        replica(&world.plan(), "a").map(|a| a.seen_at == Some(world.now))
    };
    assert_eq!([-1, 0, 59, 60].map(seen_later), [Some(true), None, None, Some(true)]);
}

#[test]
fn a_location_at_a_store_that_does_not_answer_is_put_last_and_returns() {
    let world = down(registered(), "a");
    let plan = world.plan();
    let suspect = replica(&plan, "a").unwrap();
    assert_eq!((suspect.state, suspect.failure.as_ref().unwrap().reason), (ReplicaState::Suspect, Reason::StoreDown));
    assert_eq!(suspect.seen_at, Some(world.now), "its location was seen");
    let world = after(world, &plan);
    assert_eq!(stands(&world), ["b", "a"]);
    assert!(!world.plan().has_work(), "once is enough");

    let unknown = World { conditions: Conditions::default(), ..world };
    let plan = unknown.plan();
    assert!(!plan.has_work() && plan.next_look.is_some());
    assert_eq!(replica(&plan, "a").map_or(ReplicaState::Suspect, |it| it.state), ReplicaState::Suspect);

    let world = up(unknown, "a");
    let plan = world.plan();
    assert_eq!(replica(&plan, "a").unwrap().state, ReplicaState::Registered);
    let world = after(world, &plan);
    assert_eq!(stands(&world), ["a", "b"]);
    let plan = world.plan();
    assert!(!plan.has_work());
    assert_eq!(replica(&plan, "a").unwrap().failure, None);
}

#[test]
fn others_locations_keep_their_places_as_far_as_can_be() {
    let glances = Location { url: "file:///0/x".into(), metadata: BTreeMap::new() };
    let world = down(registered().image(|image| image.locations.insert(0, glances)), "a");
    let plan = world.plan();
    let world = after(world, &plan);
    assert_eq!(stands(&world), ["", "b", "a"]);
    let world = up(world, "a");
    let plan = world.plan();
    assert_eq!(stands(&after(world, &plan)), ["", "a", "b"]);
}

#[test]
fn nothing_is_put_behind_nobody() {
    assert!(down(registered(), "b").plan().order.is_none(), "it is the last already");
    assert!(down(down(registered(), "a"), "b").plan().order.is_none());
    assert!(down(registered().image(|image| image.importing = true), "a").plan().order.is_none());
}

#[test]
fn an_order_that_glance_does_not_take_is_not_asked_for_for_ever() {
    let mut world = down(registered(), "a");
    let plan = world.plan();
    world = after(world, &Plan { order: None, ..plan.clone() });
    assert!(!world.plan().has_work(), "not at once");
    world = world.a_while_later(replica(&plan, "a").unwrap().clone());
    let again = world.plan();
    assert_eq!(replica(&again, "a").unwrap().failure.as_ref().unwrap().tries, 2);

    let world = after(down(registered(), "a"), &plan);
    let mut world = up(world, "a");
    let mut patches = 0;
    for _ in 0..20 {
        let plan = world.plan();
        patches += u32::from(plan.order.is_some());
        world = later(after(world, &Plan { order: None, ..plan }), 600);
    }
    assert_eq!(patches, 3);
    assert_eq!(world.record.replicas[&"a".parse().unwrap()].failure, None, "Glance has an order of its own");
}

#[test]
fn nothing_is_begun_at_a_store_that_does_not_answer() {
    let states = [ReplicaState::Wanted, ReplicaState::Stored, ReplicaState::Proven];
    for state in states {
        let world = down(World::new().holds("a", state), "a");
        let plan = world.plan();
        assert_eq!((names(&plan.copy), plan.prove.len(), plan.register.len()), (vec!["b"], 0, 0), "{state}");
        let waiting = replica(&plan, "a").unwrap().clone();
        assert_eq!(waiting.failure.as_ref().unwrap().reason, Reason::StoreDown);
        assert!(plan.next_look.is_some());
        let world = up(after(world, &plan), "a");
        let plan = world.plan();
        assert_eq!(plan.copy.len() + plan.prove.len() + plan.register.len(), 2, "{state}: at once when it answers");
    }
}

#[test]
fn a_copy_that_is_lost_again_and_again_waits_ever_longer_and_is_forgiven_when_it_stays() {
    let mut world = World::new().holds("a", ReplicaState::Registered).holds("b", ReplicaState::Registered).shows("b");
    let mut waits = Vec::new();
    for losses in 1..=4 {
        let plan = world.plan();
        let lost = replica(&plan, "a").unwrap().clone();
        let failure = lost.failure.clone().unwrap();
        assert_eq!((failure.reason, failure.tries), (Reason::LocationLost, losses));
        waits.push(failure.next_try.unwrap().as_second() - world.now.as_second());
        assert!(plan.register.is_empty());
        world = world.a_while_later(lost);
        assert_eq!(names(&world.plan().register), ["a"]);
        // As the registrar leaves it.
        world = world.record(|record| {
            record.replicas.get_mut(&"a".parse().unwrap()).unwrap().state = ReplicaState::Registered;
        });
    }
    assert_eq!(waits, [1, 2, 4, 8]);
    let world = world.shows("a");
    let plan = world.plan();
    assert!(plan.next_look.is_some() && replica(&plan, "a").unwrap().failure.is_some());
    let stayed = later(world, 3600).plan();
    assert_eq!(replica(&stayed, "a").unwrap().failure, None);
}

#[test]
fn after_wrong_bits_from_glance_a_proven_copy_is_read() {
    let error = Error::new(Reason::SourceMismatch, "other bits");
    let failed = |mut world: World| {
        let a =
            Replica::wanted("a".parse().unwrap()).failed(ReplicaState::Failed, &error, world.policy.backoff, world.now);
        world.record.replicas.insert(a.store.clone(), a);
        world
    };
    let alone = failed(World::new()).plan();
    assert!(names(&alone.copy) == ["b"] && alone.next_look.is_some());
    let world = failed(World::new().holds("b", ReplicaState::Registered).shows("b"));
    let plan = world.plan();
    assert_eq!((names(&plan.copy), plan.sources[0].clone()), (vec!["a"], SourceOf::Copy("b".parse().unwrap())));
    let mut again = world;
    let a = again.record.replicas.remove(&"a".parse().unwrap()).unwrap();
    let a = a.failed(ReplicaState::Failed, &error, again.policy.backoff, again.now);
    again.record.replicas.insert(a.store.clone(), a);
    assert!(again.plan().copy.is_empty(), "once, and not for ever");
}

#[test]
fn an_object_that_cannot_be_gone_on_with_gives_way_to_a_new_one() {
    let with_tries = |tries, reason| {
        World::new().holds("a", ReplicaState::Failed).image(|image| image.size = Some(4 * crate::CHUNK)).record(
            |record| {
                record.objects[0].state = ObjectState::Open;
                let failure = Failure { reason, message: "no".into(), tries, next_try: Some(Timestamp::UNIX_EPOCH) };
                record.replicas.get_mut(&"a".parse().unwrap()).unwrap().failure = Some(failure);
            },
        )
    };
    let dooms = |world: World| world.plan().changes.iter().any(|change| matches!(change, Change::Doom(..)));
    assert!(!dooms(with_tries(4, Reason::StoreError)));
    assert!(dooms(with_tries(5, Reason::StoreError)));
    assert!(!dooms(with_tries(5, Reason::StoreUnreachable)), "a store that is away says nothing of the object");
}

#[test]
fn a_suspect_at_a_store_that_is_not_enabled_any_more_is_not_looked_at_again_and_again() {
    let mut world = down(registered(), "a");
    let plan = world.plan();
    world = after(world, &plan);
    world.conditions.down.clear();
    assert!(world.plan().next_look.is_some(), "nobody has asked the store yet");
    world.policy.stores.remove(0);
    assert_eq!(world.plan().next_look, None);
}

#[test]
fn what_waited_for_a_store_and_may_begin_is_not_called_failed_without_a_reason() {
    let mut world = down(World::new().holds("a", ReplicaState::Failed), "a");
    world.record.objects.clear();
    let plan = world.plan();
    world = after(world, &plan);
    world.conditions.down.clear();
    let plan = world.plan();
    let waited = replica(&plan, "a").unwrap();
    assert!(plan.copy.iter().any(|store| store.as_str() == "a"));
    assert_eq!((waited.state, waited.failure.clone()), (ReplicaState::Wanted, None));
}

#[test]
fn a_proof_and_a_question_from_a_clock_that_was_ahead_are_as_from_now() {
    let ahead = |world: &World| world.now.saturating_add(Duration::from_hours(24 * 30)).unwrap();
    let world = registered().record(|record| record.image.verify_asked = None);
    let at = ahead(&world);
    let world = world.record(|record| {
        record.image.verify_asked = Some(at);
        for replica in record.replicas.values_mut() {
            replica.proof = replica.proof.map(|proof| Proof { at, ..proof });
        }
    });
    let plan = world.plan();
    assert_eq!(replica(&plan, "a").unwrap().proof.unwrap().at, world.now);
    assert!(plan.changes.contains(&Change::VerifyAsked(world.image.id.clone(), world.now)));
    let asked = Some(world.now.saturating_add(Duration::from_secs(1)).unwrap());
    let next = later(after(world, &plan), 2).record(|record| record.image.verify_asked = asked);
    assert_eq!(verified(&next.plan()), [("a", true), ("b", true)], "and a question from after that is one");
}
