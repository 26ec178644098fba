//! `mimeo replicate`: look now, try again now, and perhaps wait for the end.

use mimeo_engine::status::ImageReport;

use super::{
    Client, Outcome,
    watch::{Wait, watch},
};

pub(super) async fn replicate(client: &Client, image: &str, wait: Option<Wait>) -> Outcome {
    let image = client.find(image).await?;
    client.replicate(&image.id).await?;
    match wait {
        Some(wait) => watch(client, &image.id, wait, ImageReport::is_registered).await.map(drop),
        None => Ok(()),
    }
}
