//! Corners of the transfer: that no store and no image is felt by the others, and that nothing bad is built upon.

use std::{num::NonZero, time::Duration};

use bytes::Bytes;
use mimeo_core::{CHUNK, Hours, Image, ImageId, Limits, Reason, ReplicaState, StoreLimits, ports::Store};
use mimeo_testkit::{StoreCall, StoreFault, sample};
use tokio::time::Instant;

use crate::world::{Options, World};

const MIB: u64 = 1 << 20;

fn limit(world: &World, store: usize, change: impl FnOnce(&mut StoreLimits)) {
    let mut limits = world.engine.limits();
    change(limits.stores.entry(world.stores[store].name().clone()).or_default());
    let _: std::result::Result<_, ()> = world.engine.change_limits(|_| Ok(limits));
}

fn overall(world: &World, change: impl FnOnce(&mut Limits)) {
    let mut limits = world.engine.limits();
    change(&mut limits);
    let _: std::result::Result<_, ()> = world.engine.change_limits(|_| Ok(limits));
}

fn hours(span: &str) -> Hours {
    Hours(vec![span.parse().unwrap()])
}

async fn is_at(world: &World, id: &ImageId, store: usize) -> bool {
    let name = world.stores[store].name();
    let Some(report) = world.report(id).await else { return false };
    report.replicas.iter().any(|it| it.store == *name && it.state == ReplicaState::Registered)
}

