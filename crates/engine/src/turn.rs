//! Turns: at most one at a time works on an image, and can be told that the image was marked again.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use mimeo_core::{Due, ImageId};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::Engine;

/// One image whose turn it is.
pub(crate) struct Turn {
    pub(crate) due: Due,
    /// Rung when the image was marked again while this turn runs.
    pub(crate) poke: Arc<Notify>,
    pub(crate) stop: CancellationToken,
}

/// An image that is at work, until this is dropped.
pub(crate) struct Held {
    engine: Arc<Engine>,
    image: ImageId,
    bell: Arc<Bell>,
}

/// What others tell a turn.
#[derive(Default)]
struct Bell {
    /// The image was marked again.
    poke: Arc<Notify>,
    /// An upload of the image wanted the turn, and went on without it.
    contested: AtomicBool,
}

impl Held {
    /// `None`: another has it.
    pub(crate) fn take(engine: &Arc<Engine>, image: &ImageId) -> Option<Self> {
        let (engine, image, bell) = (Arc::clone(engine), image.clone(), Arc::new(Bell::default()));
        match engine.turns.lock().entry(image.clone()) {
            Entry::Occupied(_) => return None,
            Entry::Vacant(free) => drop(free.insert(Arc::clone(&bell))),
        }
        Some(Self { engine, image, bell })
    }

    /// The image's turn, which is over when this is dropped.
    pub(crate) fn turn(&self, due: Due, stop: CancellationToken) -> Turn {
        Turn { due, poke: Arc::clone(&self.bell.poke), stop }
    }

    /// Whether another upload of the image goes on without the turn: what the image is may come from that one.
    pub(crate) fn is_contested(&self) -> bool {
        self.bell.contested.load(Ordering::Relaxed)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.engine.turns.lock().remove(&self.image);
    }
}

/// The images at work, each with the bell that tells it of a new mark.
#[derive(Default)]
pub(crate) struct Turns(Mutex<BTreeMap<ImageId, Arc<Bell>>>);

impl Turns {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ImageId, Arc<Bell>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the image's turn, if it has one now, that the image was marked again.
    pub(crate) fn poke(&self, image: &ImageId) {
        if let Some(bell) = self.lock().get(image) {
            bell.poke.notify_one();
        }
    }

    /// An upload of the image goes on without the turn that it has now.
    pub(crate) fn contest(&self, image: &ImageId) {
        if let Some(bell) = self.lock().get(image) {
            bell.contested.store(true, Ordering::Relaxed);
        }
    }

    /// A turn without the dispatcher, for as long as it is held. `None`: the image has one already.
    pub(crate) fn take(&self, image: &ImageId) -> Option<Taken<'_>> {
        match self.lock().entry(image.clone()) {
            Entry::Occupied(_) => None,
            Entry::Vacant(free) => {
                free.insert(Arc::default());
                Some(Taken { turns: self, image: image.clone() })
            }
        }
    }

    pub(crate) fn images(&self) -> Vec<ImageId> {
        self.lock().keys().cloned().collect()
    }
}

pub(crate) struct Taken<'a> {
    turns: &'a Turns,
    image: ImageId,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.turns.lock().remove(&self.image);
    }
}
