//! `mimeo drain`: empties a store, tells what holds that up, and perhaps waits for the end.

use std::{collections::BTreeMap, time::Duration};

use mimeo_core::StoreName;
use mimeo_engine::status::DrainReport;
use serde_json::json;
use tokio::time::Instant;

use super::{Client, Failure, Listing, Outcome, Style, note, output::images, print, visible};

const COLUMNS: &[&str] = &["Image", "Name", "Reason"];

const PAUSE: Duration = Duration::from_secs(1);

/// How long nothing but hopeless reasons must be left to be believed: the first may still be from before the drain.
const CERTAIN: Duration = Duration::from_secs(5);

/// What `--wait` asks for.
pub(super) struct Wait {
    pub(super) timeout: Option<Duration>,
}

pub(super) async fn drain(client: &Client, store: &StoreName, wait: Option<Wait>, style: &Style) -> Outcome {
    style.suits(COLUMNS)?;
    let begun = client.drain(store).await?;
    if client.overview().await?.observe {
        note("This `mimeo serve` only observes: nothing is moved before it runs without --observe.");
    }
    let Some(Wait { timeout }) = wait else { return tell(&begun, style) };
    let watched = until_empty(client, store);
    let Some(timeout) = timeout else { return watched.await };
    let late = |_| Failure::not_yet(format!("not empty within {timeout:?}: `mimeo drain {store}` shows what is left"));
    tokio::time::timeout(timeout, watched).await.map_err(late)?
}

pub(super) async fn cancel(client: &Client, store: &StoreName) -> Outcome {
    client.cancel_drain(store).await?;
    note(&format!("{store} is no longer drained: copies whose removal has not begun stay."));
    Ok(())
}

fn tell(report: &DrainReport, style: &Style) -> Outcome {
    let row = |entry: &mimeo_engine::status::DrainEntry| {
        vec![json!(entry.image), json!(entry.name), json!(format!("{}: {}", entry.reason.code, entry.reason.message))]
    };
    let rows: Vec<_> = report.left.iter().map(row).collect();
    print(&Listing { columns: COLUMNS, rows }.render(style)?)?;
    note(&match report.left.len() {
        0 => empty(&report.store),
        left => format!("{} is being drained; {} left.", report.store, images(left as u64)),
    });
    Ok(())
}

fn empty(store: &StoreName) -> String {
    format!("{store} is empty: it may be switched off, and taken out of enabled_stores.")
}

async fn until_empty(client: &Client, store: &StoreName) -> Outcome {
    let (mut told, mut hopeless_since) = (None, None);
    loop {
        let report = client.drain_report(store).await?;
        if report.left.is_empty() {
            note(&empty(store));
            return Ok(());
        }
        if report.since.is_none() {
            return Err(Failure::failed(format!("somebody cancelled the drain of {store}")));
        }
        if told.replace(report.left.len()) != Some(report.left.len()) {
            note(&format!("{store}: {} left", images(report.left.len() as u64)));
        }
        match is_hopeless(&report) {
            false => hopeless_since = None,
            true if hopeless_since.get_or_insert_with(Instant::now).elapsed() >= CERTAIN => {
                return Err(Failure::failed(format!(
                    "what is left of {store} cannot go by itself:{}",
                    reasons(&report)
                )));
            }
            true => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn is_hopeless(report: &DrainReport) -> bool {
    report.left.iter().all(|entry| entry.reason.permanent)
}

/// Each reason once, with one of its images.
fn reasons(report: &DrainReport) -> String {
    let mut by_reason: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for entry in &report.left {
        let reason = (entry.reason.code.as_str(), entry.reason.message.as_str());
        by_reason.entry(reason).or_default().push(entry.image.as_str());
    }
    let line = |((code, message), images): (&(&str, &str), &Vec<&str>)| {
        let more = if images.len() > 1 { format!(" and {} more", images.len() - 1) } else { String::new() };
        format!("\n  {}{more}: {code}: {}", images[0], visible(message))
    };
    by_reason.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use mimeo_core::ImageId;
    use mimeo_engine::status::{DrainEntry, ReasonReport};

    use super::*;

    fn report(permanent: &[bool]) -> DrainReport {
        let entry = |permanent: &bool| DrainEntry {
            image: ImageId::nil(),
            name: None,
            reason: ReasonReport { code: "code".into(), message: "why".into(), permanent: *permanent },
        };
        DrainReport { store: "http1".parse().unwrap(), since: None, left: permanent.iter().map(entry).collect() }
    }

    #[test]
    fn waiting_is_of_no_use_only_when_nothing_left_can_go_by_itself() {
        assert!(is_hopeless(&report(&[true, true])));
        assert!(!is_hopeless(&report(&[true, false])));
    }

    #[test]
    fn each_reason_is_told_once() {
        assert_eq!(reasons(&report(&[true, true, true])), format!("\n  {} and 2 more: code: why", ImageId::nil()));
    }
}
