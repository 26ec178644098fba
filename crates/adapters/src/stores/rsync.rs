//! A directory that the rsync program writes, over SSH or to rsync's daemon, and that a web server exports.
//!
//! rsync needs a regular file, so an object waits in the spool, a directory of this machine, until it is complete.

mod config;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod program;
mod sink;
mod spool;
mod store;

pub use config::{InvalidTarget, RsyncStoreConfig, RsyncTarget};
pub use store::RsyncStore;
