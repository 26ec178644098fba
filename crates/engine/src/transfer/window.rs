//! The window: what the reader has read and not every sink has written yet. Bounded in bytes, shared by reference.
//!
//! Each sink has a cursor of its own. A sink that holds up the others for too long falls out of the window: its
//! cursor says at which offset, and it goes on from a read of its own.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::Notify, time::Instant};

/// How long in all, at the least, the fastest sinks wait for the slowest before it is detached.
const PATIENCE: Duration = Duration::from_millis(500);
/// And the share of the transfer's time so far that they wait without complaint.
const PATIENCE_SHARE: u32 = 10;
/// How long the last cursors may take over the window once the reading is done.
const DRAIN: Duration = Duration::from_secs(1);

/// How the reading ended: what every sink is told.
pub(super) type Ending<T> = Result<T, super::SourceFailure>;

pub(super) struct Window<T> {
    state: Mutex<State<T>>,
    capacity: usize,
    /// More data, or the end.
    data: Notify,
    /// Room, or nobody left who wants any.
    room: Notify,
}

struct State<T> {
    chunks: VecDeque<Bytes>,
    /// The sequence number of the first chunk held.
    first: u64,
    bytes: usize,
    /// The next chunk of each attached cursor, by sequence number.
    attached: HashMap<u64, u64>,
    /// Cursors alive, detached ones too: while there are any, the reading has a purpose.
    alive: usize,
    next_id: u64,
    ending: Option<Ending<T>>,
}

impl<T: Clone> Window<T> {
    pub(super) fn new(capacity: usize) -> Arc<Self> {
        let state = State {
            chunks: VecDeque::new(),
            first: 0,
            bytes: 0,
            attached: HashMap::new(),
            alive: 0,
            next_id: 0,
            ending: None,
        };
        Arc::new(Self { state: Mutex::new(state), capacity, data: Notify::new(), room: Notify::new() })
    }

    /// A cursor at the start. All of them are made before the first push.
    pub(super) fn cursor(self: &Arc<Self>) -> Cursor<T> {
        let mut state = self.lock();
        let id = state.next_id;
        state.next_id += 1;
        state.alive += 1;
        state.attached.insert(id, 0);
        Cursor { window: Arc::clone(self), id, next: 0, offset: 0 }
    }

    /// Hands a chunk to all attached cursors, once there is room for it. False: nobody is left who wants it.
    pub(super) async fn push(&self, chunk: Bytes, waits: &mut Waits) -> bool {
        loop {
            let room = self.room.notified();
            {
                let mut state = self.lock();
                if state.alive == 0 {
                    return false;
                }
                if state.attached.is_empty() {
                    return true;
                }
                if state.bytes == 0 || state.bytes + chunk.len() <= self.capacity {
                    state.bytes += chunk.len();
                    state.chunks.push_back(chunk);
                    drop(state);
                    self.data.notify_waiters();
                    return true;
                }
                if waits.is_over() && state.detach_slowest() {
                    drop(state);
                    self.data.notify_waiters();
                    continue;
                }
            }
            waits.wait(room).await;
        }
    }

    /// Tells every cursor, once it has come to the end, how the reading ended.
    pub(super) fn finish(&self, ending: Ending<T>) {
        self.lock().ending = Some(ending);
        self.data.notify_waiters();
    }

