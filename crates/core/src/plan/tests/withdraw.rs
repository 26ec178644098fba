//! Which locations are taken out of an image.

use super::*;

fn doomed(world: World, stores: &[&str]) -> World {
    world.record(|record| {
        for object in record.objects.iter_mut().filter(|object| stores.contains(&object.store.as_str())) {
            object.state = ObjectState::Doomed;
        }
    })
}

fn registered() -> World {
    World::new().holds("a", ReplicaState::Registered).holds("b", ReplicaState::Registered).shows("a").shows("b")
}

#[test]
fn the_location_of_an_object_that_is_to_go_is_withdrawn_and_its_replica_is_no_longer_called_registered() {
    let world = doomed(registered(), &["a"]);
    let plan = world.plan();
    assert_eq!(plan.withdraw, [world.image.locations[0].url.clone()]);
    let replica = replica(&plan, "a").unwrap();
    assert_eq!((replica.state, &replica.object, &replica.url), (ReplicaState::Wanted, &None, &None));
    assert_eq!(names(&plan.copy), ["a"], "made anew beside it");
    assert!(plan.has_work() && row(&plan).trouble.is_none());
}

#[test]
fn the_last_location_stays_and_that_is_said() {
    let both = doomed(registered(), &["a", "b"]).plan();
    assert_eq!(both.withdraw.len(), 1, "all but one");
    let last = doomed(registered().image(|image| drop(image.locations.remove(1))), &["a", "b"]).plan();
    assert!(last.withdraw.is_empty());
    let trouble = row(&last).trouble.clone().unwrap();
    assert_eq!((trouble.reason, trouble.next_try), (Reason::LastLocation, None));
}

#[test]
fn nothing_is_withdrawn_while_glance_imports_or_takes_no_locations() {
    let world = || doomed(registered(), &["a"]);
    assert!(world().image(|image| image.importing = true).plan().withdraw.is_empty());
    assert!(world().image(|image| image.status = ImageStatus::Deactivated).plan().withdraw.is_empty());
}

#[test]
fn a_location_that_only_bears_the_name_of_the_object_is_left_alone() {
    let elsewhere = registered().image(|image| {
        let url = image.locations[0].url.replace("//a/", "//elsewhere/");
        image.locations[0].url = url;
    });
    assert!(doomed(elsewhere, &["a"]).plan().withdraw.is_empty());
}

#[test]
fn an_object_is_recognised_whatever_its_password_is_by_now() {
    let url = |info: &str| format!("swift+http://{info}@keystone/v3/images/x.1");
    let location = |url: String| Location { url, metadata: BTreeMap::new() };
    assert!(location(url("p%3Au:old")).leads_to(&url("p%3Au:new")));
    assert!(!location(url("p%3Aother:old")).leads_to(&url("p%3Au:new")));
    assert!(location("s3+https://host/b/x.1".into()).leads_to("s3+https://key:secret@host/b/x.1"));
}

#[test]
fn a_withdrawal_that_failed_is_tried_again_at_its_time() {
    let failure = |next_try| Failure { reason: Reason::NotWithdrawn, message: "no".into(), tries: 3, next_try };
    let world = |wait: i64| {
        let mut world = doomed(registered(), &["a"]);
        let next_try = Some(Timestamp::from_second(world.now.as_second() + wait).unwrap());
        world.record.image.trouble = Some(failure(next_try));
        world
    };
    let early = world(5).plan();
    assert!(early.withdraw.is_empty());
    assert_eq!(row(&early).trouble.as_ref().unwrap().tries, 3, "what was tried is not forgotten");
    assert_eq!(early.next_look, row(&early).trouble.as_ref().unwrap().next_try);
    assert_eq!(world(0).plan().withdraw.len(), 1);
    let mut done = world(0);
    done.image.locations.remove(0);
    assert_eq!(row(&done.plan()).trouble, None);
}

#[test]
fn the_former_location_of_a_moved_copy_takes_no_bits_with_it_that_may_be_those_at_the_new_place() {
    let moved = |new: &str, former: &str| {
        let mut world = registered();
        let name = world.record.objects[0].name.clone();
        let (new, former) = (format!("{new}/{name}"), format!("{former}/{name}"));
        world.record.objects[0].url = new.clone();
        world.record.replicas.get_mut(&"a".parse().unwrap()).unwrap().url = Some(new.clone());
        world.image.locations[0].url = new;
        world.image.locations.push(Location::ours(former.clone(), &"a".parse().unwrap()));
        (world.plan().withdraw, vec![former])
    };
    let (withdrawn, former) = moved("s3+https://host/new", "s3+https://host/old");
    assert_eq!(withdrawn, former);
    let (withdrawn, _) = moved("s3+https://host/bucket", "s3+https://alias/bucket");
    assert_eq!(withdrawn, Vec::<String>::new());
}

#[test]
fn of_a_location_of_its_own_that_stands_twice_one_is_to_go() {
    let twice = |at: usize| registered().image(|image| image.locations.push(image.locations[at].clone()));
    assert!(!registered().plan().doubled);
    let plan = twice(1).plan();
    assert!(plan.doubled && plan.has_work() && plan.withdraw.is_empty() && row(&plan).trouble.is_none(), "{plan:?}");
    let anothers = twice(1).image(|image| image.locations.iter_mut().for_each(|location| location.metadata.clear()));
    assert!(!anothers.plan().doubled, "what others doubled is theirs");
    let other_metadata = twice(1).image(|image| drop(image.locations[2].metadata.insert("note".into(), "mine".into())));
    assert!(!other_metadata.plan().doubled, "it would be lost");
    let with_bits = twice(1).image(|image| {
        image.locations.iter_mut().for_each(|location| location.url = location.url.replace("http://", "rbd://fsid/"));
    });
    assert!(!with_bits.plan().doubled, "Glance would remove the bits of both");
}
