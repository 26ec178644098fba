//! Answers that the caller has already are not sent again (RFC 9110, `ETag` and `If-None-Match`).

use axum::{
    body::{self, Body},
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};

use super::problem::Problem;

/// Larger than a full page of images at a hundred stores.
const LARGEST: usize = 256 << 20;

/// For answers that end: the body is held for its tag.
pub(super) async fn tag(request: Request, next: Next) -> Response {
    let known = request.headers().get(header::IF_NONE_MATCH).cloned();
    let (mut parts, body) = next.run(request).await.into_parts();
    if parts.status != StatusCode::OK {
        return Response::from_parts(parts, body);
    }
    let Ok(bytes) = body::to_bytes(body, LARGEST).await else {
        return Problem::bad_request("the answer is too large; ask for less at a time").into_response();
    };
    let digest = Sha256::digest(&bytes);
    let half = digest.first_chunk().map_or(0, |half| u128::from_be_bytes(*half));
    let tag = format!("\"{half:032x}\"");
    if let Ok(value) = HeaderValue::from_str(&tag) {
        parts.headers.insert(header::ETAG, value);
    }
    if known.is_some_and(|known| is_among(&tag, known.to_str().unwrap_or_default())) {
        parts.status = StatusCode::NOT_MODIFIED;
        parts.headers.remove(header::CONTENT_TYPE);
        parts.headers.remove(header::CONTENT_LENGTH);
        return Response::from_parts(parts, Body::empty());
    }
    Response::from_parts(parts, Body::from(bytes))
}

fn is_among(tag: &str, known: &str) -> bool {
    known.split(',').map(str::trim).any(|one| one == "*" || one.trim_start_matches("W/") == tag)
}
