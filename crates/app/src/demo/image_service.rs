//! The demo's image service: the part of the `OpenStack` Images API v2 that the real clients use, behaving as Glance.
//!
//! It stands for glance-api, so it must not know that Mimeo exists: what it does with a location, an upload or a filter
//! is what Glance does, and messages are worded as Glance words them, because people know those. One thing is better on
//! purpose: a PATCH is atomic. Any token or none is taken, and everybody is an administrator.
//!
//! | module | owns |
//! |---|---|
//! | [`routes`] | which path is answered by what |
//! | [`catalogue`] | the images, one lock around them, and the events |
//! | [`image`] | one image: its fields, its life, what clients see of it |
//! | [`attributes`] | which values a client may give to which field |
//! | [`patch`], [`locations`] | JSON patch, and its part about locations |
//! | [`list`] | filters, sorting and pages |
//! | [`data`], [`bits`] | upload and download, and the files they end in |
//! | [`discovery`] | versions, schemas, stores |
//! | [`fault`] | errors in the form that clients print |

mod attributes;
mod bits;
mod catalogue;
mod data;
mod discovery;
mod fault;
mod image;
mod list;
mod locations;
mod patch;
mod routes;
#[cfg(test)]
mod tests;

use std::{path::PathBuf, sync::Arc};

use futures::future::BoxFuture;
use serde_json::Value;
use tokio::{net::TcpListener, sync::mpsc::UnboundedSender};
use tokio_util::sync::CancellationToken;

use self::{bits::Bits, catalogue::Catalogue};
use crate::lifetime;

/// Asks a URL for its size, as Glance's HTTP store does with HEAD: `None` unless the answer is 200 with a length.
pub(crate) type Probe = Arc<dyn Fn(String) -> BoxFuture<'static, Option<u64>> + Send + Sync>;

/// What Glance would send to the message bus.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Notification {
    /// `image.create`, `image.update`, `image.prepare`, `image.upload`, `image.activate` or `image.delete`.
    pub event_type: String,
    /// The image in the shape of Glance's notifications: never with its locations.
    pub payload: Value,
}

/// What the service needs from its surroundings.
pub(crate) struct Setup {
    /// Where uploaded bits are kept, one file per image. Made if missing; never emptied.
    pub bits: PathBuf,
    /// How a location is tried before it is accepted.
    pub probe: Probe,
    /// Where events go. That nobody listens any more is no error.
    pub events: UnboundedSender<Notification>,
}

/// Answers the Images API on `listener` until `stop` is cancelled. The images are in memory and end with it.
///
/// # Errors
/// When the directory of the bits cannot be made, or the listener fails.
pub(crate) async fn serve(listener: TcpListener, setup: Setup, stop: CancellationToken) -> anyhow::Result<()> {
    let service = Service {
        catalogue: Arc::new(Catalogue::new(setup.events)),
        bits: Arc::new(Bits::open(setup.bits).await?),
        probe: setup.probe,
    };
    lifetime::serve_until(listener, routes::router(service), stop).await
}

/// What every handler works with.
#[derive(Clone)]
struct Service {
    catalogue: Arc<Catalogue>,
    bits: Arc<Bits>,
    probe: Probe,
}
