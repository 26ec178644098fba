//! The stores: whether they answer, what they hold, and how fast bits went to and came from them in the last hour.

use std::{fmt::Write, sync::Arc};

use askama::Template;
use axum::{extract::State, response::Response};
use mimeo_core::Timestamp;
use mimeo_engine::{
    Traffic,
    status::{StoreHealth, StoreReport},
};

use super::{
    Dashboard, SLOW,
    fault::Fault,
    live::{self, Parts},
    page::{Answer, Shell, html},
    samples::{POINTS, Series},
    session::Visitor,
    show::{self, Html, Problem, Sign},
};

/// Of the drawing; its width is a unit for each point.
const HEIGHT: u64 = 60;

#[derive(Template)]
#[template(path = "stores.html")]
struct Page {
    shell: Shell,
    stores: Html,
}

#[derive(Template)]
#[template(path = "store_list.html")]
struct Stores {
    stores: Vec<Store>,
}

struct Store {
    name: String,
    health: Sign,
    remarks: Vec<Html>,
    registered: String,
    replicas: String,
    failed: String,
    oldest_proof: Html,
    last_success: Html,
    chart: Chart,
    problem: Option<Problem>,
}

struct Chart {
    label: String,
    written: String,
    read: String,
    write_rate: String,
    read_rate: String,
    top: String,
}

pub(super) async fn page(State(dashboard): State<Arc<Dashboard>>, visitor: Visitor) -> Answer {
    let stores = stores(&dashboard).await?;
    html(&Page { shell: Shell::new(&dashboard, "/stores", visitor).live("/stores/live"), stores })
}

pub(super) async fn live(State(dashboard): State<Arc<Dashboard>>, visitor: Visitor) -> Result<Response, Fault> {
    live::stream(dashboard, visitor, SLOW, |dashboard| async move {
        Ok(Parts::from([("stores", stores(&dashboard).await?)]))
    })
}

async fn stores(dashboard: &Dashboard) -> Result<Html, Fault> {
    let (reports, now) = (dashboard.engine.stores().await?, dashboard.now());
    let store = |report: StoreReport| {
        let chart = chart(report.name.as_str(), &dashboard.samples.series(&report.name));
        store(&report, chart, now)
    };
    Ok(Html::made(&Stores { stores: reports.into_iter().map(store).collect() })?)
}

fn store(report: &StoreReport, chart: Chart, now: Timestamp) -> Store {
    let mut remarks = Vec::new();
    remarks.extend(report.since.filter(|_| report.enabled).map(|since| Html::time(since, now).after("since")));
    remarks.extend(report.error.as_deref().map(Html::text));
    remarks.extend(report.draining.map(|since| Html::time(since, now).after("drained: takes no more copies, since")));
    remarks.extend(report.note.as_deref().map(Html::prose));
    let health = match (report.enabled, report.health) {
        (false, _) => Sign { sign: "none", word: "not enabled".into() },
        (true, health) => health.into(),
    };
    Store {
        name: report.name.to_string(),
        health,
        remarks,
        registered: show::count(report.registered),
        replicas: show::count(report.replicas),
        failed: show::count(report.failed),
        oldest_proof: Html::time_or(report.oldest_proof, now, "none"),
        last_success: Html::time_or(report.last_success, now, "none since start"),
        chart,
        // While it is down, its last failure is no news.
        problem: report.failure.as_ref().filter(|_| report.health != StoreHealth::Down).map(Problem::from),
    }
}

fn chart(name: &str, series: &Series) -> Chart {
    let top = series.points.iter().map(|point| point.written.max(point.read)).max().unwrap_or(0);
    let (written, read) = (points(series, top, |point| point.written), points(series, top, |point| point.read));
    let (write_rate, read_rate, top) = (show::rate(series.now.written), show::rate(series.now.read), show::rate(top));
    let label = format!(
        "Throughput of {name} in the last hour: {write_rate} written and {read_rate} read back now, {top} at the most"
    );
    let read = if read.is_empty() {
        read
    } else {
        format!("{},{HEIGHT} {read}{POINTS},{HEIGHT}", POINTS - series.points.len())
    };
    Chart { label, written, read, write_rate, read_rate, top }
}

/// As SVG has them, the newest at the right end.
fn points(series: &Series, top: u64, of: impl Fn(&Traffic) -> u64) -> String {
    let first = POINTS - series.points.len().min(POINTS);
    let mut points = String::new();
    for (at, point) in series.points.iter().enumerate() {
        let height = u128::from(of(point)) * u128::from(HEIGHT - 2) / u128::from(top.max(1));
        // Writing to a string cannot fail.
        let _ = write!(points, "{},{} ", first + at, u128::from(HEIGHT) - height);
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_point_is_at_the_right_and_the_highest_at_the_top() {
        let written = [0, 50, 100].map(|written| Traffic { written, read: 0 });
        let series = Series { points: written.into(), ..Series::default() };
        assert_eq!(chart("a", &series).written, "357,60 358,31 359,2 ");
        assert_eq!(chart("a", &Series::default()).read, "");
    }
}
