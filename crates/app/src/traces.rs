//! Traces: an image's way to all of its copies, made of its history when the last copy is registered, and sent to an
//! OpenTelemetry collector.

mod otlp;
#[cfg(test)]
mod tests;
mod way;

use std::sync::Arc;

use mimeo_core::{ReplicaState, Result, Timestamp, ports::Clock};
use mimeo_engine::{
    Engine,
    status::{ChangeReport, HistoryReport},
};
use reqwest::{Client, RequestBuilder, header};
use tokio_util::sync::CancellationToken;
use url::Url;

use self::way::way;
use crate::follow::{Board, Follower, Listener, Teller, http_client};

/// Sends them to `endpoint`, until `stop`.
pub(crate) async fn run(
    engine: Arc<Engine>,
    clock: Arc<dyn Clock>,
    endpoint: Url,
    board: Board,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let exporter = Exporter { endpoint, http: http_client()? };
    let follower = Follower::new(engine, clock, board, Listener::Traces, exporter);
    stop.run_until_cancelled(follower.run()).await;
    Ok(())
}

struct Exporter {
    endpoint: Url,
    http: Client,
}

impl Teller for Exporter {
    type Message = String;

    async fn message(&self, engine: &Engine, _: u64, change: &ChangeReport) -> Result<Option<String>> {
        if !may_be_the_end(change) {
            return Ok(None);
        }
        let history = engine.history(&change.image).await?;
        // Where more copies were registered meanwhile, the last one's line is still to come.
        let is_last = history.iter().rfind(|line| is_registered(line)) == Some(&change.line);
        let way = is_last.then(|| way(&history)).flatten();
        Ok(way.map(|way| otlp::body(&change.image, &way)))
    }

    fn request(&self, body: &String, _: Timestamp) -> RequestBuilder {
        let request = self.http.post(self.endpoint.clone());
        request.header(header::CONTENT_TYPE, "application/json").body(body.clone())
    }
}

fn may_be_the_end(change: &ChangeReport) -> bool {
    is_registered(&change.line) && change.image_state == Some(mimeo_core::ImageState::Registered)
}

/// Whether the line says that a copy arrived.
fn is_registered(line: &HistoryReport) -> bool {
    line.store.is_some() && line.state == ReplicaState::Registered.to_string()
}
