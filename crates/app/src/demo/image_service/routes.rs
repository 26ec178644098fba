//! Which path is answered by what, and the short answers themselves.

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, Query, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header},
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use serde_json::{Value, json};

use super::{
    Service, attributes, bits, data, discovery,
    fault::Fault,
    image::Image,
    list,
    locations::{self, Offer},
    patch::{Patch, json},
};

/// The clients read it from every answer.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-openstack-request-id");

const UPDATED: [&str; 1] = ["image.update"];

pub(super) fn router(service: Service) -> Router {
    Router::new()
        .route("/", get(discovery::choices))
        .route("/versions", get(discovery::versions))
        .route("/v2/schemas/image", get(discovery::image_schema))
        .route("/v2/schemas/images", get(discovery::images_schema))
        .route("/v2/schemas/member", get(discovery::member_schema))
        .route("/v2/schemas/members", get(discovery::members_schema))
        .route("/v2/info/import", get(discovery::import_methods))
        .route("/v2/info/stores", get(discovery::stores))
        .route("/v2/info/stores/detail", get(discovery::stores_in_detail))
        .route("/v2/images", get(list_images).post(create))
        .route("/v2/images/{id}", get(show).patch(update).delete(delete))
        .route("/v2/images/{id}/file", put(data::upload).get(data::download))
        .route("/v2/images/{id}/locations", get(show_locations).post(add_location))
        .route("/v2/images/{id}/tags/{tag}", put(add_tag).delete(remove_tag))
        .route("/v2/images/{id}/actions/deactivate", post(deactivate))
        .route("/v2/images/{id}/actions/reactivate", post(reactivate))
        .route("/v2/images/{id}/members", get(members))
        .route("/v2/images/{id}/tasks", get(tasks))
        .fallback(nothing_here)
        .layer(middleware::map_response(with_request_id))
        .with_state(service)
}

async fn create(State(service): State<Service>, body: Bytes) -> Result<Response, Fault> {
    let Value::Object(wish) = json(&body)? else {
        return Err(Fault::bad_request("The request body must be a JSON object."));
    };
    let image = attributes::image_from(wish)?;
    service.catalogue.add(&image)?;
    let head = [(header::LOCATION, image.href())];
    Ok((StatusCode::CREATED, head, Json(image.view())).into_response())
}

async fn list_images(State(service): State<Service>, Query(pairs): Query<list::Pairs>) -> Result<Json<Value>, Fault> {
    let query = list::Query::parse(&pairs)?;
    let (page, next) = query.page(service.catalogue.all())?;
    Ok(Json(list::body(&pairs, &page, next)))
}

async fn show(State(service): State<Service>, Path(id): Path<String>) -> Result<Json<Value>, Fault> {
    Ok(Json(service.catalogue.get(&id)?.view()))
}

async fn update(
    State(service): State<Service>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, Fault> {
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let patch = Patch::parse(media_type, &body)?;
    let image = service.catalogue.get(&id)?;
    if patch.is_empty() {
        return Ok(Json(image.view()));
    }
    let sizes = locations::try_all(&service.probe, patch.new_urls(&image)).await;
    let (image, lost_own_bits) = service.catalogue.change(&id, &UPDATED, |image| {
        let had_bits = image.locations.iter().any(bits::is_own);
        patch.apply(image, &sizes)?;
        Ok(had_bits && !image.locations.iter().any(bits::is_own))
    })?;
    if lost_own_bits {
        service.bits.remove(&id).await?;
    }
    Ok(Json(image.view()))
}

async fn delete(State(service): State<Service>, Path(id): Path<String>) -> Result<StatusCode, Fault> {
    service.catalogue.remove(&id)?;
    service.bits.remove(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn show_locations(State(service): State<Service>, Path(id): Path<String>) -> Result<Json<Value>, Fault> {
    Ok(Json(json!(service.catalogue.get(&id)?.locations)))
}

/// The first location of a queued image. Glance would then read and hash the bits; here only what the client says of
/// them is taken.
async fn add_location(
    State(service): State<Service>,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<StatusCode, Fault> {
    let body = json(&body)?;
    let offer = Offer::of_url(&body["url"], body.get("validation_data"))?;
    let sizes = locations::try_all(&service.probe, std::iter::once(offer.url())).await;
    service.catalogue.change(&id, &UPDATED, |image| locations::add_first(image, offer, &sizes))?;
    Ok(StatusCode::ACCEPTED)
}

async fn add_tag(State(service): State<Service>, Path((id, tag)): Path<(String, String)>) -> Result<StatusCode, Fault> {
    let tag = attributes::text("tags", tag.into())?;
    service.catalogue.change(&id, &UPDATED, |image| {
        image.tags.insert(tag);
        Ok(())
    })?;
    Ok(StatusCode::NO_CONTENT)
}

async fn remove_tag(
    State(service): State<Service>,
    Path((id, tag)): Path<(String, String)>,
) -> Result<StatusCode, Fault> {
    service.catalogue.change(&id, &UPDATED, |image| match image.tags.remove(&tag) {
        true => Ok(()),
        false => Err(Fault::not_found(format!("Tag {tag} not found"))),
    })?;
    Ok(StatusCode::NO_CONTENT)
}

async fn deactivate(State(service): State<Service>, Path(id): Path<String>) -> Result<StatusCode, Fault> {
    service.catalogue.change(&id, &UPDATED, Image::deactivate)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn reactivate(State(service): State<Service>, Path(id): Path<String>) -> Result<StatusCode, Fault> {
    service.catalogue.change(&id, &UPDATED, Image::reactivate)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Nobody else is there to share an image with.
async fn members(State(service): State<Service>, Path(id): Path<String>) -> Result<Json<Value>, Fault> {
    service.catalogue.get(&id)?;
    Ok(Json(json!({"members": [], "schema": "/v2/schemas/members"})))
}

async fn tasks(State(service): State<Service>, Path(id): Path<String>) -> Result<Json<Value>, Fault> {
    service.catalogue.get(&id)?;
    Ok(Json(json!({"tasks": []})))
}

async fn nothing_here(uri: Uri) -> Fault {
    Fault::not_found(format!("The resource {uri} could not be found."))
}

async fn with_request_id(mut answer: Response) -> Response {
    let id = format!("req-{}", uuid::Uuid::new_v4());
    if let Ok(id) = HeaderValue::try_from(id) {
        answer.headers_mut().insert(REQUEST_ID, id);
    }
    answer
}
