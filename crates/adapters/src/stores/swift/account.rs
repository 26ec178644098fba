//! The account that the container is in: tokens, requests, and what their answers mean.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use mimeo_core::{Error, Reason, Result, StoreName};
use openstack_sdk::config::{Auth, CloudConfig};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, header, redirect};
use url::Url;

use super::{SwiftCredentials, SwiftStoreConfig};
use crate::{
    openstack::{Access, Session, trust},
    stores::web::{built, plain_client},
    upload::{Upload, unanswered},
};

/// For requests that carry no bits, beside the time for a new token.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What a request is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum At<'a> {
    Account,
    /// The container, with a query.
    Container(&'a str),
    Object(&'a str),
}

pub(super) struct Account {
    store: StoreName,
    container: String,
    session: Session,
    http: Client,
    /// It may be made where it is missing.
    may_create: bool,
    /// The container was made, or was there.
    is_created: AtomicBool,
    /// What a change of clouds.yaml must leave as it is.
    place: Vec<Option<String>>,
}

impl Account {
    /// With the credentials that stand in the locations. The login itself happens at the first use.
    pub(super) fn new(config: &SwiftStoreConfig) -> Result<(Self, SwiftCredentials)> {
        let cloud = config.cloud()?;
        let credentials = config.credentials(&cloud)?;
        let (client, place) = (trust(plain_client().redirect(redirect::Policy::none()), &cloud)?, place(&cloud));
        let http = built(&config.name, client)?;
        let session = Session::new(config.login(cloud, &http));
        let (store, container, may_create) = (config.name.clone(), config.container.clone(), config.create_container);
        let is_created = AtomicBool::new(false);
        Ok((Self { store, container, session, http, may_create, is_created, place }, credentials))
    }

    /// Logs in with the credentials of this configuration from now on; gives those that stand in the locations.
    pub(super) fn renew(&self, config: &SwiftStoreConfig) -> Result<SwiftCredentials> {
        let cloud = config.cloud()?;
        if place(&cloud) != self.place {
            let message = format!(
                "[stores.{}]: its cloud leads to another Keystone, project, region or interface now: that needs a restart",
                self.store
            );
            return Err(Error::new(Reason::NotAllowed, message));
        }
        let credentials = config.credentials(&cloud)?;
        self.session.renew(config.login(cloud, &self.http));
        Ok(credentials)
    }

    /// Makes the container, unless it is there, or may not be made.
    pub(super) async fn create_container(&self) -> Result<()> {
        if !self.may_create || self.is_created.load(Ordering::Relaxed) {
            return Ok(());
        }
        let put = |put: RequestBuilder| put.header(header::CONTENT_LENGTH, 0).timeout(TIMEOUT);
        let response = self.send(&Method::PUT, At::Container(""), put).await?;
        if !response.status().is_success() {
            return Err(self.refused(&Method::PUT, &response));
        }
        self.is_created.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// That the container is there: what is not in a container that is away may be there later.
    pub(super) async fn has_container(&self) -> Result<()> {
        let response = self.send(&Method::HEAD, At::Container(""), |head| head.timeout(TIMEOUT)).await?;
        if response.status().is_success() { Ok(()) } else { Err(self.of_container(&Method::HEAD, &response)) }
    }

    /// What an answer means that is of the container, and not of one object.
    pub(super) fn of_container(&self, method: &Method, response: &Response) -> Error {
        if response.status() != StatusCode::NOT_FOUND {
            return self.refused(method, response);
        }
        self.is_created.store(false, Ordering::Relaxed);
        let cure = match self.may_create {
            true => "it is made with the next copy",
            false => "make it, set create_container = true, or correct project, region or interface",
        };
        let (store, url, status) = (&self.store, response.url(), response.status());
        let message = format!("{store}: {method} {url} answered {status}: the container is not there; {cure}");
        Error::new(Reason::StoreError, message)
    }

    /// Sends a request without a body, once more with a new token where the first one is refused.
    pub(super) async fn send(
        &self,
        method: &Method,
        at: At<'_>,
        with: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response> {
        let access = self.access().await?;
        let response = self.try_send(method, at, &with, &access).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let access = self.renewed(&access).await?;
        self.try_send(method, at, &with, &access).await
    }

    async fn try_send(
        &self,
        method: &Method,
        at: At<'_>,
        with: impl Fn(RequestBuilder) -> RequestBuilder,
        access: &Access,
    ) -> Result<Response> {
        let url = self.url(access, at)?;
        let sent = with(self.request(method, url.clone(), access)).send().await;
        sent.map_err(|cause| unanswered(&format!("{}: {method} {url}", self.store), cause))
    }

    /// Starts to write an object of this size. The token is one that does not end soon: a body that is streamed cannot
    /// be sent again.
    pub(super) async fn put(&self, name: &str, size: Option<u64>) -> Result<Put> {
        let access = self.access().await?;
        let url = self.url(&access, At::Object(name))?;
        let request =
            self.request(&Method::PUT, url.clone(), &access).header(header::CONTENT_TYPE, "application/octet-stream");
        let upload = Upload::start(request, format!("{}: PUT {url}", self.store), size);
        Ok(Put { upload, access })
    }

    /// What an answer means that came with, or before, the end of an upload.
    pub(super) async fn put_answered(&self, access: &Access, response: &Response, complete: bool) -> Result<()> {
        match response.status() {
            status if status.is_success() && complete => Ok(()),
            status if status.is_success() => {
                let message =
                    format!("{}: PUT {} answered {status} before it had the whole body", self.store, response.url());
                Err(Error::new(Reason::StoreError, message))
            }
            StatusCode::UNAUTHORIZED => {
                self.renewed(access).await?;
                let message = format!(
                    "{}: PUT {} answered 401: the token had ended; there is a new one for the next try",
                    self.store,
                    response.url()
                );
                Err(Error::new(Reason::StoreError, message))
            }
            _ => Err(self.refused(&Method::PUT, response)),
        }
    }

    /// An answer that is none of those hoped for.
    pub(super) fn refused(&self, method: &Method, response: &Response) -> Error {
        let status = response.status();
        if status == StatusCode::NOT_FOUND && *method == Method::PUT {
            return self.of_container(method, response);
        }
        let (reason, cure) = match status.as_u16() {
            401 | 403 => (
                Reason::StoreRefused,
                ": give the user a role that may write in the project's account, as member, swiftoperator or admin",
            ),
            404 => (Reason::ObjectMissing, ": the object is gone"),
            413 => (Reason::StoreFull, ": a quota is used up, or the segment is too large for the server"),
            507 => (Reason::StoreFull, ": it has no room left"),
            429 | 498 | 503 => (Reason::StoreError, ": the server is busy"),
            _ if status.is_redirection() => (Reason::StoreError, ": redirected; correct the catalogue's endpoint"),
            _ => (Reason::StoreError, ""),
        };
        Error::new(reason, format!("{}: {method} {} answered {status}{cure}", self.store, response.url()))
    }

    fn request(&self, method: &Method, url: Url, access: &Access) -> RequestBuilder {
        let request = self.http.request(method.clone(), url);
        match &access.token {
            Some(token) => request.header("X-Auth-Token", token.clone()),
            None => request,
        }
    }

    fn url(&self, access: &Access, at: At<'_>) -> Result<Url> {
        let (endpoint, container) = (&access.endpoint, &self.container);
        let text = match at {
            At::Account => endpoint.clone(),
            At::Container("") => format!("{endpoint}/{container}"),
            At::Container(query) => format!("{endpoint}/{container}?{query}"),
            At::Object(name) => format!("{endpoint}/{container}/{name}"),
        };
        text.parse().map_err(|cause: url::ParseError| {
            let message = format!("{}: the object store's endpoint {endpoint:?} is no URL", self.store);
            Error::new(Reason::StoreError, message).caused_by(cause)
        })
    }

    async fn access(&self) -> Result<Access> {
        self.session.access().await.map_err(|error| self.not_logged_in(error))
    }

    async fn renewed(&self, access: &Access) -> Result<Access> {
        self.session.renewed(access).await.map_err(|error| self.not_logged_in(error))
    }

    /// A login says why it failed as if it were the image service's.
    fn not_logged_in(&self, error: Error) -> Error {
        let reason = match error.reason {
            Reason::NotAllowed => Reason::StoreRefused,
            Reason::ImageServiceUnreachable => Reason::StoreUnreachable,
            _ => Reason::StoreError,
        };
        Error::new(reason, format!("{}: {}", self.store, error.message)).caused_by(error)
    }
}

/// Where a cloud leads to, whoever logs in there.
fn place(cloud: &CloudConfig) -> Vec<Option<String>> {
    let auth = cloud.auth.clone().unwrap_or_default();
    let Auth { auth_url, project_id, project_name, project_domain_id, project_domain_name, .. } = auth;
    let (region, interface) = (cloud.region_name.clone(), cloud.interface.clone());
    vec![auth_url, project_id, project_name, project_domain_id, project_domain_name, region, interface]
}

/// One upload under way, and with which token.
pub(super) struct Put {
    pub(super) upload: Upload,
    pub(super) access: Access,
}
