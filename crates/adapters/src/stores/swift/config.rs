use std::path::PathBuf;

use mimeo_core::{CHUNK, Error, Reason, StoreName};
use openstack_sdk::config::{Auth, CloudConfig};
use reqwest::Client;

use super::SwiftCredentials;
use crate::openstack::{Endpoint, Login, TempAuth, named_cloud};

/// The largest object that Swift takes in one request.
const LARGEST_SEGMENT: u64 = 5 << 30;

/// One store's section, checked.
#[derive(Debug, Clone)]
pub struct SwiftStoreConfig {
    pub name: StoreName,
    pub login: SwiftLogin,
    /// Which of the catalogue's endpoints; version 1's login has none.
    pub region: Option<String>,
    /// `public`, `internal` or `admin`.
    pub interface: Option<String>,
    pub container: String,
    /// What is larger is written as segments of this size.
    pub segment_size: u64,
    /// The container is made where it is missing.
    pub create_container: bool,
    /// A bundle of certificates to trust beside the system's.
    pub ca_file: Option<PathBuf>,
}

/// How Mimeo gets a token, and what stands in the locations.
#[derive(Debug, Clone)]
pub enum SwiftLogin {
    /// Swift's own, version 1.
    TempAuth(SwiftCredentials),
    /// Domains are names; without one it is the domain whose id is `default`, as it is for Glance.
    Keystone { credentials: SwiftCredentials, user_domain: Option<String>, project_domain: Option<String> },
    /// A cloud of clouds.yaml. Its own user and password stand in the locations where no others are given.
    Cloud { cloud: String, credentials: Option<SwiftCredentials> },
}

impl SwiftStoreConfig {
    /// What the SDK is to know. Empty where Keystone is not asked.
    pub(super) fn cloud(&self) -> mimeo_core::Result<CloudConfig> {
        let cloud = match &self.login {
            SwiftLogin::Cloud { cloud, .. } => named_cloud(&format!("[stores.{}]", self.name), cloud)?,
            SwiftLogin::Keystone { credentials, user_domain, project_domain } => {
                keystone(credentials, user_domain.clone(), project_domain.clone())
            }
            SwiftLogin::TempAuth(_) => CloudConfig::default(),
        };
        let cacert = self.ca_file.as_ref().map(|path| path.display().to_string());
        Ok(CloudConfig { cacert: cacert.or(cloud.cacert), ..cloud })
    }

    /// How to log in to the object store of `cloud`; `client` is for version 1's login.
    pub(super) fn login(&self, mut cloud: CloudConfig, client: &Client) -> Login {
        if let SwiftLogin::TempAuth(credentials) = &self.login {
            let (url, user) = (credentials.auth_url().to_owned(), credentials.user().to_owned());
            return Login::TempAuth(TempAuth { url, user, key: credentials.key().clone(), client: client.clone() });
        }
        // Taken from the SDK: with a region and no interface it finds no Keystone at all.
        let interface = self.interface.clone().or(cloud.interface.take());
        let interface = interface.map_or("public".to_owned(), |name| name.trim_end_matches("URL").to_owned());
        let region = self.region.clone().or(cloud.region_name.take());
        let service = Endpoint::InCatalogue { service: "object-store", interface, region };
        Login::Keystone { cloud: Box::new(cloud), service }
    }

    /// What stands in the locations.
    pub(super) fn credentials(&self, cloud: &CloudConfig) -> mimeo_core::Result<SwiftCredentials> {
        match &self.login {
            SwiftLogin::TempAuth(credentials)
            | SwiftLogin::Keystone { credentials, .. }
            | SwiftLogin::Cloud { credentials: Some(credentials), .. } => Ok(credentials.clone()),
            SwiftLogin::Cloud { cloud: name, credentials: None } => {
                let auth = cloud.auth.clone().unwrap_or_default();
                let unusable = |why: String| {
                    let message = format!(
                        "[stores.{}] cloud = {name:?}: {why}; add auth_url, project, user and password for the \
                         locations that Glance reads",
                        self.name
                    );
                    Error::new(Reason::NotAllowed, message)
                };
                let Auth { auth_url: Some(url), project_name: Some(project), username: Some(user), .. } = &auth else {
                    return Err(unusable("it does not tell auth_url, project_name and username".into()));
                };
                let password = auth.password.clone().ok_or_else(|| unusable("it has no password".into()))?;
                SwiftCredentials::new(url, project, user, password).map_err(|error| unusable(error.to_string()))
            }
        }
    }
}

fn keystone(
    credentials: &SwiftCredentials,
    user_domain: Option<String>,
    project_domain: Option<String>,
) -> CloudConfig {
    let (project, user) = credentials.user().split_once(':').unwrap_or_default();
    let default = |domain: &Option<String>| domain.is_none().then(|| "default".to_owned());
    let auth = Auth {
        auth_url: Some(credentials.auth_url().to_owned()),
        username: Some(user.to_owned()),
        password: Some(credentials.key().clone()),
        project_name: Some(project.to_owned()),
        user_domain_id: default(&user_domain),
        user_domain_name: user_domain,
        project_domain_id: default(&project_domain),
        project_domain_name: project_domain,
        ..Auth::default()
    };
    CloudConfig { auth: Some(auth), ..CloudConfig::default() }
}

/// The name of a container, or the rule that it breaks.
pub fn container(text: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    match !matches!(text, "" | "." | "..") && text.len() <= 256 && text.bytes().all(fits) {
        true => Ok(text.to_owned()),
        false => Err(format!("\"{text}\" is no container's name of letters, digits, '.', '_' and '-'")),
    }
}

/// A size that segments may have, or the rule that it breaks: a copy is gone on with from a multiple of [`CHUNK`].
pub fn segment_size(bytes: u64) -> Result<u64, String> {
    match bytes.is_multiple_of(CHUNK) && (CHUNK..=LARGEST_SEGMENT).contains(&bytes) {
        true => Ok(bytes),
        false => Err("must be a multiple of 16MiB, and at most 5GiB; write it like \"128MiB\"".to_owned()),
    }
}
