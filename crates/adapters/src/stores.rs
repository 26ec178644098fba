//! Places for bits.

pub mod http;
