//! Scrubbing: registered copies are read again when their proof grows old, the oldest first, a few at a time at each store.
//!
//! That it is time is the planner's to see. Here is only whose turn it is: an image that finds the store's places taken
//! ends its turn, and is marked again when one is free.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use mimeo_core::{Change, DirtyMark, ImageId, Record, StoreName, Timestamp};

use crate::Engine;

/// Copies that are read again at the same time at a store. Each holds the turn of its image.
const SCRUBS: usize = 2;

#[derive(Default)]
pub(crate) struct Scrubs(Mutex<BTreeMap<StoreName, Queue>>);

#[derive(Default)]
struct Queue {
    running: BTreeSet<ImageId>,
    /// With the times of their proofs.
    waiting: BTreeMap<ImageId, Timestamp>,
}

/// The right to read one copy again.
pub(crate) struct Slot {
    scrubs: Arc<Scrubs>,
    store: StoreName,
    image: ImageId,
}

impl Scrubs {
    /// The stores where no further copy may be read again now.
    pub(crate) fn full(&self) -> BTreeSet<StoreName> {
        let full = |queue: &Queue| queue.running.len() >= SCRUBS;
        self.lock().iter().filter(|(_, queue)| full(queue)).map(|(store, _)| store.clone()).collect()
    }

    pub(crate) fn enter(self: &Arc<Self>, store: &StoreName, image: &ImageId) -> Option<Slot> {
        let mut queues = self.lock();
        let queue = queues.entry(store.clone()).or_default();
        queue.waiting.remove(image);
        let is_free = queue.running.len() < SCRUBS && queue.running.insert(image.clone());
        is_free.then(|| Slot { scrubs: Arc::clone(self), store: store.clone(), image: image.clone() })
    }

    /// Those copies of the image that are to be read again when there is room.
    pub(crate) fn wait(&self, record: &Record, stores: &[StoreName]) {
        let mut queues = self.lock();
        for store in stores {
            let queue = queues.entry(store.clone()).or_default();
            let proof = record.replicas.get(store).and_then(|replica| replica.proof);
            if let Some(proof) = proof.filter(|_| !queue.running.contains(&record.image.id)) {
                queue.waiting.insert(record.image.id.clone(), proof.at);
            }
        }
    }

    /// The image that has waited for the store with the oldest proof, if there is room for it. It waits no more.
    fn next(&self, store: &StoreName) -> Option<ImageId> {
        let mut queues = self.lock();
        let queue = queues.get_mut(store).filter(|queue| queue.running.len() < SCRUBS)?;
        let oldest = queue.waiting.iter().min_by_key(|(_, at)| **at).map(|(image, _)| image.clone())?;
        queue.waiting.remove(&oldest);
        Some(oldest)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<StoreName, Queue>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(queue) = self.scrubs.lock().get_mut(&self.store) {
            queue.running.remove(&self.image);
        }
    }
}

/// Gives the next that waits for the store its turn. One that cannot be marked comes back by its own mark, later.
pub(crate) async fn hand_on(engine: &Engine, store: &StoreName) {
    let Some(image) = engine.scrubs.next(store) else { return };
    let mark = DirtyMark { image, due: engine.clock.now() };
    match engine.ledger.commit(&[Change::Dirty(mark)]).await {
        Ok(()) => engine.wake.notify_one(),
        Err(error) => tracing::warn!(%store, error = error.chain(), "the next scrub could not be marked"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use mimeo_testkit::sample::{id, time};

    use super::*;

    #[test]
    fn the_oldest_proof_is_renewed_first_where_there_is_room() {
        let (scrubs, store) = (Arc::new(Scrubs::default()), "http1".parse::<StoreName>().unwrap());
        let waiting = BTreeMap::from([(id(1), time(30)), (id(2), time(10)), (id(3), time(20))]);
        scrubs.lock().insert(store.clone(), Queue { waiting, ..Queue::default() });
        let slots: Vec<Slot> = (0..SCRUBS)
            .map(|_| {
                let next = scrubs.next(&store).unwrap();
                scrubs.enter(&store, &next).unwrap()
            })
            .collect();
        assert_eq!(slots.iter().map(|slot| slot.image.clone()).collect::<Vec<_>>(), [id(2), id(3)]);
        assert_eq!(scrubs.next(&store), None, "no room");
        drop(slots);
        assert_eq!(scrubs.next(&store), Some(id(1)));
    }
}
