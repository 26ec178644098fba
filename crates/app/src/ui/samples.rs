//! How fast things go, measured by looking every second: each running transfer, and each store over the last hour. Kept in
//! memory, for people; a restart begins anew.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use mimeo_core::{ImageId, StoreName};
use mimeo_engine::{Engine, Phase, Running, Traffic};
use tokio::time::Instant;

pub(super) const TICK: Duration = Duration::from_secs(1);
/// Ticks in one point of a store's chart.
const TICKS: u32 = 10;
/// Points of a chart: an hour.
pub(super) const POINTS: usize = 360;
/// Of a transfer's rate, the part that the last second makes: more, and it jumps; less, and it lags.
const WEIGHT: f64 = 0.3;

#[derive(Default)]
pub(super) struct Samples(Mutex<State>);

#[derive(Default)]
struct State {
    at: Option<Instant>,
    lines: BTreeMap<(ImageId, StoreName), Line>,
    /// Of the images that are in `lines`.
    names: BTreeMap<ImageId, String>,
    traffic: BTreeMap<StoreName, Traffic>,
    series: BTreeMap<StoreName, Series>,
    ticks: u32,
}

#[derive(Debug, Clone, Copy)]
struct Line {
    phase: Phase,
    bytes: u64,
    rate: Option<f64>,
}

/// A transfer with its image's name and its rate in bytes per second, once that is known.
pub(super) struct Measured {
    pub running: Running,
    pub name: String,
    pub rate: Option<u64>,
}

/// What went to and from one store, in bytes per second, the newest last.
#[derive(Debug, Clone, Default)]
pub(super) struct Series {
    pub points: VecDeque<Traffic>,
    /// In the last second.
    pub now: Traffic,
    /// Bytes since the last point.
    pub sum: Traffic,
}

impl Samples {
    /// One tick.
    pub(super) async fn take(&self, engine: &Engine) {
        let running = engine.running();
        self.name(engine, &running).await;
        self.lock().take(&running, &engine.traffic(), Instant::now());
    }

    async fn name(&self, engine: &Engine, running: &[Running]) {
        let unnamed: BTreeSet<&ImageId> = {
            let state = self.lock();
            running.iter().map(|running| &running.image).filter(|image| !state.names.contains_key(image)).collect()
        };
        for image in unnamed {
            if let Ok(Some(report)) = engine.image(image).await {
                self.lock().names.insert(image.clone(), super::images::name(&report));
            }
        }
    }

    pub(super) fn measured(&self, running: Vec<Running>) -> Vec<Measured> {
        let state = self.lock();
        let measured = |running: Running| {
            let line = state.lines.get(&(running.image.clone(), running.store.clone()));
            let rate = line.filter(|line| line.phase == running.progress.phase).and_then(|line| line.rate);
            let name = state.names.get(&running.image).cloned().unwrap_or_else(|| running.image.to_string());
            Measured { name, rate: rate.map(whole), running }
        };
        running.into_iter().map(measured).collect()
    }

    pub(super) fn series(&self, store: &StoreName) -> Series {
        self.lock().series.get(store).cloned().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self, running: &[Running], traffic: &BTreeMap<StoreName, Traffic>, at: Instant) {
        let passed = self.at.replace(at).map(|before| (at - before).as_secs_f64()).filter(|passed| *passed > 0.0);
        self.lines = running.iter().map(|running| (key(running), self.line(running, passed))).collect();
        self.names.retain(|image, _| running.iter().any(|running| running.image == *image));
        self.note_traffic(traffic, passed);
    }

    fn line(&self, running: &Running, passed: Option<f64>) -> Line {
        let progress = running.progress;
        let before =
            self.lines.get(&key(running)).filter(|line| line.phase == progress.phase && line.bytes <= progress.bytes);
        let rate = before.zip(passed).map(|(before, passed)| {
            let last = float(progress.bytes - before.bytes) / passed;
            before.rate.map_or(last, |rate| rate + WEIGHT * (last - rate))
        });
        Line { phase: progress.phase, bytes: progress.bytes, rate }
    }

