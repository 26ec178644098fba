//! `mimeo rules`: which images each rule matches, and what another rule would do.

use mimeo_core::StoreName;
use mimeo_engine::status::{RuleReport, TrialEntry};
use serde_json::{Value, json};

use super::{Client, Listing, Outcome, Style, note, output, print};

pub(super) async fn list(client: &Client, style: &Style) -> Outcome {
    let report = client.rules().await?;
    let columns = &["Name", "When", "Stores", "Copies", "Matches", "Fails", "Why"];
    print(&Listing { columns, rows: report.rules.iter().map(row).collect() }.render(style)?)?;
    if report.rules.is_empty() {
        note("There are no rules: every image goes to every enabled store.");
    }
    told(report.images, report.complete);
    Ok(())
}

/// `stores` empty: every enabled one.
pub(super) async fn try_rule(
    client: &Client,
    when: &str,
    stores: &[StoreName],
    copies: Option<usize>,
    style: &Style,
) -> Outcome {
    let stores = (!stores.is_empty()).then_some(stores);
    let report = client.try_rule(&json!({"when": when, "stores": stores, "copies": copies})).await?;
    let row = |entry: &TrialEntry| {
        vec![json!(entry.image), json!(entry.name), json!(joined(&entry.stores)), json!(joined(&entry.new))]
    };
    let columns = &["Image", "Name", "Stores", "New"];
    print(&Listing { columns, rows: report.matching.iter().map(row).collect() }.render(style)?)?;
    note(&format!("It matches {}; nothing was written.", output::images(report.matches)));
    if let Some(failure) = report.failure {
        let images = output::images(report.fails);
        note(&format!("For {images} it cannot be answered, which is as if it did not match: {failure}"));
    }
    told(report.images, report.complete);
    Ok(())
}

fn told(images: u64, complete: bool) {
    if !complete {
        note(&format!("Only the first {images} images were looked at."));
    }
}

fn row(rule: &RuleReport) -> Vec<Value> {
    vec![
        json!(rule.name),
        json!(rule.when),
        json!(joined(&rule.stores)),
        json!(rule.copies),
        json!(rule.matches),
        json!(rule.fails),
        json!(rule.failure),
    ]
}

fn joined(stores: &[StoreName]) -> String {
    stores.iter().map(StoreName::as_str).collect::<Vec<_>>().join(", ")
}
