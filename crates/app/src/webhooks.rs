//! Webhooks: each line of the history that one wants is sent as a signed `CloudEvent`.

mod event;
mod signature;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use futures::future::join_all;
use mimeo_core::{Result, Timestamp, ports::Clock};
use mimeo_engine::{Engine, status::ChangeReport};
use reqwest::{Client, RequestBuilder, header};
use tokio_util::sync::CancellationToken;

use self::event::{body, id_of, is_wanted};
use crate::{
    config::WebhookSettings,
    follow::{Board, Follower, Listener, Teller, http_client},
};

/// Runs all of them, until `stop`.
pub(crate) async fn run(
    engine: Arc<Engine>,
    clock: Arc<dyn Clock>,
    webhooks: Vec<WebhookSettings>,
    board: Board,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let http = http_client()?;
    let follower = |settings: WebhookSettings| {
        let listener = Listener::Webhook(settings.name.clone());
        let webhook = Webhook { settings, http: http.clone() };
        Follower::new(Arc::clone(&engine), Arc::clone(&clock), board.clone(), listener, webhook)
    };
    let all: Vec<_> = webhooks.into_iter().map(follower).collect();
    stop.run_until_cancelled(join_all(all.iter().map(Follower::run))).await;
    Ok(())
}

struct Webhook {
    settings: WebhookSettings,
    http: Client,
}

struct Event {
    id: String,
    body: String,
}

impl Teller for Webhook {
    type Message = Event;

    async fn message(&self, _: &Engine, number: u64, change: &ChangeReport) -> Result<Option<Event>> {
        let event = || Event { id: id_of(number, change), body: body(&self.settings.source, number, change) };
        Ok(is_wanted(change, self.settings.only).then(event))
    }

    fn request(&self, event: &Event, now: Timestamp) -> RequestBuilder {
        let seconds = now.as_second().to_string();
        let signature = signature::sign(&self.settings.secret, &event.id, &seconds, &event.body);
        self.http
            .post(self.settings.url.clone())
            .header(header::CONTENT_TYPE, "application/cloudevents+json; charset=utf-8")
            .header("webhook-id", &event.id)
            .header("webhook-timestamp", seconds)
            .header("webhook-signature", signature)
            .body(event.body.clone())
    }
}
