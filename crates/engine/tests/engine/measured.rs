//! What is measured, over fakes.

use std::time::Duration;

use mimeo_core::{Reason, StoreName};
use mimeo_engine::{Lags, Measured};
use mimeo_testkit::{RegistryFault, StoreFault, sample};

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
