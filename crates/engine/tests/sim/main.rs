//! The whole engine in a simulated world: from one seed come the images and what is done to them, the faults of every
//! part, crashes between any two steps, and the order of everything; time is virtual. Each of the promises is checked at
//! each step, and once faults stop everything must come to rest where it is wanted.
//!
//! `SEED=n cargo test -p mimeo-engine --test sim -- --ignored --nocapture replay` tells one seed's story;
//! `SEEDS=n cargo test --release -p mimeo-engine --test sim -- --ignored --nocapture many` runs a million, or `n`;
//! `… bites` tells in how many seeds each deliberate bug is found.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod dice;
mod ending;
mod listen;
mod operators;
mod ports;
mod promises;
mod seeds;
mod setup;
mod story;
mod tenants;
mod uploads;
mod weather;
mod witness;
mod world;

use std::time::Instant;

use mimeo_engine::sabotage::Bug;

#[test]
fn the_same_seed_tells_the_same_story() {
    for seed in 0..40 {
        let (once, again) = (seeds::run(seed, None, true), seeds::run(seed, None, true));
        let differs = once.trace.iter().zip(&again.trace).position(|(a, b)| a != b);
        assert_eq!((differs, once.trace.len()), (None, again.trace.len()), "seed {seed}");
        assert!(once.trace.len() > 50, "seed {seed} is no story");
    }
}

#[test]
fn ten_thousand_seeds_keep_every_promise() {
    let tally = seeds::run_all(0..10_000, None);
    assert!(tally.failed.is_empty(), "{}", seeds::report(&tally));
}

/// A simulation that finds nothing says something only if it would find it.
#[test]
fn each_deliberate_bug_is_found_as_what_it_is() {
    for (bug, promise) in Bug::ALL {
        let found = (0..20).any(|part| {
            let tally = seeds::run_all(part * 100..(part + 1) * 100, Some(bug));
            tally.failed.iter().any(|failed| failed.broken.promise == promise)
        });
        assert!(found, "{bug:?} breaks promise {promise}, and 2,000 seeds do not show it");
    }
}

#[test]
#[ignore = "a command: SEED=n, and BUG=name for a deliberate one"]
fn replay() {
    let seed = number("SEED").expect("SEED=n");
    let bug = Bug::ALL.into_iter().map(|(bug, _)| bug).find(|bug| named() == Some(format!("{bug:?}")));
    let told = seeds::run(seed, bug, true);
    told.trace.iter().for_each(|line| println!("{line}"));
    println!("{} steps; {:?}", told.steps, told.broken);
}

#[test]
#[ignore = "a command: takes long; SEEDS=n, FROM=n"]
fn many() {
    let (from, count) = (number("FROM").unwrap_or(0), number("SEEDS").unwrap_or(1_000_000));
    let began = Instant::now();
    let tally = seeds::run_all(from..from + count, None);
    let seconds = began.elapsed().as_secs_f64();
    #[allow(clippy::cast_precision_loss)]
    let rate = count as f64 / seconds;
    println!("{count} seeds, {} steps, {seconds:.1} s: {rate:.0} seeds per second", tally.steps);
    assert!(tally.failed.is_empty(), "{}", seeds::report(&tally));
}

#[test]
#[ignore = "a command: in how many seeds each deliberate bug, or BUG=name, is found; SEEDS=n"]
fn bites() {
    let count = number("SEEDS").unwrap_or(10_000);
    println!("| deliberate bug | breaks promise | found in seeds of {count} | of these as what it is | first |");
    println!("|---|---|---|---|---|");
    for (bug, promise) in Bug::ALL {
        if named().is_some_and(|name| name != format!("{bug:?}")) {
            continue;
        }
        let failed = seeds::run_all(0..count, Some(bug)).failed;
        let as_it_is: Vec<u64> =
            failed.iter().filter(|failed| failed.broken.promise == promise).map(|failed| failed.seed).collect();
        let first = as_it_is.first().map_or("-".into(), u64::to_string);
        println!("| `{bug:?}` | {promise} | {} | {} | {first} |", failed.len(), as_it_is.len());
    }
}

fn named() -> Option<String> {
    std::env::var("BUG").ok()
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
