//! The API of `serve`: what the commands and other programs ask the engine.
//!
//! Owns HTTP: routes, who may call them, problems. Decides nothing: each route is one call of the engine.

pub(crate) mod auth;
mod problem;
mod routes;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod token;

use std::sync::Arc;

use axum::Router;
use mimeo_engine::Engine;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::auth::Authority;
pub(crate) use self::problem::Problem;
use crate::lifetime;

/// Answers on `listener`, with what is `beside` the API there, until `stop`; then ends the requests under way.
pub(crate) async fn serve(
    listener: TcpListener,
    engine: Arc<Engine>,
    authority: Arc<Authority>,
    beside: Router,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    lifetime::serve_until(listener, routes::router(engine, &authority).merge(beside), stop).await
}

/// The body of every error (RFC 9457), as the commands read it.
#[derive(Debug, Deserialize)]
pub(crate) struct ProblemBody {
    pub detail: String,
}
