//! SIGHUP: `serve` reads its configuration file again and takes over what can change while it runs.
//!
//! Nothing that runs is stopped for it. What can only be taken over at a start is told, and so is every mistake.

use std::{path::PathBuf, sync::Arc};

use mimeo_engine::Engine;
use tokio::signal::unix::Signal;
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Config, Written},
    limits, service_manager,
    tls::Tls,
    wire::Renewals,
};

pub(crate) struct Reload {
    path: PathBuf,
    engine: Arc<Engine>,
    renewals: Renewals,
    /// Of the API.
    tls: Option<Arc<Tls>>,
    /// What `serve` was started with.
    started: Written,
}

impl Reload {
    pub(crate) fn new(
        path: PathBuf,
        engine: Arc<Engine>,
        renewals: Renewals,
        tls: Option<Arc<Tls>>,
        started: Written,
    ) -> Self {
        Self { path, engine, renewals, tls, started }
    }

    /// Reloads at each of the signals, until `stop`.
    pub(crate) async fn run(self, mut hangups: Signal, stop: CancellationToken) -> anyhow::Result<()> {
        while let Some(Some(())) = stop.run_until_cancelled(hangups.recv()).await {
            service_manager::reloading();
            self.reload();
            service_manager::ready();
        }
        Ok(())
    }

    fn reload(&self) {
        match Config::load(&self.path) {
            Ok(config) => self.take_over(config),
            Err(error) => {
                for mistake in error.to_string().lines() {
                    tracing::error!("not reloaded, what was in force stays: {mistake}");
                }
            }
        }
    }

    fn take_over(&self, config: Config) {
        let differences = self.started.differences(&config.written);
        for (section, error) in self.renewals.renew(&config, &differences) {
            tracing::error!("credentials of {section} not renewed, those in force stay: {}", error.chain());
        }
        if let Some(Err(error)) = self.tls.as_ref().zip(config.api.tls.as_ref()).map(|(tls, files)| tls.renew(files)) {
            tracing::error!("the certificate of [api] is not renewed, the one in force stays: {error:#}");
        }
        limits::replace(&self.engine, config.limits);
        mimeo_crash::point("serve-reloaded");
        if !differences.is_empty() {
            let sections = Vec::from_iter(differences).join(", ");
            tracing::warn!("changed in the file, but takes effect only after a restart: {sections}");
        }
    }
}
