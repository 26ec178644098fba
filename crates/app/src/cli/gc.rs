//! `mimeo gc`: copies of deleted images, and whether the guard against mass deletes holds them.

use serde_json::json;

use super::{Client, Listing, Outcome, Style, images::seconds, note, print};

pub(super) async fn list(client: &Client, style: &Style) -> Outcome {
    let report = client.gc().await?;
    let row = |entry: &mimeo_engine::status::GcEntry| {
        vec![
            json!(entry.image),
            json!(entry.name),
            json!(entry.store),
            json!(entry.object),
            json!(seconds(entry.due)),
            json!(entry.why),
        ]
    };
    let columns = &["Image", "Name", "Store", "Object", "Due", "Why"];
    print(&Listing { columns, rows: report.entries.iter().map(row).collect() }.render(style)?)?;
    if report.held {
        note("More at once than [gc] lets through: they wait for `mimeo gc --confirm`.");
    }
    if report.found > 0 {
        note(&format!("{} were found at their stores, in no record: `mimeo gc --confirm` removes them.", report.found));
    }
    Ok(())
}

pub(super) async fn confirm(client: &Client) -> Outcome {
    let report = client.gc().await?;
    client.confirm_gc().await?;
    // The last sweep says whether any are held: what came to go since it is let through as well.
    note(match report.held || report.found > 0 {
        true => "The removals that were held go through now.",
        false => "Nothing is held. What is to go by now goes by itself.",
    });
    Ok(())
}
