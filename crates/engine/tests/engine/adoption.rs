//! A ledger that was lost, an old one that came back, and one that has no room.

use std::time::Duration;

use mimeo_core::{
    Change, ContentHash, HashAlgorithm, Image, ImageId, Location, Object, ObjectName, ObjectState, ReplicaState,
    ports::{Ledger, Store},
};
use mimeo_testkit::{LedgerBackup, StoreCall, StoreFault, sample};
use sha2::Digest as _;

use crate::world::{Options, World};

/// With the hash that Glance has of its bits.
fn image(n: u32, size: u64) -> Image {
    let bits = sample::bits(usize::try_from(size).unwrap());
    let value = format!("{:x}", sha2::Sha512::digest(&bits));
    Image { hash: Some(ContentHash { algorithm: HashAlgorithm::Sha512, value }), ..sample::image(n, size) }
}

impl World {
    async fn lose_the_ledger(&mut self) {
        self.come_back_with(&LedgerBackup::default()).await;
    }

    async fn come_back_with(&mut self, backup: &LedgerBackup) {
        self.stop().await;
        self.ledger.restore(backup);
        self.serve();
    }

    fn opened(&self) -> usize {
        let opens = |call: &StoreCall| matches!(call, StoreCall::Open(_) | StoreCall::Resume(..));
        self.stores.iter().map(|store| store.calls().iter().filter(|call| opens(call)).count()).sum()
    }

