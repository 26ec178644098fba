//! OpenStack Swift and what speaks its protocol: large objects in the layout that Glance itself writes, as segments
//! `name-00001` and so on, and a manifest that names their prefix.
//!
//! No segment's MD5 is computed to compare it with the `ETag`: the copy is read back whole.

mod account;
mod config;
mod credentials;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod segments;
mod sink;
mod store;

pub use config::{SwiftLogin, SwiftStoreConfig, container, segment_size};
pub use credentials::{InvalidCredentials, SwiftCredentials};
pub use store::SwiftStore;
