//! The window: what the reader has read and not everybody has worked off yet. Bounded in bytes, shared by reference.
//!
//! Each sink and each hash has a cursor of its own. A sink that holds up the others for too long falls out of the
//! window: its cursor says at which offset, and it goes on from a read of its own. A hash never falls out: without it
//! nothing is proven.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::piece::Piece;
use crate::sabotage::{self, Bug};

/// How long in all, at the least, a sink may hold up the others before it is detached.
const PATIENCE: Duration = Duration::from_millis(500);
/// And the share of the transfer's time so far that it may without complaint.
const PATIENCE_SHARE: u32 = 4;
/// The same of bits that somebody waits for while they pass, and the most: Glance gives an upload up that stands still for
/// four seconds, and whoever hands the bits over waits for all stores together no longer than for two.
const LIVE_SHARE: u32 = 20;
const LIVE_PATIENCE: Duration = Duration::from_secs(1);
/// So many new bytes wake those that wait for them, if nothing else does first: to wake somebody for each chunk costs more
/// than what is done with it.
const WAKE: usize = 1 << 20;
/// How long the last pieces are waited for at the least, once the reading is done.
const DRAIN: Duration = Duration::from_secs(1);
/// How often a reader without room looks who is holding it up.
const TICK: Duration = Duration::from_millis(10);

/// How the reading ended: what every sink is told.
pub(super) type Ending<T> = Result<T, super::SourceFailure>;

pub(super) struct Window<T> {
    state: Mutex<State<T>>,
    capacity: usize,
    started: Instant,
    /// Somebody waits for the bits to pass: who is late is detached soon, whether or not another sink is idle.
    is_live: bool,
    /// More data, or the end.
    data: Notify,
    /// Room, or nobody left who wants any.
    room: Notify,
}

struct State<T> {
    pieces: VecDeque<Piece>,
    /// The sequence number of the first piece held.
    first: u64,
    weight: usize,
    /// Bytes pushed since the cursors were woken last.
    unheard: usize,
    attached: BTreeMap<u64, Place>,
    /// Sinks alive, detached ones too: while there are any, the reading has a purpose.
    sinks: usize,
    next_id: u64,
    /// Nothing follows the pieces held.
    complete: bool,
    ending: Option<Ending<T>>,
}

/// Where an attached cursor is.
struct Place {
    /// The first piece that it has not worked off, by sequence number.
    at: u64,
    role: Role,
}

enum Role {
    Hash,
    Sink {
        /// How long it has held up the others so far.
        held_up: Duration,
        /// Known to be slower than the others: they do not wait for it at all.
        slow: bool,
    },
}

impl<T: Clone> Window<T> {
    pub(super) fn new(capacity: usize) -> Arc<Self> {
        Self::of(capacity, false)
    }

    pub(super) fn live(capacity: usize) -> Arc<Self> {
        Self::of(capacity, true)
    }

    fn of(capacity: usize, is_live: bool) -> Arc<Self> {
        let state = State {
            pieces: VecDeque::new(),
            first: 0,
            weight: 0,
            unheard: 0,
            attached: BTreeMap::new(),
            sinks: 0,
            next_id: 0,
            complete: false,
            ending: None,
        };
        let (data, room) = (Notify::new(), Notify::new());
        Arc::new(Self { state: Mutex::new(state), capacity, started: Instant::now(), is_live, data, room })
    }

    /// A sink's cursor at the start. All cursors are made before the first push. A slow one is detached as soon as it
    /// holds up another.
    pub(super) fn sink(self: &Arc<Self>, slow: bool) -> Cursor<T> {
        self.lock().sinks += 1;
        self.cursor(Role::Sink { held_up: Duration::ZERO, slow })
    }

    pub(super) fn hash(self: &Arc<Self>) -> Cursor<T> {
        self.cursor(Role::Hash)
    }

    fn cursor(self: &Arc<Self>, role: Role) -> Cursor<T> {
        let mut state = self.lock();
        let id = state.next_id;
        state.next_id += 1;
        let is_sink = matches!(role, Role::Sink { .. });
        state.attached.insert(id, Place { at: 0, role });
        Cursor { window: Arc::clone(self), id, is_sink, next: 0, offset: 0 }
    }

