//! Errors as RFC 9457 problems, with Mimeo's own reason code and what to do.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use mimeo_core::{Error, Reason};
use serde_json::json;

#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    /// A [`Reason`]'s code, or one of the API's own.
    code: &'static str,
    detail: String,
    cure: String,
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, detail: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), cure: cure.into() }
    }

    pub(super) fn unauthorized(has_keystone: bool) -> Self {
        let cure = match has_keystone {
            true => {
                "send the token of [api] token_file as \"Authorization: Bearer\", or Keystone's as \"X-Auth-Token\""
            }
            false => "send the token of [api] token_file as \"Authorization: Bearer\"",
        };
        let detail = "the token is missing, or it is none that is valid here now";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail, cure)
    }

    pub(super) fn wrong_password() -> Self {
        let detail = "Keystone refuses this user, password or project";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail, "check all of them, and the domains")
    }

    pub(super) fn forbidden(caller: &str) -> Self {
        let detail = format!("{caller} may only read");
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail, "call with one of the roles in [api] admin_roles")
    }

    pub(super) fn no_role(caller: &str) -> Self {
        let detail = format!("{caller} has no role that [api] admin_roles or reader_roles names");
        let cure = "take a token for the project in which you have one, or let an admin of the cloud grant one";
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail, cure)
    }

    pub(super) fn no_keystone() -> Self {
        let detail = "nobody can sign in by Keystone here";
        Self::new(StatusCode::BAD_REQUEST, "bad-request", detail, "use the token of [api] token_file")
    }

    pub(super) fn no_identity(error: &Error) -> Self {
        tracing::warn!(code = error.reason.code(), error = error.chain(), "a caller's token cannot be checked");
        // Why is for the log: nobody is known yet who might be told of the cloud's inside.
        let detail = "Keystone cannot be asked whose the token is";
        let cure = "try again when Keystone answers; the token of [api] token_file needs no Keystone";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "identity-unavailable", detail, cure)
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        let cure = "correct what is named here; /v1/openapi.json has every parameter and field";
        Self::new(StatusCode::BAD_REQUEST, "bad-request", detail, cure)
    }

    pub(super) fn unseen(detail: impl Into<String>) -> Self {
        let cure = "send the `as_of` of the list that you looked at, which GET /v1/gc gives";
        Self::new(StatusCode::BAD_REQUEST, "bad-request", detail, cure)
    }

    pub(super) fn changed_meanwhile() -> Self {
        let detail = "what If-Match names is not what GET answers now: nothing was changed";
        Self::new(StatusCode::PRECONDITION_FAILED, "changed-meanwhile", detail, "look again, and send its new ETag")
    }

    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", detail, "look for it in the list, or in /v1/openapi.json")
    }

    /// A body that cannot be read.
    pub(super) fn unreadable(status: StatusCode, detail: impl Into<String>) -> Self {
        match status {
            StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                Self::new(status, "unsupported-media-type", detail, "send JSON, and say so in Content-Type")
            }
            StatusCode::PAYLOAD_TOO_LARGE => {
                Self::new(status, "too-large", detail, "send less: no body of this API needs more")
            }
            _ => Self::bad_request(detail),
        }
    }

    pub(super) fn not_ready(reason: &str) -> Self {
        let detail = format!("Mimeo is not ready: {reason}");
        let cure = "see GET /v1/overview, `trouble`, or the log";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "not-ready", detail, cure)
    }

    pub(super) fn too_many_listeners() -> Self {
        let detail = "as many listen to events as may";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "too-many-listeners", detail, "end one of them, or try again later")
    }

    pub(super) fn wrong_method() -> Self {
        let detail = "this path takes other methods, named in the Allow header";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", detail, "use one of them")
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    pub(crate) fn cure(&self) -> &str {
        &self.cure
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
        Self::new(status, error.reason.code(), error.chain(), error.reason.cure())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = json!({
            "type": format!("urn:mimeo:problem:{}", self.code),
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "detail": self.detail,
            "code": self.code,
            "cure": self.cure,
        });
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"mimeo\""));
        }
        response
    }
}
