//! The token's life: who we are at the moment, and where the service is.

use std::{
    collections::BTreeMap,
    error::Error as StdError,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use mimeo_core::{Error, Reason, Result};
use openstack_sdk::{AsyncOpenStack, AuthError, OpenStackError, config::CloudConfig};
// The SDK's own reference to this plugin is lost in its published form, and the linker then leaves the plugin out.
use openstack_sdk_auth_applicationcredential as _;
use reqwest::header::HeaderValue;
use secrecy::ExposeSecret;
use tokio::{sync::Mutex, time::Instant};

use super::{
    Keystone,
    config::{Endpoint, Login, checked},
};
use crate::{Live, http::CONNECT_TIMEOUT};

pub(super) const LOGIN_TIMEOUT: Duration = Duration::from_secs(30);

/// A token is renewed so long before its end, or after nine tenths of a short life.
const MARGIN: Duration = Duration::from_mins(2);

/// What a request needs. Its `Debug` shows no token.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    /// The service's URL, without version or trailing slash.
    pub(crate) endpoint: String,
    pub(crate) token: Option<HeaderValue>,
    /// The token's own project.
    pub(crate) project: Option<String>,
    pub(super) renew_at: Option<Instant>,
    /// Tells one login from the next.
    pub(super) login: u64,
}

/// Logs in at the first use and whenever it must, once for all who wait.
pub(crate) struct Session {
    how: Live<Login>,
    access: Mutex<State>,
    failures: AtomicU64,
}

#[derive(Default)]
struct State {
    /// With what it was got.
    access: Option<(Access, Arc<Login>)>,
    logins: u64,
    failed: Option<(Reason, String)>,
}

impl Session {
    pub(crate) fn new(how: Login) -> Self {
        Self { how: Live::new(how), access: Mutex::default(), failures: AtomicU64::new(0) }
    }

    /// The next request logs in so. What goes on keeps its token.
    pub(crate) fn renew(&self, how: Login) {
        self.how.set(how);
    }

    /// Where it logs in; `None` for a service without Keystone.
    pub(super) fn keystone(&self) -> Result<Option<Keystone>> {
        Keystone::of_login(&self.how.get())
    }

    /// Whether a token is asked for at all.
    pub(super) fn is_open(&self) -> bool {
        matches!(*self.how.get(), Login::None { .. })
    }

    pub(crate) async fn access(&self) -> Result<Access> {
        self.access_unless(|access| access.renew_at.is_some_and(|at| at <= Instant::now())).await
    }

    /// Another access than `refused`, which was answered with a 401.
    pub(crate) async fn renewed(&self, refused: &Access) -> Result<Access> {
        self.access_unless(|access| access.login == refused.login).await
    }

    async fn access_unless(&self, is_stale: impl Fn(&Access) -> bool + Send) -> Result<Access> {
        let failures = self.failures.load(Ordering::SeqCst);
        let mut state = self.access.lock().await;
        let how = self.how.get();
        if let Some((access, with)) = &state.access
            && Arc::ptr_eq(with, &how)
            && !is_stale(access)
        {
            return Ok(access.clone());
        }
        // Who waited for a login that failed does not try again at once: each try may take its whole time-out.
        if self.failures.load(Ordering::SeqCst) != failures
            && let Some((reason, message)) = &state.failed
        {
            return Err(Error::new(*reason, message.clone()));
        }
        match how.log_in(state.logins + 1).await {
            Ok(access) => {
                state.logins += 1;
                state.access = Some((access.clone(), how));
                Ok(access)
            }
            Err(error) => {
                state.failed = Some((error.reason, error.chain()));
                self.failures.fetch_add(1, Ordering::SeqCst);
                Err(error)
            }
        }
    }
}

impl Login {
    /// `login` is the number of this one.
    async fn log_in(&self, login: u64) -> Result<Access> {
        let (cloud, service) = match self {
            Self::Keystone { cloud, service } => (cloud, service),
            #[cfg(feature = "swift")]
            Self::TempAuth(tempauth) => return tempauth.log_in(login).await,
            Self::None { endpoint } => {
                let endpoint = endpoint.clone();
                return Ok(Access { endpoint, token: None, project: None, renew_at: None, login });
            }
        };
        let connected = AsyncOpenStack::builder(cloud)
            .disable_auth_cache(true)
            .http_timeout(LOGIN_TIMEOUT)
            .http_connect_timeout(CONNECT_TIMEOUT)
            .connect();
        let keystone = connected.await.map_err(|cause| refused(cloud, cause))?;
        let unusable = |what: &str| Error::new(Reason::ImageServiceError, format!("{} {what}", place(cloud)));
        let token = keystone.get_auth_token().ok_or_else(|| unusable("gave no token"))?;
        let mut token = HeaderValue::from_str(token.expose_secret())
            .map_err(|cause| unusable("gave a token that fits no header").caused_by(cause))?;
        token.set_sensitive(true);
        let info = keystone.get_auth_info().ok_or_else(|| unusable("says nothing of its token"))?.token;
        let endpoint = match service {
            Endpoint::At(endpoint) => endpoint.clone(),
            Endpoint::InCatalogue { service, interface, region } => {
                let region = region.as_deref();
                let found = in_catalogue(&keystone, service, interface, region);
                if found.values().any(|url| Some(url) != found.values().next()) {
                    return Err(in_several_regions(cloud, service, interface, &found));
                }
                let none = || not_in_catalogue(cloud, service, interface, region);
                checked(found.values().next().ok_or_else(none)?)?
            }
        };
        let lifetime = info.issued_at.and_then(|issued| (info.expires_at - issued).to_std().ok());
        let renew_at = lifetime.and_then(renewal);
        Ok(Access {
            endpoint,
            token: Some(token),
            project: info.project.and_then(|project| project.id),
            renew_at,
            login,
        })
    }
}

