//! A directory behind an SSH server, which a web server exports.

mod config;
mod store;

pub use config::SftpStoreConfig;
pub use store::SftpStore;
