//! Fakes of every port, faults for them, and one conformance suite per port that the fakes and the real adapters
//! both pass: that keeps the fakes honest.
//!
//! A dev-dependency only. It knows the ports and nothing of the engine or of any adapter.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "only tests run this: a panic is how a test fails")]

mod clock;
mod events;
mod ledger;
mod registry;
mod store;

pub mod conformance;
pub mod sample;

pub use clock::FakeClock;
pub use events::{EventSender, FakeEvents};
pub use ledger::{LedgerBackup, MemoryLedger};
pub use registry::{AddAnswer, FakeRegistry, RegistryFault};
pub use store::{FakeStore, StoreCall, StoreFault};