    /// Hands a piece to all attached cursors, once there is room for it. False: no sink is left that wants it. They may
    /// not hear of it before a [`wake`](Self::wake).
    pub(super) async fn push(&self, piece: Piece) -> bool {
        loop {
            let room = self.room.notified();
            {
                let mut state = self.lock();
                if state.sinks == 0 {
                    return false;
                }
                if state.weight == 0
                    || sabotage::is(Bug::WindowHasNoEnd)
                    || state.weight + piece.weight() <= self.capacity
                {
                    state.weight += piece.weight();
                    state.unheard += piece.length();
                    state.pieces.push_back(piece);
                    let is_much = state.unheard >= WAKE;
                    drop(state);
                    if is_much {
                        self.wake();
                    }
                    return true;
                }
            }
            self.wake();
            self.wait_for_room(room).await;
        }
    }

    /// Wakes the cursors that wait for what was pushed.
    pub(super) fn wake(&self) {
        if std::mem::take(&mut self.lock().unheard) > 0 {
            self.data.notify_waiters();
        }
    }

    /// How many sinks are fed from here.
    pub(super) fn attached_sinks(&self) -> usize {
        self.lock().attached.values().filter(|place| matches!(place.role, Role::Sink { .. })).count()
    }

    /// Waits a moment, and holds it against the sinks that the others wait for.
    async fn wait_for_room(&self, room: impl Future<Output = ()>) {
        let began = Instant::now();
        let late = self.lock().late();
        // Whether there is room now, the caller sees.
        let _ = tokio::time::timeout(TICK, room).await;
        let patience = self.patience();
        let mut state = self.lock();
        // Late all the time, with nobody else to blame; but whether another is idle shows only now: before, those who are
        // quick may not have taken the newest piece yet.
        let suspects = if self.is_live { state.late() } else { state.culprits() };
        let culprits: Vec<u64> = suspects.into_iter().filter(|id| late.contains(id)).collect();
        if state.hold_against(&culprits, began.elapsed(), patience) {
            drop(state);
            self.data.notify_waiters();
        }
    }

    fn patience(&self) -> Duration {
        let elapsed = self.started.elapsed();
        match self.is_live {
            true => (elapsed / LIVE_SHARE).clamp(PATIENCE, LIVE_PATIENCE),
            false => PATIENCE.max(elapsed / PATIENCE_SHARE),
        }
    }

    /// Nothing more will be pushed.
    pub(super) fn complete(&self) {
        self.lock().complete = true;
        self.data.notify_waiters();
    }

    /// Tells every sink, once it has come to the end, how the reading ended. What was told stands.
    pub(super) fn finish(&self, ending: Ending<T>) {
        let mut state = self.lock();
        state.complete = true;
        state.ending.get_or_insert(ending);
        drop(state);
        self.data.notify_waiters();
    }

    /// Waits until every cursor has worked off everything; those that need much longer are detached.
    pub(super) async fn drain(&self) {
        let emptied = async {
            loop {
                let room = self.room.notified();
                if self.lock().weight == 0 {
                    return;
                }
                room.await;
            }
        };
        if tokio::time::timeout(DRAIN.max(2 * self.patience()), emptied).await.is_err() {
            let mut state = self.lock();
            let end = state.end();
            state.attached.retain(|_, place| place.at == end);
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
        self.first + self.pieces.len() as u64
    }

    /// Forgets the pieces that every attached cursor has worked off. True if there were any.
    fn trim(&mut self) -> bool {
        let oldest = self.attached.values().map(|place| place.at).min().unwrap_or_else(|| self.end());
        let before = self.first;
        while self.first < oldest {
            let Some(piece) = self.pieces.pop_front() else { break };
            self.weight -= piece.weight();
            self.first += 1;
        }
        self.first > before
    }

    /// The sinks that hold the oldest piece, if no hash is as late.
    fn late(&self) -> Vec<u64> {
        let mut late = Vec::new();
        for (id, place) in self.attached.iter().filter(|(_, place)| place.at == self.first) {
            match place.role {
                Role::Hash => return Vec::new(),
                Role::Sink { .. } => late.push(*id),
            }
        }
        late
    }

    /// The late sinks, while another has nothing left to do.
    fn culprits(&self) -> Vec<u64> {
        let end = self.end();
        let is_idle = |place: &Place| place.at == end && matches!(place.role, Role::Sink { .. });
        if self.attached.values().any(is_idle) { self.late() } else { Vec::new() }
    }

    /// Adds to what the culprits have on their account, and detaches those that have used up the patience.
    fn hold_against(&mut self, culprits: &[u64], waited: Duration, patience: Duration) -> bool {
        let before = self.attached.len();
        for id in culprits {
            let Some(Place { role: Role::Sink { held_up, slow }, .. }) = self.attached.get_mut(id) else { continue };
            *held_up += waited;
            if (*slow || *held_up >= patience) && !sabotage::is(Bug::SlowHoldsUpAll) {
                self.attached.remove(id);
            }
        }
        let detached = self.attached.len() < before;
        if detached {
            self.trim();
        }
        detached
    }
}

/// One sink's, or one hash's, place in the window.
pub(super) struct Cursor<T> {
    window: Arc<Window<T>>,
    id: u64,
    is_sink: bool,
    next: u64,
    offset: u64,
}

/// What a sink's cursor finds at its place.
#[derive(Debug)]
pub(super) enum Found<T> {
    Piece(Piece),
    /// All pieces were given; this is how the reading ended.
    End(Ending<T>),
    /// The window has moved on; the bytes from this offset on must be read elsewhere.
    Detached(u64),
}

impl<T: Clone> Cursor<T> {
    /// The next piece. The one before counts as worked off from now on.
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

