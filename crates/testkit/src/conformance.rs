//! What every implementation of a port must do, as checks that panic where one does not.

mod ledger;
mod query;
mod registry;
mod store;

pub use ledger::ledger;
pub use registry::{Backstage, registry};
pub use store::{large_object, store, store_at, take};
