//! `mimeo gc`: copies of deleted images, and whether the guard against mass deletes holds them.

use std::collections::BTreeSet;

use mimeo_core::Timestamp;
use mimeo_engine::status::GcReport;
use serde_json::json;

use super::{Client, Listing, Outcome, Style, images::seconds, note, output::images, print};

pub(super) async fn list(client: &Client, style: &Style) -> Outcome {
    let report = client.gc().await?;
    let row = |entry: &mimeo_engine::status::GcEntry| {
        vec![
            json!(entry.image),
            json!(entry.name),
            json!(entry.store),
            json!(entry.object),
            json!(seconds(entry.due)),
            json!(entry.held),
            json!(entry.why),
        ]
    };
    let columns = &["Image", "Name", "Store", "Object", "Due", "Held", "Why"];
    print(&Listing { columns, rows: report.entries.iter().map(row).collect() }.render(style)?)?;
    let this = format!("`mimeo gc --confirm --seen {}` lets go what is on this list", report.as_of);
    if report.held {
        note(&format!("Held: {}, more at once than [gc] lets through. {this}.", told(held(&report))));
    }
    if report.found > 0 {
        note(&format!("Held: {} found at stores, in no record. {this}.", report.found));
    }
    Ok(())
}

/// Lets through what the guard holds of the list that was seen, or of the one as it is now.
pub(super) async fn confirm(client: &Client, seen: Option<Timestamp>) -> Outcome {
    let before = client.gc().await?;
    client.confirm_gc(seen.unwrap_or(before.as_of)).await?;
    note(&match (held(&before), seen) {
        ((0, _), _) => "Nothing is held. What is to go by now goes by itself.".to_owned(),
        (_, Some(seen)) => format!("What was on the list of {seen} goes, each copy when it is due. See `mimeo gc`."),
        (held, None) => format!("{} go, each when it is due. See `mimeo gc`.", told(held)),
    });
    Ok(())
}

/// How many copies wait for a confirmation, of how many images.
fn held(report: &GcReport) -> (usize, usize) {
    let held = report.entries.iter().filter(|entry| entry.held);
    (held.clone().count(), held.map(|entry| &entry.image).collect::<BTreeSet<_>>().len())
}

fn told((copies, of): (usize, usize)) -> String {
    let copies = if copies == 1 { "1 copy".to_owned() } else { format!("{copies} copies") };
    format!("{copies} of {}", images(of as u64))
}
