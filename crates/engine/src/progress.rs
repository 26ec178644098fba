//! How far each running copy is: for people, and for how much room it is still to take.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use mimeo_core::{ImageId, StoreName};
use serde::{Deserialize, Serialize};

/// A running copy: bytes written, or read back, so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    pub phase: Phase,
    pub bytes: u64,
    /// All of them, where known.
    pub total: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    Copying,
    Proving,
}

/// One of the copies that run now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    pub image: ImageId,
    pub store: StoreName,
    #[serde(flatten)]
    pub progress: Progress,
}

/// How many bytes of images this process has moved to and from a store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    pub written: u64,
    /// To prove copies.
    pub read: u64,
}

/// The running copies of this process, and what they have moved so far.
#[derive(Debug, Default, Clone)]
pub(crate) struct Board {
    lines: Arc<Mutex<Lines>>,
    moved: Arc<Mutex<Moved>>,
}

type Lines = BTreeMap<(ImageId, StoreName), Arc<Counter>>;
type Moved = BTreeMap<(StoreName, Phase), Arc<AtomicU64>>;

#[derive(Debug)]
pub(crate) struct Counter {
    phase: Phase,
    bytes: AtomicU64,
    total: Option<u64>,
}

impl Board {
    /// Shows a line until the returned handle is dropped.
    pub(crate) fn show(&self, image: &ImageId, store: &StoreName, phase: Phase, total: Option<u64>) -> Line {
        let counter = Arc::new(Counter { phase, bytes: AtomicU64::new(0), total });
        let key = (image.clone(), store.clone());
        self.lock().insert(key.clone(), Arc::clone(&counter));
        let moved = Arc::clone(lock(&self.moved).entry((store.clone(), phase)).or_default());
        Line { board: self.clone(), key, counter, moved }
    }

    pub(crate) fn get(&self, image: &ImageId, store: &StoreName) -> Option<Progress> {
        let lines = self.lock();
        Some(lines.get(&(image.clone(), store.clone()))?.progress())
    }

    /// All of them, in the order of images and stores.
    pub(crate) fn running(&self) -> Vec<Running> {
        let line = |((image, store), counter): (&(ImageId, StoreName), &Arc<Counter>)| Running {
            image: image.clone(),
            store: store.clone(),
            progress: counter.progress(),
        };
        self.lock().iter().map(line).collect()
    }

    pub(crate) fn traffic(&self) -> BTreeMap<StoreName, Traffic> {
        let mut traffic: BTreeMap<StoreName, Traffic> = BTreeMap::new();
        for ((store, phase), bytes) in lock(&self.moved).iter() {
            let (of, bytes) = (traffic.entry(store.clone()).or_default(), bytes.load(Ordering::Relaxed));
            match phase {
                Phase::Copying => of.written = bytes,
                Phase::Proving => of.read = bytes,
            }
        }
        traffic
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        lock(&self.lines)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Counter {
    fn progress(&self) -> Progress {
        Progress { phase: self.phase, bytes: self.bytes.load(Ordering::Relaxed), total: self.total }
    }

    /// The bytes that are still to come, where their number is known.
    pub(crate) fn left(&self) -> Option<u64> {
        self.total.map(|total| total.saturating_sub(self.bytes.load(Ordering::Relaxed)))
    }
}

/// One running copy's line on the board.
pub(crate) struct Line {
    board: Board,
    key: (ImageId, StoreName),
    counter: Arc<Counter>,
    /// All that was moved in this phase to, or from, the store.
    moved: Arc<AtomicU64>,
}

impl Line {
    pub(crate) fn counter(&self) -> &Arc<Counter> {
        &self.counter
    }

    pub(crate) fn advance(&self, bytes: usize) {
        self.counter.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.moved.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// So much of it was there before it began.
    pub(crate) fn begin_at(&self, bytes: u64) {
        self.counter.bytes.store(bytes, Ordering::Relaxed);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let mut lines = self.board.lock();
        // The next phase may already show its own line under the same key.
        if lines.get(&self.key).is_some_and(|counter| Arc::ptr_eq(counter, &self.counter)) {
            lines.remove(&self.key);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_was_moved_is_counted_for_good_and_what_runs_only_while_it_runs() {
        let (board, image, store) = (Board::default(), ImageId::nil(), "http1".parse::<StoreName>().unwrap());
        let line = board.show(&image, &store, Phase::Copying, Some(10));
        line.begin_at(4);
        line.advance(6);
        let progress = Progress { phase: Phase::Copying, bytes: 10, total: Some(10) };
        assert_eq!(board.running(), [Running { image: image.clone(), store: store.clone(), progress }]);
        drop(line);
        board.show(&image, &store, Phase::Proving, None).advance(10);
        assert!(board.running().is_empty());
        assert_eq!(board.traffic(), BTreeMap::from([(store, Traffic { written: 6, read: 10 })]));
    }
}
