//! `mimeo stores`: how each store does.

use mimeo_core::StoreName;
use mimeo_engine::status::StoreReport;
use serde_json::json;

use super::{Client, Failure, Listing, Outcome, Style, images::seconds, note, print};

pub(super) async fn list(client: &Client, style: &Style) -> Outcome {
    let reports = client.stores().await?;
    let row = |store: &StoreReport| {
        let failure = store.failure.as_ref().map(|reason| format!("{}: {}", reason.code, reason.message));
        vec![
            json!(store.name),
            json!(state(store)),
            json!(store.replicas),
            json!(store.registered),
            json!(store.failed),
            json!(store.last_success.map(seconds)),
            json!(store.note.clone().or(failure)),
        ]
    };
    let columns = &["Name", "State", "Replicas", "Registered", "Failed", "Last success", "Reason"];
    print(&Listing { columns, rows: reports.iter().map(row).collect() }.render(style)?)
}

fn state(store: &StoreReport) -> String {
    match store.draining {
        _ if !store.enabled => "not enabled".into(),
        Some(_) if store.objects == 0 => "drained, empty".into(),
        Some(_) => format!("draining, {} left", store.objects),
        None => "enabled".into(),
    }
}

pub(super) async fn rename(client: &Client, from: &StoreName, to: &StoreName) -> Outcome {
    let report = client.rename_store(from, to).await?;
    note(&format!("The copies of {} images are {to}'s now.", report.followed));
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
