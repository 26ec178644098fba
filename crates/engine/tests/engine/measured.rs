//! What is measured, over fakes.

use std::time::Duration;

use mimeo_core::{ImageId, Reason, StoreName};
use mimeo_engine::{
    Lags, Measured,
    status::{StoreHealth, StoreReport},
};
use mimeo_testkit::{RegistryFault, StoreCall, StoreFault, sample};

use crate::world::{Options, World};

/// A rule for one of the two stores.
fn one() -> Options {
    Options { rules: &[(&["store1"], None)], ..two() }
}

fn two() -> Options {
    Options { stores: 2, ..Options::default() }
}

fn store(name: &str) -> StoreName {
    name.parse().unwrap()
}

fn lags<'a>(measured: &'a Measured, rule: &str, name: &str) -> Option<&'a Lags> {
    measured.counts.lags.get(&(rule.to_owned(), store(name)))
}

fn failures(measured: &Measured, name: &str, reason: Reason) -> Option<u64> {
    measured.counts.failures.get(&(Some(store(name)), reason.code())).copied()
}

fn opens(world: &World, store: usize) -> u64 {
    world.stores[store].calls().iter().filter(|call| matches!(call, StoreCall::Open(_))).count() as u64
}

async fn told(world: &World, store: usize) -> StoreReport {
    world.engine.stores().await.unwrap().swap_remove(store)
}

/// What the metrics say of the store: `None` if they say nothing.
async fn is_up(world: &World, name: &str) -> Option<bool> {
    world.engine.measured().await.stores_up.get(&store(name)).copied()
}

/// Since when something is missing.
fn waited(measured: &Measured) -> Option<i64> {
    let since = measured.ledger.as_ref().unwrap().1.unregistered_since?;
    Some(measured.now.duration_since(since).as_secs())
}

