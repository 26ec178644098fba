//! `mimeo plan`: what would be done, without a running `serve`.

use mimeo_core::ImageId;
use mimeo_engine::Engine;
use serde_json::json;

use super::{Failure, Listing, Outcome, Style, print};
use crate::{config::Config, logging, wire};

const COLUMNS: &[&str] = &["Image", "Name", "Store", "Action", "Why"];

pub(super) async fn plan(config: Config, image: Option<&str>, style: &Style) -> Outcome {
    style.suits(COLUMNS)?;
    logging::start(config.log, tracing_subscriber::filter::LevelFilter::WARN);
    wire::glance(&config.openstack).map_err(|error| Failure::usage(error.chain()))?;
    let engine = wire::onlooker(config).await?;
    let id = match image {
        Some(image) => Some(the_one(&engine, image).await?),
        None => None,
    };
    let actions = engine.plan(id.as_ref()).await?;
    let row = |action: &mimeo_engine::status::PlannedAction| {
        vec![json!(action.image), json!(action.name), json!(action.store), json!(action.action), json!(action.why)]
    };
    print(&Listing { columns: COLUMNS, rows: actions.iter().map(row).collect() }.render(style)?)
}

/// An id is taken as it is: the ledger may not know it yet.
async fn the_one(engine: &Engine, image: &str) -> Outcome<ImageId> {
    if let Ok(id) = image.parse() {
        return Ok(id);
    }
    super::the_one(engine.find(image).await?, image).map(|report| report.id)
}
