//! The API of `serve`: what the commands and other programs ask the engine.
//!
//! Owns HTTP: routes, who may call them, problems. Decides nothing: each route is one call of the engine.

pub(crate) mod auth;
mod etag;
mod events;
mod health;
mod images;
mod input;
mod metrics;
mod openapi;
mod problem;
mod routes;
mod rules;
mod stores;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod token;

use std::{sync::Arc, time::Duration};

use axum::{Router, extract::FromRef};
use mimeo_engine::Engine;
use serde::{Deserialize, Serialize};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;

use self::auth::Authority;
pub(crate) use self::{
    events::{Changes, Numbered},
    problem::Problem,
    rules::known_rule,
    stores::{GcPage, known_store},
};
use crate::{
    config::{ApiSettings, Config},
    follow, listener,
    tls::Tls,
};

/// Listeners to events at a time.
const LISTENERS: usize = 64;

/// What to do where [`is_overheard`].
pub(crate) const TO_BE_ALONE: &str = "set [api] certificate and key, or listen on 127.0.0.1";

/// Whether tokens pass over a network as they are: whoever reads one there may remove copies.
pub(crate) fn is_overheard(api: &ApiSettings) -> bool {
    api.tls.is_none() && !api.listen.ip().to_canonical().is_loopback()
}

/// What the answers are made from.
#[derive(Clone)]
struct Api {
    engine: Arc<Engine>,
    listeners: Arc<Semaphore>,
    told: follow::Board,
    pace: Pace,
    /// What would go on for ever ends with this.
    stop: CancellationToken,
}

impl FromRef<Api> for Arc<Engine> {
    fn from_ref(api: &Api) -> Self {
        Arc::clone(&api.engine)
    }
}

impl FromRef<Api> for follow::Board {
    fn from_ref(api: &Api) -> Self {
        api.told.clone()
    }
}

impl FromRef<Api> for Pace {
    fn from_ref(api: &Api) -> Self {
        api.pace.clone()
    }
}

/// For those who watch by `/metrics`.
pub(crate) struct Watching {
    /// Without a token.
    pub is_open: bool,
    /// How webhooks and traces do.
    pub told: follow::Board,
    pub pace: Pace,
}

/// How often the configuration wants things done, so that an alert can tell what is late.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    pub scan: Duration,
    pub sweep: Duration,
    /// None: nothing is scrubbed by itself.
    pub scrub: Option<Duration>,
}

impl Pace {
    pub(crate) fn of(config: &Config) -> Self {
        Self { scan: config.scan.interval, sweep: config.gc.interval, scrub: config.scrub.period }
    }
}

/// Answers on `listener`, with what is `beside` the API there, until `stop`; then ends the requests under way.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    engine: Arc<Engine>,
    authority: Arc<Authority>,
    watching: Watching,
    beside: Router,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let listeners = Arc::new(Semaphore::new(LISTENERS));
    let Watching { is_open, told, pace } = watching;
    let api = Api { engine, listeners, told, pace, stop: stop.clone() };
    listener::serve(listener, tls, routes::router(api, &authority, is_open).merge(beside), stop).await
}

/// The body of every error (RFC 9457), as the commands read it.
#[derive(Debug, Deserialize)]
pub(crate) struct ProblemBody {
    pub detail: String,
}

/// Images that were asked for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Page<T> {
    pub images: Vec<T>,
    /// Where the next ones are; null after the last.
    pub next: Option<String>,
}
