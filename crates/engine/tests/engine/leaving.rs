//! Copies that leave a store: a rule that wants them elsewhere, a store that is drained, renamed or moved.

use std::time::Duration;

use mimeo_core::{
    ImageId, ImageState, ReplicaState, StoreName,
    ports::{Ledger, Store},
};
use mimeo_testkit::{FakeStore, RegistryFault, StoreCall, StoreFault, sample};

use crate::{
    healing::hashed,
    world::{Options, World},
};

fn name(store: &str) -> StoreName {
    store.parse().unwrap()
}

fn on(stores: usize, rules: &'static [crate::world::Rule]) -> Options {
    Options { stores, rules, ..Options::default() }
}

/// How many objects each store holds.
fn held(world: &World) -> Vec<usize> {
    world.stores.iter().map(|store| store.objects().len()).collect()
}

fn writes(world: &World) -> usize {
    let opens = |store: &FakeStore| store.calls().iter().filter(|call| matches!(call, StoreCall::Open(_))).count();
    world.stores.iter().map(opens).sum()
}

async fn drain(world: &World, store: &str) {
    world.engine.drain(&name(store)).await.unwrap().unwrap();
}

async fn left(world: &World, store: &str) -> Vec<String> {
    let report = world.engine.drain_report(&name(store)).await.unwrap().unwrap();
    report.left.into_iter().map(|entry| entry.reason.code).collect()
}

async fn replica_state(world: &World, id: &ImageId, store: &str) -> Option<ReplicaState> {
    let report = world.report(id).await.unwrap();
    report.replicas.iter().find(|replica| replica.store == name(store)).map(|replica| replica.state)
}

