//! Uploads that pass: copied without a second read, after Glance's consent, and never at the upload's cost.

use std::{num::NonZeroUsize, time::Duration};

use futures::TryStreamExt;
use mimeo_core::{ContentHash, HashAlgorithm, Image, ImageId, ImageStatus, ports::Store};
use mimeo_engine::{Bits, Outcome, Upload};
use mimeo_testkit::{StoreCall, StoreFault, sample};
use sha2::{Digest as _, Sha512};
use tokio::{task::JoinHandle, time::Instant};

use crate::world::{Options, World};

const SIZE: usize = 4 << 20;
const CHUNK: usize = 64 << 10;

fn world() -> World {
    World::start(Options { window: NonZeroUsize::new(1 << 20).unwrap(), ..Options::default() })
}

/// An image without bits, as it is before its upload.
fn queued(world: &World) -> ImageId {
    let image = Image { status: ImageStatus::Queued, size: None, ..sample::image(1, 0) };
    let id = image.id.clone();
    world.registry.insert(image, bytes::Bytes::new());
    id
}

async fn begin(world: &World, id: &ImageId) -> (Bits, Outcome, JoinHandle<()>) {
    let Upload { bits, outcome, copying, .. } = world.engine.upload(id, Some(SIZE as u64)).await.unwrap().unwrap();
    #[allow(clippy::disallowed_methods)]
    (bits, outcome, tokio::task::spawn(copying.run()))
}

/// All of it passes.
async fn pass(mut bits: Bits) {
    let all = sample::bits(SIZE);
    for at in (0..SIZE).step_by(CHUNK) {
        bits.pass(all.slice(at..at + CHUNK)).await;
    }
}

/// Glance has taken these bits.
fn active(world: &World, id: &ImageId, bits: &bytes::Bytes) {
    let value = format!("{:x}", Sha512::digest(bits));
    let hash = Some(ContentHash { algorithm: HashAlgorithm::Sha512, value });
    let image =
        Image { status: ImageStatus::Active, size: Some(bits.len() as u64), hash, ..world.registry.image(id).unwrap() };
    world.registry.insert(image, bits.clone());
}

fn set(world: &World, id: &ImageId, status: ImageStatus) {
    world.registry.change(id, |image| image.status = status);
}

fn opened(world: &World) -> usize {
    let is_open = |call: &StoreCall| matches!(call, StoreCall::Open(_));
    world.stores.iter().map(|store| store.calls().iter().filter(|call| is_open(call)).count()).sum()
}

#[tokio::test(start_paused = true)]
async fn an_upload_is_registered_everywhere_and_never_read_from_the_image_service() {
    let world = world();
    let id = queued(&world);
    let (bits, outcome, copying) = begin(&world, &id).await;
    set(&world, &id, ImageStatus::Saving);
    world.changed(&id);
    pass(bits).await;
    active(&world, &id, &sample::bits(SIZE));
    outcome.taken();
    world.registered(&id).await;
    copying.await.unwrap();
    world.assert_good_copies(&id, 3);
    assert_eq!((world.registry.opens(&id), opened(&world)), (0, 3));
    assert_eq!(world.registry.adds().len(), 1, "one PATCH");
}

