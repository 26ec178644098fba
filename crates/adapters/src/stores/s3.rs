//! S3 and what speaks its protocol: multipart uploads, which can be gone on with.
//!
//! Every request is signed in its URL, so that bodies pass without being hashed first, or with a checksum behind them
//! (`checked.rs`); messages show the URL alone. What the server tells is no proof of what it stored: proving is the engine's.

mod answer;
mod api;
mod checked;
mod config;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod sink;
mod store;

pub use config::{InvalidS3Value, S3Credentials, S3StoreConfig, bucket, certificates, prefix};
pub use rusty_s3::{Bucket, UrlStyle};
pub use store::S3Store;
