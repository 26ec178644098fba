//! The engine over the testkit's fakes, in virtual time.
#![allow(clippy::unwrap_used)]

mod corners;
mod delegated;
mod deletes;
mod flow;
mod limits;
mod resume;
mod sources;
mod takes;
mod uploads;
mod windows;
mod world;
