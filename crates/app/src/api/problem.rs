//! Errors as RFC 9457 problems, with Mimeo's own reason code.

use axum::{
    Json,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use mimeo_core::{Error, Reason};
use serde_json::json;

#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    /// A [`Reason`]'s code, or one of the API's own: `unauthorized`, `bad-request`, `not-found`.
    code: &'static str,
    detail: String,
}

impl Problem {
    pub(super) fn unauthorized() -> Self {
        let detail = "the bearer token is missing or wrong; it stands in [api] token_file".into();
        Self { status: StatusCode::UNAUTHORIZED, code: "unauthorized", detail }
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code: "bad-request", detail: detail.into() }
    }

    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, code: "not-found", detail: detail.into() }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let status = match error.reason {
            Reason::ImageServiceUnreachable | Reason::ImageServiceError | Reason::NotAllowed => StatusCode::BAD_GATEWAY,
            Reason::ImageNotVisible | Reason::ImageDeleted => StatusCode::NOT_FOUND,
            Reason::Conflict => StatusCode::CONFLICT,
            Reason::Cancelled => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        if status.is_server_error() {
            tracing::warn!(code = error.reason.code(), error = error.chain(), "an API request failed");
        }
        Self { status, code: error.reason.code(), detail: error.chain() }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "detail": self.detail,
            "code": self.code,
        });
        (self.status, [(header::CONTENT_TYPE, "application/problem+json")], Json(body)).into_response()
    }
}
