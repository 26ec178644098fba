//! Copies that go bad or away: their locations leave the image, and good ones come back.

use mimeo_core::{Change, DirtyMark, Error, ImageId, ImageState, ObjectState, Reason, ReplicaState, ports::Ledger};
use mimeo_testkit::{AddAnswer, sample};

use crate::world::{Options, World};

/// Says of a store's copy that it is to go, as whoever finds it bad does.
async fn doom(world: &World, id: &ImageId, store: usize) {
    let record = world.ledger.load(id).await.unwrap().unwrap();
    let kept = |object: &&mimeo_core::Object| {
        object.state == ObjectState::Kept && object.store.as_str() == format!("store{store}")
    };
    let object = record.objects.iter().find(kept).unwrap();
    let now = world.now();
    let mark = DirtyMark { image: id.clone(), due: now };
    let doom = Change::Doom(object.store.clone(), object.name.clone(), now);
    world.ledger.commit(&[doom, Change::Dirty(mark)]).await.unwrap();
    world.changed(id);
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_is_to_go_is_withdrawn_then_removed_and_made_anew() {
    let world = World::start(Options::default());
    let id = world.create(sample::image(1, 1 << 20));
    world.registered(&id).await;
    let old = world.locations(&id)[1].clone();
    doom(&world, &id, 1).await;
    let withdrawn = async || !world.locations(&id).contains(&old);
    world.until("its location is withdrawn", withdrawn).await;
    world.registered(&id).await;
    world.until("its bits are removed", async || world.objects() == 3).await;
    world.assert_good_copies(&id, 3);
    let [(_, keep, remove)] = &world.registry.arrangements()[..] else { panic!("one PATCH") };
    assert_eq!((keep.len(), remove.len()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn the_last_location_stays_until_another_is_registered() {
    let world = World::start(Options { stores: 1, ..Options::default() });
    let id = world.create(sample::image(1, 1 << 20));
    world.registered(&id).await;
    let old = world.locations(&id);
    // Nothing can be written now, so that the only location is one that is to go.
    world.stores[0].inject(mimeo_testkit::StoreFault::OpenFails(Reason::StoreFull));
    doom(&world, &id, 0).await;
    let said = async || {
        let trouble = world.ledger.load(&id).await.unwrap().unwrap().image.trouble;
        trouble.is_some_and(|trouble| trouble.reason == Reason::LastLocation)
    };
    world.until("it is said that the last location stays", said).await;
    tokio::time::sleep(std::time::Duration::from_mins(3)).await;
    assert_eq!((world.locations(&id), world.objects()), (old.clone(), 1), "neither location nor bits are gone");
    assert_ne!(world.state(&id).await, Some(ImageState::Registered));
    world.stores[0].heal();
    let replaced = async || world.locations(&id).len() == 1 && world.locations(&id) != old && world.objects() == 1;
    world.until("a new copy has taken its place", replaced).await;
    world.registered(&id).await;
    world.assert_good_copies(&id, 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_withdrawn_during_an_import() {
    let world = World::start(Options::default());
    let id = world.create(sample::image(1, 1000));
    world.registered(&id).await;
    world.registry.change(&id, |image| image.importing = true);
    doom(&world, &id, 1).await;
    tokio::time::sleep(std::time::Duration::from_mins(2)).await;
    assert!(world.registry.arrangements().is_empty());
    assert_eq!(world.locations(&id).len(), 3);
    world.registry.change(&id, |image| image.importing = false);
    world.changed(&id);
    world.until("it is withdrawn after that", async || world.registry.arrangements().len() == 1).await;
    world.registered(&id).await;
}

#[tokio::test(start_paused = true)]
async fn a_withdrawal_that_glance_refuses_is_told_and_tried_ever_less_often() {
    let world = World::start(Options::default());
    let id = world.create(sample::image(1, 1000));
    world.registered(&id).await;
    // The new copy's location is added alone; kept are two, and then three with it.
    world.registry.on_add(|_, _, locations| match locations.len() {
        1 => AddAnswer::Apply,
        _ => AddAnswer::Refuse(Error::new(Reason::ImageServiceError, "500: the rbd snapshot has clones")),
    });
    doom(&world, &id, 1).await;
    let told = async || {
        let trouble = world.ledger.load(&id).await.unwrap().unwrap().image.trouble;
        trouble.is_some_and(|trouble| trouble.reason == Reason::NotWithdrawn && trouble.tries == 3)
    };
    world.until("the third refusal is told", told).await;
    assert_eq!(world.registry.arrangements().len(), 3);
    world.registered(&id).await;
    world.registry.heal();
    world.until("three locations and three objects are left", async || world.objects() == 3).await;
    world.assert_good_copies(&id, 3);
    assert_eq!(world.ledger.load(&id).await.unwrap().unwrap().image.trouble, None);
}

#[tokio::test(start_paused = true)]
async fn what_a_withdrawal_undid_for_others_is_put_back() {
    let world = World::start(Options::default());
    let id = world.create(sample::image(1, 1000));
    world.registered(&id).await;
    let sender = world.events.clone();
    world.registry.on_add(move |registry, id, kept| {
        if kept.len() == 2 {
            registry.change(id, |image| image.protected = true);
            let snapshot = registry.image(id).map(|image| image.snapshot());
            let kind = mimeo_core::ports::EventKind::Changed;
            sender.send(mimeo_core::ports::ImageEvent { image: id.clone(), kind, snapshot });
        }
        AddAnswer::Apply
    });
    doom(&world, &id, 1).await;
    world.until("it is put back", async || !world.registry.put_backs().is_empty()).await;
    assert!(world.registry.image(&id).unwrap().protected);
    world.registered(&id).await;
    let replica = world.report(&id).await.unwrap().replicas.remove(1);
    assert_eq!(replica.state, ReplicaState::Registered);
}
