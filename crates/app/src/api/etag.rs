//! Answers that the caller has already are not sent again, and what has changed since the caller saw it is not changed (RFC
//! 9110, `ETag`, `If-None-Match` and `If-Match`).

use axum::{
    body::{self, Body},
    extract::Request,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde::Serialize;
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
    let tag = tag_of(&bytes);
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

/// Whether what a GET would answer now is what the caller has seen, if the caller says what that was.
pub(super) fn is_as_seen(headers: &HeaderMap, now: &impl Serialize) -> Result<(), Problem> {
    let Some(seen) = headers.get(header::IF_MATCH) else { return Ok(()) };
    let is_known =
        serde_json::to_vec(now).is_ok_and(|bytes| is_among(&tag_of(&bytes), seen.to_str().unwrap_or_default()));
    if is_known { Ok(()) } else { Err(Problem::changed_meanwhile()) }
}

fn tag_of(answer: &[u8]) -> String {
    let digest = Sha256::digest(answer);
    let half = digest.first_chunk().map_or(0, |half| u128::from_be_bytes(*half));
    format!("\"{half:032x}\"")
}

fn is_among(tag: &str, known: &str) -> bool {
    known.split(',').map(str::trim).any(|one| one == "*" || one.trim_start_matches("W/") == tag)
}
