//! The configuration: read once, checked whole, and turned into types that cannot be half valid.
//!
//! Owns every key's name and default (docs/configuration.md); the adapters' own configuration types bring the rules of
//! their values. Starts nothing and opens no connection. Mistakes are collected, so that one look at the messages is
//! enough.

mod document;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod gateway;
mod limits;
mod mistake;
mod sections;
mod stores;
#[cfg(test)]
mod tests;
pub(crate) mod units;
mod webhooks;
mod written;

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    num::NonZeroU64,
    path::{Path, PathBuf},
    time::Duration,
};

use mimeo_adapters::{events::rabbitmq::RabbitConfig, openstack::OpenstackConfig, stores::http::HttpStoreConfig};
use mimeo_core::{
    Backoff, Limits,
    policy::{Rules, StoreFacts},
};
use url::Url;

use self::{document::Document, mistake::Mistakes};
pub(crate) use self::{
    document::suggestion,
    gateway::{Ack, GatewaySettings, Reads, TlsFiles},
    mistake::ConfigError,
    written::Written,
};

/// Everything that the operator decided.
#[derive(Debug)]
pub(crate) struct Config {
    /// The enabled stores, in the operator's order.
    pub stores: Vec<StoreConfig>,
    /// Only plan and report.
    pub observe: bool,
    pub rules: Rules,
    pub backoff: Backoff,
    /// What is not given here comes from clouds.yaml or the `OS_*` variables.
    pub openstack: OpenstackConfig,
    /// None: no notifications, the scan alone finds images.
    pub events: Option<RabbitConfig>,
    /// The ledger's file.
    pub ledger: PathBuf,
    pub scan: ScanSettings,
    pub gc: GcSettings,
    pub scrub: ScrubSettings,
    /// With an entry for each enabled store.
    pub limits: Limits,
    pub api: ApiSettings,
    /// None: no gateway.
    pub gateway: Option<GatewaySettings>,
    pub log: LogFormat,
    pub webhooks: Vec<WebhookSettings>,
    /// The OpenTelemetry collector that is sent traces, if any.
    pub traces: Option<Url>,
    /// To compare with what the file says later.
    pub written: Written,
}

/// One store.
#[derive(Debug, Clone)]
pub(crate) struct StoreConfig {
    pub kind: StoreKind,
    pub facts: StoreFacts,
    /// How long it may move no byte before a copy counts as stalled.
    pub timeout: Duration,
    /// Glance's own id of it, for its locations.
    pub backend: Option<String>,
}

/// A store's type, with the keys of its own.
#[derive(Debug, Clone)]
pub(crate) enum StoreKind {
    Http(Box<HttpStoreConfig>),
    #[cfg(feature = "file")]
    File(mimeo_adapters::stores::file::FileStoreConfig),
    #[cfg(feature = "s3")]
    S3(mimeo_adapters::stores::s3::S3StoreConfig),
    #[cfg(feature = "swift")]
    Swift(mimeo_adapters::stores::swift::SwiftStoreConfig),
    #[cfg(feature = "rbd")]
    Rbd(mimeo_adapters::stores::rbd::RbdStoreConfig),
    #[cfg(feature = "sftp")]
    Sftp(mimeo_adapters::stores::sftp::SftpStoreConfig),
    #[cfg(feature = "rsync")]
    Rsync(mimeo_adapters::stores::rsync::RsyncStoreConfig),
    /// One that only Glance can write, by Glance's own id.
    Glance(String),
}

impl StoreKind {
    /// Where Glance reads, when that is not where Mimeo writes.
    pub(crate) fn read_url(&self) -> Option<&Url> {
        match self {
            Self::Http(config) => config.read_url.as_ref(),
            #[cfg(feature = "file")]
            Self::File(config) => Some(&config.read_url),
            #[cfg(feature = "sftp")]
            Self::Sftp(config) => Some(&config.read_url),
            #[cfg(feature = "rsync")]
            Self::Rsync(config) => Some(&config.read_url),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct ScanSettings {
    pub interval: Duration,
    pub full_interval: Duration,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct GcSettings {
    pub interval: Duration,
    pub grace: Duration,
    pub max_images: u64,
    pub max_percent: u64,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct ScrubSettings {
    /// `None`: registered copies are read again only when somebody asks.
    pub period: Option<Duration>,
    pub bandwidth: Option<NonZeroU64>,
}

#[derive(Debug, Clone)]
pub(crate) struct ApiSettings {
    pub listen: SocketAddr,
    pub token_file: PathBuf,
    /// For those who only read, as Prometheus.
    pub reader_token_file: Option<PathBuf>,
    /// Which of Keystone's roles may do what.
    pub roles: RoleNames,
    /// Whether `/metrics` needs no token.
    pub metrics_are_open: bool,
    /// None: plain HTTP.
    pub tls: Option<TlsFiles>,
}

/// Which of Keystone's roles make an admin of Mimeo, and which a reader. None at all: Keystone is not asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RoleNames {
    pub admin: BTreeSet<String>,
    pub reader: BTreeSet<String>,
}

/// Where to tell what happens.
#[derive(Clone)]
pub(crate) struct WebhookSettings {
    /// What it is called in metrics, the log and the ledger.
    pub name: String,
    /// It may hold a secret of its own, as many services want it.
    pub url: Url,
    pub secret: String,
    /// Which Mimeo tells.
    pub source: String,
    pub only: Only,
}

impl std::fmt::Debug for WebhookSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhookSettings").field("name", &self.name).field("only", &self.only).finish_non_exhaustive()
    }
}

/// What a webhook is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Only {
    Failures,
    All,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    Human,
    Json,
}

/// The variable that names the configuration file where no `--config` does.
pub(crate) const CONFIG_VARIABLE: &str = "MIMEO_CONFIG";

impl Config {
    /// Reads and checks the file, with `${NAME}` taken from the environment.
    pub(crate) fn load(path: &Path) -> Result<Self, ConfigError> {
        let text =
            fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        Self::parse(path, &text, &|name| std::env::var(name).ok())
    }

    /// Checks `text` as if it stood in the file `path`: relative paths in it count from that file's directory.
    pub(crate) fn parse(
        path: &Path,
        text: &str,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let mistakes = Mistakes::new(path, text);
        let directory = path.parent().unwrap_or(Path::new(""));
        let parsed = Document::parse(text, &mistakes, environment)
            .and_then(|document| sections::read(&document, Written::new(text, environment, directory), directory));
        match (parsed, mistakes.finish()) {
            (Some(config), None) => Ok(config),
            (_, mistakes) => Err(ConfigError::Mistakes(mistakes.unwrap_or_default())),
        }
    }

    /// The file to read: the given one, else `MIMEO_CONFIG`, else the first that exists of the usual places.
    pub(crate) fn locate(given: Option<&Path>) -> Result<PathBuf, ConfigError> {
        if let Some(path) = given {
            return Ok(path.to_owned());
        }
        if let Some(path) = std::env::var_os(CONFIG_VARIABLE).filter(|path| !path.is_empty()) {
            return Ok(path.into());
        }
        let usual = ["./mimeo.toml", "/etc/mimeo/mimeo.toml"].map(PathBuf::from);
        usual.into_iter().find(|path| path.exists()).ok_or(ConfigError::NotFound)
    }
}