/// When a token that was given now, for so long, is to be exchanged. `None`: never, as far as can be counted.
pub(super) fn renewal(life: Duration) -> Option<Instant> {
    Instant::now().checked_add(life.saturating_sub(MARGIN.min(life / 10)))
}

/// The endpoints that fit, each with its region.
fn in_catalogue(
    keystone: &AsyncOpenStack,
    kind: &str,
    interface: &str,
    region: Option<&str>,
) -> BTreeMap<String, String> {
    let services = keystone.get_token_catalog().unwrap_or_default();
    let endpoints =
        services.into_iter().filter(|service| service.service_type == kind).flat_map(|service| service.endpoints);
    let fits = |told: Option<&str>| region.is_none() || told == region;
    let fitting = endpoints.filter(|endpoint| endpoint.interface == interface && fits(endpoint.region.as_deref()));
    // Of several in one region, the first.
    let by_region = fitting.map(|endpoint| (endpoint.region.unwrap_or_default(), endpoint.url));
    by_region.fold(BTreeMap::new(), |mut found, (region, url)| {
        found.entry(region).or_insert(url);
        found
    })
}

fn in_several_regions(cloud: &CloudConfig, service: &str, interface: &str, found: &BTreeMap<String, String>) -> Error {
    let regions: Vec<&str> = found.keys().map(String::as_str).collect();
    let section = if service == "image" { "in [openstack]" } else { "in the store's section" };
    let message = format!(
        "the catalogue of {} has {interface} endpoints of type {service} in the regions {}: set region {section}",
        place(cloud),
        regions.join(", ")
    );
    Error::new(Reason::NotAllowed, message)
}

fn not_in_catalogue(cloud: &CloudConfig, service: &str, interface: &str, region: Option<&str>) -> Error {
    let region = region.map_or("any region".to_owned(), |region| format!("region {region}"));
    let section = match service {
        "image" => "[openstack] interface or region, or set endpoint",
        _ => "the store's interface or region",
    };
    let message = format!(
        "the catalogue of {} has no {interface} endpoint of type {service} in {region}: correct {section}",
        place(cloud)
    );
    Error::new(Reason::NotAllowed, message)
}

/// Why Keystone gave no token.
fn refused(cloud: &CloudConfig, cause: OpenStackError) -> Error {
    let place = place(cloud);
    let (reason, what) = match (&cause, identity_code(&cause)) {
        (_, Some(401 | 403)) => (
            Reason::NotAllowed,
            "refused Mimeo's credentials: check user, password or application credential, project and domains",
        ),
        (_, Some(_)) => (Reason::ImageServiceError, "answered the login with an error"),
        (OpenStackError::AuthError { source: AuthError::AuthValueNotSupplied(_) } | OpenStackError::NoAuth, _) => {
            (Reason::NotAllowed, "cannot be asked: the credentials are incomplete")
        }
        _ if is_unreachable(&cause) => (Reason::ImageServiceUnreachable, "cannot be reached"),
        _ => (Reason::ImageServiceError, "cannot be logged in to"),
    };
    Error::new(reason, format!("{place} {what}")).caused_by(cause)
}

fn identity_code(cause: &OpenStackError) -> Option<u32> {
    match cause {
        OpenStackError::AuthError { source: AuthError::Identity(answer) } => Some(answer.code),
        _ => None,
    }
}

fn is_unreachable(cause: &OpenStackError) -> bool {
    let unanswered = |error: &reqwest::Error| error.is_connect() || error.is_timeout();
    if let OpenStackError::AuthError { source: AuthError::Reqwest { source } } = cause {
        return unanswered(source);
    }
    let mut error: Option<&(dyn StdError + 'static)> = Some(cause);
    while let Some(next) = error {
        if next.downcast_ref::<reqwest::Error>().is_some_and(unanswered) {
            return true;
        }
        error = next.source();
    }
    matches!(cause, OpenStackError::Discovery { .. })
}

fn place(cloud: &CloudConfig) -> String {
    let url = cloud.auth.as_ref().and_then(|auth| auth.auth_url.as_deref());
    format!("Keystone at {}", url.unwrap_or("(unknown)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_for_ever_is_no_crash() {
        assert_eq!(renewal(Duration::from_secs(u64::MAX)), None);
    }
}
