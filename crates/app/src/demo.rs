//! `mimeo demo`: the whole of Mimeo on one machine, with nothing to set up.
//!
//! It tells the story; what is at work is the real thing: the same engine, API, ledger, HTTP stores and Glance adapter
//! over HTTP as `serve` runs. Only the far ends are embedded: the image service, three web servers, and its
//! events, which come by a channel and not by a broker.

mod client;
mod events;
mod http_store;
mod image_service;
mod web;
mod world;

use clap::Args;
use mimeo_core::ImageId;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::filter::LevelFilter;

use self::{client::ImagesApi, world::World};
use crate::{
    cli::{Client, Outcome, print, until_registered},
    config::{LogFormat, units},
    lifetime::{END_OR_HANGUP, Tasks, stop_on},
    logging,
};

const SAMPLE: &str = "demo";

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The port of the embedded image service [default: a free one]
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    port: u16,
    /// The size of the sample image
    #[arg(long, default_value = "64MiB", value_parser = sample_size)]
    size: u64,
}

/// Glance registers no location of an image without bytes.
fn sample_size(text: &str) -> Result<u64, String> {
    match units::size(text)? {
        0 => Err("must be 1 byte or more: an empty image is not replicated".into()),
        size => Ok(size),
    }
}

/// Runs until SIGINT, SIGTERM or SIGHUP (it has no file to read again); then nothing is left of it.
pub(crate) async fn demo(options: Options) -> Outcome {
    logging::start(LogFormat::Human, LevelFilter::WARN);
    let mut tasks = Tasks::default();
    let stop = stop_on(&END_OR_HANGUP, &mut tasks)?;
    let world = World::start(options.port, &mut tasks, &stop).await?;
    let told = tokio::select! {
        told = tell(&world, options.size) => told,
        () = stop.cancelled() => Ok(()),
    };
    let outcome = match told {
        Ok(()) => tasks.finish(stop).await.map_err(Into::into),
        Err(failure) => {
            stop.cancel();
            // Why the story broke off matters more than how the tasks end.
            let _ = tasks.finish(CancellationToken::clone(&stop)).await;
            Err(failure)
        }
    };
    world.clean_up()?;
    outcome
}

async fn tell(world: &World, size: u64) -> Outcome {
    print(&introduction(world, size))?;
    let images = ImagesApi::new(world.image_service)?;
    let id = images.create(SAMPLE, size).await?;
    let client = Client::new(&world.api)?;
    until_registered(&id, || client.image(&id)).await?;
    let locations = images.locations(&id).await?;
    print(&farewell(world, &id, &locations))
}

fn introduction(world: &World, size: u64) -> String {
    let stores: Vec<String> = world.stores.iter().map(|(name, url)| format!("  {name:14} {url}")).collect();
    format!(
        "Mimeo's demo: everything runs in this one process, in {}\n\n  image service  http://{}\n{}\n  \
         dashboard      http://{}/\n\nCreating the image \"{SAMPLE}\" of {size} bytes, as any client would:\n\n",
        world.directory.path().display(),
        world.image_service,
        stores.join("\n"),
        world.api.listen,
    )
}

fn farewell(world: &World, id: &ImageId, locations: &[String]) -> String {
    let locations = locations.join("\n  ");
    // As it was called, so that it can be called again.
    let mimeo = std::env::args().next().unwrap_or_else(|| "mimeo".into());
    let openstack = format!("openstack --os-auth-type none --os-endpoint http://{}", world.image_service);
    let (dashboard, token) = (world.api.listen, world.token.reveal());
    format!(
        "\nEvery copy was read back and is right. The image's locations are now:\n  {locations}\n\nLook at it in a browser: \
         http://{dashboard}/\n  sign in with the token {token}\n\nTry next, in a second terminal:\n\n  export \
         MIMEO_CONFIG={}\n  {mimeo} status\n  {mimeo} status {id}\n\n  {openstack} image create --file FILE demo2\n  \
         {mimeo} status demo2\n  {openstack} image delete demo2\n  {mimeo} gc    # its copies go {} later\n\nCtrl-C ends \
         the demo and removes all of it.\n",
        world.config.display(),
        world::GRACE,
    )
}
