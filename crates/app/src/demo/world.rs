//! What the demo runs: three stores, an image service, and Mimeo itself with a configuration file of its own.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use futures::FutureExt;
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::sync::CancellationToken;

use super::{
    events::ChannelEvents,
    http_store,
    image_service::{self, Probe, Setup},
};
use crate::{
    api::{
        self,
        auth::{Authority, Tokens},
        token::Token,
    },
    config::{ApiSettings, Config, RoleNames},
    follow,
    lifetime::Tasks,
    ui, wire,
};

const STORES: [&str; 3] = ["http1", "http2", "http3"];

/// From the end of an image to the removal of its copies: short enough to be watched.
pub(super) const GRACE: &str = "10s";

/// How long the image service waits for a location's answer; Glance itself would wait for ever.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct World {
    pub(super) directory: TempDir,
    pub(super) config: PathBuf,
    pub(super) image_service: SocketAddr,
    /// Names and URLs.
    pub(super) stores: Vec<(&'static str, String)>,
    pub(super) api: ApiSettings,
    /// With which one signs in to the dashboard.
    pub(super) token: Token,
    /// The ledger is this process's own.
    _claim: wire::Claim,
}

impl World {
    /// Starts everything as tasks that end with `stop`. `port` is the image service's, 0 for a free one.
    pub(super) async fn start(port: u16, tasks: &mut Tasks, stop: &CancellationToken) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("mimeo-demo-").tempdir().context("cannot make a directory")?;
        let mut stores = Vec::new();
        for name in STORES {
            let (listener, address) = listen(0).await?;
            tasks.start(name, http_store::serve(listener, directory.path().join(name), stop.clone()));
            stores.push((name, format!("http://{address}/")));
        }
        let (listener, image_service) = listen(port).await?;
        let (sender, notifications) = mpsc::unbounded_channel();
        let setup = Setup { bits: directory.path().join("glance"), probe: probe()?, events: sender };
        tasks.start("image service", image_service::serve(listener, setup, stop.clone()));

        let (listener, address) = listen(0).await?;
        let path = directory.path().join("mimeo.toml");
        tokio::fs::write(&path, configuration(image_service, &stores, address)).await?;
        let config = Config::load(&path)?;
        let (api, pace) = (config.api.clone(), api::Pace::of(&config));
        let wire::Service { engine, claim, .. } = wire::service(config).await?;
        let token = Token::load_or_create(&api.token_file)?;
        let tokens = Tokens { admin: token.clone(), reader: None };
        let authority = Authority::new(tokens, None, RoleNames::default(), Arc::new(wire::SystemClock));
        let clock = Arc::new(wire::SystemClock);
        let dashboard = ui::start(tasks, engine.clone(), Arc::clone(&authority), clock, false, stop);
        let watching = api::Watching { is_open: api.metrics_are_open, told: follow::Board::default(), pace };
        tasks.start("api", api::serve(listener, None, engine.clone(), authority, watching, dashboard, stop.clone()));
        let (events, stopped) = (Box::new(ChannelEvents::new(notifications)), stop.clone());
        tasks.start("engine", async move { Ok(engine.serve(Some(events), stopped).await?) });
        Ok(Self { directory, config: path, image_service, stores, api, token, _claim: claim })
    }

    /// Removes all of it; says so if it cannot.
    pub(super) fn clean_up(self) -> anyhow::Result<()> {
        let path = self.directory.path().to_owned();
        self.directory.close().with_context(|| format!("cannot remove {}", path.display()))
    }
}

async fn listen(port: u16) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let wanted = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listener = TcpListener::bind(wanted).await.with_context(|| format!("cannot listen on {wanted}"))?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// The file that the commands in a second terminal are given. Without `[events]`: the demo's come by a channel.
fn configuration(image_service: SocketAddr, stores: &[(&str, String)], api: SocketAddr) -> String {
    let section = |(name, url): &(&str, String)| format!("[stores.{name}]\nurl = \"{url}\"\n\n");
    let sections = stores.iter().map(section).collect::<Vec<_>>().concat();
    format!(
        "# Made by `mimeo demo`, for as long as it runs.\nenabled_stores = {STORES:?}\n\n{sections}[openstack]\nendpoint \
         = \"http://{image_service}\"\nauth_type = \"none\"\n\n[gc]\ninterval = \"5s\"\ngrace = \"{GRACE}\"\n\n[api]\n\
         listen = \"{api}\"\n"
    )
}

/// HEAD, as Glance's HTTP store does it.
fn probe() -> anyhow::Result<Probe> {
    let client = reqwest::Client::builder().no_proxy().timeout(PROBE_TIMEOUT).build()?;
    Ok(Arc::new(move |url| {
        let asked = client.head(url).send();
        async move {
            let answer = asked.await.ok().filter(|answer| answer.status() == reqwest::StatusCode::OK)?;
            answer.headers().get(reqwest::header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
        }
        .boxed()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_one_that_mimeo_takes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mimeo.toml");
        let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let stores = STORES.map(|name| (name, format!("http://127.0.0.1:1/{name}/")));
        std::fs::write(&path, configuration(address(1), &stores, address(2))).unwrap();
        let config = Config::load(&path).unwrap();
        assert_eq!((config.stores.len(), config.api.listen), (3, address(2)));
    }
}
