//! The engine over the testkit's fakes, in virtual time.
#![allow(clippy::unwrap_used)]

mod adoption;
mod corners;
mod delegated;
mod deletes;
mod flow;
mod healing;
mod leaving;
mod limits;
mod measured;
mod resume;
mod room;
mod shared;
mod sources;
mod takes;
mod uploads;
mod windows;
mod world;
