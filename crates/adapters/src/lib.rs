//! The world: what speaks to brokers, image services, stores and databases.
//!
//! Each adapter speaks one protocol behind one port of `mimeo_core::ports`, and decides nothing: it says what
//! happened, with the reason that callers branch on, and never tries again what the engine should know of. The
//! exceptions are connections that are rebuilt (events) and tokens that are renewed (OpenStack), because no caller
//! could do either better. An adapter knows neither the engine nor its neighbours.

mod http;
mod live;
mod stream;
mod upload;

pub mod events;
pub mod ledger;
pub mod openstack;
pub mod stores;

pub use live::Live;
