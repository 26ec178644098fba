//! Places for bits, a kind each; alike to the file name.

#[cfg(feature = "file")]
pub mod file;
pub mod http;
#[cfg(any(feature = "file", feature = "rbd", feature = "s3", feature = "sftp", feature = "swift"))]
mod listing;
#[cfg(feature = "rbd")]
pub mod rbd;
#[cfg(feature = "rsync")]
pub mod rsync;
#[cfg(feature = "s3")]
pub mod s3;
#[cfg(feature = "sftp")]
pub mod sftp;
#[cfg(any(feature = "sftp", feature = "rsync"))]
mod ssh;
#[cfg(feature = "swift")]
pub mod swift;
mod web;
#[cfg(any(feature = "file", feature = "rsync"))]
mod writer;

pub use web::{InvalidStoreUrl, base_url};
