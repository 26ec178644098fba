//! Crash points: named places in the flow at which a test has the process die, as by `kill -9` or a power cut.
//!
//! A point is one line, `mimeo_crash::point("attempt-known")`. It stands where a death is most unwelcome: between a side
//! effect and the note of it. In a release build nothing is left of it. In a debug build the process kills itself there if
//! the environment variable [`VARIABLE`] names the point. `e2e/test_crash_points.py` reads the points from the sources and
//! dies at each of them, so that none can be forgotten.

use std::{
    env,
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
};

use rustix::process::{Signal, getpid, kill_process};

/// Names the point, and behind a colon at which passage, if not at the first: `attempt-known:3`.
pub const VARIABLE: &str = "MIMEO_CRASH";

/// Here the process dies if a test wants it to.
#[inline(always)]
#[expect(clippy::inline_always, reason = "in a release build it must leave no call and no name behind")]
pub fn point(name: &str) {
    if cfg!(debug_assertions) {
        passed(name);
    }
}

struct Chosen {
    name: String,
    /// How often it is still passed, this time included.
    left: AtomicU32,
}

static CHOSEN: LazyLock<Option<Chosen>> = LazyLock::new(|| Some(chosen(&env::var(VARIABLE).ok()?)));

fn chosen(text: &str) -> Chosen {
    let (name, passage) = text.split_once(':').unwrap_or((text, "1"));
    // What is no number is never reached, and so the test that asked for it fails.
    Chosen { name: name.to_owned(), left: AtomicU32::new(passage.parse().unwrap_or(0)) }
}

fn passed(name: &str) {
    if CHOSEN.as_ref().is_some_and(|chosen| chosen.is_reached_at(name)) {
        // No destructor runs and nothing is flushed. Should the kernel refuse, an abort is next to it.
        let _ = kill_process(getpid(), Signal::KILL);
        std::process::abort();
    }
}

impl Chosen {
    fn is_reached_at(&self, name: &str) -> bool {
        self.name == name && self.left.fetch_sub(1, Ordering::Relaxed) == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_chosen_passage_of_the_chosen_point_is_reached() {
        for (text, reached) in [("here", 1), ("here:1", 1), ("here:3", 3)] {
            let chosen = chosen(text);
            let passages: Vec<bool> =
                (0..5).map(|_| !chosen.is_reached_at("there") && chosen.is_reached_at("here")).collect();
            assert_eq!(passages.iter().position(|is_reached| *is_reached), Some(reached - 1), "{text}");
            assert_eq!(passages.iter().filter(|is_reached| **is_reached).count(), 1, "{text}");
        }
    }
}
