//! Free space, asked for before a large copy begins: a store that has none would say so after an hour of sending.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use mimeo_core::{Error, Reason, Result};
use tokio::time::timeout;

use crate::{
    StorePart,
    progress::{Counter, Line},
};

/// For what is less, a refusal comes soon enough.
const LARGE: u64 = 64 << 20;

/// What a store's running copies are still to take, as far as they are large.
#[derive(Default)]
pub(crate) struct Room(Mutex<Vec<Weak<Counter>>>);

impl Room {
    /// Whether there is room for the rest of a copy, beside those that run; it is taken for as long as the copy has its
    /// line. A store that does not tell is believed to have room: if not, it says so itself.
    pub(crate) async fn take(&self, part: &StorePart, line: &Line) -> Result<()> {
        let Some(needed) = line.counter().left().filter(|left| *left >= LARGE) else { return Ok(()) };
        let store = part.store.name();
        let room = match timeout(part.timeout, part.store.room()).await {
            Ok(Ok(room)) => room,
            Ok(Err(error)) => {
                tracing::debug!(%store, error = error.chain(), "free space cannot be asked for");
                None
            }
            Err(_) => None,
        };
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|copy| copy.strong_count() > 0);
        let taken = running.iter().filter_map(Weak::upgrade).filter_map(|copy| copy.left());
        let taken = taken.fold(0, u64::saturating_add);
        match room {
            Some(room) if room.saturating_sub(taken) < needed => Err(full(part, room, taken, needed)),
            _ => {
                running.push(Arc::downgrade(line.counter()));
                Ok(())
            }
        }
    }
}

fn full(part: &StorePart, room: u64, taken: u64, needed: u64) -> Error {
    let store = part.store.name();
    let running = match taken {
        0 => String::new(),
        taken => format!(", of which copies that run will take {taken}"),
    };
    let message = format!(
        "{store}: it has room for {room} bytes{running}, and this copy needs {needed}: make room there, or raise its quota"
    );
    Error::new(Reason::StoreFull, message)
}
