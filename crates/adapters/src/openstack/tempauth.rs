//! The login that Swift and the gateways of Ceph have of their own, without Keystone.

use std::time::Duration;

use mimeo_core::{Error, Reason, Result};
use reqwest::{Client, Response, StatusCode, header::HeaderValue};
use secrecy::{ExposeSecret, SecretString};

use super::session::{Access, LOGIN_TIMEOUT, renewal};

/// Version 1 of the protocol: one GET that is answered with a token and the account's URL.
pub(crate) struct TempAuth {
    pub(crate) url: String,
    /// As in `account:user`.
    pub(crate) user: String,
    pub(crate) key: SecretString,
    pub(crate) client: Client,
}

impl TempAuth {
    /// `login` is the number of this one.
    pub(super) async fn log_in(&self, login: u64) -> Result<Access> {
        let url = &self.url;
        let wrong = |reason, what: &str| Error::new(reason, format!("the login at {url} {what}"));
        let unfit = |cause| wrong(Reason::NotAllowed, "takes no such user or key").caused_by(cause);
        let user = HeaderValue::from_str(&self.user).map_err(unfit)?;
        let mut key = HeaderValue::from_str(self.key.expose_secret()).map_err(unfit)?;
        key.set_sensitive(true);
        let request = self.client.get(url).header("X-Auth-User", user).header("X-Auth-Key", key);
        let response = request.timeout(LOGIN_TIMEOUT).send().await.map_err(|cause| {
            let (reason, what) = match cause.is_connect() || cause.is_timeout() {
                true => (Reason::ImageServiceUnreachable, "cannot be reached"),
                false => (Reason::ImageServiceError, "broke off"),
            };
            wrong(reason, what).caused_by(cause.without_url())
        })?;
        match response.status() {
            status if status.is_success() => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(wrong(Reason::NotAllowed, "refused Mimeo's credentials: check user and password"));
            }
            status => return Err(wrong(Reason::ImageServiceError, &format!("answered {status}"))),
        }
        let endpoint = text(&response, "X-Storage-Url").map(|url| url.trim_end_matches('/').to_owned());
        let endpoint = endpoint.ok_or_else(|| wrong(Reason::ImageServiceError, "tells no X-Storage-Url"))?;
        let token = response.headers().get("X-Auth-Token").cloned();
        let mut token = token.ok_or_else(|| wrong(Reason::ImageServiceError, "gave no X-Auth-Token"))?;
        token.set_sensitive(true);
        let life = text(&response, "X-Auth-Token-Expires").and_then(|seconds| seconds.parse().ok());
        let renew_at = life.map(Duration::from_secs).and_then(renewal);
        Ok(Access { endpoint, token: Some(token), project: None, renew_at, login })
    }
}

fn text<'a>(response: &'a Response, header: &str) -> Option<&'a str> {
    response.headers().get(header)?.to_str().ok()
}
