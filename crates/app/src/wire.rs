//! Puts the engine and the adapters together: the only place that makes a concrete adapter.

use std::{path::Path, sync::Arc, time::Duration};

pub(crate) use mimeo_adapters::ledger::sqlite::Claim;
use mimeo_adapters::{
    events::rabbitmq::{RabbitConfig, RabbitEvents},
    ledger::sqlite::SqliteLedger,
    openstack::{Glance, OpenstackConfig},
    stores::http::HttpStore,
};
use mimeo_core::{
    CHUNK, Result, TimeZone, Timestamp,
    plan::Policy,
    ports::{Clock, Events, Ledger, Store},
};
use mimeo_engine::{Engine, GcSettings, Parts, Settings, StorePart};

use crate::config::{Config, StoreConfig, StoreKind};

/// How long Glance may give no byte of an image before the read is tried anew.
const SOURCE_TIMEOUT: Duration = Duration::from_mins(1);

/// What `serve` runs: the engine, its events, and the right to be the ledger's only one.
pub(crate) struct Service {
    pub engine: Arc<Engine>,
    pub events: Option<Box<dyn Events>>,
    /// Held for as long as the engine runs.
    pub claim: Claim,
}

/// For `serve`: the ledger is made if there is none, and is this process's own.
pub(crate) async fn service(config: Config) -> Result<Service> {
    let ledger = SqliteLedger::open(&config.ledger).await?;
    let claim = ledger.claim()?;
    let events = config.events.clone().map(events);
    Ok(Service { engine: engine(config, ledger)?, events, claim })
}

/// For a look without `serve`: the ledger as it is, or an empty one in memory where there is none.
pub(crate) async fn onlooker(config: Config) -> Result<Arc<Engine>> {
    let ledger = match config.ledger.exists() {
        true => SqliteLedger::open(&config.ledger).await?,
        false => SqliteLedger::open_in_memory().await?,
    };
    engine(config, ledger)
}

fn engine(config: Config, ledger: SqliteLedger) -> Result<Arc<Engine>> {
    let parts = Parts {
        registry: Arc::new(glance(&config.openstack)?),
        ledger: Arc::new(ledger),
        clock: Arc::new(SystemClock),
        stores: config.stores.iter().filter_map(|config| store_part(config).transpose()).collect::<Result<_>>()?,
    };
    Ok(Engine::new(parts, settings(config)))
}

fn settings(config: Config) -> Settings {
    let Config { stores, rules, backoff, gc, scan, limits, observe, .. } = config;
    Settings {
        policy: Policy { rules, stores: stores.into_iter().map(|store| store.facts).collect(), backoff, chunk: CHUNK },
        limits,
        time_zone: TimeZone::system(),
        source_timeout: SOURCE_TIMEOUT,
        scan_interval: scan.interval,
        full_scan_interval: scan.full_interval,
        gc: GcSettings {
            interval: gc.interval,
            grace: gc.grace,
            max_images: gc.max_images,
            max_percent: gc.max_percent,
        },
        observe,
    }
}

fn store_part(config: &StoreConfig) -> Result<Option<StorePart>> {
    Ok(store(config)?.map(|store| StorePart { store, timeout: config.timeout, backend: config.backend.clone() }))
}

/// `None` for a store that only Glance can write.
pub(crate) fn store(config: &StoreConfig) -> Result<Option<Arc<dyn Store>>> {
    Ok(Some(match config.kind.clone() {
        StoreKind::Http(config) => Arc::new(HttpStore::new(*config)?),
        #[cfg(feature = "file")]
        StoreKind::File(config) => Arc::new(mimeo_adapters::stores::file::FileStore::new(config)?),
        #[cfg(feature = "s3")]
        StoreKind::S3(config) => Arc::new(mimeo_adapters::stores::s3::S3Store::new(config)?),
        #[cfg(feature = "swift")]
        StoreKind::Swift(config) => Arc::new(mimeo_adapters::stores::swift::SwiftStore::new(config)?),
        #[cfg(feature = "rbd")]
        StoreKind::Rbd(config) => Arc::new(mimeo_adapters::stores::rbd::RbdStore::new(config)?),
        #[cfg(feature = "sftp")]
        StoreKind::Sftp(config) => Arc::new(mimeo_adapters::stores::sftp::SftpStore::new(config)?),
        #[cfg(feature = "rsync")]
        StoreKind::Rsync(config) => Arc::new(mimeo_adapters::stores::rsync::RsyncStore::new(config)?),
        StoreKind::Glance(_) => return Ok(None),
    }))
}

/// Logs in at the first use.
pub(crate) fn glance(config: &OpenstackConfig) -> Result<Glance> {
    Glance::connect(config)
}

/// The ledger beside a running `serve`: for rows of one's own.
pub(crate) async fn ledger(path: &Path) -> Result<Arc<dyn Ledger>> {
    Ok(Arc::new(SqliteLedger::open(path).await?))
}

/// Starts to connect.
pub(crate) fn events(config: RabbitConfig) -> Box<dyn Events> {
    Box::new(RabbitEvents::new(config))
}

/// The real time.
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one clock that decisions get their time from")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}
