//! The first page: everything at a glance, and the matrix of images and stores.

use std::{collections::BTreeSet, sync::Arc};

use askama::Template;
use axum::{extract::State, response::Response};
use mimeo_core::{ImageState, StoreName, Timestamp};
use mimeo_engine::status::{ImageReport, Overview};

use super::{
    Dashboard, SLOW,
    fault::Fault,
    find::{self, Filter},
    live::{self, Parts},
    page::{Answer, Asked, Shell, html},
    session::Visitor,
    show::{self, Html, Problem, Sign},
};

#[derive(Template)]
#[template(path = "images.html")]
struct Images {
    shell: Shell,
    tiles: Html,
    rows: Html,
    filter: Filter,
    choices: Vec<Choice>,
    filtered: bool,
}

struct Choice {
    key: &'static str,
    label: &'static str,
    options: Vec<String>,
    chosen: String,
}

#[derive(Template)]
#[template(path = "tiles.html")]
struct Tiles {
    tiles: Vec<Tile>,
    trouble: Option<Problem>,
}

#[derive(Default)]
struct Tile {
    figure: String,
    name: String,
    more: Option<Html>,
    href: Option<String>,
    alarm: bool,
}

#[derive(Template)]
#[template(path = "rows.html")]
struct Matrix {
    stores: Vec<StoreName>,
    rows: Vec<Row>,
    filtered: bool,
    first: Option<String>,
    next: Option<String>,
}

struct Row {
    id: String,
    name: String,
    state: Sign,
    size: String,
    /// In the order of the stores.
    cells: Vec<Option<Cell>>,
    why: String,
}

struct Cell {
    sign: &'static str,
    label: String,
}

pub(super) async fn page(
    State(dashboard): State<Arc<Dashboard>>,
    visitor: Visitor,
    Asked(filter): Asked<Filter>,
) -> Answer {
    let (tiles, rows) = (tiles(&dashboard).await?, rows(&dashboard, &filter).await?);
    let page = Images {
        shell: Shell::new(&dashboard, "/", visitor).live(filter.address("/live", &filter.after)),
        tiles,
        rows,
        choices: choices(&dashboard, &filter),
        filtered: !filter.is_empty(),
        filter,
    };
    html(&page)
}

pub(super) async fn live(
    State(dashboard): State<Arc<Dashboard>>,
    visitor: Visitor,
    Asked(filter): Asked<Filter>,
) -> Result<Response, Fault> {
    live::stream(dashboard, visitor, SLOW, move |dashboard| {
        let filter = filter.clone();
        async move { Ok(Parts::from([("tiles", tiles(&dashboard).await?), ("rows", rows(&dashboard, &filter).await?)])) }
    })
}

fn choices(dashboard: &Dashboard, filter: &Filter) -> Vec<Choice> {
    let of = |key, label, options: Vec<String>, chosen: &str| Choice { key, label, options, chosen: chosen.to_owned() };
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let states = ["registered", "replicating", "pending", "degraded", "failed", "retiring", "unmanaged"];
    let copies = ["wanted", "copying", "stored", "proven", "registered", "failed", "suspect", "retiring"];
    let stores = dashboard.engine.enabled_stores().iter().map(ToString::to_string).collect();
    let mut choices = vec![
        of("state", "State", words(&states), &filter.state),
        of("store", "Store", stores, &filter.store),
        of("copy", "Copy there", words(&copies), &filter.copy),
    ];
    let rules = dashboard.engine.rule_names();
    if !rules.is_empty() {
        choices.push(of("rule", "Rule", rules, &filter.rule));
    }
    choices
}

async fn tiles(dashboard: &Dashboard) -> Result<Html, Fault> {
    let overview = dashboard.engine.overview().await?;
    let trouble = overview.trouble.as_ref().map(Problem::from);
    let tiles = Tiles { tiles: figures(&overview, dashboard.now()), trouble };
    Ok(Html::made(&tiles)?)
}

