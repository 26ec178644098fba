//! `mimeo replicate`: look now, try again now, and perhaps wait for the end.

use std::time::Duration;

use super::{Client, Failure, Outcome, until_registered};

/// What `--wait` asks for.
pub(super) struct Wait {
    pub(super) timeout: Option<Duration>,
}

pub(super) async fn replicate(client: &Client, image: &str, wait: Option<Wait>) -> Outcome {
    let image = client.find(image).await?;
    client.replicate(&image.id).await?;
    let Some(Wait { timeout }) = wait else { return Ok(()) };
    if client.overview().await?.observe {
        return Err(Failure::failed("this `mimeo serve` only observes: it copies nothing"));
    }
    let watched = until_registered(&image.id, || client.image(&image.id));
    let Some(timeout) = timeout else { return watched.await.map(drop) };
    let in_time = tokio::time::timeout(timeout, watched).await;
    let late =
        |_| Failure::not_yet(format!("not registered everywhere within {timeout:?}: see `mimeo status {}`", image.id));
    in_time.map_err(late)?.map(drop)
}
