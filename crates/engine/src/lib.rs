//! How it flows: a mark in the ledger, a look, a plan, and its execution: copy, prove, register, settle.
//!
//! The engine names no protocol and no file format: it sees the world through `mimeo_core::ports` only.

mod adopt;
mod arrange;
mod ask;
mod attempt;
mod breaker;
mod copy;
mod digester;
mod engine;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod gate;
mod guard;
mod health;
mod intake;
mod leftovers;
mod like;
mod look;
mod meter;
mod names;
mod nearest;
mod note;
mod orders;
mod pace;
mod places;
mod probe;
mod progress;
mod prove;
mod queries;
mod recent;
mod reconcile;
mod register;
mod room;
mod rules;
#[cfg(not(feature = "sabotage"))]
mod sabotage;
mod scan;
mod scrub;
mod serve;
mod set_back;
mod steady;
mod stores;
mod survey;
mod sweep;
mod take;
mod transfer;
mod turn;
mod upload;
mod verify;
mod walk;
mod withheld;

#[cfg(feature = "sabotage")]
pub mod sabotage;
pub mod status;

pub use adopt::came_back;
pub use engine::{Engine, GcSettings, Parts, ScrubSettings, Settings, StorePart};
pub use meter::{Counts, LAG_BOUNDS, Lags, Measured};
pub use progress::{Phase, Progress, Running, Traffic};
pub use stores::Refusal;
pub use survey::notes;
pub use upload::{Becomes, Bits, Copying, Outcome, Upload};
