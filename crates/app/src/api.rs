//! The API of `serve` (docs/api.md): what the commands, and later the dashboard, ask the engine.
//!
//! Owns HTTP: routes, the bearer token, problems. Decides nothing: each route is one call of the engine.

mod problem;
mod routes;
#[cfg(test)]
mod tests;
pub(crate) mod token;

use std::{sync::Arc, time::Duration};

use mimeo_engine::Engine;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::token::Token;

/// How long requests under way may go on once the server was told to stop.
const GRACE: Duration = Duration::from_secs(5);

/// Answers on `listener` until `stop`; then ends the requests under way.
pub(crate) async fn serve(
    listener: TcpListener,
    engine: Arc<Engine>,
    token: Token,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let router = routes::router(engine, token);
    let serving = axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
    let overdue = async {
        stop.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        ended = serving.into_future() => Ok(ended?),
        () = overdue => Ok(()),
    }
}

/// The body of every error (RFC 9457), as the commands read it.
#[derive(Debug, Deserialize)]
pub(crate) struct ProblemBody {
    pub detail: String,
}
