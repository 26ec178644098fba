//! Keystone as it is asked about other people's tokens.

use async_trait::async_trait;
use mimeo_core::{
    Error, Reason, Result, Timestamp,
    identity::{Credentials, Identity, Person},
    root_cause,
};
use reqwest::{Client, RequestBuilder, Response, StatusCode, header::HeaderValue};
use serde::Deserialize;
use serde_json::json;

use super::{
    OpenstackConfig,
    config::{Login, trust},
    session::LOGIN_TIMEOUT,
};
use crate::http::client;

/// Keystone's identity API, version 3. It needs no credentials of Mimeo's: Keystone lets whoever holds a token ask about
/// that token.
pub struct Keystone {
    /// Of the API, as in `http://host:5000/v3`.
    url: String,
    http: Client,
}

impl Keystone {
    /// Where Mimeo itself logs in; `None` for an image service without Keystone.
    pub fn of(config: &OpenstackConfig) -> Result<Option<Self>> {
        Self::of_login(&config.login()?)
    }

    pub(super) fn of_login(login: &Login) -> Result<Option<Self>> {
        let Login::Keystone { cloud, .. } = login else { return Ok(None) };
        let Some(url) = cloud.auth.as_ref().and_then(|auth| auth.auth_url.as_deref()) else { return Ok(None) };
        let failed = |cause| Error::new(Reason::NotAllowed, "no HTTP client can be made").caused_by(cause);
        let http = trust(client(), cloud)?.timeout(LOGIN_TIMEOUT).build().map_err(failed)?;
        Ok(Some(Self { url: versioned(url), http }))
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response> {
        request.send().await.map_err(|cause| {
            let (reason, what) = match cause.is_connect() || cause.is_timeout() {
                true => (Reason::ImageServiceUnreachable, "cannot be reached"),
                false => (Reason::ImageServiceError, "broke off"),
            };
            Error::new(reason, format!("Keystone at {} {what}: {}", self.url, root_cause(&cause.without_url())))
        })
    }

    fn wrong(&self, what: &str) -> Error {
        Error::new(Reason::ImageServiceError, format!("Keystone at {} {what}", self.url))
    }

    fn answered(&self, status: StatusCode) -> Error {
        self.wrong(&format!("answered {status} to a question about a token"))
    }
}

#[async_trait]
impl Identity for Keystone {
    async fn whose(&self, token: &str) -> Result<Option<Person>> {
        // What fits no header is no token.
        let Ok(mut token) = HeaderValue::from_str(token) else { return Ok(None) };
        token.set_sensitive(true);
        let request = self.http.get(format!("{}/auth/tokens?nocatalog", self.url));
        let request = request.header("X-Auth-Token", token.clone()).header("X-Subject-Token", token);
        let response = self.send(request).await?;
        match response.status() {
            StatusCode::OK => {}
            // 400: of a form that no token has.
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => {
                return Ok(None);
            }
            status => return Err(self.answered(status)),
        }
        let unreadable = |cause: reqwest::Error| self.wrong("tells no token's owner").caused_by(cause.without_url());
        let Answer { token } = response.json().await.map_err(unreadable)?;
        let roles = token.roles.into_iter().map(|role| role.name).collect();
        Ok(Some(Person { name: token.user.name, roles, expires_at: token.expires_at }))
    }

    async fn sign_in(&self, credentials: &Credentials) -> Result<Option<String>> {
        let Credentials { user, password, user_domain, project, project_domain } = credentials;
        let user = json!({"name": user, "domain": {"name": user_domain}, "password": password});
        let scope = json!({"project": {"name": project, "domain": {"name": project_domain}}});
        let identity = json!({"methods": ["password"], "password": {"user": user}});
        let body = json!({"auth": {"identity": identity, "scope": scope}});
        let response = self.send(self.http.post(format!("{}/auth/tokens", self.url)).json(&body)).await?;
        match response.status() {
            status if status.is_success() => {}
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => {
                return Ok(None);
            }
            status => return Err(self.answered(status)),
        }
        let token = response.headers().get("X-Subject-Token").and_then(|token| token.to_str().ok());
        token.map(|token| Some(token.to_owned())).ok_or_else(|| self.wrong("gave no token"))
    }
}

#[derive(Deserialize)]
struct Answer {
    token: Token,
}

#[derive(Deserialize)]
struct Token {
    user: Named,
    /// An unscoped token has none.
    #[serde(default)]
    roles: Vec<Named>,
    expires_at: Timestamp,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

fn versioned(url: &str) -> String {
    let root = url.trim_end_matches('/');
    if root.ends_with("/v3") { root.to_owned() } else { format!("{root}/v3") }
}
