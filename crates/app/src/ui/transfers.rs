//! What is copied and read back now, how fast, and how long it will take.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use askama::Template;
use axum::{extract::State, response::Response};
use mimeo_core::ImageId;
use mimeo_engine::status::ChangeReport;
use tokio::{sync::Mutex, time::Instant};

use super::{
    Dashboard, FAST,
    fault::Fault,
    images::name,
    live::{self, Parts},
    page::{Answer, Shell, html},
    samples::Measured,
    session::Visitor,
    show::{self, Html, Sign},
};

/// Lines of the history that are looked through for copies that have ended, and how many of these are shown.
const LOOKED_AT: u64 = 200;
const SHOWN: usize = 25;
/// How long "10 s ago" may stay.
const AGES: Duration = Duration::from_secs(5);

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

/// The ends of copies, as they were shown last: whoever looks sees the same, and the ledger is read once for all of them.
#[derive(Default)]
pub(super) struct Ends(Mutex<Option<Shown>>);

#[derive(Clone)]
struct Shown {
    newest: u64,
    made: Instant,
    lines: Html,
}

/// Anew where something has happened since, or the ages are no longer true.
async fn finished(dashboard: &Dashboard) -> Result<Html, Fault> {
    let mut shown = dashboard.ends.0.lock().await;
    let newest = dashboard.engine.last_told().await?;
    if let Some(shown) = shown.as_ref().filter(|shown| shown.newest == newest && shown.made.elapsed() < AGES) {
        return Ok(shown.lines.clone());
    }
    let lines = ends(dashboard, newest).await?;
    *shown = Some(Shown { newest, made: Instant::now(), lines: lines.clone() });
    Ok(lines)
}

/// The newest ends of copies, from the history: what was proven, and what failed. The newest first, each copy once.
async fn ends(dashboard: &Dashboard, newest: u64) -> Result<Html, Fault> {
    let (engine, now) = (&dashboard.engine, dashboard.now());
    let told = engine.told(newest.saturating_sub(LOOKED_AT), usize::try_from(LOOKED_AT).unwrap_or_default()).await?;
    let (mut lines, mut seen) = (Vec::new(), BTreeSet::new());
    for (_, ChangeReport { image: id, line, .. }) in told.into_iter().rev() {
        let has_ended = line.state == "proven" || line.is_a_failure();
        let Some(store) = line.store.as_ref().filter(|_| has_ended) else { continue };
        if lines.len() == SHOWN {
            break;
        }
        if !seen.insert((id.clone(), store.clone())) {
            continue;
        }
        // Of one that is gone there is nothing to show.
        let image = engine.known(&id).await?;
        let copy = image.as_ref().and_then(|image| image.replicas.iter().find(|copy| copy.store == *store));
        if let Some((image, copy)) = image.as_ref().zip(copy) {
            let (name, store, state) = (name(image), store.to_string(), copy.state.into());
            lines.push(FinishedLine { id, name, store, state, ended: Html::time(line.at, now) });
        }
    }
    Ok(Html::made(&FinishedLines { lines })?)
}
