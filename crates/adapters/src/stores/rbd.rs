//! Ceph RBD: an image with a protected snapshot, as Glance itself makes them.
//!
//! Ceph's own libraries speak to the cluster; they are loaded at the first use, so that Mimeo needs none of them to be
//! built or to start. A location is Glance's `rbd://fsid/pool/image/snap`: an image without that snapshot is not
//! published, and its head can be gone on with. From another pool of the cluster an image is taken by Ceph itself.

mod ceph;
mod config;
mod ffi;
mod share;
mod sink;
mod store;
mod take;

pub use config::{InvalidRbdKey, RbdStoreConfig};
pub use store::RbdStore;
