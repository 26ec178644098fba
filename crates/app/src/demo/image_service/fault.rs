//! A refused request, as Glance answers it: an HTML page, from which the clients take the message.

use std::io;

use axum::{
    http::StatusCode,
    response::{Html, IntoResponse, Response},
};

/// A status and a sentence for the one who asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub status: StatusCode,
    pub message: String,
}

impl Fault {
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    pub(super) fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, message)
    }

    pub(super) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message)
    }

    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
}

/// Trouble with the files of the bits.
impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        tracing::warn!(%error, "the embedded image service failed");
        match error.kind() {
            io::ErrorKind::StorageFull => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, format!("Image storage media is full: {error}"))
            }
            _ => Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let title = self.status;
        let message = escaped(&self.message);
        let page = format!(
            "<html>\n <head>\n  <title>{title}</title>\n </head>\n <body>\n  <h1>{title}</h1>\n  \
             {message}<br /><br />\n </body>\n</html>\n"
        );
        (self.status, Html(page)).into_response()
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
