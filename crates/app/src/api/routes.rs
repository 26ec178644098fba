//! Which path is answered by which call of the engine.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{
        Path, Query, Request, State,
        rejection::{JsonRejection, QueryRejection},
    },
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use mimeo_core::{ImageId, Limits, StoreName};
use mimeo_engine::{
    Engine, Refusal,
    status::{
        DrainReport, GcReport, HistoryReport, ImageReport, MoveReport, Overview, PlannedAction, RenameReport,
        StoreReport, VerifyReport,
    },
};
use serde::Deserialize;
use serde_json::Value;

use super::{problem::Problem, token::Token};
use crate::limits;

/// Images in one answer, unless the client wants fewer.
const PAGE: usize = 1000;

type Answer<T> = Result<Json<T>, Problem>;

pub(super) fn router(engine: Arc<Engine>, token: Token) -> Router {
    Router::new()
        .route("/v1/overview", get(overview))
        .route("/v1/images", get(images))
        .route("/v1/images/find", get(find))
        .route("/v1/images/{id}", get(image))
        .route("/v1/images/{id}/history", get(history))
        .route("/v1/images/{id}/replicate", post(replicate))
        .route("/v1/images/{id}/verify", post(verify))
        .route("/v1/plan", get(plan))
        .route("/v1/stores", get(stores))
        .route("/v1/stores/{name}/drain", get(drain_report).post(drain).delete(cancel_drain))
        .route("/v1/stores/{name}/rename", post(rename_store))
        .route("/v1/stores/{name}/move", post(move_store))
        .route("/v1/limits", get(limits_in_force).patch(change_limits))
        .route("/v1/gc", get(gc))
        .route("/v1/gc/confirm", post(confirm_gc))
        .fallback(nothing_here)
        .route_layer(middleware::from_fn_with_state(Arc::new(token), authorize))
        .route("/healthz", get(healthz))
        .with_state(engine)
}

async fn authorize(State(token): State<Arc<Token>>, request: Request, next: Next) -> Response {
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given =
        given.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    match given.is_some_and(|(_, given)| token.matches(given.trim())) {
        true => next.run(request).await,
        false => Problem::unauthorized().into_response(),
    }
}

async fn healthz() -> &'static str {
    "ok\n"
}

async fn overview(State(engine): State<Arc<Engine>>) -> Answer<Overview> {
    Ok(Json(engine.overview().await?))
}

#[derive(Deserialize)]
struct Page {
    after: Option<ImageId>,
    limit: Option<usize>,
}

async fn images(
    State(engine): State<Arc<Engine>>,
    page: Result<Query<Page>, QueryRejection>,
) -> Answer<Vec<ImageReport>> {
    let Query(Page { after, limit }) = page?;
    Ok(Json(engine.list(after.as_ref(), limit.unwrap_or(PAGE).clamp(1, PAGE)).await?))
}

#[derive(Deserialize)]
struct Search {
    /// A name or an id.
    q: String,
}

async fn find(
    State(engine): State<Arc<Engine>>,
    search: Result<Query<Search>, QueryRejection>,
) -> Answer<Vec<ImageReport>> {
    let Query(Search { q }) = search?;
    Ok(Json(engine.find(&q).await?))
}

async fn image(State(engine): State<Arc<Engine>>, Path(id): Path<String>) -> Answer<ImageReport> {
    Ok(Json(known(&engine, &image_id(&id)?).await?))
}

async fn history(State(engine): State<Arc<Engine>>, Path(id): Path<String>) -> Answer<Vec<HistoryReport>> {
    let id = image_id(&id)?;
    let lines = engine.history(&id).await?;
    if lines.is_empty() {
        // Known, but new: it has none yet.
        known(&engine, &id).await?;
    }
    Ok(Json(lines))
}

