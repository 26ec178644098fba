//! What keeps an open page up to date: server-sent events with the parts of it that changed.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

use axum::response::{
    IntoResponse, Response,
    sse::{Event, KeepAlive, Sse},
};
use futures::stream;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::{Dashboard, fault::Fault, session::Visitor, show::Html};

/// Pages that may be kept up to date at the same time.
const MOST: usize = 200;

/// A page's parts by the ids of the elements that they fill.
pub(super) type Parts = BTreeMap<&'static str, Html>;

pub(super) struct Streams {
    places: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Streams {
    pub(super) fn new(stop: CancellationToken) -> Self {
        Self { places: Arc::new(Semaphore::new(MOST)), stop }
    }
}

struct Stream<F> {
    dashboard: Arc<Dashboard>,
    visitor: Visitor,
    every: Duration,
    make: F,
    sent: Parts,
    _place: OwnedSemaphorePermit,
}

/// Makes the parts anew every so often, and sends those that changed. Ends with the session, and when Mimeo stops.
pub(super) fn stream<F, M>(
    dashboard: Arc<Dashboard>,
    visitor: Visitor,
    every: Duration,
    make: F,
) -> Result<Response, Fault>
where
    F: Fn(Arc<Dashboard>) -> M + Send + 'static,
    M: Future<Output = Result<Parts, Fault>> + Send,
{
    let place = Arc::clone(&dashboard.streams.places).try_acquire_owned().map_err(|_| Fault::too_many_pages())?;
    let stream = Stream { dashboard, visitor, every, make, sent: Parts::new(), _place: place };
    let events = stream::unfold(Some(stream), async |stream| {
        let mut stream = stream?;
        match stream.next().await {
            Some(event) => Some((Ok::<_, Infallible>(event), Some(stream))),
            // Told, so that the page does not ask again.
            None => Some((Ok(Event::default().event("end").data("")), None)),
        }
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()).into_response())
}

impl<F, M> Stream<F>
where
    F: Fn(Arc<Dashboard>) -> M,
    M: Future<Output = Result<Parts, Fault>>,
{
    /// The next change; `None` at the end.
    async fn next(&mut self) -> Option<Event> {
        loop {
            let stop = self.dashboard.streams.stop.clone();
            stop.run_until_cancelled(tokio::time::sleep(self.every)).await?;
            if !self.visitor.is_still_in(&self.dashboard).await {
                return None;
            }
            // What cannot be made now may be the next time; the page goes on showing what it has.
            let Ok(parts) = (self.make)(Arc::clone(&self.dashboard)).await else { continue };
            let changed: BTreeMap<&str, String> = parts
                .iter()
                .filter(|(id, part)| self.sent.get(*id) != Some(part))
                .map(|(id, part)| (*id, part.to_string()))
                .collect();
            if !changed.is_empty() {
                let event = Event::default().event("change").json_data(json!(changed)).ok()?;
                self.sent = parts;
                return Some(event);
            }
        }
    }
}
