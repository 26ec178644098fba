//! An image's bits: `PUT` and `GET /v2/images/{id}/file`.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{
    Service,
    bits::Receipt,
    catalogue::Catalogue,
    fault::Fault,
    image::{Image, Status},
};
use crate::demo::web::{self, Wanted};

/// What Glance says at the end of an upload.
const UPLOADED: [&str; 3] = ["image.upload", "image.activate", "image.update"];

pub async fn upload(
    State(service): State<Service>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Fault> {
    let announced = announced_size(&headers)?;
    let saving = Saving::begin(&service.catalogue, id)?;
    let (pending, receipt) = service
        .bits
        .receive(&saving.id, body)
        .await
        .map_err(|error| Fault::bad_request(format!("The upload broke off: {error}")))?;
    if announced.is_some_and(|announced| announced != receipt.size) {
        return Err(Fault::bad_request(format!(
            "Size mismatch: {} bytes came, not the announced ones",
            receipt.size
        )));
    }
    saving.finish(receipt)?;
    pending.keep();
    Ok(StatusCode::NO_CONTENT)
}

pub async fn download(
    State(service): State<Service>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    let image = service.catalogue.get(&id)?;
    let has_bits = matches!(image.status, Status::Active | Status::Deactivated);
    let file = service.bits.read(&id).await?.filter(|_| has_bits);
    let Some((file, size)) = file else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let (status, range) = match web::wanted(&headers, size) {
        Wanted::All => (StatusCode::OK, 0..size),
        Wanted::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        Wanted::Nothing => return Err(unsatisfiable()),
    };
    let mut answer = status.into_response();
    let head = answer.headers_mut();
    head.insert(header::CONTENT_TYPE, "application/octet-stream".parse().expect("plain"));
    let _ = head;
    *answer.body_mut() = web::part_of(file, range).await?;
    Ok(answer)
}
