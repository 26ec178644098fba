//! A failure as a page: what happened, and what to do.

use askama::Template;
use axum::{
    http::StatusCode,
    response::{Html as HtmlBody, IntoResponse, Response},
};
use mimeo_core::{Error, ImageId};

use super::{page::Shell, show::Html};
use crate::api::Problem;

#[derive(Debug)]
pub(super) struct Fault {
    status: StatusCode,
    detail: String,
    cure: Option<Html>,
}

#[derive(Template)]
#[template(path = "fault.html")]
struct FaultPage {
    shell: Shell,
    title: &'static str,
    detail: String,
    cure: Option<Html>,
}

impl Fault {
    fn new(status: StatusCode, detail: impl Into<String>, cure: &str) -> Self {
        let cure = (!cure.is_empty()).then(|| Html::prose(cure));
        Self { status, detail: detail.into(), cure }
    }

    pub(super) fn reads_only(name: &str) -> Self {
        let cure = "Sign in as somebody with one of the roles in `[api] admin_roles`.";
        Self::new(StatusCode::FORBIDDEN, format!("{name} may only read."), cure)
    }

    pub(super) fn stale_form() -> Self {
        let detail = "This form is not of the page that you are signed in to: it may be older than your sign-in.";
        Self::new(StatusCode::FORBIDDEN, detail, "Go back, load the page again, and send the form once more.")
    }

    pub(super) fn stale_sign_in() -> Self {
        let detail =
            "This sign-in form is more than an hour old, or this browser did not keep the cookie that came with it.";
        let cure =
            "Load the sign-in page again, and send its form. If that is refused too, allow this site its cookies.";
        Self::new(StatusCode::FORBIDDEN, detail, cure)
    }

    pub(super) fn unreadable_form() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "The form cannot be read.", "Load the page again, and send it once more.")
    }

    pub(super) fn unknown_image(id: &ImageId) -> Self {
        let detail = format!("Neither Mimeo nor Glance knows an image {id}.");
        Self::new(StatusCode::NOT_FOUND, detail, "Look for it by its name among the images.")
    }

    pub(super) fn no_such_page() -> Self {
        Self::new(StatusCode::NOT_FOUND, "There is no such page.", "")
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail, "")
    }

    pub(super) fn unreadable_query() -> Self {
        let detail =
            "What the address asks for cannot be read: a word in it stands twice, or has a value that it cannot have.";
        Self::new(StatusCode::BAD_REQUEST, detail, "Begin anew at the page itself, and search from there.")
    }

    pub(super) fn too_many_pages() -> Self {
        let detail = "As many pages as may be are kept up to date already.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail, "Close some, or load the page anew by hand.")
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Problem::from(error).into()
    }
}

impl From<Problem> for Fault {
    fn from(problem: Problem) -> Self {
        Self::new(problem.status(), problem.detail(), problem.cure())
    }
}

impl From<askama::Error> for Fault {
    fn from(error: askama::Error) -> Self {
        tracing::error!(%error, "a page cannot be made");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "This page cannot be made.", "Mimeo's log says more.")
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let title = self.status.canonical_reason().unwrap_or("Error");
        let page = FaultPage { shell: Shell::outside(), title, detail: self.detail, cure: self.cure };
        (self.status, HtmlBody(page.render().unwrap_or_else(|_| title.to_owned()))).into_response()
    }
}
