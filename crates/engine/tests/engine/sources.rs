//! Where copies are read from: the image service once, proven copies where there are any, and never a liar twice.

use std::time::Duration;

use bytes::Bytes;
use mimeo_core::{ContentHash, Error, HashAlgorithm, Image, Reason, ReplicaState, ports::Store};
use mimeo_testkit::{AddAnswer, RegistryFault, StoreCall, StoreFault, sample};
use sha2::{Digest as _, Sha512};

use crate::world::{Options, World};

const SIZE: usize = 1 << 20;

fn hashed(n: u32) -> Image {
    let value = format!("{:x}", Sha512::digest(sample::bits(SIZE)));
    Image { hash: Some(ContentHash { algorithm: HashAlgorithm::Sha512, value }), ..sample::image(n, SIZE as u64) }
}

/// An image that is registered at the first two stores, while the third could not be opened.
async fn third_is_missing(world: &World) -> mimeo_core::ImageId {
    world.stores[2].inject(StoreFault::OpenFails(Reason::StoreUnreachable));
    let id = world.create(hashed(1));
    world.until("two are registered", async || world.locations(&id).len() == 2).await;
    id
}

#[tokio::test(start_paused = true)]
async fn a_later_copy_is_read_from_a_proven_one_and_the_image_service_is_spared() {
    let world = World::start(Options::default());
    let id = third_is_missing(&world).await;
    world.stores[2].heal();
    world.registered(&id).await;
    world.assert_good_copies(&id, 3);
    assert_eq!(world.registry.bytes_read(&id), SIZE as u64, "read once, for the first two");
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_cannot_be_read_hands_on_to_the_next_and_at_last_to_the_image_service() {
    let world = World::start(Options::default());
    let id = third_is_missing(&world).await;
    for store in &world.stores[..2] {
        store.inject(StoreFault::ReadFails(Reason::StoreUnreachable));
    }
    world.stores[2].heal();
    world.until("the third is there", async || world.locations(&id).len() == 3).await;
    world.assert_good_copies(&id, 3);
    assert_eq!(world.registry.bytes_read(&id), 2 * SIZE as u64);
}

#[tokio::test(start_paused = true)]
async fn a_copy_whose_bytes_went_bad_is_found_out_when_it_is_read_and_rebuilt() {
    let world = World::start(Options::default());
    let id = third_is_missing(&world).await;
    let bad = world.stores[0].objects()[0].clone();
    world.stores[0].tamper(&bad, Some(Bytes::from(vec![7; SIZE])));
    world.stores[2].heal();
    let good_at = |store: usize| {
        let image = world.registry.image(&id).unwrap();
        let store = &world.stores[store];
        let mut objects = store.objects().into_iter().filter(|object| image.has_location(&store.location(object)));
        objects.any(|object| store.bits(&object).unwrap() == sample::bits(SIZE))
    };
    world.until("the third has the image's own bytes", async || good_at(2)).await;
    world.until("the first has them again", async || good_at(0)).await;
    let wrong = world.stores[2].calls().iter().filter(|call| matches!(call, StoreCall::Close(_))).count();
    assert_eq!(wrong, 1, "the bad copy's bytes were never published elsewhere");
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_went_bad_is_not_registered_unread_though_the_ledger_did_not_take_the_doubt() {
    let world = World::start(Options { stores: 2, ..Options::default() });
    world.registry.on_add(|_, _, _| AddAnswer::Refuse(Error::new(Reason::ImageServiceError, "not now")));
    world.stores[1].inject(StoreFault::OpenFails(Reason::StoreUnreachable));
    let id = world.create(hashed(1));
    let state = async |store: usize| world.report(&id).await.map(|report| report.replicas[store].state);
    world.until("the first waits to be registered", async || state(0).await == Some(ReplicaState::Proven)).await;
    let bad = world.stores[0].objects()[0].clone();
    world.stores[0].tamper(&bad, Some(Bytes::from(vec![7; SIZE])));
    world.ledger.refuse(Some(world.stores[0].name()));
    world.stores[1].heal();
    let reason = async |store: usize| world.report(&id).await.unwrap().replicas[store].reason.clone().unwrap().code;
    world.until("the second got other bytes", async || reason(1).await != Reason::StoreUnreachable.code()).await;
    world.registry.on_add(|_, _, _| AddAnswer::Apply);
    tokio::time::sleep(Duration::from_mins(10)).await;
    let bad = world.stores[0].location(&bad);
    assert!(!world.registry.image(&id).unwrap().has_location(&bad), "no look goes on without the note");
    world.ledger.refuse(None);
    world.registered(&id).await;
    world.assert_good_copies(&id, 2);
}

/// Glance tells no hash, and gives a copy that has gone bad.
#[tokio::test(start_paused = true)]
async fn what_differs_from_the_copies_of_an_image_without_a_hash_is_not_copied() {
    let world = World::start(Options::default());
    world.stores[2].inject(StoreFault::OpenFails(Reason::StoreUnreachable));
    let id = world.create(sample::image(1, SIZE as u64));
    world.until("two are registered", async || world.locations(&id).len() == 2).await;
    let bad = world.stores[0].objects()[0].clone();
    world.stores[0].tamper(&bad, Some(Bytes::from(vec![7; SIZE])));
    world.registry.inject(RegistryFault::SourceReadsOther);
    world.stores[2].heal();
    let reason = async || world.report(&id).await.unwrap().replicas[2].reason.clone().map(|reason| reason.code);
    world.until("it is seen", async || reason().await.as_deref() == Some(Reason::SourceMismatch.code())).await;
    world.until("the bad one is found and withdrawn", async || world.locations(&id).len() == 1).await;
    world.registry.heal();
    world.registered(&id).await;
    world.assert_good_copies(&id, 3);
}

/// Its store need not answer for that.
#[tokio::test(start_paused = true)]
async fn what_the_only_copy_of_an_image_without_a_hash_was_counts_while_its_store_is_away() {
    let world = World::start(Options { stores: 2, ..Options::default() });
    world.stores[1].inject(StoreFault::OpenFails(Reason::StoreUnreachable));
    let id = world.create(sample::image(1, SIZE as u64));
    world.until("one is registered", async || world.locations(&id).len() == 1).await;
    world.stores[0].inject(StoreFault::ProbeFails(Reason::StoreUnreachable));
    world.stores[0].inject(StoreFault::ReadFails(Reason::StoreUnreachable));
    let state = async || world.report(&id).await.unwrap().replicas[0].state;
    world.until("its store is down", async || state().await == ReplicaState::Suspect).await;
    world.registry.inject(RegistryFault::SourceReadsOther);
    world.stores[1].heal();
    let reason = async || world.report(&id).await.unwrap().replicas[1].reason.clone().map(|reason| reason.code);
    world.until("it is seen", async || reason().await.as_deref() == Some(Reason::SourceMismatch.code())).await;
    world.registry.heal();
    world.stores[0].heal();
    world.registered(&id).await;
    world.assert_good_copies(&id, 2);
}

#[tokio::test(start_paused = true)]
async fn a_slow_store_leaves_the_image_service_for_the_first_proven_copy() {
    let world = World::start(Options::default());
    world.stores[1].inject(StoreFault::WriteStalls);
    let id = world.create(hashed(1));
    world.until("the others are registered", async || world.locations(&id).len() == 2).await;
    // From here on the image service gives nothing any more.
    world.registry.inject(RegistryFault::SourceFails(Reason::SourceUnreadable));
    world.stores[1].heal();
    world.until("the slow one is there", async || world.locations(&id).len() == 3).await;
    let first_try = world.stores[1].calls().iter().filter(|call| matches!(call, StoreCall::Open(_))).count();
    assert_eq!(first_try, 1, "its upload was not begun anew");
    world.assert_good_copies(&id, 3);
}

#[tokio::test(start_paused = true)]
async fn where_only_copies_were_read_a_wrong_hash_is_not_held_against_the_original() {
    let world = World::start(Options::default());
    let id = third_is_missing(&world).await;
    world.stores[0].inject(StoreFault::ReadsOther);
    world.stores[1].inject(StoreFault::ReadsOther);
    world.stores[2].heal();
    let third = async || world.report(&id).await.unwrap().replicas[2].state == ReplicaState::Registered;
    world.until("the third is there", third).await;
    let report = world.report(&id).await.unwrap();
    let damaged =
        |reason: &str| report.replicas.iter().any(|it| it.reason.as_ref().is_some_and(|it| it.code == reason));
    assert!(!damaged(Reason::SourceMismatch.code()));
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_comes_due_during_a_proof_has_something_to_read() {
    let world = World::start(Options { stores: 2, ..Options::default() });
    world.stores[0].inject(StoreFault::ReadStalls);
    world.stores[1].inject(StoreFault::WriteFails(Reason::StoreUnreachable));
    let id = world.create(hashed(1));
    for _ in 0..1000 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let reason = world.report(&id).await.and_then(|it| it.replicas[1].reason.clone());
        assert!(reason.as_ref().is_none_or(|it| it.code == Reason::StoreUnreachable.code()), "{reason:?}");
    }
}
