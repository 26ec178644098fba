//! A progress bar per store, on a terminal.

use std::{collections::HashMap, fmt, time::Duration};

use indicatif::{BinaryBytes, FormattedDuration, MultiProgress, ProgressBar, ProgressState, ProgressStyle};
use mimeo_core::{ReplicaState, StoreName};
use mimeo_engine::{Phase, status::ReplicaReport};

use crate::cli::visible;

const MOVING: &str = "{prefix:12} {msg:11} [{bar:28}] {bytes:>10}/{total_bytes:<10} {pace}";
const STANDING: &str = "{prefix:12} {msg}";
const WAITING: &str = "{prefix:12} {spinner} {msg}";

const TICK: Duration = Duration::from_millis(120);

/// Before this a rate would be a guess.
const FIRST_RATE: Duration = Duration::from_millis(500);

#[derive(Default)]
pub(super) struct Bars {
    all: MultiProgress,
    bars: HashMap<StoreName, Bar>,
}

struct Bar {
    bar: ProgressBar,
    /// What it shows now; a change makes a new style and a new estimate of the rate.
    shown: Shown,
}

#[derive(PartialEq, Clone, Copy)]
enum Shown {
    Nothing,
    Moving(Phase),
    Waiting,
    Registered,
}

impl Bars {
    /// `size` is the image's, for copies that do not know their own.
    pub(super) fn show(&mut self, replica: &ReplicaReport, size: Option<u64>) {
        let all = &self.all;
        let Bar { bar, shown } = self.bars.entry(replica.store.clone()).or_insert_with(|| {
            let bar = all.add(ProgressBar::new(0).with_prefix(replica.store.to_string()));
            Bar { bar, shown: Shown::Nothing }
        });
        let now = match (replica.state, replica.progress) {
            (ReplicaState::Registered, _) => Shown::Registered,
            (_, Some(progress)) => Shown::Moving(progress.phase),
            (_, None) => Shown::Waiting,
        };
        if *shown == Shown::Registered && now == Shown::Registered {
            return;
        }
        if let Some(progress) = replica.progress {
            bar.set_length(progress.total.or(size).unwrap_or(progress.bytes));
        }
        if *shown != now {
            *shown = now;
            change(bar, now, replica.progress.map_or(0, |progress| progress.bytes));
        }
        match (now, replica.progress) {
            (Shown::Moving(phase), Some(progress)) => {
                bar.set_message(phase_name(phase));
                bar.set_position(progress.bytes);
            }
            (Shown::Registered, _) => {
                bar.finish_with_message(format!(
                    "registered  {}",
                    visible(replica.location.as_deref().unwrap_or_default())
                ));
            }
            _ => bar.set_message(waiting(replica)),
        }
    }
}

/// `start`: what was done before anybody looked, which says nothing of the rate.
fn change(bar: &ProgressBar, now: Shown, start: u64) {
    let (template, tick) = match now {
        Shown::Moving(_) => (MOVING, Duration::ZERO),
        Shown::Registered => (STANDING, Duration::ZERO),
        Shown::Nothing | Shown::Waiting => (WAITING, TICK),
    };
    match tick {
        Duration::ZERO => bar.disable_steady_tick(),
        tick => bar.enable_steady_tick(tick),
    }
    // The templates are constants that a test has read.
    if let Ok(style) = ProgressStyle::with_template(template) {
        let pace = move |state: &ProgressState, line: &mut dyn fmt::Write| {
            // Writing to a line in memory cannot fail.
            let _ = line.write_str(&pace(state.pos() - start.min(state.pos()), state.elapsed(), left(state)));
        };
        bar.set_style(style.progress_chars("=> ").with_key("pace", pace));
    }
    bar.reset();
}

fn left(state: &ProgressState) -> u64 {
    state.len().unwrap_or(0).saturating_sub(state.pos())
}

/// The rate since the first look, and the time left at that rate.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "for people")]
fn pace(done: u64, elapsed: Duration, left: u64) -> String {
    if elapsed < FIRST_RATE || done == 0 {
        return String::new();
    }
    let per_second = done as f64 / elapsed.as_secs_f64();
    let rest = Duration::from_secs_f64((left as f64 / per_second).min(1e9));
    format!("{:>12}/s {:>4}", BinaryBytes(per_second as u64).to_string(), FormattedDuration(rest).to_string())
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Copying => "copying",
        Phase::Proving => "proving",
    }
}

fn waiting(replica: &ReplicaReport) -> String {
    match &replica.reason {
        Some(reason) => format!("{}  {}: {}", replica.state, reason.code, visible(&reason.message)),
        None => replica.state.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_well_formed_and_the_pace_is_no_guess() {
        assert_eq!(pace(1, Duration::from_millis(1), 1), "", "no rate from one glance");
        assert_eq!(pace(2 << 20, Duration::from_secs(2), 60 << 20).split_whitespace().last(), Some("00:01:00"));
        for template in [MOVING, STANDING, WAITING] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
