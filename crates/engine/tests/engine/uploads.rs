//! Uploads that pass: copied without a second read, after Glance's consent, and never at the upload's cost.

use std::{num::NonZeroUsize, time::Duration};

use futures::TryStreamExt;
use mimeo_core::{ContentHash, HashAlgorithm, Image, ImageId, ImageStatus, ReplicaState, ports::Store};
use mimeo_engine::{Becomes, Bits, Outcome, Upload};
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
    begin_to(world, id, Becomes::Image).await
}

async fn begin_to(world: &World, id: &ImageId, becomes: Becomes) -> (Bits, Outcome, JoinHandle<()>) {
    let upload = world.engine.upload(id, becomes, Some(SIZE as u64)).await.unwrap().unwrap();
    let Upload { bits, outcome, copying, .. } = upload;
    #[allow(clippy::disallowed_methods)]
    (bits, outcome, tokio::task::spawn(copying.run()))
}

/// All of it passes.
async fn pass(bits: Bits) {
    pass_all(bits, &sample::bits(SIZE)).await;
}

async fn pass_all(mut bits: Bits, all: &bytes::Bytes) {
    for at in (0..all.len()).step_by(CHUNK) {
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
async fn whoever_was_refused_cannot_go_on_to_send_bits_while_another_uploads() {
    let world = world();
    let id = queued(&world);
    for has_begun in [false, true] {
        let (mut bits, outcome, copying) = begin(&world, &id).await;
        if has_begun {
            bits.pass(sample::bits(CHUNK)).await;
        }
        // Its turn is over with the answer, however long it keeps its connection.
        drop(outcome);
        copying.await.unwrap();
        set(&world, &id, ImageStatus::Saving);
        pass(bits).await;
        assert_eq!((opened(&world), world.ledger_objects(&id).await), (0, 0));
        set(&world, &id, ImageStatus::Queued);
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_glance_took_before_it_was_seen_to_is_copied_all_the_same() {
    let world = world();
    let id = queued(&world);
    let all = sample::bits(CHUNK);
    let upload = world.engine.upload(&id, Becomes::Image, Some(CHUNK as u64)).await.unwrap().unwrap();
    let Upload { mut bits, outcome, copying, .. } = upload;
    #[allow(clippy::disallowed_methods)]
    let copying = tokio::task::spawn(copying.run());
    bits.pass(all.clone()).await;
    drop(bits);
    // It shows the image as queued when it is asked, and then is done at once.
    tokio::task::yield_now().await;
    active(&world, &id, &all);
    outcome.taken();
    copying.await.unwrap();
    world.registered(&id).await;
    assert_eq!((world.registry.opens(&id), opened(&world)), (0, 3));
}

#[tokio::test(start_paused = true)]
async fn what_another_upload_made_of_the_image_is_no_consent() {
    let world = world();
    let id = queued(&world);
    let (mut bits, _outcome, copying) = begin(&world, &id).await;
    assert!(world.engine.upload(&id, Becomes::Image, None).await.unwrap().is_none(), "it goes on without copies");
    set(&world, &id, ImageStatus::Saving);
    bits.pass(sample::bits(CHUNK)).await;
    copying.await.unwrap();
    assert_eq!((opened(&world), world.ledger_objects(&id).await), (0, 0));
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
    assert_registered_as(&world, &id, &converted);
}

fn assert_registered_as(world: &World, id: &ImageId, bits: &bytes::Bytes) {
    for location in world.locations(id) {
        let store =
            world.stores.iter().find(|store| location.starts_with(&format!("http://{}.", store.name()))).unwrap();
        let object = store.objects().into_iter().find(|object| store.location(object) == location).unwrap();
        assert_eq!(store.bits(&object).unwrap(), bits);
    }
    assert_eq!(world.locations(id).len(), 3);
}

fn other_bits() -> bytes::Bytes {
    sample::bits(SIZE).iter().map(|byte| !byte).collect()
}

/// These bits are staged, and every store has them.
async fn stage(world: &World, id: &ImageId, all: &bytes::Bytes) {
    let (bits, outcome, copying) = begin_to(world, id, Becomes::Staged).await;
    set(world, id, ImageStatus::Uploading);
    pass_all(bits, all).await;
    world.registry.change(id, |image| image.size = Some(all.len() as u64));
    outcome.taken();
    copying.await.unwrap();
    let report = world.report(id).await.unwrap();
    assert!(report.replicas.iter().all(|replica| replica.state == ReplicaState::Stored), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn what_was_copied_as_it_was_staged_is_proven_and_registered_after_the_import_and_not_read_again() {
    let world = world();
    let id = queued(&world);
    stage(&world, &id, &sample::bits(SIZE)).await;
    world.changed(&id);
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert_eq!((world.objects(), world.registry.adds().len()), (3, 0));
    set(&world, &id, ImageStatus::Importing);
    world.changed(&id);
    active(&world, &id, &sample::bits(SIZE));
    world.changed(&id);
    world.registered(&id).await;
    world.assert_good_copies(&id, 3);
    assert_eq!((world.registry.opens(&id), opened(&world), world.registry.adds().len()), (0, 3, 1));
}

#[tokio::test(start_paused = true)]
async fn an_import_that_is_quicker_than_a_store_waits_for_none_of_the_others() {
    let world = world();
    let id = queued(&world);
    let (bits, outcome, copying) = begin_to(&world, &id, Becomes::Staged).await;
    set(&world, &id, ImageStatus::Uploading);
    world.stores[2].inject(StoreFault::CloseStalls);
    pass(bits).await;
    world.registry.change(&id, |image| image.size = Some(SIZE as u64));
    outcome.taken();
    tokio::time::sleep(Duration::from_secs(1)).await;
    active(&world, &id, &sample::bits(SIZE));
    world.changed(&id);
    world.until("the others are registered", async || world.locations(&id).len() == 2).await;
    assert!(!copying.is_finished(), "one is still being closed");
    world.stores[2].heal();
    world.registered(&id).await;
    world.assert_good_copies(&id, 3);
}

#[tokio::test(start_paused = true)]
async fn what_an_import_made_other_bits_of_is_copied_anew() {
    let world = world();
    let id = queued(&world);
    stage(&world, &id, &sample::bits(SIZE)).await;
    let staged = world.stores[0].objects()[0].clone();
    let converted = sample::bits(SIZE / 2);
    active(&world, &id, &converted);
    world.changed(&id);
    world.registered(&id).await;
    assert_registered_as(&world, &id, &converted);
    let is_read = |call: &StoreCall| matches!(call, StoreCall::Read(object, _) if *object == staged);
    assert!(!world.stores[0].calls().iter().any(is_read), "no store is to blame for it");
    world.until("the others are gone", async || world.objects() == 3).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_staged_goes_with_its_image_and_when_the_import_came_to_nothing() {
    let world = world();
    for is_deleted in [true, false] {
        let id = queued(&world);
        stage(&world, &id, &sample::bits(SIZE)).await;
        if is_deleted {
            world.delete(&id);
        } else {
            world.registry.change(&id, |image| (image.status, image.size) = (ImageStatus::Queued, None));
            world.changed(&id);
        }
        world.until("nothing is left", async || world.objects() + world.ledger_objects(&id).await == 0).await;
    }
    assert!(world.registry.adds().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_staged_or_uploaded_again_replaces_what_was_staged_before() {
    for again in [Becomes::Staged, Becomes::Image] {
        let world = world();
        let id = queued(&world);
        stage(&world, &id, &sample::bits(SIZE)).await;
        // Nobody looked at it between the two.
        world.registry.change(&id, |image| (image.status, image.size) = (ImageStatus::Queued, None));
        if again == Becomes::Staged {
            stage(&world, &id, &other_bits()).await;
            active(&world, &id, &other_bits());
        } else {
            let (bits, outcome, copying) = begin(&world, &id).await;
            set(&world, &id, ImageStatus::Saving);
            pass_all(bits, &other_bits()).await;
            active(&world, &id, &other_bits());
            outcome.taken();
            copying.await.unwrap();
        }
        world.changed(&id);
        world.registered(&id).await;
        assert_registered_as(&world, &id, &other_bits());
        world.until("the others are gone", async || world.objects() == 3).await;
        assert_eq!(world.registry.opens(&id), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn what_did_not_pass_whole_is_no_copy_of_what_was_staged() {
    let world = world();
    let id = queued(&world);
    let (bits, outcome, copying) = begin_to(&world, &id, Becomes::Staged).await;
    set(&world, &id, ImageStatus::Uploading);
    pass_all(bits, &sample::bits(SIZE).slice(..SIZE / 2)).await;
    world.registry.change(&id, |image| image.size = Some(SIZE as u64));
    outcome.taken();
    copying.await.unwrap();
    world.until("nothing is left", async || world.objects() + world.ledger_objects(&id).await == 0).await;
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
    assert!(world.engine.upload(&id, Becomes::Image, None).await.unwrap().is_none());
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
        let bits = world.engine.read_copy(&id, 1000..101_000, SIZE as u64).await.unwrap().unwrap();
        bits.try_fold(Vec::new(), async |mut all, bytes| Ok([all.split_off(0), bytes.to_vec()].concat())).await.unwrap()
    };
    assert_eq!(part().await, sample::bits(SIZE)[1000..101_000]);
    assert_eq!(world.registry.bytes_read(&id), before, "not from the image service");
    for store in &world.stores[..2] {
        store.inject(StoreFault::ReadFails(mimeo_core::Reason::StoreUnreachable));
    }
    assert_eq!(part().await, sample::bits(SIZE)[1000..101_000]);
    assert!(
        world.engine.read_copy(&id, SIZE as u64..SIZE as u64 + 1, SIZE as u64).await.unwrap().is_none(),
        "beyond the end"
    );
    assert!(world.engine.read_copy(&id, 0..10, 10).await.unwrap().is_none(), "another image has been granted");
}