#[tokio::test(start_paused = true)]
async fn no_store_is_touched_before_the_image_service_shows_that_it_takes_the_upload() {
    let world = world();
    let id = queued(&world);
    let (mut bits, outcome, copying) = begin(&world, &id).await;
    bits.pass(sample::bits(CHUNK)).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((opened(&world), world.ledger_objects(&id).await), (0, 0));
    // It never does.
    pass(bits).await;
    drop(outcome);
    copying.await.unwrap();
    assert_eq!(opened(&world), 0);
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_is_not_taken_leaves_nothing_anywhere() {
    let world = world();
    let id = queued(&world);
    let (bits, outcome, copying) = begin(&world, &id).await;
    set(&world, &id, ImageStatus::Saving);
    pass(bits).await;
    assert_eq!(opened(&world), 3);
    set(&world, &id, ImageStatus::Queued);
    drop(outcome);
    copying.await.unwrap();
    world.until("nothing is left", async || world.objects() + world.ledger_objects(&id).await == 0).await;
    assert!(world.registry.adds().is_empty());
}

#[tokio::test(start_paused = true)]
async fn bits_that_the_image_service_changed_are_not_what_is_registered() {
    let world = world();
    let id = queued(&world);
    let (bits, outcome, copying) = begin(&world, &id).await;
    set(&world, &id, ImageStatus::Saving);
    pass(bits).await;
    let mut converted = sample::bits(SIZE).to_vec();
    converted[0] ^= 1;
    let converted = bytes::Bytes::from(converted);
    active(&world, &id, &converted);
    outcome.taken();
    copying.await.unwrap();
    world.registered(&id).await;
    for location in world.locations(&id) {
        let store =
            world.stores.iter().find(|store| location.starts_with(&format!("http://{}.", store.name()))).unwrap();
        let object = store.objects().into_iter().find(|object| store.location(object) == location).unwrap();
        assert_eq!(store.bits(&object).unwrap(), converted);
    }
    assert_eq!(world.locations(&id).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_stalls_holds_the_upload_up_for_a_moment_and_gets_its_copy_later() {
    for stalling in [1, 3] {
        let world = world();
        let id = queued(&world);
        let (bits, outcome, copying) = begin(&world, &id).await;
        set(&world, &id, ImageStatus::Saving);
        for store in &world.stores[..stalling] {
            store.inject(StoreFault::WriteStalls);
        }
        let began = Instant::now();
        pass(bits).await;
        assert!(began.elapsed() < Duration::from_secs(3), "{:?} with {stalling} stalled", began.elapsed());
        active(&world, &id, &sample::bits(SIZE));
        outcome.taken();
        world.until("the others are registered", async || world.locations(&id).len() == 3 - stalling).await;
        world.stores.iter().for_each(mimeo_testkit::FakeStore::heal);
        world.registered(&id).await;
        world.assert_good_copies(&id, 3);
        copying.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_upload_of_the_same_image_is_not_copied_beside_the_first() {
    let world = world();
    let id = queued(&world);
    let _upload = begin(&world, &id).await;
    assert!(world.engine.upload(&id, None).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_ledger_that_is_down_means_an_upload_without_copies() {
    let world = world();
    let id = queued(&world);
    let (bits, outcome, copying) = begin(&world, &id).await;
    world.ledger.set_down(true);
    set(&world, &id, ImageStatus::Saving);
    pass(bits).await;
    assert_eq!(opened(&world), 0);
    world.ledger.set_down(false);
    active(&world, &id, &sample::bits(SIZE));
    outcome.taken();
    copying.await.unwrap();
    world.registered(&id).await;
    world.assert_good_copies(&id, 3);
}

#[tokio::test(start_paused = true)]
async fn a_registered_copy_gives_any_part_of_the_image_and_hands_on_when_it_breaks() {
    let world = world();
    let id = world.create(sample::image(2, SIZE as u64));
    world.registered(&id).await;
    let before = world.registry.bytes_read(&id);
    let part = async || {
        let bits = world.engine.read_copy(&id, 1000, 100_000).await.unwrap().unwrap();
        bits.try_fold(Vec::new(), async |mut all, bytes| Ok([all.split_off(0), bytes.to_vec()].concat())).await.unwrap()
    };
    assert_eq!(part().await, sample::bits(SIZE)[1000..101_000]);
    assert_eq!(world.registry.bytes_read(&id), before, "not from the image service");
    for store in &world.stores[..2] {
        store.inject(StoreFault::ReadFails(mimeo_core::Reason::StoreUnreachable));
    }
    assert_eq!(part().await, sample::bits(SIZE)[1000..101_000]);
    assert!(world.engine.read_copy(&id, SIZE as u64, 1).await.unwrap().is_none(), "beyond the end");
}
