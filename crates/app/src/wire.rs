//! Puts the engine and the adapters together: the only place that makes a concrete adapter.

mod renewals;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

pub(crate) use mimeo_adapters::ledger::sqlite::Claim;
use mimeo_adapters::{
    events::rabbitmq::{RabbitConfig, RabbitEvents},
    ledger::sqlite::SqliteLedger,
    openstack::{Glance, Keystone, OpenstackConfig},
    stores::http::HttpStore,
};
use mimeo_core::{
    CHUNK, Result, TimeZone, Timestamp,
    identity::Identity,
    plan::Policy,
    ports::{Clock, Events, Ledger, Store},
};
use mimeo_engine::{Engine, GcSettings, Parts, ScrubSettings, Settings, StorePart};

use self::renewals::Made;
pub(crate) use self::renewals::Renewals;
use crate::config::{Config, StoreConfig, StoreKind};

/// How long Glance may give no byte of an image before the read is tried anew.
const SOURCE_TIMEOUT: Duration = Duration::from_mins(1);

/// What `serve` runs: the engine, its events, and the right to be the ledger's only one.
pub(crate) struct Service {
    pub engine: Arc<Engine>,
    pub events: Option<Box<dyn Events>>,
    /// For credentials that change while it runs.
    pub renewals: Renewals,
    /// Held for as long as the engine runs.
    pub claim: Claim,
}

/// For `serve`: the ledger is made if there is none, and is this process's own.
pub(crate) async fn service(config: Config) -> Result<Service> {
    let ledger = SqliteLedger::open(&config.ledger).await?;
    let claim = ledger.claim()?;
    mimeo_crash::point("serve-claimed");
    let events = config.events.clone().map(RabbitEvents::new);
    let (engine, renewals) = engine(config, ledger)?;
    let renewals = renewals.and_of(events.as_ref());
    let events = events.map(|events| Box::new(events) as Box<dyn Events>);
    Ok(Service { engine, events, renewals, claim })
}

/// For a look without `serve`: the ledger as it is, or an empty one in memory where there is none.
pub(crate) async fn onlooker(config: Config) -> Result<Arc<Engine>> {
    let ledger = match config.ledger.exists() {
        true => SqliteLedger::open(&config.ledger).await?,
        false => SqliteLedger::open_in_memory().await?,
    };
    let (engine, _) = engine(config, ledger)?;
    engine.recall().await?;
    Ok(engine)
}

fn engine(config: Config, ledger: SqliteLedger) -> Result<(Arc<Engine>, Renewals)> {
    let glance = glance(&config.openstack)?;
    let mut renewals = Renewals::of(glance.clone());
    let mut stores = Vec::new();
    for config in &config.stores {
        let Some(Made { store, renew }) = made(config)? else { continue };
        renewals.add(store.name().clone(), renew);
        stores.push(StorePart { store, timeout: config.timeout, backend: config.backend.clone() });
    }
    let (registry, ledger, clock) = (Arc::new(glance), Arc::new(ledger), Arc::new(SystemClock));
    Ok((Engine::new(Parts { registry, ledger, clock, stores }, settings(config)), renewals))
}

fn settings(config: Config) -> Settings {
    let Config { stores, rules, backoff, gc, scrub, scan, limits, observe, .. } = config;
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
        scrub: ScrubSettings { period: scrub.period, bandwidth: scrub.bandwidth },
        observe,
    }
}

/// `None` for a store that only Glance can write.
pub(crate) fn store(config: &StoreConfig) -> Result<Option<Arc<dyn Store>>> {
    Ok(made(config)?.map(|made| made.store))
}

/// The store, and how it takes over the credentials of another configuration.
fn made(config: &StoreConfig) -> Result<Option<Made>> {
    Ok(Some(match config.kind.clone() {
        StoreKind::Http(config) => Made::of(HttpStore::new(*config)?, |store, kind| match kind {
            StoreKind::Http(config) => store.renew(*config),
            _ => Ok(()),
        }),
        #[cfg(feature = "file")]
        StoreKind::File(config) => Made::of(mimeo_adapters::stores::file::FileStore::new(config)?, |_, _| Ok(())),
        #[cfg(feature = "s3")]
        StoreKind::S3(config) => Made::of(mimeo_adapters::stores::s3::S3Store::new(config)?, |store, kind| {
            if let StoreKind::S3(config) = kind {
                store.renew(config);
            }
            Ok(())
        }),
        #[cfg(feature = "swift")]
        StoreKind::Swift(config) => {
            Made::of(mimeo_adapters::stores::swift::SwiftStore::new(config)?, |store, kind| match kind {
                StoreKind::Swift(config) => store.renew(&config),
                _ => Ok(()),
            })
        }
        #[cfg(feature = "rbd")]
        StoreKind::Rbd(config) => Made::of(mimeo_adapters::stores::rbd::RbdStore::new(config)?, |store, _| {
            store.renew();
            Ok(())
        }),
        #[cfg(feature = "sftp")]
        StoreKind::Sftp(config) => Made::of(mimeo_adapters::stores::sftp::SftpStore::new(config)?, |store, kind| {
            if let StoreKind::Sftp(config) = kind {
                store.renew(config);
            }
            Ok(())
        }),
        #[cfg(feature = "rsync")]
        StoreKind::Rsync(config) => Made::of(mimeo_adapters::stores::rsync::RsyncStore::new(config)?, |store, kind| {
            if let StoreKind::Rsync(config) = kind {
                store.renew(config);
            }
            Ok(())
        }),
        StoreKind::Glance(_) => return Ok(None),
    }))
}

/// Logs in at the first use.
pub(crate) fn glance(config: &OpenstackConfig) -> Result<Glance> {
    Glance::connect(config)
}

/// Who tells whose a token is; `None` where Mimeo itself logs in nowhere.
pub(crate) fn identity(config: &OpenstackConfig) -> Result<Option<Arc<dyn Identity>>> {
    Ok(Keystone::of(config)?.map(|keystone| Arc::new(keystone) as Arc<dyn Identity>))
}

/// The ledger beside a running `serve`: for rows of one's own.
pub(crate) async fn ledger(path: &Path) -> Result<Arc<dyn Ledger>> {
    Ok(Arc::new(SqliteLedger::open(path).await?))
}

/// The ledger's backup, made beside a `serve` that runs; how many images are in it.
pub(crate) async fn back_up(path: &Path, to: &Path) -> Result<u64> {
    SqliteLedger::backup(path, to).await
}

/// Puts a backup back. Where the ledger before it is now, if there was one.
pub(crate) async fn restore(path: &Path, from: &Path) -> Result<Option<PathBuf>> {
    SqliteLedger::restore(path, from, &[mimeo_engine::came_back()]).await
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
