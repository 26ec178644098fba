//! A directory behind an SSH server, which a web server exports.
//!
//! Speaks SFTP 3 itself, over a connection for each object that is written. An object is written aside and renamed.

mod config;
mod connection;
mod host_key;
mod sink;
mod store;

pub use config::SftpStoreConfig;
pub use store::SftpStore;
