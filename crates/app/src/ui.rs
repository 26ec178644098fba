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
mod rules;
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
    Router,
    http::HeaderMap,
    middleware,
    routing::{get, post},
};
use mimeo_core::{Timestamp, ports::Clock};
use mimeo_engine::Engine;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use self::{fault::Fault, live::Streams, samples::Samples, session::Sessions, transfers::Ends};
use crate::{api::auth::Authority, lifetime::Tasks};

/// What the pages are made from.
struct Dashboard {
    engine: Arc<Engine>,
    authority: Arc<Authority>,
    clock: Arc<dyn Clock>,
    sessions: Sessions,
    samples: Samples,
    ends: Ends,
    streams: Streams,
    /// Mimeo itself has the certificate.
    has_tls: bool,
}

/// Starts what measures; the pages are answered where the router is served.
pub(crate) fn start(
    tasks: &mut Tasks,
    engine: Arc<Engine>,
    authority: Arc<Authority>,
    clock: Arc<dyn Clock>,
    has_tls: bool,
    stop: &CancellationToken,
) -> Router {
    let dashboard = Arc::new(Dashboard::new(engine, authority, clock, has_tls, stop));
    tasks.start("dashboard", Arc::clone(&dashboard).measure(stop.clone()));
    router(dashboard)
}

impl Dashboard {
    fn new(
        engine: Arc<Engine>,
        authority: Arc<Authority>,
        clock: Arc<dyn Clock>,
        has_tls: bool,
        stop: &CancellationToken,
    ) -> Self {
        let (sessions, samples, streams) = (Sessions::default(), Samples::default(), Streams::new(stop.clone()));
        Self { engine, authority, clock, sessions, samples, ends: Ends::default(), streams, has_tls }
    }

    /// Only whoever looks all the time can tell how fast something goes.
    async fn measure(self: Arc<Self>, stop: CancellationToken) -> anyhow::Result<()> {
        let mut ticks = tokio::time::interval(samples::TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.samples.take(&self.engine).await;
        }
        Ok(())
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Whether the browser came by TLS, to Mimeo or to a proxy that says so: its cookies are for it alone then. Who says
    /// so falsely spoils nobody's cookies but their own.
    fn is_secure(&self, headers: &HeaderMap) -> bool {
        let proxies = headers.get("x-forwarded-proto").and_then(|value| value.to_str().ok());
        let first = proxies.and_then(|schemes| schemes.split(',').next());
        self.has_tls || first.is_some_and(|scheme| scheme.trim().eq_ignore_ascii_case("https"))
    }
}

/// How often an open page is brought up to date.
const FAST: Duration = Duration::from_secs(1);
const SLOW: Duration = Duration::from_secs(3);

fn router(dashboard: Arc<Dashboard>) -> Router {
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
        .route("/rules", get(rules::page))
        .route("/deletes", get(deletes::page).post(deletes::confirm))
        .route("/sign-in", get(sign_in::page).post(sign_in::sign_in))
        .route("/sign-out", post(sign_in::sign_out))
        .route("/assets/{name}", get(assets::asset))
        .fallback(|| async { Fault::no_such_page() })
        .layer(middleware::map_response(headers::guard))
        .with_state(dashboard)
}
