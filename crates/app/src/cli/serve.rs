//! `mimeo serve`: the engine and its API, until a signal.

use std::{net::SocketAddr, path::Path, sync::Arc};

use anyhow::Context;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::filter::LevelFilter;

use super::{Failure, Outcome};
use crate::{
    api::{self, auth::Authority, token::Token},
    config::Config,
    gateway::Gateway,
    lifetime::{END, Tasks, hangups, stop_on},
    logging,
    reload::Reload,
    service_manager,
    tls::Tls,
    webhooks, wire,
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
    let hooks = std::mem::take(&mut config.webhooks);
    // The ledger first: whoever may not have it must not answer for it either.
    let wire::Service { engine, events, renewals, claim } = wire::service(config).await?;
    let token = Token::load_or_create(&api.token_file)?;
    let authority = Authority::new(token, identity, api.roles, Arc::new(wire::SystemClock));
    let tls = api.tls.as_ref().map(Tls::new).transpose()?.map(Arc::new);
    let listener = listen_on(api.listen, "[api] listen").await?;
    mimeo_crash::point("serve-listens");
    tracing::info!(version = env!("CARGO_PKG_VERSION"), api = %api.listen, observe, "mimeo serves");
    // The engine goes on until the gateway's last uploads are where they belong.
    let engine_stop = match gateway {
        None => stop.clone(),
        Some(settings) => {
            let listener = listen_on(settings.listen, "[gateway] listen").await?;
            tracing::info!(listen = %settings.listen, ack = ?settings.ack, "the gateway is open");
            let (token, stopped) = (CancellationToken::new(), stop.clone());
            tasks.allow(settings.stop_timeout);
            let gateway = Gateway::new(engine.clone(), settings)?;
            let ended = token.clone().drop_guard();
            tasks.start("gateway", async move {
                let _ended = ended;
                gateway.serve(listener, stopped).await
            });
            token
        }
    };
    let told = webhooks::Board::default();
    if !hooks.is_empty() {
        let clock = Arc::new(wire::SystemClock);
        tasks.start("webhooks", webhooks::run(engine.clone(), clock, hooks, told.clone(), stop.clone()));
    }
    let watching = api::Watching { is_open: api.metrics_are_open, webhooks: told };
    tasks.start("api", api::serve(listener, tls.clone(), engine.clone(), authority, watching, stop.clone()));
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

async fn listen_on(address: SocketAddr, key: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}, {key}"))
}
