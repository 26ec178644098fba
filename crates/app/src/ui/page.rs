//! What all pages share.

use askama::Template;
use axum::{
    extract::{FromRequestParts, Query},
    http::request::Parts,
    response::{Html as HtmlBody, IntoResponse, Response},
};
use serde::de::DeserializeOwned;

use super::{Dashboard, fault::Fault, session::Visitor};

/// The pages that are always at hand: their paths and names.
pub(super) const PAGES: [(&str, &str); 5] =
    [("/", "Images"), ("/transfers", "Transfers"), ("/stores", "Stores"), ("/rules", "Rules"), ("/deletes", "Deletes")];

pub(super) type Answer = Result<Response, Fault>;

/// What stands around a page's own content.
pub(super) struct Shell {
    /// Of [`PAGES`].
    pub here: &'static str,
    pub visitor: Option<Visitor>,
    /// What came of the last form.
    pub note: Option<String>,
    /// Where changes of the page come from.
    pub live: Option<String>,
}

impl Shell {
    pub(super) fn new(dashboard: &Dashboard, here: &'static str, visitor: Visitor) -> Self {
        let note = dashboard.sessions.take_note(&visitor.session);
        Self { here, visitor: Some(visitor), note, live: None }
    }

    #[must_use]
    pub(super) fn live(self, from: impl Into<String>) -> Self {
        Self { live: Some(from.into()), ..self }
    }

    /// For somebody who is not signed in.
    pub(super) fn outside() -> Self {
        Self { here: "", visitor: None, note: None, live: None }
    }
}

/// What the address asks the page for.
pub(super) struct Asked<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Fault> {
        let asked = Query::<T>::from_request_parts(parts, state).await;
        asked.map(|Query(asked)| Self(asked)).map_err(|_| Fault::unreadable_query())
    }
}

pub(super) fn html(page: &impl Template) -> Answer {
    Ok(HtmlBody(page.render()?).into_response())
}
