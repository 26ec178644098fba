//! How it flows: a mark in the ledger, a look, a plan, and its execution: copy, prove, register, settle.
//!
//! The engine names no protocol and no file format: it sees the world through `mimeo_core::ports` only.

mod ask;
mod attempt;
mod copy;
mod engine;
mod gate;
mod health;
mod intake;
mod like;
mod look;
mod names;
mod nearest;
mod note;
mod pace;
mod places;
mod progress;
mod prove;
mod queries;
mod recent;
mod reconcile;
mod register;
mod scan;
mod serve;
mod sweep;
mod take;
mod transfer;
mod turn;
mod upload;
mod walk;

pub mod status;

pub use engine::{Engine, GcSettings, Parts, Settings, StorePart};
pub use progress::{Phase, Progress};
pub use upload::{Bits, Copying, Outcome, Upload};
