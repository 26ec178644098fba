//! A copy that was broken off goes on where the store can, with what is shown to be right, and nowhere else.

use std::{num::NonZero, time::Duration};

use bytes::Bytes;
use mimeo_core::{
    CHUNK, ImageId, ObjectName, Reason, StoreLimits,
    ports::{Ledger, Store},
};
use mimeo_testkit::{StoreCall, StoreFault, sample};

use crate::world::{Options, World};

const SIZE: u64 = 4 * CHUNK + 1000;

/// Bytes that differ from block to block.
fn bits() -> Bytes {
    let mut bits = Vec::new();
    for block in 1_u32.. {
        let length = (SIZE - bits.len() as u64).min(64 << 10);
        if length == 0 {
            break;
        }
        bits.resize(bits.len() + usize::try_from(length).unwrap(), u8::try_from(block % 251).unwrap() + 1);
    }
    bits.into()
}

/// One store, 4 MiB/s slow, that has more than two chunks of the image by now.
async fn half_way(resumable: bool) -> (World, ImageId) {
    let world = World::start(Options { stores: 1, resumable, ..Options::default() });
    let mut limits = world.engine.limits();
    let own = StoreLimits { bandwidth: NonZero::new(4 << 20), ..StoreLimits::default() };
    limits.stores.insert(world.stores[0].name().clone(), own);
    let _: Result<_, ()> = world.engine.change_limits(|_| Ok(limits));
    let image = sample::image(1, SIZE);
    let id = image.id.clone();
    world.registry.insert(image, bits());
    world.changed(&id);
    world.until("more than two chunks are there", async || world.stores[0].written() > 2 * CHUNK + (1 << 20)).await;
    // The digests of what has passed are written down now and then.
    tokio::time::sleep(Duration::from_secs(2)).await;
    (world, id)
}

/// The object that was begun first.
fn opened(world: &World) -> ObjectName {
    let calls = world.stores[0].calls().into_iter();
    let mut opens = calls.filter_map(|call| match call {
        StoreCall::Open(object) => Some(object),
        _ => None,
    });
    opens.next().unwrap()
}

async fn restart(world: &mut World) {
    world.kill().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.serve();
}

fn assert_right(world: &World, id: &ImageId) {
    let [object] = &world.stores[0].objects()[..] else { panic!("one object: {:?}", world.stores[0].objects()) };
    assert!(world.locations(id).contains(&world.stores[0].location(object)));
    assert!(world.stores[0].bits(object).unwrap() == bits(), "its bytes are the image's");
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_what_was_kept_is_proven_and_not_sent_again() {
    let (mut world, id) = half_way(true).await;
    restart(&mut world).await;
    world.registered(&id).await;
    assert_right(&world, &id);
    let calls = world.stores[0].calls();
    let opens = calls.iter().filter(|call| matches!(call, StoreCall::Open(_))).count();
    let from = calls.iter().find_map(|call| match call {
        StoreCall::Resume(_, from) => Some(*from),
        _ => None,
    });
    assert_eq!((opens, from), (1, Some(2 * CHUNK)));
    assert!(world.stores[0].written() < SIZE + 2 * CHUNK, "{} bytes were sent", world.stores[0].written());
    assert!(world.ledger.chunks(&id).await.unwrap().is_empty(), "nothing of it is kept for ever");
}

#[tokio::test(start_paused = true)]
async fn kept_bytes_that_changed_meanwhile_are_not_built_upon() {
    for (at, from) in [(CHUNK + 5, Some(CHUNK)), (5, None)] {
        let (mut world, id) = half_way(true).await;
        world.kill().await;
        let object = opened(&world);
        let mut bad = bits()[..usize::try_from(2 * CHUNK + 100).unwrap()].to_vec();
        bad[usize::try_from(at).unwrap()] ^= 1;
        world.stores[0].tamper(&object, Some(bad.into()));
        world.serve();
        world.registered(&id).await;
        let resumed = world.stores[0].calls().into_iter().find_map(|call| match call {
            StoreCall::Resume(_, from) => Some(from),
            _ => None,
        });
        assert_eq!(resumed, from);
        world.until("one object is left", async || world.stores[0].objects().len() == 1).await;
        assert_right(&world, &id);
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_broke_off_goes_on_when_it_is_back() {
    let (world, id) = half_way(true).await;
    let fault = StoreFault::WriteFails(Reason::StoreUnreachable);
    world.stores[0].inject(fault);
    tokio::time::sleep(Duration::from_secs(3)).await;
    world.stores[0].heal();
    world.registered(&id).await;
    assert_right(&world, &id);
    assert!(
        world.stores[0].calls().iter().any(|call| matches!(call, StoreCall::Resume(_, from) if *from >= 2 * CHUNK))
    );
}

#[tokio::test(start_paused = true)]
async fn where_the_store_keeps_nothing_the_copy_begins_anew_and_nothing_is_left() {
    let (mut world, id) = half_way(false).await;
    restart(&mut world).await;
    world.registered(&id).await;
    world.until("one object is left", async || world.stores[0].objects().len() == 1).await;
    assert_right(&world, &id);
    let opens = world.stores[0].calls().iter().filter(|call| matches!(call, StoreCall::Open(_))).count();
    assert_eq!(opens, 2);
}

#[tokio::test(start_paused = true)]
async fn the_partial_copy_of_an_image_that_is_deleted_is_removed() {
    let (mut world, id) = half_way(true).await;
    world.kill().await;
    world.registry.remove(&id);
    world.serve();
    world.delete(&id);
    let left = async || world.stores[0].kept(&opened(&world)).await.unwrap();
    world.until("nothing of it is left", async || left().await == 0).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_kept_and_cannot_be_read_is_gone_on_with_and_proven_with_the_rest() {
    for is_right in [true, false] {
        let (mut world, id) = half_way(true).await;
        world.kill().await;
        world.stores[0].inject(StoreFault::KeptIsHidden);
        let mut kept = bits()[..usize::try_from(2 * CHUNK + 100).unwrap()].to_vec();
        kept[5] ^= u8::from(!is_right);
        let first = opened(&world);
        world.stores[0].tamper(&first, Some(kept.into()));
        world.serve();
        world.registered(&id).await;
        let calls = world.stores[0].calls();
        assert!(calls.contains(&StoreCall::Resume(first.clone(), 2 * CHUNK)), "{calls:?}");
        world.until("one object is left", async || world.stores[0].objects().len() == 1).await;
        assert_right(&world, &id);
        assert_eq!(world.stores[0].objects()[0] == first, is_right, "what was wrong was written anew");
    }
}
