//! `mimeo check`: does once, with a tiny image of its own, everything that `serve` will do, and names the cure of each
//! fault that it meets.
//!
//! The steps are in the order in which faults build on each other: without a login no image, without a written object
//! no location; the broker and the stores are tried without a login too. Whatever happens, also on Ctrl-C, what was made is
//! removed again. Nothing of anybody else's is touched.

mod locations;
mod notifications;
mod report;
mod service;
mod stores;
mod trial;

use tracing_subscriber::filter::LevelFilter;

use self::{
    report::{COLUMNS, Report},
    trial::Trial,
};
use crate::{
    api,
    cli::{Failure, Outcome, Style},
    config::Config,
    lifetime::{END_OR_HANGUP, Tasks, stop_on},
    logging, wire,
};

/// Ends with 0 if nothing failed; warnings do not count.
pub(crate) async fn check(config: Config, style: &Style) -> Outcome {
    style.suits(COLUMNS)?;
    logging::start(config.log, LevelFilter::ERROR);
    let mut signals = Tasks::default();
    let stop = stop_on(&END_OR_HANGUP, &mut signals)?;
    let mut report = Report::new(style);
    report.ok("configuration", summary(&config));
    if api::is_overheard(&config.api) {
        let seen = format!("plain HTTP on {}: tokens can be read on the way", config.api.listen);
        report.warn("api", seen, api::TO_BE_ALONE);
    }
    let Some(mut trial) = begin(&config, &mut report).await else { return finish(&report) };
    tokio::select! {
        () = steps(&mut trial, &mut report) => {}
        () = stop.cancelled() => report.fail("interrupted", "the check did not end", "run it again"),
    }
    trial.clean_up(&mut report).await;
    finish(&report)
}

/// What every step needs; without it there is nothing to try.
async fn begin<'a>(config: &'a Config, report: &mut Report<'_>) -> Option<Trial<'a>> {
    let glance = match wire::glance(&config.openstack) {
        Ok(glance) => glance,
        Err(error) => {
            report.fail("login", error.chain(), service::CREDENTIALS);
            return None;
        }
    };
    let ledger = match wire::ledger(&config.ledger).await {
        Ok(ledger) => ledger,
        Err(error) => {
            let cure = "let this user write [ledger] url and its directory, or run the check as the user of serve";
            report.fail("ledger", error.chain(), cure);
            return None;
        }
    };
    report.ok("ledger", config.ledger.display().to_string());
    match trial::stores(config) {
        Ok(stores) => Some(Trial::new(config, glance, ledger, stores)),
        Err(error) => {
            report.fail("stores", error.chain(), "");
            None
        }
    }
}

async fn steps(trial: &mut Trial<'_>, report: &mut Report<'_>) {
    stores::survey(trial, report).await;
    if !service::login(trial, report).await {
        // What needs no image is tried all the same: who mends one thing is to know of the next.
        notifications::listen(trial, report).await;
        stores::write_all(trial, report).await;
        return;
    }
    service::sees_all(trial, report).await;
    service::backends(trial, report).await;
    // From before the first change, so that none is missed.
    let listener = notifications::listen(trial, report).await;
    let uploaded = service::image(trial, report).await;
    service::clock(trial, report).await;
    if uploaded {
        service::rights(trial, report).await;
        let written = stores::write_all(trial, report).await;
        locations::register_all(trial, report, &written).await;
    }
    if let Some(listener) = listener {
        notifications::expect(listener, trial, report).await;
    }
}

fn summary(config: &Config) -> String {
    let names: Vec<&str> = config.stores.iter().map(|store| store.facts.name.as_str()).collect();
    format!("stores {}; {}", names.join(", "), if config.events.is_some() { "events and scan" } else { "scan only" })
}

fn finish(report: &Report<'_>) -> Outcome {
    report.conclude()?;
    match report.failures() {
        0 => Ok(()),
        _ => Err(Failure::failed("")),
    }
}
