//! What is decided: images, replicas, rules, plans, and the ports to the world.
//!
//! Nothing here does I/O, reads a clock or draws a random number; every function gives the same answer for the
//! same arguments. That is what lets the hard part of Mimeo be tested with plain values.

mod backoff;
mod error;
mod family;
mod history;
mod id;
mod image;
mod limits;
mod query;
mod record;
mod replica;

pub mod identity;
pub mod plan;
pub mod policy;
pub mod ports;

pub use backoff::Backoff;
pub use error::{Error, Reason, Result, root_cause};
pub use family::likeness;
pub use history::{FORGOTTEN, HISTORY_KEPT, HISTORY_LINES, HistoryLine, HistoryState, HistoryStep, follow};
pub use id::{Digest, ImageId, InvalidId, ObjectName, StoreName};
pub use image::{
    ContentHash, HashAlgorithm, Image, ImageStatus, Location, STORE_KEY, Snapshot, Visibility, are_surely_two, bare,
    is_removed_with_its_bits, place, without_credentials,
};
pub use limits::{Hours, InvalidSpan, Limits, Span, StoreLimits};
pub use query::{Backlog, CONTESTED, ImageFilter, Place, Tally, Told};
pub use record::{CHUNK, Change, DirtyMark, Due, ImageRow, Object, ObjectState, Record};
pub use replica::{Failure, ImageState, Proof, ProofKind, Replica, ReplicaState};

/// Points in time: UTC, written as RFC 3339.
pub type Timestamp = jiff::Timestamp;

/// Where times of the day are meant.
pub type TimeZone = jiff::tz::TimeZone;