async fn replicate(State(engine): State<Arc<Engine>>, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    let id = image_id(&id)?;
    known(&engine, &id).await?;
    engine.replicate(&id).await?;
    Ok(StatusCode::ACCEPTED)
}

async fn verify(State(engine): State<Arc<Engine>>, Path(id): Path<String>) -> Result<impl IntoResponse, Problem> {
    let id = image_id(&id)?;
    known(&engine, &id).await?;
    let asked_at = engine.verify(&id).await?;
    Ok((StatusCode::ACCEPTED, Json(VerifyReport { asked_at })))
}

#[derive(Deserialize)]
struct PlanOf {
    image: Option<ImageId>,
}

async fn plan(
    State(engine): State<Arc<Engine>>,
    of: Result<Query<PlanOf>, QueryRejection>,
) -> Answer<Vec<PlannedAction>> {
    let Query(PlanOf { image }) = of?;
    Ok(Json(engine.plan(image.as_ref()).await?))
}

async fn stores(State(engine): State<Arc<Engine>>) -> Answer<Vec<StoreReport>> {
    Ok(Json(engine.stores().await?))
}

async fn drain(State(engine): State<Arc<Engine>>, Path(name): Path<String>) -> Answer<DrainReport> {
    allowed(engine.drain(&store_name(&name)?).await?)
}

async fn drain_report(State(engine): State<Arc<Engine>>, Path(name): Path<String>) -> Answer<DrainReport> {
    allowed(engine.drain_report(&store_name(&name)?).await?)
}

async fn cancel_drain(State(engine): State<Arc<Engine>>, Path(name): Path<String>) -> Answer<()> {
    allowed(engine.cancel_drain(&store_name(&name)?).await?)
}

#[derive(Deserialize)]
struct NewName {
    to: StoreName,
}

/// `name` is the former one.
async fn rename_store(
    State(engine): State<Arc<Engine>>,
    Path(name): Path<String>,
    new: Result<Query<NewName>, QueryRejection>,
) -> Answer<RenameReport> {
    let Query(NewName { to }) = new?;
    allowed(engine.rename_store(&store_name(&name)?, &to).await?)
}

async fn move_store(State(engine): State<Arc<Engine>>, Path(name): Path<String>) -> Answer<MoveReport> {
    allowed(engine.move_store(&store_name(&name)?).await?)
}

fn allowed<T>(outcome: Result<T, Refusal>) -> Answer<T> {
    outcome.map(Json).map_err(Problem::bad_request)
}

async fn gc(State(engine): State<Arc<Engine>>) -> Answer<GcReport> {
    Ok(Json(engine.gc().await?))
}

async fn confirm_gc(State(engine): State<Arc<Engine>>) -> Result<StatusCode, Problem> {
    engine.confirm_gc().await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn limits_in_force(State(engine): State<Arc<Engine>>) -> Json<Limits> {
    Json(engine.limits())
}

/// Until the next reload or start.
async fn change_limits(State(engine): State<Arc<Engine>>, patch: Result<Json<Value>, JsonRejection>) -> Answer<Limits> {
    let Json(patch) = patch?;
    limits::patch(&engine, &patch).map(Json).map_err(Problem::bad_request)
}

async fn nothing_here() -> Problem {
    Problem::not_found("the API has no such path")
}

async fn known(engine: &Engine, id: &ImageId) -> Result<ImageReport, Problem> {
    engine.image(id).await?.ok_or_else(|| Problem::not_found(format!("neither Mimeo nor Glance knows an image {id}")))
}

fn store_name(text: &str) -> Result<StoreName, Problem> {
    text.parse().map_err(|error: mimeo_core::InvalidId| Problem::bad_request(error.to_string()))
}

fn image_id(text: &str) -> Result<ImageId, Problem> {
    text.parse().map_err(|error: mimeo_core::InvalidId| Problem::bad_request(error.to_string()))
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self::bad_request(rejection.body_text())
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        Self::bad_request(rejection.body_text())
    }
}
