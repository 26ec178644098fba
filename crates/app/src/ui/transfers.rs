//! What is copied and read back now, how fast, and how long it will take.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use askama::Template;
use axum::{extract::State, response::Response};
use mimeo_core::ImageId;
use mimeo_engine::status::ImageReport;

use super::{
    Dashboard, FAST,
    fault::Fault,
    images::name,
    live::{self, Parts},
    page::{Answer, Shell, html},
    samples::{Finished, Measured},
    session::Visitor,
    show::{self, Html, Sign},
};

#[derive(Template)]
#[template(path = "transfers.html")]
struct Transfers {
    shell: Shell,
    running: Html,
    finished: Html,
}

#[derive(Template)]
#[template(path = "running.html")]
struct Running {
    lines: Vec<Line>,
}

struct Line {
    id: ImageId,
    name: String,
    store: String,
    doing: &'static str,
    label: String,
    bytes: u64,
    total: Option<u64>,
    done: String,
    rate: String,
    left: String,
}

#[derive(Template)]
#[template(path = "finished.html")]
struct FinishedLines {
    lines: Vec<FinishedLine>,
}

struct FinishedLine {
    id: ImageId,
    name: String,
    store: String,
    state: Sign,
    ended: Html,
}

pub(super) async fn page(State(dashboard): State<Arc<Dashboard>>, visitor: Visitor) -> Answer {
    let (running, finished) = (running(&dashboard)?, finished(&dashboard).await?);
    let shell = Shell::new(&dashboard, "/transfers", visitor).live("/transfers/live");
    html(&Transfers { shell, running, finished })
}

pub(super) async fn live(State(dashboard): State<Arc<Dashboard>>, visitor: Visitor) -> Result<Response, Fault> {
    live::stream(dashboard, visitor, FAST, |dashboard| async move {
        Ok(Parts::from([("running", running(&dashboard)?), ("finished", finished(&dashboard).await?)]))
    })
}

fn running(dashboard: &Dashboard) -> Result<Html, Fault> {
    let measured = dashboard.samples.measured(dashboard.engine.running());
    Ok(Html::made(&Running { lines: measured.into_iter().map(line).collect() })?)
}

fn line(measured: Measured) -> Line {
    let (progress, store) = (measured.running.progress, measured.running.store.to_string());
    let total = progress.total.filter(|total| *total > 0);
    let done = match total {
        Some(total) => format!("{} of {}", show::bytes(progress.bytes), show::bytes(total)),
        None => show::bytes(progress.bytes),
    };
    let rate = measured.rate.filter(|rate| *rate > 0);
    let left = total.zip(rate).map(|(total, rate)| show::span(total.saturating_sub(progress.bytes).div_ceil(rate)));
    Line {
        id: measured.running.image,
        label: format!("{} to {store}: {}", measured.name, show::done(&progress)),
        name: measured.name,
        store,
        doing: show::doing(progress.phase),
        bytes: progress.bytes,
        total,
        done,
        rate: rate.map_or("–".to_owned(), show::rate),
        left: left.unwrap_or("–".to_owned()),
    }
}

async fn finished(dashboard: &Dashboard) -> Result<Html, Fault> {
    let (finished, now) = (dashboard.samples.finished(), dashboard.now());
    let mut images: BTreeMap<ImageId, ImageReport> = BTreeMap::new();
    for id in finished.iter().map(|finished| &finished.image).collect::<BTreeSet<_>>() {
        // Of one that is gone there is nothing to show.
        images.extend(dashboard.engine.image(id).await?.map(|image| (id.clone(), image)));
    }
    let line = |finished: Finished| {
        let image = images.get(&finished.image)?;
        let copy = image.replicas.iter().find(|copy| copy.store == finished.store)?;
        let (state, store) = (copy.state.into(), finished.store.to_string());
        Some(FinishedLine { name: name(image), id: finished.image, store, state, ended: Html::time(finished.at, now) })
    };
    Ok(Html::made(&FinishedLines { lines: finished.into_iter().filter_map(line).collect() })?)
}
