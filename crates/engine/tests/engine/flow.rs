//! The main job over fakes: what ends registered, and what must never be.

use std::{
    num::NonZeroUsize,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use mimeo_core::{ContentHash, HashAlgorithm, ImageState, ImageStatus, Reason, ReplicaState};
use mimeo_testkit::{AddAnswer, RegistryFault, StoreFault, sample};

use crate::world::{Options, World};

#[tokio::test(start_paused = true)]
async fn an_event_ends_in_a_proven_registered_copy_on_every_store_from_one_read_and_one_patch() {
    let world = World::start(Options { stores: 5, ..Options::default() });
    let id = world.create(sample::image(1, 1 << 20));
    world.registered(&id).await;
    world.assert_good_copies(&id, 5);
    assert_eq!((world.registry.opens(&id), world.registry.bytes_read(&id)), (1, 1 << 20));
    assert_eq!(world.registry.adds().len(), 1);
    assert_eq!(world.events.acknowledged(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_image_without_an_event_is_found_by_the_scan() {
    let world = World::start(Options::default());
    tokio::time::sleep(Duration::from_secs(5)).await;
    let image = sample::image(1, 1000);
    world.registry.insert(image.clone(), sample::bits(1000));
    world.registered(&image.id).await;
}

#[tokio::test(start_paused = true)]
async fn a_store_at_fault_is_never_registered_holds_up_nobody_and_catches_up_when_it_heals() {
    let faults = [
        StoreFault::OpenFails(Reason::StoreUnreachable),
        StoreFault::WriteFails(Reason::StoreFull),
        StoreFault::WriteStalls,
        StoreFault::CloseFails(Reason::StoreError),
        StoreFault::ClosePublishesAndFails(Reason::StoreError),
        StoreFault::CloseStalls,
        StoreFault::Truncates(100),
        StoreFault::ReadFails(Reason::StoreError),
        StoreFault::ReadStalls,
        StoreFault::ReadsOther,
        StoreFault::ProbeFails(Reason::StoreUnreachable),
        StoreFault::ProbeStalls,
    ];
    for fault in faults {
        let world = World::start(Options::default());
        world.stores[1].inject(fault);
        let id = world.create(sample::image(1, 1 << 20));
        let others = async || {
            let report = world.report(&id).await.unwrap();
            let registered = |at: usize| report.replicas.get(at).is_some_and(|it| it.state == ReplicaState::Registered);
            registered(0) && registered(2) && report.replicas[1].reason.is_some()
        };
        world.until(&format!("the others are registered beside {fault:?}"), others).await;
        assert_eq!(world.locations(&id).len(), 2, "{fault:?}");
        world.stores[1].heal();
        world.registered(&id).await;
        world.assert_good_copies(&id, 3);
        let one_each = async || world.objects() == 3;
        world.until(&format!("nothing is left of the failed attempts after {fault:?}"), one_each).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stalled_store_does_not_keep_the_others_from_being_registered() {
    let world = World::start(Options::default());
    world.stores[1].inject(StoreFault::WriteStalls);
    let id = world.create(sample::image(1, 10 << 20));
    let began = tokio::time::Instant::now();
    world.until("two are registered", async || world.locations(&id).len() == 2).await;
    // Virtual time: less than the stalled store's own time limit.
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_bad_source_is_never_registered() {
    let faults = [
        (RegistryFault::SourceFails(Reason::SourceUnreadable), "source-unreadable"),
        (RegistryFault::SourceEndsAt(500), "source-size"),
        (RegistryFault::SourceStallsAt(500), "source-unreadable"),
        (RegistryFault::SourceReadsOther, "source-mismatch"),
    ];
    for (fault, code) in faults {
        let world = World::start(Options::default());
        world.registry.inject(fault);
        let mut image = sample::image(1, 1000);
        let value = "0".repeat(128);
        image.hash = Some(ContentHash { algorithm: HashAlgorithm::Sha512, value });
        let id = world.create(image);
        let told = async || {
            let report = world.report(&id).await.unwrap();
            report.replicas.iter().all(|replica| replica.reason.as_ref().is_some_and(|reason| reason.code == code))
        };
        world.until(&format!("{fault:?} is told as {code}"), told).await;
        assert!(world.registry.adds().is_empty(), "{fault:?}");
        world.until("nothing is left at the stores", async || world.objects() == 0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_breaks_in_the_middle_goes_on_from_there() {
    let world = World::start(Options::default());
    world.registry.inject(RegistryFault::SourceBreaksAt(1000));
    let id = world.create(sample::image(1, 1 << 20));
    world.until("the source was opened again", async || world.registry.opens(&id) > 1).await;
    world.registry.heal();
    world.registered(&id).await;
    world.assert_good_copies(&id, 3);
    assert_eq!(world.registry.bytes_read(&id), 1 << 20);
}

#[tokio::test(start_paused = true)]
async fn a_location_that_glance_answered_with_success_and_lost_is_made_good() {
    let world = World::start(Options::default());
    let calls = AtomicU32::new(0);
    world.registry.on_add(move |_, _, _| match calls.fetch_add(1, Ordering::SeqCst) {
        0 => AddAnswer::Lose,
        _ => AddAnswer::Apply,
    });
    let id = world.create(sample::image(1, 1000));
    world.registered(&id).await;
    world.assert_good_copies(&id, 3);
}

#[tokio::test(start_paused = true)]
async fn what_no_later_read_shows_is_never_called_registered() {
    let world = World::start(Options::default());
    world.registry.on_add(|_, _, _| AddAnswer::Lose);
    let id = world.create(sample::image(1, 1000));
    world.until("locations were sent", async || !world.registry.adds().is_empty()).await;
    for _ in 0..1000 {
        tokio::task::yield_now().await;
        let report = world.report(&id).await.unwrap();
        assert!(report.replicas.iter().all(|replica| replica.state != ReplicaState::Registered), "{report:?}");
    }
    let told = async || {
        let report = world.report(&id).await.unwrap();
        report.replicas.iter().all(|it| it.reason.as_ref().is_some_and(|reason| reason.code == "location-lost"))
    };
    world.until("the reason is told", told).await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_registers_nothing_twice() {
    let world = World::start(Options::default());
    world.registry.on_add(|_, _, _| {
        AddAnswer::ApplyAndFail(mimeo_core::Error::new(Reason::ImageServiceError, "the answer was lost"))
    });
    let id = world.create(sample::image(1, 1000));
    world.registered(&id).await;
    world.assert_good_copies(&id, 3);
}

#[tokio::test(start_paused = true)]
async fn one_refused_url_does_not_keep_out_the_others() {
    let world = World::start(Options::default());
    world.registry.on_add(|_, _, locations| match locations.iter().any(|location| location.url.contains("store1")) {
        true => AddAnswer::Refuse(mimeo_core::Error::new(Reason::LocationRefused, "Invalid location")),
        false => AddAnswer::Apply,
    });
    let id = world.create(sample::image(1, 1000));
    world.until("two are registered", async || world.locations(&id).len() == 2).await;
    let stuck = async || world.report(&id).await.is_some_and(|report| report.is_stuck());
    world.until("the third is told as hopeless", stuck).await;
    assert_eq!(world.state(&id).await, Some(ImageState::Degraded));
}

#[tokio::test(start_paused = true)]
async fn a_location_that_another_writer_removed_is_asserted_again() {
    let world = World::start(Options::default());
    let id = world.create(sample::image(1, 1000));
    world.registered(&id).await;
    world.registry.change(&id, |image| drop(image.locations.pop()));
    world.changed(&id);
    world.until("all three are back", async || world.locations(&id).len() == 3).await;
    world.registered(&id).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_patch_undid_is_put_back() {
    let world = World::start(Options::default());
    let events = world.events.clone();
    world.registry.on_add(move |registry, id, _| {
        // While the PATCH runs, others make the image private and protected. Their events come, and so does ours.
        let before = registry.image(id).unwrap().snapshot();
        registry.change(id, |image| {
            image.visibility = mimeo_core::Visibility::Private;
            image.protected = true;
        });
        let theirs = registry.image(id).unwrap().snapshot();
        for snapshot in [theirs, before] {
            let kind = mimeo_core::ports::EventKind::Changed;
            events.send(mimeo_core::ports::ImageEvent { image: id.clone(), kind, snapshot: Some(snapshot) });
        }
        AddAnswer::Apply
    });
    let id = world.create(sample::image(1, 1000));
    world.registered(&id).await;
    let restored = async || {
        let image = world.registry.image(&id).unwrap();
        image.visibility == mimeo_core::Visibility::Private && image.protected
    };
    world.until("visibility and protection are put back", restored).await;
}

#[tokio::test(start_paused = true)]
async fn no_patch_is_sent_while_glance_imports() {
    let world = World::start(Options::default());
    let mut image = sample::image(1, 1000);
    image.importing = true;
    let id = world.create(image);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(world.registry.adds().is_empty());
    assert_eq!(world.objects(), 3, "copying goes on meanwhile");
    world.registry.change(&id, |image| image.importing = false);
    world.registered(&id).await;
}

#[tokio::test(start_paused = true)]
async fn an_empty_image_is_told_once_and_left_alone() {
    let world = World::start(Options::default());
    let id = world.create(sample::image(1, 0));
    world.until("it is told", async || world.state(&id).await == Some(ImageState::Failed)).await;
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert_eq!((world.registry.opens(&id), world.objects()), (0, 0));
    assert!(world.report(&id).await.unwrap().replicas.iter().all(|replica| replica.next_try.is_none()));
}

#[tokio::test(start_paused = true)]
async fn observing_writes_nothing_anywhere() {
    let world = World::start(Options { observe: true, ..Options::default() });
    let id = world.create(sample::image(1, 1000));
    world.until("it is seen", async || world.state(&id).await == Some(ImageState::Pending)).await;
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert_eq!((world.objects(), world.registry.adds().len(), world.registry.opens(&id)), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn events_wait_for_a_ledger_that_is_down() {
    let world = World::start(Options::default());
    world.ledger.set_down(true);
    let id = world.create(sample::image(1, 1000));
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(world.events.acknowledged(), 0);
    world.ledger.set_down(false);
    world.registered(&id).await;
    assert!(world.events.acknowledged() > 0);
}

#[tokio::test(start_paused = true)]
async fn many_images_at_once_all_get_there() {
    let world = World::start(Options::default());
    let ids: Vec<_> = (0..50).map(|n| world.create(sample::image(n, 50_000))).collect();
    for id in &ids {
        world.registered(id).await;
        world.assert_good_copies(id, 3);
    }
    assert_eq!(world.objects(), 150);
}

#[tokio::test(start_paused = true)]
async fn a_kill_at_any_moment_loses_nothing_and_leaves_nothing_behind() {
    // Three images make some 36 calls at the stores: each of them, and a little after it, is a moment.
    for (calls, later) in (0..36).flat_map(|calls| [0, 1, 2, 5].map(move |later| (calls, later))) {
        let mut world = World::start(Options { window: NonZeroUsize::new(8 << 10).unwrap(), ..Options::default() });
        let ids: Vec<_> = (0..3).map(|n| world.create(sample::image(n, 40_000))).collect();
        while world.stores.iter().map(|store| store.calls().len()).sum::<usize>() < calls {
            tokio::task::yield_now().await;
        }
        for _ in 0..later {
            tokio::task::yield_now().await;
        }
        world.kill().await;
        // A restart takes its time, and so the next attempts have other numbers.
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.serve();
        for id in &ids {
            world.registered(id).await;
            world.assert_good_copies(id, 3);
        }
        world.until("every other object is gone", async || world.objects() == 9).await;
        world.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_image_that_is_deactivated_in_mid_copy_stops_cleanly_and_goes_on_when_reactivated() {
    let world = World::start(Options::default());
    world.stores[0].inject(StoreFault::WriteStalls);
    let id = world.create(sample::image(1, 1 << 20));
    world.until("copying has begun", async || !world.stores[0].calls().is_empty()).await;
    world.registry.change(&id, |image| image.status = ImageStatus::Deactivated);
    world.changed(&id);
    let told = async || {
        let report = world.report(&id).await.unwrap();
        report.replicas[0].reason.as_ref().is_some_and(|reason| reason.code == "image-deactivated")
    };
    world.until("the reason is told", told).await;
    world.stores[0].heal();
    world.registry.change(&id, |image| image.status = ImageStatus::Active);
    world.changed(&id);
    world.registered(&id).await;
}

#[tokio::test(start_paused = true)]
async fn a_hung_store_with_many_images_does_not_hold_up_a_new_one() {
    let world = World::start(Options::default());
    world.stores[1].inject(StoreFault::WriteStalls);
    for n in 0..40 {
        world.create(sample::image(n, 1 << 18));
    }
    tokio::time::sleep(Duration::from_mins(2)).await;
    let began = tokio::time::Instant::now();
    let id = world.create(sample::image(99, 1 << 18));
    world.until("the new one has its two good copies", async || world.locations(&id).len() == 2).await;
    // Virtual time: less than the hung store's own time limit.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_id_is_an_id_though_another_image_bears_it_as_its_name() {
    let world = World::start(Options::default());
    let victim = world.create(sample::image(1, 1000));
    let mut thief = sample::image(2, 1000);
    thief.name = Some(victim.to_string());
    let thief = world.create(thief);
    world.registered(&thief).await;
    world.registered(&victim).await;
    let found = world.engine.find(victim.as_str()).await.unwrap();
    assert_eq!(found.iter().map(|report| &report.id).collect::<Vec<_>>(), [&victim]);
}

#[tokio::test(start_paused = true)]
async fn a_name_is_found_before_the_scan_has_seen_the_image() {
    let world = World::start(Options::default());
    world.until("the first scan is over", async || world.engine.overview().await.unwrap().last_scan.is_some()).await;
    world.registry.insert(sample::image(1, 1000), sample::bits(1000));
    let found = world.engine.find("image-1").await.unwrap();
    assert_eq!(found.iter().map(|report| report.state).collect::<Vec<_>>(), [ImageState::Pending]);
}

#[tokio::test(start_paused = true)]
async fn a_ledger_that_cannot_be_written_is_no_hot_loop() {
    let world = World::start(Options::default());
    let id = world.create(sample::image(1, 1000));
    world.registered(&id).await;
    world.ledger.set_down(true);
    world.changed(&id);
    tokio::time::sleep(Duration::from_mins(1)).await;
    let looks = world.registry.looks();
    assert!(looks < 100, "{looks} looks at Glance in a minute without a ledger");
    world.ledger.set_down(false);
    world.registered(&id).await;
}
