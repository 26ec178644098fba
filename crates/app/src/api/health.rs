//! What those ask who watch over processes: without a token, and without a secret in the answer.

use std::sync::Arc;

use axum::extract::State;
use mimeo_engine::Engine;

use super::problem::Problem;

/// The process answers.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// It can do its work: the ledger takes what is written, and Glance was looked at.
pub(super) async fn readyz(State(engine): State<Arc<Engine>>) -> Result<&'static str, Problem> {
    engine.last_told().await?;
    match engine.not_ready() {
        None => Ok("ready\n"),
        Some(reason) => Err(Problem::not_ready(&reason.code)),
    }
}