#[tokio::test(start_paused = true)]
async fn a_rule_change_moves_copies_and_the_old_ones_go_after_the_grace_period() {
    let mut world = World::start(on(2, &[(&["store0"], None)]));
    let id = world.create(sample::image(1, 1000));
    world.registered(&id).await;
    assert_eq!(held(&world), [1, 0]);
    world.restart(|world| world.options.rules = &[(&["store1"], None)]).await;
    world
        .until("it is at the new store", async || {
            replica_state(&world, &id, "store1").await == Some(ReplicaState::Registered)
        })
        .await;
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert_eq!((held(&world), world.locations(&id).len()), (vec![1, 1], 2), "still within the grace period");
    assert_eq!(replica_state(&world, &id, "store0").await, Some(ReplicaState::Retiring));
    world.until("the old copy is gone", async || held(&world) == [0, 1]).await;
    world.assert_good_copies(&id, 1);
    world.until("nothing is shown of it", async || replica_state(&world, &id, "store0").await.is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn an_old_copy_stays_as_long_as_the_new_one_cannot_be_made() {
    let mut world = World::start(on(2, &[(&["store0"], None)]));
    let id = world.create(sample::image(1, 1000));
    world.registered(&id).await;
    world.stores[1].inject(StoreFault::OpenFails(mimeo_core::Reason::StoreFull));
    world.restart(|world| world.options.rules = &[(&["store1"], None)]).await;
    tokio::time::sleep(Duration::from_mins(20)).await;
    world.assert_good_copies(&id, 1);
    assert_eq!(held(&world), [1, 0]);
    world.stores[1].heal();
    world.until("it has moved", async || held(&world) == [0, 1]).await;
    world.assert_good_copies(&id, 1);
}

/// It has no location any more, and was all but removed, when the copy that is wanted goes bad; and so does what Glance gives.
#[tokio::test(start_paused = true)]
async fn an_old_copy_that_turns_out_to_be_the_only_good_one_mends_the_others_first() {
    let mut world = World::start(on(2, &[]));
    let id = world.create(hashed(1, 1000));
    world.registered(&id).await;
    world.stores[1].inject(StoreFault::DeleteFails(mimeo_core::Reason::StoreError));
    world.restart(|world| world.options.rules = &[(&["store0"], None)]).await;
    world.until("the old copy is shown no more", async || world.locations(&id).len() == 1).await;
    let [copy] = &world.stores[0].objects()[..] else { panic!("one copy") };
    world.stores[0].tamper(copy, Some(vec![0; 1000].into()));
    world.registry.inject(RegistryFault::SourceReadsOther);
    world.engine.verify(&id).await.unwrap();
    let is_bad = async || replica_state(&world, &id, "store0").await == Some(ReplicaState::Failed);
    world.until("the wanted copy is known to be bad", is_bad).await;
    world.stores[1].heal();
    world.until("the old copy is gone", async || held(&world) == [1, 0]).await;
    world.assert_good_copies(&id, 1);
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_is_wanted_again_too_late_is_kept_if_the_others_are_lost_before_it_goes() {
    for is_killed in [false, true] {
        let mut world = World::start(on(2, &[]));
        let id = world.create(hashed(1, 1000));
        world.registered(&id).await;
        drain(&world, "store1").await;
        world.until("the drained copy is shown no more", async || world.locations(&id).len() == 1).await;
        let [old] = &world.stores[1].objects()[..] else { panic!("one copy") };
        let [other] = &world.stores[0].objects()[..] else { panic!("one copy") };
        world.stores[0].tamper(other, Some(vec![0; 1000].into()));
        world.registry.inject(RegistryFault::SourceReadsOther);
        world.engine.cancel_drain(&name("store1")).await.unwrap().unwrap();
        world.until("a new one is tried", async || writes(&world) > 2).await;
        if is_killed {
            world.kill().await;
            world.serve();
        }
        world.engine.verify(&id).await.unwrap();
        world.registered(&id).await;
        assert!(world.stores[1].holds(old), "the new ones were made of nothing");
        world.until("nothing else is left", async || held(&world) == [1, 1]).await;
        world.assert_good_copies(&id, 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_rule_that_is_put_right_in_time_finds_the_copy_as_it_was() {
    let mut world = World::start(on(2, &[]));
    let id = world.create(sample::image(1, 1000));
    world.registered(&id).await;
    let before = world.locations(&id);
    world.restart(|world| world.options.rules = &[(&["store1"], None)]).await;
    let retires = async || replica_state(&world, &id, "store0").await == Some(ReplicaState::Retiring);
    world.until("the copy is to go", retires).await;
    world.restart(|world| world.options.rules = &[]).await;
    world.registered(&id).await;
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert_eq!((world.locations(&id), writes(&world)), (before, 2));
}

#[tokio::test(start_paused = true)]
async fn a_mistyped_rule_removes_no_mass_of_copies_not_even_after_a_restart() {
    let mut world = World::start(Options { max_deletes: 4, ..on(2, &[]) });
    let ids: Vec<_> = (0..6).map(|n| world.create(sample::image(n, 1000))).collect();
    for id in &ids {
        world.registered(id).await;
    }
    world.restart(|world| world.options.rules = &[(&["store1"], None)]).await;
    tokio::time::sleep(Duration::from_mins(30)).await;
    assert_eq!(held(&world), [6, 6]);
    let report = world.engine.gc(None, 1000).await.unwrap();
    assert!(report.held && report.entries.iter().all(|entry| entry.store == name("store0")));
    assert_eq!((report.entries.len(), world.engine.overview().await.unwrap().held_deletes), (6, 6));
    world.restart(|_| ()).await;
    tokio::time::sleep(Duration::from_mins(30)).await;
    assert_eq!(held(&world), [6, 6]);
    world.confirm().await;
    world.until("they are gone", async || held(&world) == [0, 6]).await;
    for id in &ids {
        world.assert_good_copies(id, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn unwanted_copies_and_deletions_count_together_also_across_a_restart() {
    let mut world = World::start(Options { max_deletes: 3, ..on(2, &[]) });
    let ids: Vec<_> = (0..6).map(|n| world.create(sample::image(n, 100))).collect();
    for id in &ids {
        world.registered(id).await;
    }
    for id in &ids[..3] {
        world.delete(id);
    }
    world.until("three are gone", async || world.objects() == 6).await;
    world.restart(|world| world.options.rules = &[(&["store1"], None)]).await;
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert_eq!(world.objects(), 6, "three more within the hour, of unwanted copies, and before a restart");
    assert!(world.engine.gc(None, 1000).await.unwrap().held);
    world.restart(|world| world.options.rules = &[]).await;
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert!(!world.engine.gc(None, 1000).await.unwrap().held, "nothing waits any more");
    world.delete(&ids[3]);
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert_eq!(world.objects(), 6, "a fourth deletion within the hour");
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert_eq!(world.objects(), 4, "an hour later it is one by itself");
}

#[tokio::test(start_paused = true)]
async fn a_drained_store_becomes_empty_at_once_and_survives_a_restart_as_drained() {
    let mut world = World::start(on(3, &[(&["store0", "store1", "store2"], Some(2))]));
    let ids: Vec<_> = (0..12).map(|n| world.create(sample::image(n, 1000))).collect();
    for id in &ids {
        world.registered(id).await;
    }
    assert_eq!(held(&world), [12, 12, 0]);
    drain(&world, "store0").await;
    world.kill().await;
    world.serve();
    world.until("it is empty", async || left(&world, "store0").await.is_empty()).await;
    assert_eq!(held(&world), [0, 12, 12]);
    for id in &ids {
        world.registered(id).await;
        world.assert_good_copies(id, 2);
    }
    let new = world.create(sample::image(99, 1000));
    world.registered(&new).await;
    assert_eq!(held(&world), [0, 13, 13], "it takes no new ones");
    world.engine.cancel_drain(&name("store0")).await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_mins(20)).await;
    assert_eq!(held(&world), [0, 13, 13], "copies do not wander back");
}

#[tokio::test(start_paused = true)]
async fn a_drain_tells_what_has_no_other_place_and_leaves_it() {
    let world = World::start(on(2, &[(&["store0"], None)]));
    let id = world.create(sample::image(1, 1000));
    world.registered(&id).await;
    drain(&world, "store0").await;
    world.until("it is told", async || left(&world, "store0").await == ["no-other-place"]).await;
    tokio::time::sleep(Duration::from_mins(20)).await;
    assert_eq!(held(&world), [1, 0]);
    world.assert_good_copies(&id, 1);
    world.engine.cancel_drain(&name("store0")).await.unwrap().unwrap();
    world.registered(&id).await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_a_store_that_is_down() {
    let world = World::start(on(2, &[]));
    let id = world.create(sample::image(1, 1000));
    world.registered(&id).await;
    // The other copy is registered, but nobody could read it now.
    world.stores[1].inject(StoreFault::ProbeFails(mimeo_core::Reason::StoreUnreachable));
    let locations = world.locations(&id);
    drain(&world, "store0").await;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_mins(1)).await;
        let left = world.locations(&id);
        assert!(locations.iter().all(|url| left.contains(url)), "the last copy that answers is read: {left:?}");
    }
    assert_eq!(held(&world), [1, 1], "the last copy that answers stays");
    world.stores[1].heal();
    world.until("it is empty", async || left(&world, "store0").await.is_empty()).await;
    world.assert_good_copies(&id, 1);
}

#[tokio::test(start_paused = true)]
async fn an_upload_during_a_drain_goes_elsewhere() {
    let world = World::start(on(2, &[]));
    world.stores[0].inject(StoreFault::WriteStalls);
    let id = world.create(sample::image(1, 1 << 20));
    world.until("it is being copied", async || writes(&world) == 2).await;
    drain(&world, "store0").await;
    world.stores[0].heal();
    world.registered(&id).await;
    world.until("it is empty", async || left(&world, "store0").await.is_empty() && held(&world) == [0, 1]).await;
    world.assert_good_copies(&id, 1);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_disabled_for_a_while_comes_back_with_its_copies() {
    let mut world = World::start(on(2, &[]));
    let id = world.create(sample::image(1, 1000));
    world.registered(&id).await;
    let (before, store) = (world.locations(&id), world.stores[1].clone());
    world.restart(|world| drop(world.stores.pop())).await;
    world.changed(&id);
    tokio::time::sleep(Duration::from_mins(20)).await;
    let told = world.engine.stores().await.unwrap();
    assert_eq!((told.len(), told[1].enabled, told[1].objects), (2, false, 1));
    assert!(told[1].note.as_ref().unwrap().contains("kept as they are"));
    world.restart(|world| world.stores.push(store)).await;
    world.registered(&id).await;
    assert_eq!((world.locations(&id), writes(&world)), (before, 2));
}

#[tokio::test(start_paused = true)]
async fn a_renamed_store_is_recognised_and_follows_at_the_word() {
    let mut world = World::start(on(2, &[]));
    let ids: Vec<_> = (0..3).map(|n| world.create(sample::image(n, 1000))).collect();
    for id in &ids {
        world.registered(id).await;
    }
    world.restart(|world| world.stores[1] = world.stores[1].renamed("new")).await;
    world.changed(&ids[0]);
    tokio::time::sleep(Duration::from_mins(20)).await;
    assert_eq!((held(&world), writes(&world)), (vec![3, 3], 6), "nothing was copied anew, or removed");
    let told = world.engine.stores().await.unwrap();
    let note = told.iter().find(|store| !store.enabled).unwrap().note.clone().unwrap();
    assert!(note.contains("`mimeo stores rename store1 new`"), "{note}");
    assert_eq!(replica_state(&world, &ids[0], "new").await, Some(ReplicaState::Wanted));
    let report = world.engine.rename_store(&name("store1"), &name("new")).await.unwrap().unwrap();
    assert_eq!((report.followed, report.busy, report.both), (3, 0, 0));
    for id in &ids {
        world.registered(id).await;
        assert_eq!(replica_state(&world, id, "new").await, Some(ReplicaState::Registered));
        assert_eq!(replica_state(&world, id, "store1").await, None);
        world.assert_good_copies(id, 2);
    }
    assert_eq!((held(&world), writes(&world)), (vec![3, 3], 6));
    assert!(world.engine.stores().await.unwrap().iter().all(|store| store.enabled && store.note.is_none()));
}

#[tokio::test(start_paused = true)]
async fn a_renaming_that_makes_no_sense_is_refused() {
    let world = World::start(on(2, &[]));
    let refused = async |from, to| world.engine.rename_store(&name(from), &name(to)).await.unwrap().is_err();
    assert!(refused("store0", "store1").await, "still enabled");
    assert!(refused("old", "nowhere").await);
    assert!(refused("old", "store1").await, "nothing is there under that name");
}

#[tokio::test(start_paused = true)]
async fn a_moved_store_is_recognised_and_its_copies_are_proven_at_the_new_place_at_the_word() {
    let mut world = World::start(on(2, &[]));
    let id = world.create(sample::image(1, 1000));
    world.registered(&id).await;
    let before = world.locations(&id);
    world.restart(|world| world.stores[1] = world.stores[1].moved("elsewhere.example")).await;
    world.changed(&id);
    tokio::time::sleep(Duration::from_mins(20)).await;
    assert_eq!((world.locations(&id), writes(&world)), (before.clone(), 2));
    assert_eq!(world.state(&id).await, Some(ImageState::Registered));
    let told = world.engine.stores().await.unwrap()[1].note.clone().unwrap();
    assert!(told.contains("`mimeo stores move store1`"), "{told}");
    assert_eq!(world.engine.move_store(&name("store1")).await.unwrap().unwrap().copies, 1);
    let moved = async || world.locations(&id).len() == 2 && !world.locations(&id).contains(&before[1]);
    world.until("the old location gave way to the new one", moved).await;
    world.registered(&id).await;
    world.assert_good_copies(&id, 2);
    assert_eq!(writes(&world), 2, "nothing was copied");
    world.until("nothing is left to say", async || world.engine.stores().await.unwrap()[1].note.is_none()).await;
    // The next move needs a word of its own.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let before = world.locations(&id);
    world.restart(|world| world.stores[1] = world.stores[1].moved("third.example")).await;
    world.changed(&id);
    tokio::time::sleep(Duration::from_mins(20)).await;
    assert_eq!(world.locations(&id), before);
}

#[tokio::test(start_paused = true)]
async fn a_store_whose_bits_go_with_their_locations_moves_to_where_they_surely_are_others() {
    let mut world = World::start(Options { reached: true, ..on(2, &[]) });
    let id = world.create(sample::image(1, 1000));
    world.registered(&id).await;
    let (before, old) = (world.locations(&id), world.stores[1].clone());
    world.restart(|world| world.stores[1] = old.moved("alias.example")).await;
    let refused = world.engine.move_store(&name("store1")).await.unwrap().unwrap_err();
    assert!(refused.contains("may be the very bits"), "{refused}");
    // Another bucket at the same server, to which somebody has brought the object.
    let object = old.objects().remove(0);
    let new = FakeStore::new("store1").removed_with_its_locations().moved("store1.example/second");
    new.tamper(&object, old.bits(&object));
    world.registry.reaches(&new);
    world.restart(|world| world.stores[1] = new).await;
    assert_eq!(world.engine.move_store(&name("store1")).await.unwrap().unwrap().copies, 1);
    let moved = async || world.locations(&id).len() == 2 && !world.locations(&id).contains(&before[1]);
    world.until("the old location gave way to the new one", moved).await;
    world.registered(&id).await;
    world.assert_good_copies(&id, 2);
    assert!(!old.holds(&object), "Glance removes what is at the old place");
    assert_eq!(writes(&world), 1, "nothing was copied");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_rightly_at_the_new_place_stays_registered_at_the_old_one() {
    let mut world = World::start(on(2, &[]));
    let id = world.create(sample::image(1, 1000));
    world.registered(&id).await;
    let (before, old) = (world.locations(&id), world.stores[1].clone());
    world.restart(|world| world.stores[1] = FakeStore::new("store1").moved("empty.example")).await;
    world.engine.move_store(&name("store1")).await.unwrap().unwrap();
    let told = async || {
        let report = world.report(&id).await.unwrap();
        let reason = report.replicas[1].reason.clone();
        reason.is_some_and(|reason| reason.code == "store-moved" && reason.message.contains("not rightly"))
    };
    world.until("it is told", told).await;
    tokio::time::sleep(Duration::from_mins(20)).await;
    assert_eq!((world.locations(&id), old.objects().len()), (before, 1));
    let record = world.ledger.load(&id).await.unwrap().unwrap();
    assert!(record.objects.iter().all(|object| object.state == mimeo_core::ObjectState::Kept));
    assert_eq!(world.state(&id).await, Some(ImageState::Registered));
    // Once somebody brought it there it is proven.
    let bits = sample::bits(1000);
    let object = old.objects().remove(0);
    world.stores[1].tamper(&object, Some(bits));
    let moved = async || world.locations(&id).contains(&world.stores[1].location(&object));
    world.until("it is registered at the new place", moved).await;
}
