//! Glance's notifications over RabbitMQ.
//!
//! Owns the connection, Mimeo's own queue and the reading of oslo.messaging's envelope. It knows nothing of what an
//! event leads to: that an image is to be looked at again is the engine's to conclude.

mod config;
mod events;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod message;

pub use config::{InvalidTransportUrl, RabbitConfig, TransportUrl};
pub use events::RabbitEvents;