fn figures(overview: &Overview, now: Timestamp) -> Vec<Tile> {
    let mut tiles = vec![Tile {
        figure: show::count(overview.images),
        name: "images".into(),
        more: overview.observe.then(|| Html::text("observed only: nothing is written")),
        href: Some("/".into()),
        alarm: false,
    }];
    let states = overview.states.iter().filter(|(_, images)| **images > 0);
    tiles.extend(states.map(|(state, images)| Tile {
        figure: show::count(*images),
        name: state.to_string(),
        href: Some(format!("/?state={state}")),
        alarm: *state == ImageState::Failed,
        more: None,
    }));
    tiles.push(events(overview));
    let scan = Html::time_or(overview.last_scan, now, "not yet");
    tiles.push(Tile { figure: "Scan".into(), name: "last".into(), more: Some(scan), ..Tile::default() });
    let down: Vec<&str> = overview.stores_down.iter().map(StoreName::as_str).collect();
    tiles.push(Tile {
        figure: down.len().to_string(),
        name: if down.len() == 1 { "store down" } else { "stores down" }.into(),
        more: (!down.is_empty()).then(|| Html::text(&down.join(", "))),
        href: Some("/stores".into()),
        alarm: !down.is_empty(),
    });
    tiles.push(Tile {
        figure: show::count(overview.held_deletes),
        name: "held deletes".into(),
        href: Some("/deletes".into()),
        alarm: overview.held_deletes > 0,
        more: None,
    });
    tiles
}

fn events(overview: &Overview) -> Tile {
    let (name, more, alarm) = match &overview.events {
        None => ("not configured", None, false),
        Some(events) if events.connected => {
            ("connected", Some(format!("{} received", show::count(events.received))), false)
        }
        Some(events) => ("not connected", events.last_error.clone(), true),
    };
    let more = more.as_deref().map(Html::text);
    Tile { figure: "Events".into(), name: name.into(), more, href: None, alarm }
}

async fn rows(dashboard: &Dashboard, filter: &Filter) -> Result<Html, Fault> {
    let found = find::images(&dashboard.engine, filter).await?;
    let mut stores = dashboard.engine.enabled_stores();
    let shown: BTreeSet<&StoreName> =
        found.images.iter().flat_map(|image| &image.replicas).map(|copy| &copy.store).collect();
    // Those that only the ledger knows any more come last.
    let former: Vec<StoreName> = shown.into_iter().filter(|store| !stores.contains(store)).cloned().collect();
    stores.extend(former);
    let next = found.images.last().filter(|_| found.more).map(|last| filter.address("/", last.id.as_str()));
    let matrix = Matrix {
        rows: found.images.iter().map(|image| row(image, &stores)).collect(),
        stores,
        filtered: !filter.is_empty(),
        first: (!filter.after.is_empty()).then(|| filter.address("/", "")),
        next,
    };
    Ok(Html::made(&matrix)?)
}

fn row(image: &ImageReport, stores: &[StoreName]) -> Row {
    let cell = |store: &StoreName| {
        let copy = image.replicas.iter().find(|copy| copy.store == *store)?;
        Some(Cell { sign: Sign::from(copy.state).sign, label: show::label(copy) })
    };
    let reasons = image.replicas.iter().filter_map(|copy| copy.reason.as_ref());
    let mut codes: Vec<&str> = image.reason.iter().chain(reasons).map(|reason| reason.code.as_str()).collect();
    codes.dedup();
    Row {
        id: image.id.to_string(),
        name: name(image),
        state: image.state.into(),
        size: image.size.map_or(String::new(), show::bytes),
        cells: stores.iter().map(cell).collect(),
        why: codes.join(", "),
    }
}

/// Its name, or its id where it has none.
pub(super) fn name(image: &ImageReport) -> String {
    image.name.clone().filter(|name| !name.trim().is_empty()).unwrap_or_else(|| image.id.to_string())
}
