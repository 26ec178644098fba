//! `mimeo stores`: how each store does.

use serde_json::json;

use super::{Client, Listing, Outcome, Style, images::seconds, print};

pub(super) async fn list(client: &Client, style: &Style) -> Outcome {
    let reports = client.stores().await?;
    let row = |store: &mimeo_engine::status::StoreReport| {
        let failure = store.failure.as_ref().map(|reason| format!("{}: {}", reason.code, reason.message));
        let reason = store.error.clone().or(failure);
        vec![
            json!(store.name),
            json!(store.replicas),
            json!(store.registered),
            json!(store.failed),
            json!(store.health),
            json!(store.since.map(seconds)),
            json!(store.last_success.map(seconds)),
            json!(store.oldest_proof.map(seconds)),
            json!(reason),
        ]
    };
    let columns =
        &["Name", "Replicas", "Registered", "Failed", "State", "Since", "Last success", "Oldest proof", "Reason"];
    print(&Listing { columns, rows: reports.iter().map(row).collect() }.render(style)?)
}
