//! Ceph RBD: an image with a protected snapshot, as Glance itself makes them.

mod config;
mod store;

pub use config::RbdStoreConfig;
pub use store::RbdStore;
