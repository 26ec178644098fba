//! A directory on this machine, which a web server exports: written aside, synced and renamed.

mod config;
mod disk;
mod sink;
mod store;

pub use config::FileStoreConfig;
pub use store::FileStore;
