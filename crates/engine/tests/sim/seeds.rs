//! Runs seeds, on every core.

use std::{
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use mimeo_engine::sabotage::{self, Bug};
use tokio::runtime::Builder;

use crate::{
    promises::Broken,
    story::{self, Told},
};

/// A seed that failed.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) seed: u64,
    pub(crate) broken: Broken,
}

/// What came of many seeds.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) failed: Vec<Failed>,
    pub(crate) steps: u64,
}

/// One seed, in a runtime of its own whose time is virtual, with a bug to find if there is to be one.
pub(crate) fn run(seed: u64, bug: Option<Bug>, is_told: bool) -> Told {
    sabotage::set(bug);
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let told = catch_unwind(AssertUnwindSafe(|| runtime.block_on(story::run(seed, is_told))));
    runtime.shutdown_timeout(Duration::ZERO);
    told.unwrap_or_else(|_| Told {
        broken: Some(Broken { promise: 0, how: "it panicked".into() }),
        steps: 0,
        trace: Vec::new(),
    })
}

/// Each of the seeds; those that failed in their order.
pub(crate) fn run_all(seeds: Range<u64>, bug: Option<Bug>) -> Tally {
    let next = AtomicU64::new(seeds.start);
    let tally = Mutex::new(Tally::default());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let told = run(seed, bug, false);
            let mut tally = tally.lock().unwrap();
            tally.steps += told.steps;
            tally.failed.extend(told.broken.map(|broken| Failed { seed, broken }));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let mut tally = tally.into_inner().unwrap();
    tally.failed.sort_by_key(|failed| failed.seed);
    tally
}

/// The first failures, each with the command that replays it.
pub(crate) fn report(tally: &Tally) -> String {
    let line = |failed: &Failed| {
        let Failed { seed, broken } = failed;
        let what = match broken.promise {
            0 => broken.how.clone(),
            promise => format!("promise {promise} is broken: {}", broken.how),
        };
        format!(
            "seed {seed}: {what}\n  SEED={seed} cargo test -p mimeo-engine --test sim -- --ignored --nocapture replay"
        )
    };
    let first: Vec<String> = tally.failed.iter().take(10).map(line).collect();
    format!("{} seeds failed\n{}", tally.failed.len(), first.join("\n"))
}
