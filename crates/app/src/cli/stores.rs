//! `mimeo stores`: how each store does.

use mimeo_core::StoreName;
use mimeo_engine::status::StoreReport;
use serde_json::{Value, json};

use super::{Client, Failure, Listing, Outcome, Style, images::seconds, note, output, print};

pub(super) async fn list(client: &Client, style: &Style) -> Outcome {
    let reports = client.stores().await?;
    let row = |store: &StoreReport| {
        let failure = store.failure.as_ref().map(|reason| format!("{}: {}", reason.code, reason.message));
        let reason = store.note.clone().or(store.error.clone()).or(failure);
        vec![
            json!(store.name),
            json!(store.replicas),
            json!(store.registered),
            json!(store.failed),
            json!(state(store)),
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

fn state(store: &StoreReport) -> Value {
    match store.draining {
        _ if !store.enabled => json!("not enabled"),
        Some(_) if store.objects == 0 => json!("drained, empty"),
        Some(_) => json!(format!("draining, {} left", store.objects)),
        None => json!(store.health),
    }
}

pub(super) async fn rename(client: &Client, from: &StoreName, to: &StoreName) -> Outcome {
    let report = client.rename_store(from, to).await?;
    note(&format!("The copies of {} are {to}'s now.", output::images(report.followed)));
    if report.both > 0 {
        note(&format!("{} images have copies under both names, and keep them.", report.both));
    }
    match report.busy {
        0 => Ok(()),
        busy => Err(Failure::not_yet(format!("{busy} images are at work now: give the command again in a while"))),
    }
}

pub(super) async fn move_to(client: &Client, store: &StoreName) -> Outcome {
    match client.move_store(store).await?.copies {
        0 => note(&format!("All copies of {store} are where the configuration puts it.")),
        copies => note(&format!(
            "{copies} copies of {store} are proven at the new place, then registered there; `mimeo stores` shows how many \
             are left."
        )),
    }
    Ok(())
}
