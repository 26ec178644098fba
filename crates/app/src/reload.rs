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

/// Of those of its servers that speak TLS.
pub(crate) struct Certificates {
    pub(crate) api: Option<Arc<Tls>>,
    pub(crate) gateway: Option<Arc<Tls>>,
}

pub(crate) struct Reload {
    path: PathBuf,
    engine: Arc<Engine>,
    renewals: Renewals,
    tls: Certificates,
    /// What `serve` was started with.
    started: Written,
}

impl Reload {
    pub(crate) fn new(
        path: PathBuf,
        engine: Arc<Engine>,
        renewals: Renewals,
        tls: Certificates,
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
        let gateway = config.gateway.as_ref().and_then(|settings| settings.tls.as_ref());
        for (section, tls, files) in
            [("[api]", &self.tls.api, config.api.tls.as_ref()), ("[gateway]", &self.tls.gateway, gateway)]
        {
            if let Some(Err(error)) = tls.as_ref().zip(files).map(|(tls, files)| tls.renew(files)) {
                tracing::error!("the certificate of {section} is not renewed, the one in force stays: {error:#}");
            }
        }
        limits::replace(&self.engine, config.limits);
        mimeo_crash::point("serve-reloaded");
        if !differences.is_empty() {
            let sections = Vec::from_iter(differences).join(", ");
            tracing::warn!("changed in the file, but takes effect only after a restart: {sections}");
        }
    }
}
