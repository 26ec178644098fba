//! The whole engine in a simulated world: from one seed come the images and what is done to them, the faults of every
//! part, crashes between any two steps, and the order of everything; time is virtual. Each of the promises is checked at
//! each step, and once faults stop everything must come to rest where it is wanted.
//!
//! `SEED=n cargo test -p mimeo-engine --test sim -- --ignored --nocapture replay` tells one seed's story;
//! `SEEDS=n cargo test --release -p mimeo-engine --test sim -- --ignored --nocapture many` runs a million, or `n`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod dice;
mod ending;
mod listen;
mod ports;
mod promises;
mod seeds;
mod setup;
mod story;
mod tenants;
mod weather;
mod witness;
mod world;

use std::time::Instant;

#[test]
fn the_same_seed_tells_the_same_story() {
    for seed in 0..40 {
        let (once, again) = (seeds::run(seed, true), seeds::run(seed, true));
        let differs = once.trace.iter().zip(&again.trace).position(|(a, b)| a != b);
        assert_eq!((differs, once.trace.len()), (None, again.trace.len()), "seed {seed}");
        assert!(once.trace.len() > 50, "seed {seed} is no story");
    }
}

#[test]
fn ten_thousand_seeds_keep_every_promise() {
    let tally = seeds::run_all(0..10_000);
    assert!(tally.failed.is_empty(), "{}", seeds::report(&tally));
}

#[test]
#[ignore = "a command: SEED=n"]
fn replay() {
    let seed = number("SEED").expect("SEED=n");
    let told = seeds::run(seed, true);
    told.trace.iter().for_each(|line| println!("{line}"));
    println!("{} steps; {:?}", told.steps, told.broken);
}

#[test]
#[ignore = "a command: takes long; SEEDS=n"]
fn many() {
    let (from, count) = (number("FROM").unwrap_or(0), number("SEEDS").unwrap_or(1_000_000));
    let began = Instant::now();
    let tally = seeds::run_all(from..from + count);
    let seconds = began.elapsed().as_secs_f64();
    #[allow(clippy::cast_precision_loss)]
    let rate = count as f64 / seconds;
    println!("{count} seeds, {} steps, {seconds:.1} s: {rate:.0} seeds per second", tally.steps);
    assert!(tally.failed.is_empty(), "{}", seeds::report(&tally));
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