#[tokio::test(start_paused = true)]
async fn a_copy_has_one_lag_by_its_rule_however_often_somebody_asks() {
    let world = World::start(one());
    let id = world.create(sample::image(1, 1 << 20));
    world.registered(&id).await;
    for _ in 0..3 {
        let measured = world.engine.measured().await;
        assert_eq!(lags(&measured, "rule", "store1").unwrap().count, 1);
        assert_eq!(measured.counts.lags.len(), 1);
        assert!(measured.ledger_takes && measured.service_answers && measured.counts.loops.contains_key("dispatch"));
        assert_eq!(failures(&measured, "store0", Reason::StoreFull), Some(0), "an alert sees it grow");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lag_counts_what_was_waited_for_before_a_restart() {
    let mut world = World::start(two());
    world.stores[1].inject(StoreFault::OpenFails(Reason::StoreFull));
    let id = world.create(sample::image(1, 1 << 20));
    let failed = async || failures(&world.engine.measured().await, "store1", Reason::StoreFull) > Some(1);
    world.until("the store has failed twice", failed).await;
    let measured = world.engine.measured().await;
    assert!(lags(&measured, "default", "store0").is_some() && lags(&measured, "default", "store1").is_none());
    world.kill().await;
    tokio::time::sleep(Duration::from_hours(1)).await;
    world.serve();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(waited(&world.engine.measured().await) >= Some(3600));
    world.stores[1].heal();
    world.registered(&id).await;
    // What the ledger holds is asked again after a pause.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let measured = world.engine.measured().await;
    let lag = lags(&measured, "default", "store1").unwrap();
    assert!(lag.count == 1 && lag.sum >= 3600.0, "{lag:?}");
    assert_eq!(waited(&measured), None);
    assert!(lags(&measured, "default", "store0").is_none(), "what another process saw is not counted again");
}

#[tokio::test(start_paused = true)]
async fn without_its_ledger_it_still_answers() {
    let world = World::start(two());
    let id = world.create(sample::image(1, 1000));
    world.registered(&id).await;
    world.ledger.set_down(true);
    let measured = world.engine.measured().await;
    assert!(measured.ledger.is_none() && !measured.ledger_takes);
    world.ledger.set_down(false);
    assert!(world.engine.measured().await.ledger.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_scan_that_succeeds_shows_that_glance_answers_though_no_image_is_looked_at() {
    let world = World::start(two());
    world.registry.inject(RegistryFault::ListFails(Reason::ImageServiceUnreachable));
    world.until("a scan failed", async || !world.engine.measured().await.service_answers).await;
    world.registry.heal();
    world.until("a scan succeeded", async || world.engine.measured().await.service_answers).await;
    assert!(world.engine.overview().await.unwrap().trouble.is_none());
}

#[tokio::test(start_paused = true)]
async fn each_try_that_fails_counts_once_whether_or_not_somebody_asks_between() {
    let world = World::start(two());
    world.stores[1].inject(StoreFault::OpenFails(Reason::StoreError));
    world.create(sample::image(1, 1000));
    world.until("it was tried seven times", async || opens(&world, 1) == 7).await;
    for _ in 0..3 {
        assert_eq!(failures(&world.engine.measured().await, "store1", Reason::StoreError), Some(7));
    }
    world.until("it was tried once more", async || opens(&world, 1) == 8).await;
    let measured = world.engine.measured().await;
    assert_eq!(failures(&measured, "store1", Reason::StoreError), Some(8));
    assert_eq!(failures(&measured, "store0", Reason::StoreError), None);
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_is_not_tried_because_others_are_counts_as_no_failure() {
    let world = World::start(two());
    world.stores[1].inject(StoreFault::OpenFails(Reason::StoreError));
    let ids: Vec<ImageId> = (0..20).map(|number| world.create(sample::image(number, 1000))).collect();
    world.until("it was tried often", async || opens(&world, 1) >= 30).await;
    let (opens, measured) = (opens(&world, 1), world.engine.measured().await);
    assert_eq!(failures(&measured, "store1", Reason::StoreError), Some(opens));
    let mut put_off = false;
    for id in ids {
        let why = world.report(&id).await.unwrap().replicas.remove(1).reason;
        put_off |= why.is_some_and(|why| why.message.contains("not tried now"));
    }
    assert!(put_off, "none had to wait for the others");
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_is_found_bad_counts_once_though_it_is_read_twice() {
    let world = World::start(two());
    let id = world.create(sample::image(1, 1000));
    world.registered(&id).await;
    world.stores[1].tamper(&world.stores[1].objects()[0], Some(vec![0; 1000].into()));
    world.engine.verify(&id).await.unwrap();
    let found = async || failures(&world.engine.measured().await, "store1", Reason::ProofMismatch) == Some(1);
    world.until("it is counted", found).await;
    world.registered(&id).await;
    assert!(found().await);
}

#[tokio::test(start_paused = true)]
async fn what_only_waits_or_goes_its_way_is_no_failure() {
    let world = World::start(Options { rules: &[(&["store0", "store1"], Some(1))], ..two() });
    let id = world.create(sample::image(1, 1000));
    world.registered(&id).await;
    world.engine.drain(&store("store0")).await.unwrap().unwrap();
    let is_empty = async || world.engine.drain_report(&store("store0")).await.unwrap().unwrap().left.is_empty();
    world.until("the store is empty", is_empty).await;
    let lines = world.engine.history(&id).await.unwrap();
    assert!(lines.iter().any(|line| line.reason.as_deref() == Some("not-wanted")), "{lines:?}");
    let counts = world.engine.measured().await.counts;
    assert!(counts.failures.values().all(|count| *count == 0), "{:?}", counts.failures);
}

#[tokio::test(start_paused = true)]
async fn what_a_look_finds_and_a_look_that_fails_are_counted_too() {
    let world = World::start(two());
    let id = world.create(sample::image(1, 1000));
    world.registered(&id).await;
    for lost in 1..=2 {
        world.registry.change(&id, |image| drop(image.locations.pop()));
        world.changed(&id);
        world.until("it is back", async || world.locations(&id).len() == 2).await;
        world.registered(&id).await;
        let measured = world.engine.measured().await;
        let at = |name| failures(&measured, name, Reason::LocationLost).unwrap();
        assert_eq!(at("store0") + at("store1"), lost);
    }
    world.registry.inject(RegistryFault::LookFails(Reason::ImageServiceError));
    world.changed(&id);
    let looks = async || world.engine.measured().await.counts.failures.get(&(None, "image-service-error")).copied();
    world.until("three looks have failed", async || looks().await == Some(3)).await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_never_worked_is_told_as_down_since_the_first_try_and_is_tried_on() {
    for reason in [Reason::StoreUnreachable, Reason::StoreStalled] {
        let world = World::start(two());
        assert_eq!(told(&world, 1).await.health, StoreHealth::Unknown, "nothing was tried");
        world.stores[1].inject(StoreFault::OpenFails(reason));
        let id = world.create(sample::image(1, 1000));
        world.until("it is told as down", async || told(&world, 1).await.health == StoreHealth::Down).await;
        let first = told(&world, 1).await;
        assert!(first.since.is_some_and(|since| since <= world.now()) && first.error.is_some(), "{first:?}");
        let tries = opens(&world, 1);
        world.until("it is tried on", async || opens(&world, 1) >= tries + 5).await;
        assert_eq!(told(&world, 1).await.since, first.since);
        assert_eq!(is_up(&world, "store1").await, Some(false));
        assert_eq!(world.engine.overview().await.unwrap().stores_down, [store("store1")]);
        world.stores[1].heal();
        world.registered(&id).await;
        assert_ne!(told(&world, 1).await.health, StoreHealth::Down);
        world.until("its prober was answered", async || is_up(&world, "store1").await == Some(true)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_store_that_refuses_nobody_says_that_it_does_not_answer() {
    let world = World::start(two());
    world.stores[1].inject(StoreFault::OpenFails(Reason::StoreRefused));
    world.create(sample::image(1, 1000));
    world.until("it was tried often", async || opens(&world, 1) >= 5).await;
    assert_eq!((told(&world, 1).await.health, is_up(&world, "store1").await), (StoreHealth::Unknown, None));
}
