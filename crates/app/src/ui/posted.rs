//! A form that was sent: taken only from the page of the one who is signed in.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Request},
    response::{IntoResponse, Response},
};

use super::{Dashboard, fault::Fault, session::Visitor};

/// The fields of a form.
pub(super) struct Fields(BTreeMap<String, String>);

impl Fields {
    /// "" where there is none.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }
}

impl<S: Send + Sync> FromRequest<S> for Fields {
    type Rejection = Fault;

    async fn from_request(request: Request, state: &S) -> Result<Self, Fault> {
        let body = Bytes::from_request(request, state).await.map_err(|_| Fault::unreadable_form())?;
        Ok(Self(url::form_urlencoded::parse(&body).into_owned().collect()))
    }
}

/// A form with the CSRF token of the visitor's own session.
pub(super) struct Posted {
    pub visitor: Visitor,
    pub fields: Fields,
}

impl FromRequest<Arc<Dashboard>> for Posted {
    type Rejection = Response;

    async fn from_request(request: Request, dashboard: &Arc<Dashboard>) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let visitor = Visitor::from_request_parts(&mut parts, dashboard).await?;
        let request = Request::from_parts(parts, body);
        let fields = Fields::from_request(request, dashboard).await.map_err(IntoResponse::into_response)?;
        match fields.get("csrf") == visitor.csrf {
            true => Ok(Self { visitor, fields }),
            false => Err(Fault::stale_form().into_response()),
        }
    }
}

/// A form that changes something, from somebody who may.
pub(super) struct Order(pub Posted);

impl FromRequest<Arc<Dashboard>> for Order {
    type Rejection = Response;

    async fn from_request(request: Request, dashboard: &Arc<Dashboard>) -> Result<Self, Response> {
        let posted = Posted::from_request(request, dashboard).await?;
        match posted.visitor.is_admin() {
            true => Ok(Self(posted)),
            false => Err(Fault::reads_only(&posted.visitor.name).into_response()),
        }
    }
}
