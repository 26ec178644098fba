//! OpenStack Swift and what speaks its protocol: large objects in the layout that Glance itself writes.

mod config;
mod store;

pub use config::SwiftStoreConfig;
pub use store::SwiftStore;
