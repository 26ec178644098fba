//! Plain HTTP servers: PUT, HEAD, ranged GET and DELETE, as nginx (`dav_methods`) and Apache (`mod_dav`) do them, and
//! ranged PUT where the server takes it.
//!
//! Owns the connections to one server. It never asks whether what it stored is right: proving is the engine's.

mod access;
mod config;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod ranges;
mod sink;
mod store;

pub use access::{Access, Login, certificates, identity, proxy};
pub use config::HttpStoreConfig;
pub use store::HttpStore;
