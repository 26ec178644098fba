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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    Copying,
    Proving,
}

/// The running copies of this process.
#[derive(Debug, Default, Clone)]
pub(crate) struct Board(Arc<Mutex<Lines>>);

type Lines = BTreeMap<(ImageId, StoreName), Arc<Counter>>;

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
        Line { board: self.clone(), key, counter }
    }

    pub(crate) fn get(&self, image: &ImageId, store: &StoreName) -> Option<Progress> {
        let lines = self.lock();
        let counter = lines.get(&(image.clone(), store.clone()))?;
        let bytes = counter.bytes.load(Ordering::Relaxed);
        Some(Progress { phase: counter.phase, bytes, total: counter.total })
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counter {
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
}

impl Line {
    pub(crate) fn counter(&self) -> &Arc<Counter> {
        &self.counter
    }

    pub(crate) fn advance(&self, bytes: usize) {
        self.counter.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
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
