//! Limits, each in virtual time: how many, how fast, when; and that a change of them is felt by what runs.

use std::{num::NonZero, time::Duration};

use mimeo_core::{Hours, ImageId, Limits, Reason, ReplicaState, StoreLimits, ports::Store};
use mimeo_testkit::{StoreCall, StoreFault, sample};
use tokio::time::Instant;

use crate::world::{Options, World};

const MIB: u64 = 1 << 20;

/// Other limits for one store.
fn limit(world: &World, store: usize, change: impl FnOnce(&mut StoreLimits)) {
    let mut limits = world.engine.limits();
    change(limits.stores.entry(world.stores[store].name().clone()).or_default());
    let _: Result<_, ()> = world.engine.change_limits(|_| Ok(limits));
}

fn overall(world: &World, change: impl FnOnce(&mut Limits)) {
    let mut limits = world.engine.limits();
    change(&mut limits);
    let _: Result<_, ()> = world.engine.change_limits(|_| Ok(limits));
}

fn hours(span: &str) -> Hours {
    Hours(vec![span.parse().unwrap()])
}

async fn at_a_store(world: &World, id: &ImageId, store: usize) -> Duration {
    let began = Instant::now();
    let name = world.stores[store].name();
    let registered = async || {
        let report = world.report(id).await.unwrap();
        report.replicas.iter().any(|it| it.store == *name && it.state == ReplicaState::Registered)
    };
    world.until("the replica is registered", registered).await;
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_stores_bandwidth_holds_for_writing_and_reading_back_and_holds_up_no_other() {
    let world = World::start(Options::default());
    limit(&world, 1, |own| own.bandwidth = NonZero::new(MIB));
    let id = world.create(sample::image(1, 10 * MIB));
    assert!(at_a_store(&world, &id, 0).await < Duration::from_secs(5));
    assert!(at_a_store(&world, &id, 2).await < Duration::from_secs(5));
    let limited = at_a_store(&world, &id, 1).await;
    assert!((15..30).contains(&limited.as_secs()), "{limited:?}");
    world.assert_good_copies(&id, 3);
}

#[tokio::test(start_paused = true)]
async fn the_bandwidth_of_everything_counts_all_that_is_read_and_written() {
    let world = World::start(Options::default());
    overall(&world, |limits| limits.bandwidth = NonZero::new(MIB));
    let id = world.create(sample::image(1, 10 * MIB));
    let began = Instant::now();
    world.registered(&id).await;
    // Read once, written to three, read back from three.
    let took = began.elapsed();
    assert!((65..90).contains(&took.as_secs()), "{took:?}");
    assert_eq!(world.registry.opens(&id), 1);
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_is_lifted_is_felt_by_the_copy_that_runs() {
    let world = World::start(Options { stores: 1, ..Options::default() });
    limit(&world, 0, |own| own.bandwidth = NonZero::new(1000));
    let id = world.create(sample::image(1, 10 * MIB));
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert!(world.locations(&id).is_empty());
    limit(&world, 0, |own| own.bandwidth = None);
    assert!(at_a_store(&world, &id, 0).await < Duration::from_secs(5));
    let opens = world.stores[0].calls().iter().filter(|call| matches!(call, StoreCall::Open(_))).count();
    assert_eq!(opens, 1, "the copy was not begun anew");
}

/// The most objects that were being written at one time.
fn most_at_once(world: &World, store: usize) -> i32 {
    let (mut open, mut most) = (0, 0);
    for call in world.stores[store].calls() {
        match call {
            StoreCall::Open(_) => open += 1,
            StoreCall::Close(_) | StoreCall::Abort(_) => open -= 1,
            _ => {}
        }
        most = most.max(open);
    }
    most
}

#[tokio::test(start_paused = true)]
async fn no_more_copies_run_to_a_store_than_it_allows_and_the_other_stores_do_not_wait_for_it() {
    let world = World::start(Options::default());
    limit(&world, 1, |own| own.concurrency = NonZero::new(1));
    world.stores[1].inject(StoreFault::WriteStalls);
    let ids: Vec<ImageId> = (0..4).map(|n| world.create(sample::image(n, MIB))).collect();
    for id in &ids {
        let both = async || world.locations(id).len() == 2;
        world.until("the other two are registered", both).await;
    }
    world.stores[1].heal();
    for id in &ids {
        world.registered(id).await;
        world.assert_good_copies(id, 3);
    }
    assert_eq!(most_at_once(&world, 1), 1);
    assert!(most_at_once(&world, 0) > 1);
}

#[tokio::test(start_paused = true)]
async fn as_many_images_are_read_at_once_as_the_limit_says_also_after_a_change() {
    let world = World::start(Options { stores: 1, ..Options::default() });
    overall(&world, |limits| limits.concurrency = NonZero::new(2).unwrap());
    world.stores[0].inject(StoreFault::WriteStalls);
    let ids: Vec<ImageId> = (0..8).map(|n| world.create(sample::image(n, MIB))).collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(most_at_once(&world, 0), 2);
    overall(&world, |limits| limits.concurrency = NonZero::new(4).unwrap());
    tokio::time::sleep(Duration::from_secs(1)).await;
    // Half of the memory is with those that were there before.
    assert_eq!(most_at_once(&world, 0), 2);
    overall(&world, |limits| limits.memory = limits.memory.saturating_mul(NonZero::new(2).unwrap()));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(most_at_once(&world, 0), 4);
    world.stores[0].heal();
    for id in &ids {
        world.registered(id).await;
    }
}

#[tokio::test(start_paused = true)]
async fn outside_a_stores_hours_its_copies_wait_and_then_start_and_one_that_runs_is_not_cut_off() {
    let world = World::start(Options::default());
    // It is midnight, virtually.
    limit(&world, 1, |own| own.hours = hours("00:10-00:11"));
    limit(&world, 1, |own| own.bandwidth = NonZero::new(100_000));
    let id = world.create(sample::image(1, 10 * MIB));
    world.until("the others are registered", async || world.locations(&id).len() == 2).await;
    let report = world.report(&id).await.unwrap();
    let waiting = &report.replicas[1];
    let reason = waiting.reason.as_ref().map(|reason| reason.code.clone());
    assert_eq!((waiting.state, reason.as_deref()), (ReplicaState::Wanted, Some(Reason::OutsideHours.code())));
    assert_eq!(waiting.next_try, Some(sample::time(600)));
    // 10 MiB at that rate take longer than the minute.
    let took = at_a_store(&world, &id, 1).await;
    assert!((590..900).contains(&took.as_secs()), "{took:?}");
    assert_eq!(most_at_once(&world, 1), 1);
}

#[tokio::test(start_paused = true)]
async fn hours_that_are_changed_start_what_waited_for_them() {
    let world = World::start(Options::default());
    overall(&world, |limits| limits.hours = hours("22:00-23:00"));
    let id = world.create(sample::image(1, MIB));
    tokio::time::sleep(Duration::from_mins(5)).await;
    assert!(world.locations(&id).is_empty());
    overall(&world, |limits| limits.hours = Hours::default());
    assert!(at_a_store(&world, &id, 0).await < Duration::from_secs(5));
    world.registered(&id).await;
}
