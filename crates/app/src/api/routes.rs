//! Which path is answered by which call of the engine.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{
        Path, Query, Request, State,
        rejection::{JsonRejection, QueryRejection},
    },
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{MethodRouter, any, delete, get, patch, post},
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

use super::{
    auth::{
        Authority,
        Role::{self, Admin, Reader},
        token_of,
    },
    problem::Problem,
};
use crate::limits;

/// Images in one answer, unless the client wants fewer.
const PAGE: usize = 1000;

type Answer<T> = Result<Json<T>, Problem>;

/// What the API answers: every path, method and least role is here and nowhere else. `None`: anybody.
pub(super) const ROUTES: &[Route] = &[
    Route("GET", "/healthz", None, || get(healthz)),
    Route("GET", "/v1/overview", Some(Reader), || get(overview)),
    Route("GET", "/v1/images", Some(Reader), || get(images)),
    Route("GET", "/v1/images/find", Some(Reader), || get(find)),
    Route("GET", "/v1/images/{id}", Some(Reader), || get(image)),
    Route("GET", "/v1/images/{id}/history", Some(Reader), || get(history)),
    Route("POST", "/v1/images/{id}/replicate", Some(Admin), || post(replicate)),
    Route("POST", "/v1/images/{id}/verify", Some(Admin), || post(verify)),
    Route("GET", "/v1/plan", Some(Reader), || get(plan)),
    Route("GET", "/v1/stores", Some(Reader), || get(stores)),
    Route("GET", "/v1/stores/{name}/drain", Some(Reader), || get(drain_report)),
    Route("POST", "/v1/stores/{name}/drain", Some(Admin), || post(drain)),
    Route("DELETE", "/v1/stores/{name}/drain", Some(Admin), || delete(cancel_drain)),
    Route("POST", "/v1/stores/{name}/rename", Some(Admin), || post(rename_store)),
    Route("POST", "/v1/stores/{name}/move", Some(Admin), || post(move_store)),
    Route("GET", "/v1/limits", Some(Reader), || get(limits_in_force)),
    Route("PATCH", "/v1/limits", Some(Admin), || patch(change_limits)),
    Route("GET", "/v1/gc", Some(Reader), || get(gc)),
    Route("POST", "/v1/gc/confirm", Some(Admin), || post(confirm_gc)),
];

/// Method, path, least role, and who answers.
pub(super) struct Route(
    pub(super) &'static str,
    pub(super) &'static str,
    pub(super) Option<Role>,
    pub(super) fn() -> MethodRouter<Arc<Engine>>,
);

pub(super) fn router(engine: Arc<Engine>, authority: &Arc<Authority>) -> Router {
    let mut router = Router::new();
    for Route(_, path, role, answer) in ROUTES {
        router = router.route(path, match *role {
            None => answer(),
            Some(role) => {
                answer().route_layer(middleware::from_fn_with_state((Arc::clone(authority), role), authorize))
            }
        });
    }
    // What is not there is nobody's business either.
    let admitted = middleware::from_fn_with_state((Arc::clone(authority), Reader), authorize);
    let nothing = any(nothing_here).layer(admitted);
    router.method_not_allowed_fallback(wrong_method).route("/v1/{*path}", nothing).with_state(engine)
}

/// Lets through who has at least this role; the answer can see who that is.
async fn authorize(
    State((authority, role)): State<(Arc<Authority>, Role)>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let caller = authority.admit(token_of(request.headers()).unwrap_or_default()).await?;
    caller.require(role)?;
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
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
async fn change_limits(State(engine): State<Arc<Engine>>, given: Result<Json<Value>, JsonRejection>) -> Answer<Limits> {
    let Json(given) = given?;
    limits::patch(&engine, &given).map(Json).map_err(Problem::bad_request)
}

async fn nothing_here() -> Problem {
    Problem::not_found("the API has no such path")
}

async fn wrong_method() -> Problem {
    Problem::wrong_method()
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
