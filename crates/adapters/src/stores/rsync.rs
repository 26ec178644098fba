//! A directory that the `rsync` program reaches, and a web server exports.

mod config;
mod store;

pub use config::RsyncStoreConfig;
pub use store::RsyncStore;