async fn at_a_store(world: &World, id: &ImageId, store: usize, most: u64) -> Duration {
    let began = Instant::now();
    while !is_at(world, id, store).await && began.elapsed() < Duration::from_secs(most) {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    began.elapsed()
}

fn opens(world: &World, store: usize) -> usize {
    world.stores[store].calls().iter().filter(|call| matches!(call, StoreCall::Open(_))).count()
}

fn hashed(image: Image) -> Image {
    let bits = sample::bits(usize::try_from(image.size.unwrap()).unwrap());
    let value = format!("{:x}", <sha2::Sha512 as sha2::Digest>::digest(bits));
    Image { hash: Some(mimeo_core::ContentHash { algorithm: mimeo_core::HashAlgorithm::Sha512, value }), ..image }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_failed_for_a_moment_is_tried_again_though_a_slow_one_still_copies() {
    let world = World::start(Options::default());
    limit(&world, 1, |own| own.bandwidth = NonZero::new(10_000));
    world.stores[2].inject(StoreFault::OpenFails(Reason::StoreUnreachable));
    let id = world.create(sample::image(1, 10 * MIB));
    tokio::time::sleep(Duration::from_secs(2)).await;
    world.stores[2].heal();
    let took = at_a_store(&world, &id, 2, 3000).await;
    assert!(took < Duration::from_secs(30), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn images_that_wait_for_one_stores_gate_take_no_turn_from_others() {
    let world = World::start(Options::default());
    limit(&world, 1, |own| own.bandwidth = NonZero::new(10));
    limit(&world, 1, |own| own.concurrency = NonZero::new(1));
    // More than may have a turn at a time.
    for n in 0..270 {
        world.create(sample::image(n, 1000));
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let id = world.create(sample::image(1000, 1000));
    let took = at_a_store(&world, &id, 0, 100).await;
    assert!(took < Duration::from_secs(15), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stores_bandwidth_holds_when_it_is_the_source() {
    let world = World::start(Options { stores: 2, ..Options::default() });
    world.stores[1].inject(StoreFault::OpenFails(Reason::StoreUnreachable));
    let id = world.create(hashed(sample::image(1, 10 * MIB)));
    world.until("one is registered", async || world.locations(&id).len() == 1).await;
    limit(&world, 0, |own| own.bandwidth = NonZero::new(100_000));
    world.stores[1].heal();
    let took = at_a_store(&world, &id, 1, 500).await;
    assert_eq!(world.registry.opens(&id), 1, "read from the copy");
    assert!(took > Duration::from_secs(90), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn what_was_kept_outlives_that_others_are_tried_first() {
    let world = World::start(Options { stores: 1, resumable: true, ..Options::default() });
    limit(&world, 0, |own| own.bandwidth = NonZero::new(4 << 20));
    let ids: Vec<ImageId> = (0..4).map(|n| world.create(sample::image(n, 2 * CHUNK + 1000))).collect();
    world.until("each has more than a chunk", async || world.stores[0].written() > 5 * CHUNK + CHUNK).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    world.stores[0].inject(StoreFault::WriteFails(Reason::StoreUnreachable));
    tokio::time::sleep(Duration::from_millis(600)).await;
    world.stores[0].heal();
    for id in &ids {
        world.registered(id).await;
    }
    assert_eq!(opens(&world, 0), 4, "each was begun once");
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_place_does_not_start_outside_the_hours() {
    let world = World::start(Options { stores: 1, ..Options::default() });
    overall(&world, |limits| limits.concurrency = NonZero::new(1).unwrap());
    overall(&world, |limits| limits.hours = hours("00:00-00:10"));
    limit(&world, 0, |own| own.bandwidth = NonZero::new(10_000));
    for n in 0..3 {
        world.create(sample::image(n, 10 * MIB));
    }
    tokio::time::sleep(Duration::from_mins(9)).await;
    let before = opens(&world, 0);
    tokio::time::sleep(Duration::from_hours(5)).await;
    assert_eq!((before, opens(&world, 0)), (1, 1), "none is started after 00:10");
}

async fn backlog(world: &World) {
    limit(world, 1, |own| own.hours = hours("22:00-23:00"));
    let ids: Vec<ImageId> = (0..100).map(|n| world.create(sample::image(n, 256 << 10))).collect();
    for id in &ids {
        at_a_store(world, id, 0, 1000).await;
    }
}

/// How long a new image takes to the first store, while the backlog goes to the second, which is not what it was.
async fn beside_a_backlog(spoil: impl FnOnce(&World)) -> Duration {
    let world = World::start(Options { stores: 2, ..Options::default() });
    backlog(&world).await;
    spoil(&world);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let id = world.create(sample::image(1000, 300 << 10));
    at_a_store(&world, &id, 0, 3000).await
}

#[tokio::test(start_paused = true)]
async fn a_store_that_died_takes_no_place_from_images_for_others() {
    let died = |world: &World| {
        world.stores[1].inject(StoreFault::WriteStalls);
        limit(world, 1, |own| own.hours = Hours::default());
    };
    let took = beside_a_backlog(died).await;
    assert!(took < Duration::from_secs(15), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_store_takes_no_place_from_images_for_others() {
    let slow = StoreLimits { bandwidth: NonZero::new(20_000), ..StoreLimits::default() };
    let took = beside_a_backlog(|world| limit(world, 1, |own| *own = slow)).await;
    assert!(took < Duration::from_secs(15), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn bad_bytes_of_a_copy_are_not_registered_elsewhere_though_glance_has_no_hash() {
    let world = World::start(Options { stores: 2, ..Options::default() });
    world.stores[1].inject(StoreFault::OpenFails(Reason::StoreUnreachable));
    let id = world.create(Image { hash: None, ..sample::image(1, MIB) });
    world.until("one is registered", async || world.locations(&id).len() == 1).await;
    let bad = world.stores[0].objects()[0].clone();
    world.stores[0].tamper(&bad, Some(Bytes::from(vec![7; 1 << 20])));
    world.stores[1].heal();
    at_a_store(&world, &id, 1, 100).await;
    assert!(is_at(&world, &id, 1).await);
    for object in world.stores[1].objects() {
        assert!(world.stores[1].bits(&object).unwrap() == sample::bits(1 << 20), "bad bytes are registered");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_store_as_a_source_delays_nobody_again_and_again() {
    let world = World::start(Options { stores: 2, ..Options::default() });
    backlog(&world).await;
    world.stores[0].inject(StoreFault::ReadStalls);
    limit(&world, 1, |own| own.hours = Hours::default());
    let began = Instant::now();
    for n in 0..100 {
        at_a_store(&world, &sample::image(n, 1).id, 1, 1000).await;
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(30), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_full_store_is_not_kept_full_by_what_is_not_finished() {
    let world = World::start(Options { stores: 1, resumable: true, ..Options::default() });
    limit(&world, 0, |own| own.bandwidth = NonZero::new(4 << 20));
    world.create(sample::image(1, 3 * CHUNK));
    world.until("a part is there", async || world.stores[0].written() > 2 * CHUNK).await;
    world.stores[0].inject(StoreFault::WriteFails(Reason::StoreFull));
    tokio::time::sleep(Duration::from_secs(1000)).await;
    let object = world.stores[0].calls().into_iter().find_map(|call| match call {
        StoreCall::Open(object) => Some(object),
        _ => None,
    });
    let reads = world.stores[0].calls().iter().filter(|call| matches!(call, StoreCall::Read(..))).count();
    let left = world.stores[0].kept(&object.unwrap()).await.unwrap();
    assert_eq!((left, reads), (0, 0), "bytes that are left, times that they were read anew");
}
