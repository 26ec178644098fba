//! Images, what became of them, and what is copied now.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode, response::IntoResponse};
use mimeo_core::{ImageFilter, ImageId, ImageState, ReplicaState, StoreName};
use mimeo_engine::{
    Engine, Running,
    status::{HistoryReport, ImageReport, Overview, PlannedAction, VerifyReport},
};
use serde::{Deserialize, Serialize};
use url::form_urlencoded;

use super::{
    Page,
    input::{Asked, Id, number},
    problem::Problem,
    routes::Answer,
    rules::known_rule,
    stores::known_store,
};

/// Images in one answer, at most and unless the caller wants fewer.
pub(super) const MOST: usize = 1000;
const USUAL: usize = 100;

pub(super) async fn overview(State(engine): State<Arc<Engine>>) -> Answer<Overview> {
    Ok(Json(engine.overview().await?))
}

/// Which images, and how many of them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    name: Option<String>,
    state: Option<ImageState>,
    owner: Option<String>,
    rule: Option<String>,
    store: Option<StoreName>,
    replica: Option<ReplicaState>,
    after: Option<ImageId>,
    #[serde(default, deserialize_with = "number")]
    limit: Option<usize>,
}

pub(super) async fn images(State(engine): State<Arc<Engine>>, Asked(which): Asked<Which>) -> Answer<Page<ImageReport>> {
    let limit = up_to(which.limit, USUAL)?;
    let Which { name: text, state, owner, rule, store, replica, after, .. } = which;
    if let Some(store) = &store {
        known_store(&engine, store).await?;
    }
    if let Some(rule) = &rule {
        known_rule(&engine, rule)?;
    }
    let filter = ImageFilter { text, state, owner, rule, store, replica };
    // One more tells whether there is a next page.
    let mut images = engine.list(&filter, after.as_ref(), limit + 1).await?;
    let is_last = images.len() <= limit;
    images.truncate(limit);
    let next = images.last().filter(|_| !is_last).map(|last| next(&filter, &last.id, limit));
    Ok(Json(Page { images, next }))
}

/// How many images are asked for.
pub(super) fn up_to(limit: Option<usize>, usual: usize) -> Result<usize, Problem> {
    let limit = limit.unwrap_or(usual);
    let wrong = || Problem::bad_request(format!("limit: {limit} is not from 1 to {MOST}"));
    (1..=MOST).contains(&limit).then_some(limit).ok_or_else(wrong)
}

fn next(filter: &ImageFilter, after: &ImageId, limit: usize) -> String {
    let ImageFilter { text, state, owner, rule, store, replica } = filter;
    let words = [
        ("name", text.clone()),
        ("state", state.map(|state| state.to_string())),
        ("owner", owner.clone()),
        ("rule", rule.clone()),
        ("store", store.as_ref().map(ToString::to_string)),
        ("replica", replica.map(|state| state.to_string())),
        ("after", Some(after.to_string())),
        ("limit", Some(limit.to_string())),
    ];
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(words.iter().filter_map(|(key, value)| Some((*key, value.as_deref()?))));
    format!("/v1/images?{}", query.finish())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Search {
    /// A name or an id.
    q: String,
}

pub(super) async fn find(
    State(engine): State<Arc<Engine>>,
    Asked(Search { q }): Asked<Search>,
) -> Answer<Vec<ImageReport>> {
    Ok(Json(engine.find(&q).await?))
}

pub(super) async fn image(State(engine): State<Arc<Engine>>, Id(id): Id<ImageId>) -> Answer<ImageReport> {
    Ok(Json(known(&engine, &id).await?))
}

pub(super) async fn history(State(engine): State<Arc<Engine>>, Id(id): Id<ImageId>) -> Answer<Vec<HistoryReport>> {
    let lines = engine.history(&id).await?;
    if lines.is_empty() {
        // Known, but new: it has none yet.
        known(&engine, &id).await?;
    }
    Ok(Json(lines))
}

pub(super) async fn replicate(State(engine): State<Arc<Engine>>, Id(id): Id<ImageId>) -> Result<StatusCode, Problem> {
    known(&engine, &id).await?;
    engine.replicate(&id).await?;
    Ok(StatusCode::ACCEPTED)
}

pub(super) async fn verify(
    State(engine): State<Arc<Engine>>,
    Id(id): Id<ImageId>,
) -> Result<impl IntoResponse, Problem> {
    known(&engine, &id).await?;
    let asked_at = engine.verify(&id).await?;
    Ok((StatusCode::ACCEPTED, Json(VerifyReport { asked_at })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PlanOf {
    image: Option<ImageId>,
}

pub(super) async fn plan(
    State(engine): State<Arc<Engine>>,
    Asked(PlanOf { image }): Asked<PlanOf>,
) -> Answer<Vec<PlannedAction>> {
    if let Some(id) = &image {
        known(&engine, id).await?;
    }
    Ok(Json(engine.plan(image.as_ref()).await?))
}

#[derive(Serialize)]
pub(super) struct Transfers {
    transfers: Vec<Running>,
}

pub(super) async fn transfers(State(engine): State<Arc<Engine>>) -> Json<Transfers> {
    Json(Transfers { transfers: engine.running() })
}

async fn known(engine: &Engine, id: &ImageId) -> Result<ImageReport, Problem> {
    engine.image(id).await?.ok_or_else(|| Problem::not_found(format!("neither Mimeo nor Glance knows an image {id}")))
}
