//! Glance, by way of Keystone.
//!
//! Owns the login, the token's life and the wire format of the Images API. Image bits and metadata go over one
//! HTTP client; the login itself is the OpenStack SDK's.

mod answer;
mod config;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod glance;
mod identity;
mod session;
mod source;
#[cfg(feature = "swift")]
mod tempauth;
#[cfg(test)]
mod tests;
mod wire;

pub use config::OpenstackConfig;
#[cfg(feature = "swift")]
pub(crate) use config::{Endpoint, Login, named_cloud, trust};
pub use glance::Glance;
pub use identity::Keystone;
#[cfg(feature = "swift")]
pub(crate) use session::{Access, Session};
#[cfg(feature = "swift")]
pub(crate) use tempauth::TempAuth;
