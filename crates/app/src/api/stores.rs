//! Stores, limits, and what waits for its removal.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use mimeo_core::{ImageFilter, ImageId, Limits, StoreName};
use mimeo_engine::{
    Engine, Refusal,
    status::{DrainReport, GcReport, MoveReport, RenameReport, StoreReport},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    etag::is_as_seen,
    images::{MOST, up_to},
    input::{Asked, Body, Id, number},
    problem::Problem,
    routes::Answer,
};
use crate::limits;

pub(super) async fn stores(State(engine): State<Arc<Engine>>) -> Answer<Vec<StoreReport>> {
    Ok(Json(engine.stores().await?))
}

/// A name that no store has is a mistake, and no store without images. One that is no longer enabled may have images still.
pub(crate) async fn known_store(engine: &Engine, store: &StoreName) -> Result<(), Problem> {
    if engine.enabled_stores().contains(store) {
        return Ok(());
    }
    let there = ImageFilter { store: Some(store.clone()), ..ImageFilter::default() };
    let known: Vec<StoreName> = engine.stores().await?.into_iter().map(|report| report.name).collect();
    if known.contains(store) || !engine.list(&there, None, 1).await?.is_empty() {
        return Ok(());
    }
    let known = known.iter().map(StoreName::as_str).collect::<Vec<_>>().join(", ");
    Err(Problem::bad_request(format!("store: there is no store \"{store}\"; known: {known}")))
}

pub(super) async fn drain(State(engine): State<Arc<Engine>>, Id(name): Id<StoreName>) -> Answer<DrainReport> {
    allowed(engine.drain(&name).await?)
}

pub(super) async fn drain_report(State(engine): State<Arc<Engine>>, Id(name): Id<StoreName>) -> Answer<DrainReport> {
    allowed(engine.drain_report(&name).await?)
}

pub(super) async fn cancel_drain(State(engine): State<Arc<Engine>>, Id(name): Id<StoreName>) -> Answer<()> {
    allowed(engine.cancel_drain(&name).await?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewName {
    to: StoreName,
}

/// The name in the path is the former one.
pub(super) async fn rename_store(
    State(engine): State<Arc<Engine>>,
    Id(name): Id<StoreName>,
    Asked(NewName { to }): Asked<NewName>,
) -> Answer<RenameReport> {
    allowed(engine.rename_store(&name, &to).await?)
}

pub(super) async fn move_store(State(engine): State<Arc<Engine>>, Id(name): Id<StoreName>) -> Answer<MoveReport> {
    allowed(engine.move_store(&name).await?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GcOf {
    after: Option<ImageId>,
    #[serde(default, deserialize_with = "number")]
    limit: Option<usize>,
}

/// What is to be removed of so many images.
#[derive(Serialize, Deserialize)]
pub(crate) struct GcPage {
    #[serde(flatten)]
    pub(crate) report: GcReport,
    /// Where the next ones are; null after the last.
    pub(crate) next: Option<String>,
}

pub(super) async fn gc(State(engine): State<Arc<Engine>>, Asked(of): Asked<GcOf>) -> Answer<GcPage> {
    let limit = up_to(of.limit, MOST)?;
    let report = engine.gc(of.after.as_ref(), limit).await?;
    let next = report.next.as_ref().map(|image| format!("/v1/gc?after={image}&limit={limit}"));
    Ok(Json(GcPage { report, next }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Seen {
    /// The list's `as_of`.
    seen: Option<String>,
}

pub(super) async fn confirm_gc(
    State(engine): State<Arc<Engine>>,
    Asked(Seen { seen }): Asked<Seen>,
) -> Result<StatusCode, Problem> {
    let seen = seen.ok_or_else(|| Problem::unseen("seen: missing"))?;
    let seen = seen.parse().map_err(|_| Problem::unseen(format!("seen: \"{seen}\" is not a time")))?;
    engine.confirm_gc(seen).await?.map_err(Problem::unseen)?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn limits_in_force(State(engine): State<Arc<Engine>>) -> Json<Limits> {
    Json(engine.limits())
}

/// Until the next reload or start.
pub(super) async fn change_limits(
    State(engine): State<Arc<Engine>>,
    headers: HeaderMap,
    Body(patch): Body<Value>,
) -> Answer<Limits> {
    is_as_seen(&headers, &engine.limits())?;
    limits::patch(&engine, &patch).map(Json).map_err(Problem::bad_request)
}

pub(super) fn allowed<T>(outcome: Result<T, Refusal>) -> Answer<T> {
    outcome.map(Json).map_err(Problem::bad_request)
}
