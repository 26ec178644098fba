//! The engine's ports: the testkit's fakes behind the weather, with every call seen by the promises.

pub(crate) mod events;
pub(crate) mod ledger;
pub(crate) mod registry;
pub(crate) mod store;
mod take;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;

/// Bytes that count as long as the engine holds any part of them.
struct Counted(Vec<u8>, Arc<AtomicUsize>);

fn counted(bytes: &[u8], held: &Arc<AtomicUsize>) -> Bytes {
    held.fetch_add(bytes.len(), Ordering::SeqCst);
    Bytes::from_owner(Counted(bytes.to_vec(), Arc::clone(held)))
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_sub(self.0.len(), Ordering::SeqCst);
    }
}

/// A stream or a sink that the engine has open: each may have a piece in its hand.
struct Hand(Arc<AtomicUsize>);

impl Hand {
    fn new(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(open))
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
