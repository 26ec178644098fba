//! `mimeo stores`: how each store does.

use serde_json::json;

use super::{Client, Listing, Outcome, Style, images::seconds, print};

pub(super) async fn list(client: &Client, style: &Style) -> Outcome {
    let reports = client.stores().await?;
    let row = |store: &mimeo_engine::status::StoreReport| {
        let failure = store.failure.as_ref().map(|reason| format!("{}: {}", reason.code, reason.message));
        vec![
            json!(store.name),
            json!(store.replicas),
            json!(store.registered),
            json!(store.failed),
            json!(store.last_success.map(seconds)),
            json!(failure),
        ]
    };
    let columns = &["Name", "Replicas", "Registered", "Failed", "Last success", "Reason"];
    print(&Listing { columns, rows: reports.iter().map(row).collect() }.render(style)?)
}