    fn note_traffic(&mut self, traffic: &BTreeMap<StoreName, Traffic>, passed: Option<f64>) {
        let (Some(passed), before) = (passed, std::mem::replace(&mut self.traffic, traffic.clone())) else { return };
        self.ticks += 1;
        let is_point = self.ticks.is_multiple_of(TICKS);
        for (store, traffic) in traffic {
            let before = before.get(store).copied().unwrap_or_default();
            let moved = Traffic {
                written: traffic.written.saturating_sub(before.written),
                read: traffic.read.saturating_sub(before.read),
            };
            self.series.entry(store.clone()).or_default().add(moved, passed);
        }
        if is_point {
            self.series.values_mut().for_each(Series::point);
        }
    }
}

impl Series {
    fn add(&mut self, moved: Traffic, passed: f64) {
        self.now = Traffic { written: whole(float(moved.written) / passed), read: whole(float(moved.read) / passed) };
        self.sum = Traffic { written: self.sum.written + moved.written, read: self.sum.read + moved.read };
    }

    fn point(&mut self) {
        let sum = std::mem::take(&mut self.sum);
        let seconds = u64::from(TICKS) * TICK.as_secs();
        self.points.push_back(Traffic { written: sum.written / seconds, read: sum.read / seconds });
        if self.points.len() > POINTS {
            self.points.pop_front();
        }
    }
}

fn key(running: &Running) -> (ImageId, StoreName) {
    (running.image.clone(), running.store.clone())
}

#[expect(clippy::cast_precision_loss, reason = "a rate is shown with three digits")]
fn float(bytes: u64) -> f64 {
    bytes as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is never below nothing")]
fn whole(rate: f64) -> u64 {
    rate as u64
}

#[cfg(test)]
mod tests {
    use mimeo_engine::Progress;

    use super::*;

    struct Watched {
        state: State,
        begun: Instant,
        second: u32,
    }

    impl Watched {
        fn new() -> Self {
            Self { state: State::default(), begun: Instant::now(), second: 0 }
        }

        /// One tick later so many bytes of it are done; `None`: it runs no longer.
        fn tick(&mut self, done: Option<(Phase, u64)>, written: u64) {
            self.second += 1;
            let running: Vec<Running> = done.into_iter().map(|(phase, bytes)| running(phase, bytes)).collect();
            let traffic = BTreeMap::from([(store(), Traffic { written, read: 0 })]);
            self.state.take(&running, &traffic, self.begun + TICK * self.second);
        }

        fn rate(&self) -> Option<u64> {
            self.state.lines.values().next().and_then(|line| line.rate).map(whole)
        }
    }

    fn store() -> StoreName {
        "http1".parse().unwrap()
    }

    fn running(phase: Phase, bytes: u64) -> Running {
        Running { image: ImageId::nil(), store: store(), progress: Progress { phase, bytes, total: Some(1000) } }
    }

    #[test]
    fn a_rate_is_known_from_the_second_look_on_and_begins_anew_with_the_reading_back() {
        let mut watched = Watched::new();
        watched.tick(Some((Phase::Copying, 100)), 100);
        assert_eq!(watched.rate(), None);
        watched.tick(Some((Phase::Copying, 300)), 300);
        assert_eq!(watched.rate(), Some(200));
        watched.tick(Some((Phase::Copying, 600)), 600);
        assert_eq!(watched.rate(), Some(230));
        watched.tick(Some((Phase::Proving, 50)), 600);
        assert_eq!(watched.rate(), None);
    }

    #[test]
    fn a_chart_has_a_point_every_ten_seconds_for_an_hour() {
        let mut watched = Watched::new();
        watched.tick(None, 0);
        for second in 1..=10 {
            watched.tick(None, second * 50);
        }
        let series = &watched.state.series[&store()];
        assert_eq!((series.now.written, series.points.iter().map(|p| p.written).collect::<Vec<_>>()), (50, vec![50]));
        for _ in 0..TICKS * 400 {
            watched.tick(None, 500);
        }
        let series = &watched.state.series[&store()];
        assert_eq!((series.now.written, series.points.len()), (0, POINTS));
    }
}
