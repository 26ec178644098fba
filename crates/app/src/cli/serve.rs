//! `mimeo serve`: the engine and its API, until a signal.

use std::path::Path;

use anyhow::Context;
use tokio::net::TcpListener;
use tracing_subscriber::filter::LevelFilter;

use super::{Failure, Outcome};
use crate::{
    api::{self, token::Token},
    config::Config,
    lifetime::{END, Tasks, hangups, stop_on},
    logging,
    reload::Reload,
    wire,
};

/// `path` is the configuration file. A SIGHUP reads it again.
pub(super) async fn serve(path: &Path, observe: bool) -> Outcome {
    let mut config = Config::load(path)?;
    logging::start(config.log, LevelFilter::INFO);
    config.observe |= observe;
    let (listen, token_file, observe) = (config.api.listen, config.api.token_file.clone(), config.observe);
    let mut tasks = Tasks::default();
    let stop = stop_on(&END, &mut tasks)?;
    let hangups = hangups()?;
    // A login that cannot be is a mistake of the configuration, told before anything is made.
    wire::glance(&config.openstack).map_err(|error| Failure::usage(error.chain()))?;
    let started = std::mem::take(&mut config.written);
    // The ledger first: whoever may not have it must not answer for it either.
    let wire::Service { engine, events, renewals, claim } = wire::service(config).await?;
    let token = Token::load_or_create(&token_file)?;
    let listener =
        TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}, [api] listen"))?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), api = %listen, observe, "mimeo serves");
    tasks.start("api", api::serve(listener, engine.clone(), token, stop.clone()));
    let reload = Reload::new(path.to_owned(), engine.clone(), renewals, started);
    tasks.start("reload", reload.run(hangups, stop.clone()));
    let stopped = stop.clone();
    tasks.start("engine", async move { Ok(engine.serve(events, stopped).await?) });
    let outcome = tasks.finish(stop).await;
    drop(claim);
    if outcome.is_ok() {
        tracing::info!("stopped");
    }
    Ok(outcome?)
}
