//! Copies that go bad or away: their locations leave the image, and good ones come back.

use std::{
    num::{NonZero, NonZeroU64},
    time::Duration,
};

use bytes::Bytes;
use mimeo_core::{
    Change, ContentHash, DirtyMark, Error, HashAlgorithm, Image, ImageId, ImageState, ObjectName, ObjectState, Reason,
    ReplicaState, StoreLimits,
    ports::{Ledger, Store},
};
use mimeo_testkit::{AddAnswer, RegistryFault, StoreCall, StoreFault, sample};
use sha2::{Digest, Sha512};
use tokio::time::Instant;

use crate::world::{Options, World};

/// Says of a store's copy that it is to go, as whoever finds it bad does.
pub(crate) async fn doom(world: &World, id: &ImageId, store: usize) {
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
async fn a_location_that_stands_twice_is_there_once_afterwards() {
    let world = World::start(Options::default());
    let id = world.create(sample::image(1, 1 << 20));
    world.registered(&id).await;
    let once = world.locations(&id);
    // As the PATCH of a process that was killed and that of the next leave it, at the same moment.
    world.registry.change(&id, |image| image.locations.insert(1, image.locations[0].clone()));
    world.registry.on_add({
        let mut refusals = 2;
        move |_, _, _| {
            if refusals == 0 {
                return AddAnswer::Apply;
            }
            refusals -= 1;
            AddAnswer::Refuse(Error::new(Reason::ImageServiceError, "not now"))
        }
    });
    world.changed(&id);
    world.until("each is there once", async || world.locations(&id) == once).await;
    world.registered(&id).await;
    assert_eq!(world.registry.arrangements().len(), 3, "the PATCHes that Glance refused, and the one that it took");
    world.assert_good_copies(&id, 3);
}

#[tokio::test(start_paused = true)]
async fn the_last_location_stays_until_another_is_registered() {
    let world = World::start(Options { stores: 1, ..Options::default() });
    let id = world.create(sample::image(1, 1 << 20));
    world.registered(&id).await;
    let old = world.locations(&id);
    // Nothing can be written now, so that the only location is one that is to go.
    world.stores[0].inject(StoreFault::OpenFails(Reason::StoreFull));
    doom(&world, &id, 0).await;
    let said = async || {
        let trouble = world.ledger.load(&id).await.unwrap().unwrap().image.trouble;
        trouble.is_some_and(|trouble| trouble.reason == Reason::LastLocation)
    };
    world.until("it is said that the last location stays", said).await;
    tokio::time::sleep(Duration::from_mins(3)).await;
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
    tokio::time::sleep(Duration::from_mins(2)).await;
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

async fn proofs(world: &World, id: &ImageId) -> Vec<mimeo_core::Timestamp> {
    world.report(id).await.unwrap().replicas.iter().filter_map(|replica| replica.proven_at).collect()
}

/// Of the image's copy at a store.
fn object(world: &World, id: &ImageId, store: usize) -> ObjectName {
    let image = world.registry.image(id).unwrap();
    let store = &world.stores[store];
    let named = |object: &ObjectName| image.has_location(&store.location(object));
    store.objects().into_iter().find(named).unwrap()
}

fn host(url: &str) -> String {
    url.split('/').nth(2).unwrap().replace(".example", "")
}

fn order(world: &World, id: &ImageId) -> Vec<String> {
    world.locations(id).iter().map(|url| host(url)).collect()
}

const PERIOD: Duration = Duration::from_secs(100);

#[tokio::test(start_paused = true)]
async fn bits_that_rot_are_found_within_a_period_withdrawn_and_made_anew() {
    let bits = sample::bits(1 << 20);
    let mut flipped = bits.to_vec();
    flipped[500_000] ^= 1;
    for rotten in [Some(flipped), Some(bits[..1000].to_vec()), Some([&bits[..], b"x"].concat()), None] {
        let world = World::start(Options { scrub: Some(PERIOD), ..Options::default() });
        let id = world.create(sample::image(1, 1 << 20));
        world.registered(&id).await;
        let bad = object(&world, &id, 1);
        world.stores[1].tamper(&bad, rotten.map(Bytes::from));
        let began = Instant::now();
        let url = world.stores[1].location(&bad);
        world.until("it is withdrawn", async || !world.registry.image(&id).unwrap().has_location(&url)).await;
        assert!(began.elapsed() <= PERIOD, "{:?}", began.elapsed());
        world.until("it is back", async || world.locations(&id).len() == 3 && world.objects() == 3).await;
        world.registered(&id).await;
        world.assert_good_copies(&id, 3);
    }
}

#[tokio::test(start_paused = true)]
async fn every_copy_is_read_again_within_a_period_and_stays_registered_meanwhile() {
    let world = World::start(Options { scrub: Some(PERIOD), ..Options::default() });
    let ids: Vec<ImageId> = (1..=30).map(|n| world.create(sample::image(n, 1000))).collect();
    for id in &ids {
        world.registered(id).await;
    }
    let until = Instant::now() + 3 * PERIOD;
    while Instant::now() < until {
        tokio::time::sleep(Duration::from_secs(5)).await;
        for id in &ids {
            assert_eq!(world.state(id).await, Some(ImageState::Registered));
            let oldest = proofs(&world, id).await.into_iter().min().unwrap();
            assert!(world.now().duration_since(oldest).unsigned_abs() <= PERIOD, "{id}: {oldest}");
        }
    }
    assert!(world.registry.arrangements().is_empty() && world.objects() == 90);
}

#[tokio::test(start_paused = true)]
async fn a_scrub_takes_no_more_of_the_line_than_it_may() {
    let scrub_bandwidth = NonZeroU64::new(20_000);
    let world = World::start(Options { scrub: Some(PERIOD), scrub_bandwidth, ..Options::default() });
    let began = Instant::now();
    let id = world.create(sample::image(1, 200_000));
    world.registered(&id).await;
    assert!(began.elapsed() < Duration::from_secs(5), "a new copy is proven at once: {:?}", began.elapsed());
    let is_read = async || !world.engine.running().is_empty();
    world.until("it is read again", is_read).await;
    let began = Instant::now();
    world.until("it was read", async || !is_read().await).await;
    let took = began.elapsed().as_secs();
    assert!((8..=12).contains(&took), "{took} s, and not about ten");
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_cannot_be_read_now_is_not_bad() {
    for fault in [StoreFault::ReadFails(Reason::StoreError), StoreFault::ReadStalls] {
        let world = World::start(Options { scrub: Some(PERIOD), ..Options::default() });
        let id = world.create(sample::image(1, 1000));
        world.registered(&id).await;
        world.stores[1].inject(fault);
        let told = async || world.report(&id).await.unwrap().replicas[1].reason.is_some();
        world.until("it is told", told).await;
        tokio::time::sleep(PERIOD).await;
        assert_eq!(
            (world.state(&id).await, world.locations(&id).len()),
            (Some(ImageState::Registered), 3),
            "{fault:?}"
        );
        world.stores[1].heal();
        world.until("it is read again", async || !told().await).await;
        assert!(world.registry.arrangements().is_empty() && world.objects() == 3);
    }
}

#[tokio::test(start_paused = true)]
async fn what_scrubs_are_stuck_at_holds_up_no_new_image() {
    let world = World::start(Options { scrub: Some(PERIOD), ..Options::default() });
    let ids: Vec<ImageId> = (1..=20).map(|n| world.create(sample::image(n, 10))).collect();
    for id in &ids {
        world.registered(id).await;
    }
    world.stores[0].inject(StoreFault::ReadStalls);
    let known = world.stores[0].calls().len();
    let reads = || world.stores[0].calls()[known..].iter().filter(|call| matches!(call, StoreCall::Read(..))).count();
    world.until("copies are read again", async || reads() > 0).await;
    // The store's time-out is 5 s.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(reads(), 2, "each that is read holds a turn");
    let began = Instant::now();
    let id = world.create(sample::image(1000, 1000));
    world.until("the others have it", async || world.locations(&id).len() == 2).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn copies_are_read_again_when_somebody_asks() {
    let world = World::start(Options::default());
    let id = world.create(sample::image(1, 1000));
    world.registered(&id).await;
    tokio::time::sleep(Duration::from_secs(1000)).await;
    world.stores[2].tamper(&object(&world, &id, 2), None);
    let asked = world.engine.verify(&id).await.unwrap();
    let renewed = async || proofs(&world, &id).await.iter().filter(|at| **at >= asked).count() == 3;
    world.until("all proofs are new", renewed).await;
    world.registered(&id).await;
    world.assert_good_copies(&id, 3);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_is_read_last_within_a_minute_and_returns() {
    let mut world = World::start(Options::default());
    let id = world.create(sample::image(1, 1000));
    world.registered(&id).await;
    tokio::time::sleep(Duration::from_mins(5)).await;
    assert_eq!(order(&world, &id), ["store0", "store1", "store2"]);
    let began = Instant::now();
    for fault in [
        StoreFault::ProbeFails(Reason::StoreUnreachable),
        StoreFault::ReadFails(Reason::StoreUnreachable),
        StoreFault::OpenFails(Reason::StoreUnreachable),
    ] {
        world.stores[0].inject(fault);
    }
    world.until("it is read last", async || order(&world, &id) == ["store1", "store2", "store0"]).await;
    assert!(began.elapsed() < Duration::from_mins(1), "{:?}", began.elapsed());
    let replica = async || world.report(&id).await.unwrap().replicas.remove(0);
    assert_eq!(replica().await.state, ReplicaState::Suspect);
    assert_eq!(replica().await.reason.unwrap().code, "store-down");
    assert_eq!(world.engine.overview().await.unwrap().stores_down.len(), 1);

    // Nothing is opened_since there, also for a new image, and no PATCH is sent anew.
    let opened = world.stores[0].calls().len();
    let new = world.create(sample::image(2, 1000));
    world.until("the others have it", async || world.locations(&new).len() == 2).await;
    tokio::time::sleep(Duration::from_mins(5)).await;
    let opened_since =
        world.stores[0].calls()[opened..].iter().filter(|call| !matches!(call, StoreCall::Probe(_))).count();
    assert_eq!((opened_since, world.registry.arrangements().len()), (0, 1));

    // A restart knows nothing of the store, and does nothing before it does.
    world.stop().await;
    world.serve();
    tokio::time::sleep(Duration::from_mins(2)).await;
    assert_eq!((order(&world, &id)[2].as_str(), world.registry.arrangements().len()), ("store0", 1));
    assert_eq!(world.state(&id).await, Some(ImageState::Degraded));

    world.stores[0].heal();
    world.until("its place is its own again", async || order(&world, &id) == ["store0", "store1", "store2"]).await;
    world.registered(&id).await;
    world.registered(&new).await;
    assert_eq!(world.report(&id).await.unwrap().replicas[0].reason, None);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_removed_at_a_store_that_does_not_answer() {
    let world = World::start(Options::default());
    let (kept, gone) = (world.create(sample::image(1, 1000)), world.create(sample::image(2, 1000)));
    world.registered(&kept).await;
    world.registered(&gone).await;
    world.stores[0].inject(StoreFault::ProbeStalls);
    let down = async || !world.engine.overview().await.unwrap().stores_down.is_empty();
    world.until("the store is down", down).await;
    world.delete(&gone);
    world.until("the others' copies are removed", async || world.objects() == 4).await;
    let deleted = world.stores[0].calls().iter().any(|call| matches!(call, StoreCall::Delete(_)));
    assert!(!deleted);
    world.stores[0].heal();
    world.until("and its own when it answers", async || world.objects() == 3).await;
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_the_prober_misses_is_made_anew() {
    let world = World::start(Options { stores: 2, ..Options::default() });
    let id = world.create(sample::image(1, 1000));
    world.registered(&id).await;
    let lost = object(&world, &id, 1);
    world.stores[1].tamper(&lost, None);
    world
        .until("another has taken its place", async || {
            let image = world.registry.image(&id).unwrap();
            image.locations.len() == 2 && !image.has_location(&world.stores[1].location(&lost))
        })
        .await;
    world.registered(&id).await;
    world.assert_good_copies(&id, 2);
}

#[tokio::test(start_paused = true)]
async fn one_copy_that_a_store_refuses_does_not_take_the_store_down() {
    let world = World::start(Options { stores: 2, ..Options::default() });
    for number in 1..=2 {
        world.registered(&world.create(sample::image(number, 1000))).await;
    }
    world.stores[1].inject(StoreFault::ProbeOfOneFails(Reason::StoreRefused));
    tokio::time::sleep(Duration::from_mins(5)).await;
    assert!(world.engine.overview().await.unwrap().stores_down.is_empty());
    // Where it refuses all, it is the store.
    world.stores[1].inject(StoreFault::ProbeFails(Reason::StoreRefused));
    let down = async || !world.engine.overview().await.unwrap().stores_down.is_empty();
    world.until("the store is down", down).await;
}

#[tokio::test(start_paused = true)]
async fn a_writer_who_keeps_removing_a_location_is_told_of_and_not_fought_at_his_pace() {
    let world = World::start(Options { stores: 2, ..Options::default() });
    let id = world.create(sample::image(1, 1000));
    world.registered(&id).await;
    for _ in 0..600 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let theirs = |location: &mimeo_core::Location| host(&location.url) == "store1";
        if world.registry.image(&id).unwrap().locations.iter().any(theirs) {
            world.registry.change(&id, |image| image.locations.retain(|location| !theirs(location)));
            world.changed(&id);
        }
    }
    // Two minutes, in which the waits grow to the longest of 10 s.
    let adds = world.registry.adds().len();
    assert!((10..=20).contains(&adds), "{adds}");
    assert_eq!(world.engine.overview().await.unwrap().contested, 1);
    let replica = world.report(&id).await.unwrap().replicas.remove(1);
    assert_eq!(replica.reason.unwrap().code, "location-lost");
    world.registered(&id).await;
    let forgiven = async || world.engine.overview().await.unwrap().contested == 0;
    world.until("it is forgotten when the location stays", forgiven).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_made_anew_while_others_are_still_read_comes_from_a_proven_copy() {
    let world = World::start(Options::default());
    let id = world.create(hashed(1, 1 << 20));
    world.registered(&id).await;
    // Glance gives other bits from now on: its own copy is lost, and it reads one that went bad.
    world.registry.inject(RegistryFault::SourceReadsOther);
    world.stores[0].tamper(&object(&world, &id, 0), None);
    slow(&world, "store2");
    world.engine.verify(&id).await.unwrap();
    let anew = async || world.stores[0].objects().len() == 1 && world.locations(&id).len() == 3;
    world.until("the lost one is there again", anew).await;
    world.registered(&id).await;
    world.assert_good_copies(&id, 3);
}

/// A bound for one store, under which a copy takes long.
fn slow(world: &World, store: &str) {
    let own = StoreLimits { bandwidth: NonZero::new(10_000), ..StoreLimits::default() };
    world
        .engine
        .change_limits(|limits| {
            let mut limits = limits.clone();
            limits.stores.insert(store.parse().unwrap(), own);
            Ok::<_, ()>(limits)
        })
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_nothing_would_show_to_be_other_bits_is_read_through_glance_alone() {
    let world = World::start(Options::default());
    slow(&world, "store2");
    world.stores[1].inject(StoreFault::OpenFails(Reason::StoreError));
    let id = world.create(sample::image(1, 1 << 20));
    world.until("the first copy is registered", async || world.locations(&id).len() == 1).await;
    world.stores[0].tamper(&object(&world, &id, 0), Some(vec![0; 1 << 20].into()));
    world.stores[1].heal();
    world.until("the second is registered", async || world.locations(&id).len() == 2).await;
    let copy = world.stores[1].bits(&object(&world, &id, 1)).unwrap();
    assert!(copy == sample::bits(1 << 20), "it was made of the bad one, which no hash tells from the image");
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_gave_other_bytes_to_a_slow_one_is_doubted_with_it() {
    let world = World::start(Options::default());
    slow(&world, "store2");
    let id = world.create(hashed(1, 1 << 20));
    world.until("the others are registered", async || world.locations(&id).len() == 2).await;
    let replica = async |at: usize| world.report(&id).await.unwrap().replicas.swap_remove(at);
    for store in &world.stores[..2] {
        store.inject(StoreFault::ReadsOther);
    }
    let failed = async || replica(2).await.reason.is_some_and(|reason| reason.code == Reason::ProofMismatch.code());
    world.until("the slow one reads back with other bytes", failed).await;
    // Long before it is tried again: that would find the lender wrong in any case.
    tokio::time::sleep(Duration::from_millis(10)).await;
    let proofs = [replica(0).await.proven_at, replica(1).await.proven_at];
    assert!(proofs.contains(&None), "the proof of the copy whose bytes they were counts no more");
    world.stores.iter().for_each(mimeo_testkit::FakeStore::heal);
    world.registered(&id).await;
    world.assert_good_copies(&id, 3);
}

pub(crate) fn hashed(number: u32, size: u64) -> Image {
    let value = format!("{:x}", Sha512::digest(sample::bits(usize::try_from(size).unwrap())));
    let hash = Some(ContentHash { algorithm: HashAlgorithm::Sha512, value });
    Image { hash, ..sample::image(number, size) }
}
