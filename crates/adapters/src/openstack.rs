//! Glance, by way of Keystone.
//!
//! Owns the login, the token's life and the wire format of the Images API. Image bits and metadata go over one
//! HTTP client; the login itself is the OpenStack SDK's.

mod answer;
mod config;
mod glance;
mod session;
mod source;
#[cfg(test)]
mod tests;
mod wire;

pub use config::OpenstackConfig;
pub use glance::Glance;