    async fn replica(&self, id: &ImageId, store: usize) -> (ReplicaState, Option<mimeo_core::Timestamp>) {
        let report = self.report(id).await.unwrap();
        let replica = report.replicas.iter().find(|replica| replica.store == *self.stores[store].name()).unwrap();
        (replica.state, replica.proven_at)
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_ledger_adopts_what_the_images_show_proves_it_and_copies_nothing() {
    let mut world = World::start(Options::default());
    let ids: Vec<_> = (0..5).map(|n| world.create(image(n, 100_000))).collect();
    for id in &ids {
        world.registered(id).await;
    }
    let (opened, adds) = (world.opened(), world.registry.adds().len());
    let read: u64 = ids.iter().map(|id| world.registry.bytes_read(id)).sum();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let (_, proven_before) = world.replica(&ids[0], 0).await;
    world.lose_the_ledger().await;
    for id in &ids {
        world.registered(id).await;
        world.assert_good_copies(id, 3);
    }
    let (_, proven_at) = world.replica(&ids[0], 0).await;
    assert!(proven_at > proven_before, "it was read back again");
    assert_eq!((world.opened(), world.registry.adds().len()), (opened, adds));
    assert_eq!(ids.iter().map(|id| world.registry.bytes_read(id)).sum::<u64>(), read, "nor is Glance read");
}

#[tokio::test(start_paused = true)]
async fn an_adopted_copy_that_is_bad_is_made_anew_and_the_good_ones_are_not() {
    let mut world = World::start(Options::default());
    let id = world.create(image(1, 100_000));
    world.registered(&id).await;
    let bad = world.stores[1].objects()[0].clone();
    world.stores[1].tamper(&bad, Some(sample::bits(100_000).iter().map(|byte| !byte).collect()));
    let opened = world.opened();
    world.lose_the_ledger().await;
    let anew = async || world.opened() > opened && world.replica(&id, 1).await.0 == ReplicaState::Registered;
    world.until("it is made anew", anew).await;
    assert_eq!(world.opened(), opened + 1);
    let good = world.stores[1].objects().into_iter().find(|object| *object != bad).unwrap();
    assert_eq!(world.stores[1].bits(&good).unwrap(), sample::bits(100_000));
    let gc = world.engine.gc(None, 1000).await.unwrap();
    assert_eq!(gc.entries.iter().map(|entry| entry.object.as_str()).collect::<Vec<_>>(), [bad.as_str()]);
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_cannot_be_read_now_is_not_bad() {
    let mut world = World::start(Options::default());
    let id = world.create(image(1, 100_000));
    world.registered(&id).await;
    let opened = world.opened();
    world.stores[1].inject(StoreFault::ReadFails(mimeo_core::Reason::StoreUnreachable));
    world.lose_the_ledger().await;
    let others = async || world.replica(&id, 0).await.0 == ReplicaState::Registered;
    world.until("the others are registered", others).await;
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(world.replica(&id, 1).await.0, ReplicaState::Stored, "not proven, so not registered");
    world.stores[1].heal();
    world.registered(&id).await;
    assert_eq!(world.opened(), opened);
}

#[tokio::test(start_paused = true)]
async fn an_image_without_a_hash_is_copied_anew_before_its_old_copies_go() {
    let mut world = World::start(Options { stores: 1, ..Options::default() });
    let id = world.create(sample::image(1, 1000));
    world.registered(&id).await;
    let old = world.stores[0].objects()[0].clone();
    world.lose_the_ledger().await;
    world.registered(&id).await;
    let gc = async || {
        world.engine.gc(None, 1000).await.unwrap().entries.iter().map(|it| it.object.clone()).collect::<Vec<_>>()
    };
    world.until("the old one is to go", async || gc().await == [old.to_string()]).await;
    let new = world.stores[0].objects().into_iter().find(|object| *object != old).unwrap();
    assert!(world.locations(&id).contains(&world.stores[0].location(&new)));
    assert_eq!(world.stores[0].bits(&new), world.stores[0].bits(&old));
}

#[tokio::test(start_paused = true)]
async fn a_location_that_leads_elsewhere_or_is_anothers_is_not_adopted() {
    let world = World::start(Options { stores: 1, ..Options::default() });
    let victim = world.create(image(1, 1000));
    world.registered(&victim).await;
    let theirs = world.locations(&victim)[0].clone();
    let mut thief = image(2, 1000);
    let elsewhere = format!("http://elsewhere.example/{}", ObjectName::new(&thief.id, 5));
    let beside = format!("http://store0.example/deeper/{}", ObjectName::new(&thief.id, 6));
    for url in [theirs, elsewhere, beside] {
        thief.locations.push(Location { url, metadata: std::collections::BTreeMap::default() });
    }
    let thief = world.create(thief);
    world.registered(&thief).await;
    let reads = world.stores[0].calls();
    let own = |call: &&StoreCall| matches!(call, StoreCall::Read(object, _) if object.image() == thief);
    let read: Vec<_> = reads.iter().filter(own).collect();
    assert_eq!(read.len(), 1, "its own new copy alone: {read:?}");
}

#[tokio::test(start_paused = true)]
async fn what_only_a_listing_shows_is_adopted_if_it_is_of_use_and_waits_for_an_operator_if_not() {
    let mut world = World::start(Options { listable: true, ..Options::default() });
    let id = world.create(image(1, 100_000));
    world.registered(&id).await;
    let opened = world.opened();
    // Another is left of an attempt that failed, and one of an image that is gone.
    let stray = ObjectName::new(&id, 3);
    world.stores[0].tamper(&stray, Some(sample::bits(7)));
    let orphan = ObjectName::new(&sample::id(9), 3);
    world.stores[1].tamper(&orphan, Some(sample::bits(7)));
    // And one store's location was lost with the ledger.
    let url = world.stores[2].location(&world.stores[2].objects()[0]);
    world.registry.change(&id, |image| image.locations.retain(|location| location.url != url));
    world.lose_the_ledger().await;
    world.registered(&id).await;
    assert_eq!(world.opened(), opened, "the third was found and registered");
    world.assert_good_copies(&id, 3);
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert_eq!(world.objects(), 5);
    let gc = world.engine.gc(None, 1000).await.unwrap();
    assert_eq!(gc.found, 2, "{gc:?}");
    world.confirm().await;
    world.until("they are gone", async || world.objects() == 3).await;
    world.assert_good_copies(&id, 3);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_cannot_be_listed_keeps_no_copy_waiting_for_ever_and_is_listed_when_it_can_be() {
    let mut world = World::start(Options { listable: true, ..Options::default() });
    world.stop().await;
    world.ledger.restore(&LedgerBackup::default());
    world.stores[0].inject(StoreFault::ListFails(mimeo_core::Reason::StoreUnreachable));
    world.serve();
    let id = world.create(image(1, 1000));
    world.registered(&id).await;
    world.assert_good_copies(&id, 3);
    world.stores[0].tamper(&ObjectName::new(&sample::id(9), 3), Some(sample::bits(7)));
    world.stores[0].heal();
    world.until("it is listed", async || world.engine.gc(None, 1000).await.unwrap().found == 1).await;
}

#[tokio::test(start_paused = true)]
async fn an_old_ledger_finds_what_was_made_since_and_what_is_gone() {
    let mut world = World::start(Options::default());
    let kept = world.create(image(1, 100_000));
    let deleted = world.create(image(2, 100_000));
    let repaired = world.create(image(3, 100_000));
    for id in [&kept, &deleted, &repaired] {
        world.registered(id).await;
    }
    let backup = world.ledger.backup();
    // Since then one image was made, one deleted with its copies, and one copy was lost and made anew.
    let new = world.create(image(4, 100_000));
    world.registered(&new).await;
    world.delete(&deleted);
    let of = |id: &ImageId| -> usize {
        world.stores.iter().map(|store| store.objects().iter().filter(|object| object.image() == *id).count()).sum()
    };
    world.until("its copies are gone", async || of(&deleted) == 0).await;
    let lost = world.stores[0].objects().into_iter().find(|object| object.image() == repaired).unwrap();
    let anew = ObjectName::new(&repaired, lost.attempt() + 1_000_000);
    world.stores[0].tamper(&lost, None);
    world.stores[0].tamper(&anew, Some(sample::bits(100_000)));
    let (before, after) = (world.stores[0].location(&lost), world.stores[0].location(&anew));
    world.registry.change(&repaired, |image| {
        image.locations.iter_mut().filter(|it| it.url == before).for_each(|it| it.url.clone_from(&after));
    });
    let opened = world.opened();
    world.come_back_with(&backup).await;
    for id in [&kept, &repaired, &new] {
        world.registered(id).await;
    }
    world.until("the deleted one is forgotten", async || world.state(&deleted).await.is_none()).await;
    let settled = async || world.engine.gc(None, 1000).await.unwrap().entries.is_empty();
    world.until("what the old ledger held in vain is forgotten", settled).await;
    for id in [&kept, &repaired, &new] {
        world.assert_good_copies(id, 3);
    }
    assert_eq!(
        (world.opened(), world.objects()),
        (opened, 9),
        "nothing was copied again, nothing that is right removed"
    );
}

#[tokio::test(start_paused = true)]
async fn an_old_ledger_that_saw_a_copy_begin_does_not_touch_it_now_that_it_is_registered() {
    let mut world = World::start(Options { stores: 1, resumable: true, chunk: 50_000, ..Options::default() });
    world.stores[0].inject(StoreFault::CloseStalls);
    let id = world.create(image(1, 200_000));
    let closing = async || world.stores[0].calls().iter().any(|call| matches!(call, StoreCall::Close(_)));
    world.until("it is being closed", closing).await;
    let backup = world.ledger.backup();
    world.stores[0].heal();
    world.registered(&id).await;
    let opened = world.opened();
    world.come_back_with(&backup).await;
    world.registered(&id).await;
    tokio::time::sleep(Duration::from_mins(30)).await;
    assert_eq!((world.opened(), world.objects()), (opened, 1));
    world.assert_good_copies(&id, 1);
}

#[tokio::test(start_paused = true)]
async fn a_ledger_without_room_stops_all_work_is_told_and_goes_on_when_there_is_room() {
    let world = World::start(Options::default());
    let first = world.create(image(1, 1000));
    world.registered(&first).await;
    world.ledger.set_full(true);
    let (opened, adds) = (world.opened(), world.registry.adds().len());
    let second = world.create(image(2, 1000));
    world.delete(&first);
    let told = async || world.engine.overview().await.unwrap().trouble.is_some_and(|trouble| trouble.code == "ledger");
    world.until("it is told", told).await;
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert_eq!((world.opened(), world.registry.adds().len(), world.objects()), (opened, adds, 3), "promise 3");
    assert!(told().await);
    world.ledger.set_full(false);
    world.registered(&second).await;
    world.until("the deleted one is gone", async || world.objects() == 3).await;
    world.until("the trouble is over", async || !told().await).await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_go_because_its_store_is_not_enabled_is_told_and_goes_when_it_is() {
    let mut world = World::start(Options::default());
    let id = world.create(image(1, 1000));
    world.registered(&id).await;
    world.stop().await;
    let third = world.stores.pop().unwrap();
    world.serve();
    world.delete(&id);
    world.until("the others are gone", async || world.objects() == 0).await;
    let entries = world.engine.gc(None, 1000).await.unwrap().entries;
    assert!(entries.len() == 1 && entries[0].why.contains("its store is not enabled"), "{entries:?}");
    world.stop().await;
    world.stores.push(third);
    world.serve();
    world.until("it is gone", async || world.objects() == 0 && world.state(&id).await.is_none()).await;
}

/// The process dies after each of its commits, and at a moment when the next one is not yet.
#[tokio::test(start_paused = true)]
async fn after_a_death_behind_any_commit_the_copies_are_completed_and_nothing_is_left() {
    for deaths in 1..40 {
        let mut world = World::start(Options { resumable: deaths % 2 == 0, ..Options::default() });
        let id = world.create(image(1, 200_000));
        world.ledger.dies_after(deaths);
        let done =
            async || world.ledger.is_dead() || world.state(&id).await == Some(mimeo_core::ImageState::Registered);
        world.until("it died, or was done before", done).await;
        let died = world.ledger.is_dead();
        world.kill().await;
        world.ledger.revive();
        world.serve();
        world.changed(&id);
        world.registered(&id).await;
        world.until("nothing else is left", async || world.objects() == 3).await;
        world.assert_good_copies(&id, 3);
        if !died {
            assert!(deaths > 8, "it had as many commits");
            return;
        }
    }
    panic!("an image takes fewer commits than that");
}

#[tokio::test(start_paused = true)]
async fn an_object_that_bears_the_highest_number_is_not_counted_on_from() {
    let world = World::start(Options { listable: true, ..Options::default() });
    let image = image(1, 1000);
    let planted = ObjectName::new(&image.id, u64::MAX);
    let object = Object {
        store: world.stores[0].name().clone(),
        url: world.stores[0].location(&planted),
        name: planted,
        state: ObjectState::Found,
        since: sample::time(0),
    };
    world.ledger.commit(&[Change::Object(object)]).await.unwrap();
    let id = world.create(image);
    world.registered(&id).await;
    world.assert_good_copies(&id, 3);
}
