use std::{env, fs, path::PathBuf};

use mimeo_core::{Error, Reason, Result};
use openstack_sdk::config::{CloudConfig, ConfigFile};
use reqwest::{Certificate, ClientBuilder};
use url::Url;

#[cfg(feature = "swift")]
use super::tempauth::TempAuth;

/// The `[openstack]` section. What it leaves open comes from clouds.yaml, or from the `OS_*` variables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenstackConfig {
    /// A name in clouds.yaml; else `OS_CLOUD`; else the `OS_*` variables alone.
    pub cloud: Option<String>,
    /// `none` for an image service without Keystone, at `endpoint`; anything else is Keystone's.
    pub auth_type: Option<String>,
    /// The image service's URL, instead of the catalogue's.
    pub endpoint: Option<String>,
    /// `public`, `internal` or `admin`: which of the catalogue's endpoints.
    pub interface: Option<String>,
    pub region: Option<String>,
    /// A bundle of certificates to trust beside the system's.
    pub cacert: Option<PathBuf>,
    /// True: certificates are not verified.
    pub insecure: Option<bool>,
}

/// How to reach a service: a section, clouds.yaml and the environment put together.
pub(crate) enum Login {
    /// Nobody asks who we are.
    None {
        endpoint: String,
    },
    Keystone {
        cloud: Box<CloudConfig>,
        service: Endpoint,
    },
    #[cfg(feature = "swift")]
    TempAuth(TempAuth),
}

/// Where the service is.
pub(crate) enum Endpoint {
    At(String),
    /// `service` is a type, as in `image`.
    InCatalogue {
        service: &'static str,
        interface: String,
        region: Option<String>,
    },
}

impl OpenstackConfig {
    pub(super) fn login(&self) -> Result<Login> {
        let mut cloud = self.cloud()?;
        // Taken from the SDK: with a region and no interface it finds no Keystone at all, and for the login alone it
        // needs neither.
        let interface = self.interface.clone().or(cloud.interface.take()).or_else(|| variable("OS_ENDPOINT_TYPE"));
        let interface = interface.map_or("public".to_owned(), |name| name.trim_end_matches("URL").to_owned());
        let region = self.region.clone().or(cloud.region_name.take());
        cloud.cacert = self.cacert.as_ref().map(|path| path.display().to_string()).or(cloud.cacert);
        let insecure = self.insecure.or_else(|| variable("OS_INSECURE").map(|value| is_true(&value)));
        cloud.verify = insecure.map(|insecure| !insecure).or(cloud.verify);

        let overridden =
            cloud.options.get("image_endpoint_override").and_then(|value| value.clone().into_string().ok());
        let endpoint = self.endpoint.clone().or(overridden);
        match self.auth_type.as_deref().or(cloud.auth_type.as_deref()) {
            Some("none") => {
                let endpoint = endpoint.or_else(|| cloud.auth.and_then(|auth| auth.endpoint));
                let endpoint = endpoint.ok_or_else(|| {
                    invalid("auth_type is none, so the image service's URL must be told: set endpoint, or OS_ENDPOINT")
                })?;
                Ok(Login::None { endpoint: checked(&endpoint)? })
            }
            _ if cloud.auth.as_ref().is_none_or(|auth| auth.auth_url.is_none()) => Err(invalid(
                "nothing says where Keystone is: set [openstack] cloud to a name in clouds.yaml, or OS_CLOUD, or \
                 OS_AUTH_URL with the other OS_* variables",
            )),
            _ => {
                let service = match endpoint {
                    Some(endpoint) => Endpoint::At(checked(&endpoint)?),
                    None => Endpoint::InCatalogue { service: "image", interface, region },
                };
                Ok(Login::Keystone { cloud: Box::new(cloud), service })
            }
        }
    }

    fn cloud(&self) -> Result<CloudConfig> {
        let from_file = self.cloud.clone().or_else(|| variable("OS_CLOUD"));
        match from_file.filter(|_| self.auth_type.as_deref() != Some("none")) {
            Some(name) => named_cloud("[openstack]", &name),
            None => {
                CloudConfig::from_env().map_err(|cause| invalid("the OS_* variables cannot be read").caused_by(cause))
            }
        }
    }
}

/// `section` is where the name was written, for messages.
pub(crate) fn named_cloud(section: &str, name: &str) -> Result<CloudConfig> {
    // The SDK knows OS_CLIENT_CONFIG_PATH; every other OpenStack client knows this one.
    let clouds = variable("OS_CLIENT_CONFIG_FILE").map(PathBuf::from);
    let files = ConfigFile::new_with_user_specified_configs(clouds, None::<PathBuf>);
    let files = files.map_err(|cause| invalid("clouds.yaml cannot be read").caused_by(cause))?;
    let found = files.get_cloud_config(name).map_err(|cause| invalid("clouds.yaml cannot be read").caused_by(cause))?;
    found.ok_or_else(|| {
        let mut known = files.get_available_clouds();
        known.sort();
        invalid(&match known.is_empty() {
            true => format!(
                "{section} cloud = {name:?}: no clouds.yaml is found here, in ~/.config/openstack or in /etc/openstack; \
                 write one, name it in OS_CLIENT_CONFIG_FILE, or use the OS_* variables"
            ),
            false => format!("{section} cloud = {name:?}: clouds.yaml has no such cloud; it has {}", known.join(", ")),
        })
    })
}

/// What concerns TLS, for the client that moves bits and metadata; the SDK takes it for its own from the cloud.
pub(crate) fn trust(mut client: ClientBuilder, cloud: &CloudConfig) -> Result<ClientBuilder> {
    if let Some(path) = &cloud.cacert {
        let unreadable = || invalid(&format!("the certificates in {path} cannot be read"));
        let bundle = fs::read(path).map_err(|cause| unreadable().caused_by(cause))?;
        let certificates = Certificate::from_pem_bundle(&bundle).map_err(|cause| unreadable().caused_by(cause))?;
        client = client.tls_certs_merge(certificates);
    }
    Ok(client.tls_danger_accept_invalid_certs(cloud.verify == Some(false)))
}

/// The URL without the version that some catalogues append: every request appends its own.
pub(super) fn checked(endpoint: &str) -> Result<String> {
    match Url::parse(endpoint) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {
            let root = endpoint.trim_end_matches('/');
            Ok(root.strip_suffix("/v2").unwrap_or(root).trim_end_matches('/').to_owned())
        }
        _ => Err(invalid(&format!("{endpoint:?} is not an image service's URL; write it as http://host:9292"))),
    }
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn is_true(value: &str) -> bool {
    ["1", "true", "yes", "on"].contains(&value.to_ascii_lowercase().as_str())
}

fn invalid(message: &str) -> Error {
    Error::new(Reason::NotAllowed, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_loses_its_version() {
        for written in ["http://h:9292", "http://h:9292/", "http://h:9292/v2", "http://h:9292/v2/"] {
            assert_eq!(checked(written).unwrap(), "http://h:9292");
        }
        assert_eq!(checked("https://h/image/v2/").unwrap(), "https://h/image");
        for bad in ["", "h:9292", "ftp://h/"] {
            assert!(checked(bad).is_err(), "{bad} was taken");
        }
    }

    #[test]
    fn without_keystone_an_endpoint_is_all_it_takes() {
        let endpoint = Some("http://127.0.0.1:9292/".into());
        let config = OpenstackConfig { auth_type: Some("none".into()), endpoint, ..Default::default() };
        assert!(matches!(config.login().unwrap(), Login::None { endpoint } if endpoint == "http://127.0.0.1:9292"));
    }
}
