//! Places: how many images are read at the same time, with how much memory each, and whose turn it is.
//!
//! Small images go first, but every fourth place goes to whoever has waited longest, and large images never take all
//! places: one of 200 GB holds up neither fifty small ones nor, in the end, is it held up by them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mimeo_core::Limits;
use tokio::sync::oneshot;

/// From this size on an image is large.
const LARGE: u64 = 1 << 30;
/// Every so many places go to the one that has waited longest.
const OLDEST_EVERY: u64 = 4;

#[derive(Debug, Default)]
pub(crate) struct Places(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    concurrency: usize,
    memory: usize,
    taken: usize,
    taken_large: usize,
    taken_memory: usize,
    waiting: Vec<Waiting>,
    /// Numbers those that come, in order.
    arrivals: u64,
    given: u64,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    size: u64,
    answer: oneshot::Sender<Place>,
}

/// The right to read one image; dropping it lets in the next.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    /// Bytes that it may hold in memory.
    pub(crate) window: usize,
    large: bool,
}

impl Places {
    pub(crate) fn set(self: &Arc<Self>, limits: &Limits) {
        let mut state = self.lock();
        (state.concurrency, state.memory) = (limits.concurrency.get(), limits.memory.get());
        drop(state);
        self.give();
    }

    /// A number that keeps its bearer's rank in the queue, however often it leaves and comes back.
    pub(crate) fn arrive(&self) -> u64 {
        let mut state = self.lock();
        state.arrivals += 1;
        state.arrivals
    }

    /// Waits for a place. Whoever drops the future has left the queue.
    pub(crate) async fn enter(self: &Arc<Self>, size: u64, number: u64) -> Place {
        loop {
            let (answer, place) = oneshot::channel();
            {
                let mut state = self.lock();
                state.waiting.push(Waiting { number, size, answer });
            }
            self.give();
            // It is dropped unanswered by nobody.
            if let Ok(place) = place.await {
                return place;
            }
        }
    }

    /// Gives every free place to one that waits.
    fn give(self: &Arc<Self>) {
        // A place that nobody took is dropped, which comes here again: not under the lock.
        while let Some((answer, place)) = self.next() {
            drop(answer.send(place));
        }
    }

    fn next(self: &Arc<Self>) -> Option<(oneshot::Sender<Place>, Place)> {
        let mut state = self.lock();
        state.waiting.retain(|waiting| !waiting.answer.is_closed());
        let window = state.window()?;
        let next = state.choose()?;
        let Waiting { size, answer, .. } = state.waiting.swap_remove(next);
        let large = size >= LARGE;
        state.given += 1;
        state.taken += 1;
        state.taken_large += usize::from(large);
        state.taken_memory += window;
        Some((answer, Place { places: Arc::clone(self), window, large }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What one more image may hold in memory; `None` where there is no place for one.
    fn window(&self) -> Option<usize> {
        let window = self.memory / self.concurrency.max(1);
        let fits = self.taken == 0 || self.taken_memory + window <= self.memory;
        (self.taken < self.concurrency && fits).then_some(window)
    }

    fn choose(&self) -> Option<usize> {
        let most_large = (self.concurrency - self.concurrency.div_ceil(4)).max(1);
        let admits_large = self.taken_large < most_large;
        let oldest = self.given % OLDEST_EVERY == OLDEST_EVERY - 1;
        let candidates = self.waiting.iter().enumerate().filter(|(_, it)| admits_large || it.size < LARGE);
        let rank = |it: &Waiting| if oldest { (0, it.number) } else { (it.size, it.number) };
        candidates.min_by_key(|(_, it)| rank(it)).map(|(at, _)| at)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.places.lock();
        state.taken -= 1;
        state.taken_large -= usize::from(self.large);
        state.taken_memory -= self.window;
        drop(state);
        self.places.give();
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, num::NonZeroUsize};

    use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
    use mimeo_core::Hours;

    use super::*;

    const MIB: u64 = 1 << 20;

    async fn enter(places: &Arc<Places>, size: u64) -> Place {
        let number = places.arrive();
        places.enter(size, number).await
    }

    fn places(concurrency: usize, memory: usize) -> Arc<Places> {
        let places = Arc::new(Places::default());
        places.set(&limits(concurrency, memory));
        places
    }

    fn limits(concurrency: usize, memory: usize) -> Limits {
        Limits {
            concurrency: NonZeroUsize::new(concurrency).unwrap(),
            memory: NonZeroUsize::new(memory).unwrap(),
            bandwidth: None,
            hours: Hours::default(),
            stores: BTreeMap::new(),
        }
    }

    /// The order in which images of these sizes, who come in this order, get the one place there is.
    async fn order(sizes: &[u64]) -> Vec<u64> {
        let places = places(1, 100);
        let first = enter(&places, 0).await;
        let mut queue: FuturesUnordered<_> = sizes
            .iter()
            .map(|size| {
                let places = Arc::clone(&places);
                async move {
                    drop(enter(&places, *size).await);
                    *size
                }
            })
            .collect();
        assert!(queue.next().now_or_never().is_none());
        drop(first);
        queue.collect().await
    }

    #[tokio::test]
    async fn the_smallest_goes_first_and_every_fourth_is_the_one_that_waited_longest() {
        // The first place, taken by the test itself, counts.
        assert_eq!(order(&[900, 5, 4, 3, 2, 1]).await, [1, 2, 900, 3, 4, 5]);
        assert_eq!(order(&[7, 7]).await, [7, 7]);
    }

    #[tokio::test]
    async fn large_images_leave_a_place_for_small_ones() {
        let places = places(4, 400);
        let mut large = Vec::new();
        for _ in 0..3 {
            large.push(enter(&places, 200 << 30).await);
        }
        let fourth = enter(&places, 200 << 30);
        tokio::pin!(fourth);
        assert!(fourth.as_mut().now_or_never().is_none(), "three of four places are enough for large ones");
        for _ in 0..50 {
            drop(enter(&places, MIB).now_or_never().unwrap());
        }
        large.pop();
        assert_eq!(fourth.await.window, 100);
    }

    #[tokio::test]
    async fn the_only_place_is_for_all() {
        assert_eq!(order(&[200 << 30]).await, [200 << 30]);
    }

    #[tokio::test]
    async fn memory_is_never_given_twice_however_the_limits_change() {
        let places = places(2, 100);
        let (first, second) = (enter(&places, 1).await, enter(&places, 1).await);
        assert_eq!((first.window, second.window), (50, 50));
        places.set(&limits(4, 100));
        let third = enter(&places, 1);
        tokio::pin!(third);
        assert!(third.as_mut().now_or_never().is_none(), "all the memory is in use");
        drop(first);
        assert_eq!(third.await.window, 25);
        assert!(enter(&places, 1).now_or_never().is_some(), "the other half of what was given back");
    }

    #[tokio::test]
    async fn who_leaves_the_queue_gets_no_place() {
        let places = places(1, 100);
        let first = enter(&places, 1).await;
        let mut gone = Box::pin(enter(&places, 1));
        assert!(gone.as_mut().now_or_never().is_none());
        drop(gone);
        let next = enter(&places, 1);
        drop(first);
        assert!(next.now_or_never().is_some());
    }
}
