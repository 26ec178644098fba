//! The dashboard: pages made on the server from the engine's own reports.
//!
//! Owns sessions, pages and what keeps them live. Decides nothing: who may do what is the API's `Authority`'s, everything
//! else is one call of the engine. Without JavaScript all of it can be read and every form works.

mod assets;
mod deletes;
mod fault;
mod find;
mod headers;
mod image;
mod images;
mod live;
mod page;
mod posted;
mod samples;
mod session;
mod show;
mod sign_in;
mod stores;
#[cfg(test)]
mod tests;
mod transfers;

use std::{sync::Arc, time::Duration};

use axum::{
    Router, middleware,
    routing::{get, post},
};
use mimeo_core::{Timestamp, ports::Clock};
use mimeo_engine::Engine;
use tokio_util::sync::CancellationToken;

use self::{live::Streams, samples::Samples, session::Sessions};
use crate::api::auth::Authority;

/// What the pages are made from.
pub(crate) struct Dashboard {
    engine: Arc<Engine>,
    authority: Arc<Authority>,
    clock: Arc<dyn Clock>,
    sessions: Sessions,
    samples: Samples,
    streams: Streams,
    /// Cookies are for TLS alone.
    secure: bool,
}

impl Dashboard {
    pub(crate) fn new(
        engine: Arc<Engine>,
        authority: Arc<Authority>,
        clock: Arc<dyn Clock>,
        secure: bool,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let (sessions, samples, streams) = (Sessions::default(), Samples::default(), Streams::new(stop));
        Arc::new(Self { engine, authority, clock, sessions, samples, streams, secure })
    }

    /// Measures rates until `stop`: only whoever looks all the time can tell how fast something goes.
    pub(crate) async fn measure(&self, stop: &CancellationToken) {
        let mut ticks = tokio::time::interval(samples::TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.samples.take(&self.engine, self.now()).await;
        }
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

/// How often an open page is brought up to date.
const FAST: Duration = Duration::from_secs(1);
const SLOW: Duration = Duration::from_secs(3);

pub(crate) fn router(dashboard: Arc<Dashboard>) -> Router {
    Router::new()
        .route("/", get(images::page))
        .route("/live", get(images::live))
        .route("/images/{id}", get(image::page))
        .route("/images/{id}/live", get(image::live))
        .route("/images/{id}/retry", post(image::retry))
        .route("/images/{id}/verify", post(image::verify))
        .route("/transfers", get(transfers::page))
        .route("/transfers/live", get(transfers::live))
        .route("/stores", get(stores::page))
        .route("/stores/live", get(stores::live))
        .route("/deletes", get(deletes::page).post(deletes::confirm))
        .route("/sign-in", get(sign_in::page).post(sign_in::sign_in))
        .route("/sign-out", post(sign_in::sign_out))
        .route("/assets/{name}", get(assets::asset))
        .layer(middleware::map_response(headers::guard))
        .with_state(dashboard)
}
