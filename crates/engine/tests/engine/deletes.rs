//! What may be removed, and above all what may not.

use std::time::Duration;

use mimeo_core::{
    Change, ImageId, ImageRow, ImageState, ImageStatus, Location, Object, ObjectName, ObjectState, Reason, Replica,
    ReplicaState,
    ports::{Ledger, Store},
};
use mimeo_testkit::{RegistryFault, StoreCall, StoreFault, sample};

use crate::{
    healing::doom,
    world::{Options, World},
};

#[tokio::test(start_paused = true)]
async fn the_copies_of_a_deleted_image_go_after_the_grace_period() {
    let world = World::start(Options::default());
    let id = world.create(sample::image(1, 1000));
    world.registered(&id).await;
    world.delete(&id);
    world.until("it retires", async || world.state(&id).await == Some(ImageState::Retiring)).await;
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert_eq!(world.objects(), 3, "still within the grace period");
    world.until("its copies are gone", async || world.objects() == 0).await;
    world.until("it is forgotten", async || world.state(&id).await.is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_role_removes_nothing_and_is_told() {
    let world = World::start(Options::default());
    let id = world.create(sample::image(1, 1000));
    world.registered(&id).await;
    world.registry.set_sees_all(false);
    world.registry.inject(RegistryFault::SeesNothing);
    world.changed(&id);
    let told = async || {
        let report = world.report(&id).await.unwrap();
        let reason = |code: &str| report.replicas.iter().all(|it| it.reason.as_ref().is_some_and(|it| it.code == code));
        report.replicas.iter().all(|it| it.state == ReplicaState::Suspect) && reason("image-not-visible")
    };
    world.until("the status says why", told).await;
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert_eq!(world.objects(), 3);
    world.registry.heal();
    world.registry.set_sees_all(true);
    world.registered(&id).await;
}

#[tokio::test(start_paused = true)]
async fn a_role_that_is_lost_without_any_event_is_noticed_by_the_next_scan() {
    let world = World::start(Options::default());
    let id = world.create(sample::image(1, 1000));
    world.registered(&id).await;
    let began = tokio::time::Instant::now();
    world.registry.set_sees_all(false);
    world.registry.inject(RegistryFault::SeesNothing);
    let told = async || world.engine.overview().await.unwrap().trouble.is_some_and(|it| it.code == "image-not-visible");
    world.until("the status says why", told).await;
    // Virtual time: long before the next full scan is due.
    assert!(began.elapsed() < Duration::from_mins(5));
    assert_eq!(world.objects(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_lost_role_is_noticed_where_no_list_ever_showed_that_it_is_there() {
    let world = World::start(Options::default());
    // No image of another project's is private.
    world.registry.set_sees_all(false);
    let id = world.create(sample::image(1, 1000));
    world.registered(&id).await;
    tokio::time::sleep(Duration::from_mins(2)).await;
    let began = tokio::time::Instant::now();
    world.registry.inject(RegistryFault::SeesNothing);
    let told = async || world.engine.overview().await.unwrap().trouble.is_some_and(|it| it.code == "image-not-visible");
    world.until("the status says why", told).await;
    // Virtual time: long before the next full scan is due.
    assert!(began.elapsed() < Duration::from_mins(5));
    assert_eq!(world.objects(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_role_that_comes_back_right_after_a_404_makes_no_deletion_of_it() {
    let world = World::start(Options::default());
    let id = world.create(sample::image(1, 1000));
    world.registered(&id).await;
    world.registry.inject(RegistryFault::BlindOnce);
    world.changed(&id);
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(world.state(&id).await, Some(ImageState::Registered));
    }
}

#[tokio::test(start_paused = true)]
async fn a_delete_without_its_event_is_found_by_the_full_scan() {
    let world = World::start(Options::default());
    let id = world.create(sample::image(1, 1000));
    world.registered(&id).await;
    world.registry.remove(&id);
    world.until("its copies are gone", async || world.objects() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn bits_that_another_images_location_names_stay() {
    let world = World::start(Options::default());
    let id = world.create(sample::image(1, 1000));
    world.registered(&id).await;
    let theirs = world.locations(&id)[0].clone();
    let mut borrower = sample::image(2, 1000);
    borrower.locations.push(Location { url: theirs.clone(), metadata: std::collections::BTreeMap::default() });
    let borrower = world.create(borrower);
    world.until("the borrower has its own copies too", async || world.locations(&borrower).len() == 4).await;
    world.delete(&id);
    world.until("the others are gone", async || world.objects() == 4).await;
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert_eq!(world.objects(), 4, "the borrowed object and the borrower's three");
}

#[tokio::test(start_paused = true)]
async fn a_tenant_who_names_anothers_copy_and_deletes_their_image_removes_nothing_of_it() {
    let world = World::start(Options::default());
    let victim = world.create(sample::image(1, 1000));
    world.registered(&victim).await;
    let mut thief = sample::image(2, 1000);
    thief.locations = world.registry.image(&victim).unwrap().locations;
    let thief = world.create(thief);
    world.until("the thief's image has copies of its own", async || world.locations(&thief).len() == 6).await;
    world.delete(&thief);
    world.until("only those are gone", async || world.objects() == 3).await;
    tokio::time::sleep(Duration::from_mins(10)).await;
    world.assert_good_copies(&victim, 3);
}

#[tokio::test(start_paused = true)]
async fn what_was_being_written_of_a_deleted_image_goes_though_serve_died_before_it_gave_it_up() {
    let mut world = World::start(Options::default());
    world.stop().await;
    let (id, store, now) = (sample::id(1), &world.stores[0], world.now());
    let name = ObjectName::new(&id, 1);
    let object = Object {
        store: store.name().clone(),
        name: name.clone(),
        url: store.location(&name),
        state: ObjectState::Open,
        since: now,
    };
    let copying = Replica { state: ReplicaState::Copying, object: Some(name), ..Replica::wanted(store.name().clone()) };
    let image = ImageRow { gone_at: Some(now), ..ImageRow::new(id.clone()) };
    world
        .ledger
        .commit(&[Change::Image(image), Change::Object(object), Change::Replica(id.clone(), copying)])
        .await
        .unwrap();
    world.serve();
    world.until("the ledger has nothing more of it", async || world.ledger_objects(&id).await == 0).await;
}

#[tokio::test(start_paused = true)]
async fn many_deletes_at_once_wait_for_an_operator() {
    let world = World::start(Options { max_deletes: 2, ..Options::default() });
    let ids: Vec<_> = (0..6).map(|n| world.create(sample::image(n, 1000))).collect();
    for id in &ids {
        world.registered(id).await;
    }
    for id in &ids[..4] {
        // Each after the other's grace period has begun: they count as one all the same.
        world.delete(id);
        tokio::time::sleep(Duration::from_secs(30)).await;
    }
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert_eq!(world.objects(), 18);
    assert!(world.engine.gc(None, 1000).await.unwrap().held);
    assert_eq!(world.engine.overview().await.unwrap().held_deletes, 4);
    world.confirm().await;
    world.until("the deletes went through", async || world.objects() == 6).await;
}

#[tokio::test(start_paused = true)]
async fn only_what_was_on_the_list_is_confirmed() {
    let world = World::start(Options { max_deletes: 2, ..Options::default() });
    let ids: Vec<_> = (0..8).map(|n| world.create(sample::image(n, 1000))).collect();
    for id in &ids {
        world.registered(id).await;
    }
    ids[..3].iter().for_each(|id| world.delete(id));
    let held = async || world.engine.overview().await.unwrap().held_deletes;
    world.until("three are held", async || held().await == 3).await;
    let list = world.engine.gc(None, 1000).await.unwrap();
    assert!(list.entries.len() == 9 && list.entries.iter().all(|entry| entry.held), "{list:?}");
    tokio::time::sleep(Duration::from_secs(1)).await;
    ids[3..6].iter().for_each(|id| world.delete(id));
    world.until("six are held", async || held().await == 6).await;
    world.engine.confirm_gc(list.as_of).await.unwrap().unwrap();
    world.until("those of the list are gone", async || world.objects() == 15).await;
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert_eq!((world.objects(), held().await), (15, 3), "nobody has seen the others");
    let ahead = world.now().saturating_add(Duration::from_secs(1)).unwrap();
    assert!(world.engine.confirm_gc(ahead).await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_word_under_a_clock_that_was_ahead_lets_nothing_through() {
    let world = World::start(Options { max_deletes: 2, ..Options::default() });
    let ids: Vec<_> = (0..6).map(|n| world.create(sample::image(n, 1000))).collect();
    for id in &ids {
        world.registered(id).await;
    }
    let ahead = world.now().saturating_add(Duration::from_hours(24 * 30)).unwrap();
    world.ledger.commit(&[Change::Bookmark("deletes-confirmed".into(), ahead.to_string())]).await.unwrap();
    for id in &ids[..4] {
        world.delete(id);
    }
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert_eq!((world.objects(), world.engine.overview().await.unwrap().held_deletes), (18, 4));
}

#[tokio::test(start_paused = true)]
async fn a_delete_event_for_an_image_that_is_there_removes_nothing() {
    let world = World::start(Options::default());
    let id = world.create(sample::image(1, 1000));
    world.registered(&id).await;
    let image = world.registry.image(&id).unwrap();
    world.delete(&id);
    world.registry.insert(image, sample::bits(1000));
    tokio::time::sleep(Duration::from_mins(10)).await;
    world.assert_good_copies(&id, 3);
    world.registered(&id).await;
}

#[tokio::test(start_paused = true)]
async fn an_image_deleted_in_mid_copy_leaves_nothing() {
    let world = World::start(Options::default());
    world.stores[0].inject(StoreFault::WriteStalls);
    let id = world.create(sample::image(1, 1 << 20));
    world.until("copying has begun", async || !world.stores[0].calls().is_empty()).await;
    world.delete(&id);
    world.stores[0].heal();
    world.until("nothing is left", async || world.objects() == 0 && world.state(&id).await.is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_cannot_delete_now_is_asked_again() {
    let world = World::start(Options::default());
    let id = world.create(sample::image(1, 1000));
    world.registered(&id).await;
    world.stores[2].inject(StoreFault::DeleteFails(mimeo_core::Reason::StoreUnreachable));
    world.delete(&id);
    world.until("the other two are gone", async || world.objects() == 1).await;
    world.stores[2].heal();
    world.until("all are gone", async || world.objects() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_removed_while_the_token_sees_less_than_it_did() {
    let world = World::start(Options::default());
    let (gone, stays) = (world.create(sample::image(1, 1000)), world.create(sample::image(2, 1000)));
    world.registered(&gone).await;
    world.registered(&stays).await;
    world.delete(&gone);
    world.until("it retires", async || world.state(&gone).await == Some(ImageState::Retiring)).await;
    world.registry.set_sees_all(false);
    world.registry.inject(RegistryFault::SeesNothing);
    tokio::time::sleep(Duration::from_mins(30)).await;
    assert_eq!(world.objects(), 6, "an empty list names nothing, and proves nothing");
    world.registry.heal();
    world.registry.set_sees_all(true);
    world.until("the deleted image's copies are gone", async || world.objects() == 3).await;
    world.assert_good_copies(&stays, 3);
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_was_removed_is_told_as_gone_while_another_is_still_to_go() {
    let world = World::start(Options::default());
    let id = world.create(sample::image(1, 1000));
    world.registered(&id).await;
    world.stores[0].inject(StoreFault::DeleteFails(Reason::StoreError));
    world.delete(&id);
    world.until("two are gone", async || world.objects() == 1).await;
    let report = world.report(&id).await.unwrap();
    let told: Vec<_> = report.replicas.iter().map(|replica| (replica.state, replica.location.is_some())).collect();
    assert_eq!(told, [(ReplicaState::Retiring, true), (ReplicaState::Gone, false), (ReplicaState::Gone, false)]);
}

#[tokio::test(start_paused = true)]
async fn a_lost_role_is_noticed_when_no_image_is_known_any_more() {
    let world = World::start(Options::default());
    let id = world.create(sample::image(1, 1000));
    world.registered(&id).await;
    world.delete(&id);
    world.until("it retires", async || world.state(&id).await == Some(ImageState::Retiring)).await;
    world.registry.set_sees_all(false);
    world.registry.inject(RegistryFault::SeesNothing);
    tokio::time::sleep(Duration::from_mins(30)).await;
    assert_eq!(world.objects(), 3, "an image that was never heard of may name them");
    world.registry.heal();
    tokio::time::sleep(Duration::from_mins(4)).await;
    assert_eq!(world.objects(), 3, "Glance need not know yet that the role is back");
    world.until("its copies are gone", async || world.objects() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_removed_while_glance_shows_no_locations() {
    for status in [ImageStatus::Active, ImageStatus::Deactivated] {
        let world = World::start(Options::default());
        let (gone, stays) = (world.create(sample::image(1, 1000)), world.create(sample::image(2, 1000)));
        world.registered(&gone).await;
        world.registered(&stays).await;
        world.registry.change(&stays, |image| {
            image.status = status;
            image.locations.clear();
            image.locations_shown = false;
        });
        world.delete(&gone);
        tokio::time::sleep(Duration::from_mins(30)).await;
        assert_eq!(world.objects(), 6, "{status:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_image_of_a_cloud_can_be_deleted_though_nobody_elses_is_there_to_be_seen() {
    let world = World::start(Options::default());
    let id = world.create(sample::image(1, 1000));
    world.registered(&id).await;
    world.registry.set_sees_all(false);
    world.delete(&id);
    world.until("its copies are gone", async || world.objects() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_on_deletes_holds_up_no_other_store() {
    let world = World::start(Options::default());
    let ids: Vec<_> = (0..4).map(|n| world.create(sample::image(n, 1000))).collect();
    for id in &ids {
        world.registered(id).await;
    }
    world.stores[0].inject(StoreFault::DeleteFails(mimeo_core::Reason::StoreUnreachable));
    for id in &ids {
        world.delete(id);
    }
    world.until("the other stores are empty", async || world.objects() == 4).await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_refuses_to_delete_is_asked_three_times_and_then_when_somebody_asks() {
    let world = World::start(Options::default());
    let ids = [1, 2, 3].map(|number| world.create(sample::image(number, 1000)));
    for id in &ids {
        world.registered(id).await;
    }
    world.stores[1].inject(StoreFault::DeleteFails(Reason::StoreRefused));
    world.delete(&ids[0]);
    world.delete(&ids[1]);
    let tries = || world.stores[1].calls().iter().filter(|call| matches!(call, StoreCall::Delete(_))).count();
    world.until("both are given up", async || tries() == 6).await;
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert_eq!((tries(), world.objects()), (6, 5), "it is not tried for ever");
    let reason = world.report(&ids[0]).await.unwrap().replicas.remove(1).reason.unwrap();
    assert_eq!((reason.code.as_str(), reason.permanent), ("delete-refused", true));
    assert!(reason.message.contains("mimeo replicate"), "{}", reason.message);
    world.stores[1].heal();
    world.engine.replicate(&ids[0]).await.unwrap();
    world.until("it goes, and with it what else was refused there", async || world.objects() == 3).await;
}

/// In an hour, without an operator's word.
async fn sixty_of_which_five_may_go() -> (World, Vec<ImageId>) {
    let world = World::start(Options { max_deletes: 5, ..Options::default() });
    let ids: Vec<_> = (1..=60).map(|number| world.create(sample::image(number, 1000))).collect();
    for id in &ids {
        world.registered(id).await;
    }
    (world, ids)
}

#[tokio::test(start_paused = true)]
async fn images_that_a_look_forgets_count_too() {
    let (world, ids) = sixty_of_which_five_may_go().await;
    let left = || world.stores[0].objects().len();
    ids[..4].iter().for_each(|id| world.delete(id));
    world.until("four are gone", async || left() == 56).await;
    // Before the next sweep.
    for id in &ids[..4] {
        world.engine.replicate(id).await.unwrap();
    }
    world.until("they are forgotten", async || world.state(&ids[3]).await.is_none()).await;
    ids[4..6].iter().for_each(|id| world.delete(id));
    tokio::time::sleep(Duration::from_mins(5)).await;
    assert_eq!(left(), 56, "six within an hour wait for somebody");
}

#[tokio::test(start_paused = true)]
async fn images_of_which_a_broken_copy_is_left_count_too() {
    let (world, ids) = sixty_of_which_five_may_go().await;
    for fault in [StoreFault::OpenFails(Reason::StoreFull), StoreFault::DeleteFails(Reason::StoreError)] {
        world.stores[1].inject(fault);
    }
    for id in &ids[..4] {
        doom(&world, id, 1).await;
        world.until("it is withdrawn", async || world.locations(id).len() == 2).await;
    }
    let left = || world.stores[0].objects().len();
    ids[..4].iter().for_each(|id| world.delete(id));
    world.until("four are gone", async || left() == 56).await;
    ids[4..6].iter().for_each(|id| world.delete(id));
    tokio::time::sleep(Duration::from_mins(5)).await;
    assert_eq!(left(), 56, "six within an hour wait for somebody");
}

#[tokio::test(start_paused = true)]
async fn images_of_which_a_listing_from_before_found_a_copy_again_count_too() {
    let (world, ids) = sixty_of_which_five_may_go().await;
    let left = || world.stores[0].objects().len();
    let before: Vec<_> = world.ledger.records().iter().flat_map(|record| record.objects.clone()).collect();
    ids[..4].iter().for_each(|id| world.delete(id));
    world.until("four are gone", async || left() == 56).await;
    for object in before.into_iter().filter(|object| ids[..4].contains(&object.name.image())) {
        let found = Object { state: ObjectState::Found, ..object };
        world.ledger.commit(&[Change::Object(found)]).await.unwrap();
    }
    ids[4..6].iter().for_each(|id| world.delete(id));
    tokio::time::sleep(Duration::from_mins(5)).await;
    assert_eq!(left(), 56, "six within an hour wait for somebody");
}
