//! Free space, asked for before a large copy begins.

use std::num::NonZero;

use mimeo_core::{ImageId, Reason, StoreLimits, ports::Store};
use mimeo_testkit::{StoreCall, StoreFault, sample};

use crate::world::{Options, World};

const SIZE: u64 = 65 << 20;

/// A world with one store, which tells how much room it has of so many bytes.
fn world(capacity: u64) -> World {
    let world = World::start(Options { stores: 1, ..Options::default() });
    let _told = world.stores[0].clone().of_size(capacity);
    world
}

fn opened(world: &World) -> usize {
    world.stores[0].calls().iter().filter(|call| matches!(call, StoreCall::Open(_))).count()
}

/// What the image's replica waits for.
async fn refusal(world: &World, id: &ImageId) -> Option<String> {
    let failure = world.report(id).await?.replicas.pop()?.reason?;
    (failure.code == Reason::StoreFull.code()).then_some(failure.message)
}

#[tokio::test(start_paused = true)]
async fn a_large_image_without_room_is_refused_with_numbers_before_anything_is_sent() {
    let world = world(SIZE - 1);
    let id = world.create(sample::image(1, SIZE));
    world.until("it is refused", async || refusal(&world, &id).await.is_some()).await;
    let message = refusal(&world, &id).await.unwrap();
    assert!(message.starts_with("store0: it has room for 68157439 bytes, and this copy needs 68157440: "), "{message}");
    assert_eq!(opened(&world), 0);
    let _told = world.stores[0].clone().of_size(SIZE);
    world.registered(&id).await;
    world.assert_good_copies(&id, 1);
}

#[tokio::test(start_paused = true)]
async fn what_running_copies_are_still_to_take_is_taken() {
    let world = world(SIZE + SIZE / 2);
    let slow = StoreLimits { bandwidth: NonZero::new(1 << 20), ..StoreLimits::default() };
    let _: Result<_, ()> = world.engine.change_limits(|now| {
        let mut limits = now.clone();
        limits.stores.insert(world.stores[0].name().clone(), slow);
        Ok(limits)
    });
    let first = world.create(sample::image(1, SIZE));
    world.until("the first is begun", async || opened(&world) == 1).await;
    let second = world.create(sample::image(2, SIZE));
    world.until("the second is refused", async || refusal(&world, &second).await.is_some()).await;
    let message = refusal(&world, &second).await.unwrap();
    assert!(message.contains(", of which copies that run will take "), "{message}");
    assert_eq!(opened(&world), 1, "the first goes on, the second was not begun");
    world.registered(&first).await;
    let _told = world.stores[0].clone().of_size(3 * SIZE);
    world.registered(&second).await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_cannot_be_asked_is_believed_to_have_room() {
    for fault in [StoreFault::RoomFails(Reason::StoreUnreachable), StoreFault::RoomStalls] {
        let world = world(0);
        world.stores[0].inject(fault);
        let id = world.create(sample::image(1, SIZE));
        world.registered(&id).await;
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_for_a_small_image() {
    let world = world(0);
    let id = world.create(sample::image(1, 1 << 20));
    world.registered(&id).await;
}
