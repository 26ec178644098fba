//! Copies that a store makes by itself from another's, and what a store is told of objects that are much the same.

use bytes::Bytes;
use mimeo_core::{
    CHUNK, ContentHash, HashAlgorithm, Image, ImageId, ObjectName, Reason,
    ports::{Ledger, Store},
};
use mimeo_testkit::{FakeStore, StoreCall, StoreFault, sample};
use sha2::{Digest as _, Sha512};

use crate::world::{Options, World};

const SIZE: usize = 1 << 20;

fn hashed(n: u32) -> Image {
    let value = format!("{:x}", Sha512::digest(sample::bits(SIZE)));
    Image { hash: Some(ContentHash { algorithm: HashAlgorithm::Sha512, value }), ..sample::image(n, SIZE as u64) }
}

/// An image that one store has, when another is added, which takes objects from the first.
async fn taker_joins(fault: Option<StoreFault>) -> (World, ImageId) {
    let mut world = World::start(Options { stores: 1, ..Options::default() });
    let id = world.create(hashed(1));
    world.registered(&id).await;
    world.stop().await;
    let taker = FakeStore::new("store1").taking_from(&world.stores[0]);
    if let Some(fault) = fault {
        taker.inject(fault);
    }
    world.stores.push(taker);
    world.serve();
    world.changed(&id);
    (world, id)
}

async fn both_are_registered(world: &World, id: &ImageId) {
    world.until("both are registered", async || world.locations(id).len() == 2).await;
    world.registered(id).await;
    world.assert_good_copies(id, 2);
}

fn count(store: &FakeStore, is_meant: impl Fn(&StoreCall) -> bool) -> usize {
    store.calls().iter().filter(|call| is_meant(call)).count()
}

fn takes(store: &FakeStore) -> usize {
    count(store, |call| matches!(call, StoreCall::Take(_)))
}

fn opens(store: &FakeStore) -> usize {
    count(store, |call| matches!(call, StoreCall::Open(_)))
}

fn reads(store: &FakeStore) -> usize {
    count(store, |call| matches!(call, StoreCall::Read(..)))
}

#[tokio::test(start_paused = true)]
async fn a_store_takes_a_proven_copy_and_nobody_reads_the_image_for_it() {
    let (world, id) = taker_joins(None).await;
    both_are_registered(&world, &id).await;
    let [giver, taker] = &world.stores[..] else { panic!("two stores") };
    assert_eq!((takes(taker), opens(taker), taker.written()), (1, 0, 0));
    assert_eq!((reads(giver), reads(taker)), (1, 1), "each copy's own proof");
    assert_eq!(world.registry.bytes_read(&id), SIZE as u64, "for the first copy");
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_taken_is_copied() {
    for fault in [StoreFault::TakeFails(Reason::StoreError), StoreFault::TakeStalls] {
        let (world, id) = taker_joins(Some(fault)).await;
        both_are_registered(&world, &id).await;
        assert_eq!((takes(&world.stores[1]), opens(&world.stores[1])), (1, 1), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_bad_copy_that_was_taken_is_found_out_and_so_is_its_giver() {
    let mut world = World::start(Options { stores: 1, ..Options::default() });
    let id = world.create(hashed(1));
    world.registered(&id).await;
    world.stop().await;
    let bad = world.stores[0].objects()[0].clone();
    world.stores[0].tamper(&bad, Some(Bytes::from(vec![7; SIZE])));
    world.stores.push(FakeStore::new("store1").taking_from(&world.stores[0]));
    world.serve();
    world.changed(&id);
    let good_at = |store: usize| {
        let (image, store) = (world.registry.image(&id).unwrap(), &world.stores[store]);
        let mut named = store.objects().into_iter().filter(|object| image.has_location(&store.location(object)));
        named.any(|object| store.bits(&object).unwrap() == sample::bits(SIZE))
    };
    world.until("both have the image's own bytes", async || good_at(0) && good_at(1)).await;
    let taken = world.stores[1].calls().into_iter().find_map(|call| match call {
        StoreCall::Take(object) => Some(object),
        _ => None,
    });
    let never = world.stores[1].location(&taken.unwrap());
    assert!(!world.locations(&id).contains(&never), "the bad bytes have no location there");
}

#[tokio::test(start_paused = true)]
async fn what_goes_to_both_now_is_read_once_and_neither_waits_for_the_other() {
    let world = World::start(Options { stores: 2, ..Options::default() });
    let _taker = world.stores[1].clone().taking_from(&world.stores[0]);
    world.stores[0].inject(StoreFault::WriteStalls);
    let id = world.create(hashed(1));
    world.until("the second is registered", async || world.locations(&id).len() == 1).await;
    world.stores[0].heal();
    both_are_registered(&world, &id).await;
    assert_eq!((takes(&world.stores[1]), opens(&world.stores[1])), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_compares_is_told_of_the_nearest_image_of_the_family() {
    let world = World::start(Options { stores: 1, ..Options::default() });
    let store = world.stores[0].clone().comparing();
    let object_of = |id: &ImageId| store.objects().into_iter().find(|object| object.image() == *id).unwrap();
    let told = || -> Vec<ObjectName> {
        let likes = store.calls().into_iter().filter_map(|call| match call {
            StoreCall::Like(object) => Some(object),
            _ => None,
        });
        likes.collect()
    };
    let mut ids = Vec::new();
    for (n, name) in (1..).zip(["debian-12-0101", "debian-11", "ubuntu-24", "debian-12-0201"]) {
        let id = world.create(Image { name: Some(name.into()), ..sample::image(n, 1000) });
        world.registered(&id).await;
        ids.push(id);
    }
    assert_eq!(told(), [object_of(&ids[0]), object_of(&ids[0])], "of the second and of the last image");
}

#[tokio::test(start_paused = true)]
async fn an_object_that_was_not_closed_is_opened_again_where_the_store_finds_what_it_has() {
    for reopens in [true, false] {
        let world = World::start(Options { stores: 1, ..Options::default() });
        let store = if reopens { world.stores[0].clone().reopening() } else { world.stores[0].clone() };
        store.inject(StoreFault::CloseFails(Reason::StoreError));
        let id = world.create(sample::image(1, 2 * CHUNK));
        world
            .until("the first try has failed", async || {
                let record = world.ledger.load(&id).await.unwrap();
                record.is_some_and(|record| record.replicas.values().any(|replica| replica.failure.is_some()))
            })
            .await;
        store.heal();
        world.registered(&id).await;
        let opened = store.calls().into_iter().filter_map(|call| match call {
            StoreCall::Open(object) => Some(object),
            _ => None,
        });
        let opened: Vec<ObjectName> = opened.collect();
        assert_eq!((opened.len(), opened.first() == opened.last()), (2, reopens));
        world.assert_good_copies(&id, 1);
    }
}
