//! A progress bar per store, on a terminal.

use std::{collections::HashMap, time::Duration};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use mimeo_core::{ReplicaState, StoreName};
use mimeo_engine::{Phase, status::ReplicaReport};

const MOVING: &str = "{prefix:12} {msg:11} [{bar:28}] {bytes:>10}/{total_bytes:<10} {bytes_per_sec:>12} {eta:>4}";
const STANDING: &str = "{prefix:12} {msg}";
const WAITING: &str = "{prefix:12} {spinner} {msg}";

const TICK: Duration = Duration::from_millis(120);

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
            change(bar, now);
        }
        match (now, replica.progress) {
            (Shown::Moving(phase), Some(progress)) => {
                bar.set_message(phase_name(phase));
                bar.set_position(progress.bytes);
            }
            (Shown::Registered, _) => {
                bar.finish_with_message(format!("registered  {}", replica.location.as_deref().unwrap_or_default()));
            }
            _ => bar.set_message(waiting(replica)),
        }
    }
}

fn change(bar: &ProgressBar, now: Shown) {
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
        bar.set_style(style.progress_chars("=> "));
    }
    bar.reset();
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Copying => "copying",
        Phase::Proving => "proving",
    }
}

fn waiting(replica: &ReplicaReport) -> String {
    match &replica.reason {
        Some(reason) => format!("{}  {}: {}", replica.state, reason.code, reason.message),
        None => replica.state.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_well_formed() {
        for template in [MOVING, STANDING, WAITING] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
