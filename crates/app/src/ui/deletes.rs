//! What is to be removed from the stores, and the word of an operator that lets many removals at once through.

use std::sync::Arc;

use askama::Template;
use axum::{extract::State, response::Redirect};
use mimeo_engine::status::{GcEntry, GcReport};
use sha2::{Digest, Sha256};

use super::{
    Dashboard,
    fault::Fault,
    page::{Answer, Shell, html},
    posted::{Order, Posted},
    session::Visitor,
    show::Html,
};

/// A person looks through no more; the command lists all.
const ROWS: usize = 500;

#[derive(Template)]
#[template(path = "deletes.html")]
struct Deletes {
    shell: Shell,
    csrf: Option<String>,
    report: GcReport,
    /// What this list is.
    digest: String,
    rows: Vec<Row>,
}

struct Row {
    id: String,
    name: String,
    store: String,
    object: String,
    due: Html,
    why: String,
}

pub(super) async fn page(State(dashboard): State<Arc<Dashboard>>, visitor: Visitor) -> Answer {
    let (report, now) = (dashboard.engine.gc().await?, dashboard.now());
    let row = |entry: &GcEntry| Row {
        id: entry.image.to_string(),
        name: entry.name.clone().unwrap_or_else(|| entry.image.to_string()),
        store: entry.store.to_string(),
        object: entry.object.clone(),
        due: Html::time(entry.due, now),
        why: entry.why.clone(),
    };
    let rows = report.entries.iter().take(ROWS).map(row).collect();
    let (csrf, digest) = (visitor.may_change(), digest(&report));
    html(&Deletes { shell: Shell::new(&dashboard, "/deletes", visitor), csrf, report, digest, rows })
}

/// Lets go what the visitor was shown, and nothing that came to it since.
pub(super) async fn confirm(
    State(dashboard): State<Arc<Dashboard>>,
    Order(Posted { visitor, fields }): Order,
) -> Result<Redirect, Fault> {
    let report = dashboard.engine.gc().await?;
    let said = match (fields.get("sure"), fields.get("list") == digest(&report)) {
        ("yes", true) => {
            dashboard.engine.confirm_gc().await?;
            let (copies, by) = (report.entries.len(), &visitor.name);
            tracing::warn!(copies, by, "deletions confirmed, as the dashboard was told");
            "Confirmed: these copies are removed now."
        }
        ("yes", false) => "Nothing was confirmed: the list has changed since you looked. Look again.",
        _ => "Nothing was confirmed: say first that you have looked at the list.",
    };
    dashboard.sessions.note(&visitor.session, said);
    Ok(Redirect::to("/deletes"))
}

fn digest(report: &GcReport) -> String {
    let mut digest = Sha256::new();
    for entry in &report.entries {
        digest.update(format!("{} {}\n", entry.store, entry.object));
    }
    format!("{:x}", digest.finalize())
}
