//! `mimeo serve`: the engine and its API, until a signal.

use std::{net::SocketAddr, path::Path, sync::Arc};

use anyhow::Context;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::filter::LevelFilter;

use super::{Failure, Outcome};
use crate::{
    api::{
        self,
        auth::{Authority, Tokens},
    },
    config::{Config, TlsFiles},
    follow,
    gateway::Gateway,
    lifetime::{END, Tasks, allow_open_files, hangups, stop_on},
    logging,
    reload::{Certificates, Reload},
    service_manager,
    tls::Tls,
    traces, ui, webhooks, wire,
};

/// `path` is the configuration file. A SIGHUP reads it again.
pub(super) async fn serve(path: &Path, observe: bool) -> Outcome {
    let mut config = Config::load(path)?;
    logging::start(config.log, LevelFilter::INFO);
    config.observe |= observe;
    let (api, observe) = (config.api.clone(), config.observe);
    let mut tasks = Tasks::default();
    let stop = stop_on(&END, &mut tasks)?;
    let hangups = hangups()?;
    // A login that cannot be is a mistake of the configuration, told before anything is made.
    wire::glance(&config.openstack).map_err(|error| Failure::usage(error.chain()))?;
    let identity = wire::identity(&config.openstack).map_err(|error| Failure::usage(error.chain()))?;
    let (started, gateway) = (std::mem::take(&mut config.written), config.gateway.take());
    let (hooks, traces) = (std::mem::take(&mut config.webhooks), config.traces.take());
    let pace = api::Pace::of(&config);
    // The ledger first: whoever may not have it must not answer for it either.
    let wire::Service { engine, events, renewals, claim } = wire::service(config).await?;
    let tokens = Tokens::load_or_create(&api)?;
    let authority = Authority::new(tokens, identity, api.roles.clone(), Arc::new(wire::SystemClock));
    let tls = certificates(api.tls.as_ref(), gateway.as_ref().and_then(|settings| settings.tls.as_ref()))?;
    let listener = listen_on(api.listen, "[api] listen").await?;
    mimeo_crash::point("serve-listens");
    tracing::info!(version = env!("CARGO_PKG_VERSION"), api = %api.listen, observe, "mimeo serves");
    if api::is_overheard(&api) {
        let cure = api::TO_BE_ALONE;
        tracing::warn!(api = %api.listen, cure, "the API is plain HTTP for others too: tokens can be read on the way");
    }
    // The engine goes on until the gateway's last uploads are where they belong.
    let engine_stop = if gateway.is_some() { CancellationToken::new() } else { stop.clone() };
    if let Some(settings) = gateway {
        allow_open_files(settings.connections.get());
        let listener = listen_on(settings.listen, "[gateway] listen").await?;
        tracing::info!(listen = %settings.listen, ack = ?settings.ack, "the gateway is open");
        tasks.allow(settings.stop_timeout);
        let gateway = Gateway::new(engine.clone(), settings, tls.gateway.clone())?;
        let (ended, stopped) = (engine_stop.clone().drop_guard(), stop.clone());
        tasks.start("gateway", async move {
            let _ended = ended;
            gateway.serve(listener, stopped).await
        });
    }
    let clock = Arc::new(wire::SystemClock);
    let dashboard = ui::start(&mut tasks, engine.clone(), Arc::clone(&authority), clock, tls.api.is_some(), &stop);
    let told = follow::Board::default();
    if !hooks.is_empty() {
        let clock = Arc::new(wire::SystemClock);
        tasks.start("webhooks", webhooks::run(engine.clone(), clock, hooks, told.clone(), stop.clone()));
    }
    if let Some(endpoint) = traces {
        let clock = Arc::new(wire::SystemClock);
        tasks.start("traces", traces::run(engine.clone(), clock, endpoint, told.clone(), stop.clone()));
    }
    let watching = api::Watching { is_open: api.metrics_are_open, told, pace };
    let api = api::serve(listener, tls.api.clone(), engine.clone(), authority, watching, dashboard, stop.clone());
    tasks.start("api", api);
    let reload = Reload::new(path.to_owned(), engine.clone(), renewals, tls, started);
    tasks.start("reload", reload.run(hangups, stop.clone()));
    tasks.start("engine", async move { Ok(engine.serve(events, engine_stop).await?) });
    tasks.start("stopping", service_manager::stopping(stop.clone()));
    tasks.watch(service_manager::watchdog());
    service_manager::ready();
    let outcome = tasks.finish(stop).await;
    mimeo_crash::point("serve-stopped");
    drop(claim);
    if outcome.is_ok() {
        tracing::info!("stopped");
    }
    Ok(outcome?)
}

fn certificates(api: Option<&TlsFiles>, gateway: Option<&TlsFiles>) -> anyhow::Result<Certificates> {
    let tls = |files: Option<&TlsFiles>| anyhow::Ok(files.map(Tls::new).transpose()?.map(Arc::new));
    Ok(Certificates { api: tls(api)?, gateway: tls(gateway)? })
}

async fn listen_on(address: SocketAddr, key: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}, {key}"))
}
