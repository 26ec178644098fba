//! S3 and what speaks its protocol: multipart uploads, which can be gone on with.

mod config;
mod store;

pub use config::S3StoreConfig;
pub use store::S3Store;