    fn look(&mut self) -> Option<Found<T>> {
        let state = self.work_off();
        if !state.attached.contains_key(&self.id) {
            return Some(Found::Detached(self.offset));
        }
        let at = usize::try_from(self.next - state.first).unwrap_or(usize::MAX);
        let found = match state.pieces.get(at).cloned() {
            Some(piece) => Some(Found::Piece(piece)),
            None => state.ending.clone().map(Found::End),
        };
        drop(state);
        if let Some(Found::Piece(piece)) = &found {
            self.next += 1;
            self.offset += piece.length() as u64;
        }
        found
    }

    /// The next pieces, up to `most` bytes of them, at least one; none where there are none now. Those before count as
    /// worked off.
    pub(super) fn take(&mut self, most: usize) -> Vec<Piece> {
        let state = self.work_off();
        let (mut taken, mut length) = (Vec::new(), 0);
        let at = usize::try_from(self.next.saturating_sub(state.first)).unwrap_or(usize::MAX);
        for piece in state.pieces.iter().skip(at) {
            length += piece.length();
            if length > most && !taken.is_empty() {
                break;
            }
            taken.push(piece.clone());
        }
        drop(state);
        self.next += taken.len() as u64;
        taken
    }

    /// Waits until there is something to [`take`](Self::take). False: nothing will be any more. What was taken before
    /// counts as worked off.
    pub(super) async fn more(&self) -> bool {
        loop {
            let data = self.window.data.notified();
            {
                let state = self.work_off();
                if state.complete && self.next >= state.end() || !state.attached.contains_key(&self.id) {
                    return false;
                }
                if self.next < state.end() {
                    return true;
                }
            }
            data.await;
        }
    }

    /// Gives back the room of what was taken.
    fn work_off(&self) -> MutexGuard<'_, State<T>> {
        let mut state = self.window.lock();
        let worked_off = state
            .attached
            .get_mut(&self.id)
            .is_some_and(|place| std::mem::replace(&mut place.at, self.next) < self.next);
        if worked_off && state.trim() {
            self.window.room.notify_waiters();
        }
        state
    }

    /// Why the reading has failed, if it has.
    pub(super) fn failure(&self) -> Option<super::SourceFailure> {
        self.window.lock().ending.clone()?.err()
    }

    /// Waits for the end of the reading, without taking pieces. For a cursor that was detached.
    pub(super) async fn ending(&self) -> Ending<T> {
        loop {
            let data = self.window.data.notified();
            if let Some(ending) = self.window.lock().ending.clone() {
                return ending;
            }
            data.await;
        }
    }
}

impl<T> Drop for Cursor<T> {
    fn drop(&mut self) {
        let mut state = self.window.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.attached.remove(&self.id);
        if self.is_sink {
            state.sinks -= 1;
        }
        state.trim();
        drop(state);
        self.window.room.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