    /// Waits until every cursor has taken everything; those that need longer than [`DRAIN`] are detached.
    pub(super) async fn drain(&self) {
        let emptied = async {
            loop {
                let room = self.room.notified();
                if self.lock().bytes == 0 {
                    return;
                }
                room.await;
            }
        };
        if tokio::time::timeout(DRAIN, emptied).await.is_err() {
            let mut state = self.lock();
            let end = state.end();
            state.attached.retain(|_, next| *next == end);
            state.trim();
            drop(state);
            self.data.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    fn end(&self) -> u64 {
        self.first + self.chunks.len() as u64
    }

    /// Forgets the chunks that every attached cursor has taken. True if there were any.
    fn trim(&mut self) -> bool {
        let oldest = self.attached.values().copied().min().unwrap_or_else(|| self.end());
        let before = self.first;
        while self.first < oldest {
            let Some(chunk) = self.chunks.pop_front() else { break };
            self.bytes -= chunk.len();
            self.first += 1;
        }
        self.first > before
    }

    /// Detaches whoever holds the oldest chunk, if somebody else has nothing left to do.
    fn detach_slowest(&mut self) -> bool {
        let (end, first) = (self.end(), self.first);
        if !self.attached.values().any(|next| *next == end) {
            return false;
        }
        self.attached.retain(|_, next| *next != first);
        self.trim()
    }
}

/// How long the reader has waited for room, and whether that is enough.
pub(super) struct Waits {
    started: Instant,
    waited: Duration,
}

impl Waits {
    pub(super) fn new() -> Self {
        Self { started: Instant::now(), waited: Duration::ZERO }
    }

    fn patience(&self) -> Duration {
        PATIENCE.max(self.started.elapsed() / PATIENCE_SHARE)
    }

    fn is_over(&self) -> bool {
        self.waited >= self.patience()
    }

    async fn wait(&mut self, room: impl Future<Output = ()>) {
        let began = Instant::now();
        let rest = self.patience().saturating_sub(self.waited).max(Duration::from_millis(20));
        // Either way the caller looks again.
        let _ = tokio::time::timeout(rest, room).await;
        self.waited += began.elapsed();
    }
}

/// One sink's place in the window.
pub(super) struct Cursor<T> {
    window: Arc<Window<T>>,
    id: u64,
    next: u64,
    offset: u64,
}

/// What a cursor finds at its place.
#[derive(Debug)]
pub(super) enum Found<T> {
    Chunk(Bytes),
    /// All chunks were given; this is how the reading ended.
    End(Ending<T>),
    /// The window has moved on; the bytes from this offset on must be read elsewhere.
    Detached(u64),
}

impl<T: Clone> Cursor<T> {
    pub(super) async fn next(&mut self) -> Found<T> {
        loop {
            let window = Arc::clone(&self.window);
            let data = window.data.notified();
            if let Some(found) = self.look() {
                return found;
            }
            data.await;
        }
    }

    /// Waits for the end of the reading, without taking chunks. For a cursor that was detached.
    pub(super) async fn ending(&self) -> Ending<T> {
        loop {
            let data = self.window.data.notified();
            if let Some(ending) = self.window.lock().ending.clone() {
                return ending;
            }
            data.await;
        }
    }

    fn look(&mut self) -> Option<Found<T>> {
        let mut state = self.window.lock();
        if !state.attached.contains_key(&self.id) {
            return Some(Found::Detached(self.offset));
        }
        let at = usize::try_from(self.next - state.first).unwrap_or(usize::MAX);
        let Some(chunk) = state.chunks.get(at).cloned() else {
            return state.ending.clone().map(Found::End);
        };
        self.next += 1;
        self.offset += chunk.len() as u64;
        state.attached.insert(self.id, self.next);
        let freed = state.trim();
        drop(state);
        if freed {
            self.window.room.notify_waiters();
        }
        Some(Found::Chunk(chunk))
    }
}

impl<T> Drop for Cursor<T> {
    fn drop(&mut self) {
        let mut state = self.window.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.alive -= 1;
        state.attached.remove(&self.id);
        state.trim();
        drop(state);
        self.window.room.notify_waiters();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn chunk(byte: u8) -> Bytes {
        Bytes::from(vec![byte; 10])
    }

    async fn drain(mut cursor: Cursor<&'static str>) -> (Vec<u8>, Found<&'static str>) {
        let mut bytes = Vec::new();
        loop {
            match cursor.next().await {
                Found::Chunk(chunk) => bytes.push(chunk[0]),
                other => return (bytes, other),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn every_cursor_gets_every_chunk_though_the_window_holds_two() {
        let window = Window::new(20);
        let (a, b) = (window.cursor(), window.cursor());
        let reader = async {
            let mut waits = Waits::new();
            for byte in 0..50 {
                assert!(window.push(chunk(byte), &mut waits).await);
            }
            window.finish(Ok("done"));
        };
        let ((), a, b) = tokio::join!(reader, drain(a), drain(b));
        for (bytes, end) in [a, b] {
            assert_eq!(bytes, (0..50).collect::<Vec<u8>>());
            assert!(matches!(end, Found::End(Ok("done"))));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_cursor_that_stands_still_is_detached_at_its_offset_and_the_other_goes_on() {
        let window = Window::new(20);
        let (fast, mut stuck) = (window.cursor(), window.cursor());
        assert!(window.push(chunk(0), &mut Waits::new()).await);
        assert!(matches!(stuck.next().await, Found::Chunk(_)));
        let reader = async {
            let mut waits = Waits::new();
            for byte in 1..50 {
                assert!(window.push(chunk(byte), &mut waits).await);
            }
            window.finish(Ok("done"));
        };
        let ((), (bytes, _)) = tokio::join!(reader, drain(fast));
        assert_eq!(bytes.len(), 50);
        assert!(matches!(stuck.next().await, Found::Detached(10)));
        assert_eq!(stuck.ending().await.unwrap(), "done");
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_are_equally_slow_nobody_is_detached() {
        let window = Window::new(20);
        let slow = |mut cursor: Cursor<&'static str>| async move {
            let mut count = 0;
            while let Found::Chunk(_) = cursor.next().await {
                count += 1;
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
            count
        };
        let (a, b) = (slow(window.cursor()), slow(window.cursor()));
        let reader = async {
            let mut waits = Waits::new();
            for byte in 0..10 {
                window.push(chunk(byte), &mut waits).await;
            }
            window.finish(Ok("done"));
        };
        assert_eq!(tokio::join!(a, b, reader), (10, 10, ()));
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_chunks_are_kept_for_a_while_and_then_given_up() {
        let window = Window::new(20);
        let (mut slow, mut stuck) = (window.cursor(), window.cursor());
        assert!(window.push(chunk(0), &mut Waits::new()).await);
        window.finish(Ok("done"));
        let taking = async {
            tokio::time::sleep(DRAIN / 2).await;
            assert!(matches!(slow.next().await, Found::Chunk(_)));
        };
        tokio::join!(window.drain(), taking);
        assert!(matches!(slow.next().await, Found::End(Ok("done"))));
        assert!(matches!(stuck.next().await, Found::Detached(0)));
    }

    #[tokio::test]
    async fn reading_stops_when_nobody_is_left() {
        let window: Arc<Window<&'static str>> = Window::new(20);
        let cursor = window.cursor();
        assert!(window.push(chunk(0), &mut Waits::new()).await);
        drop(cursor);
        assert!(!window.push(chunk(1), &mut Waits::new()).await);
    }
}
