//! What is to be removed from the stores, and the word of an operator that lets many removals at once through.

use std::sync::Arc;

use askama::Template;
use axum::{extract::State, response::Redirect};
use mimeo_engine::status::{GcEntry, GcReport};

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
    held: usize,
    rows: Vec<Row>,
}

struct Row {
    id: String,
    name: String,
    store: String,
    object: String,
    due: Html,
    held: bool,
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
        held: entry.held,
        why: entry.why.clone(),
    };
    let rows = report.entries.iter().take(ROWS).map(row).collect();
    let (csrf, held) = (visitor.may_change(), report.entries.iter().filter(|entry| entry.held).count());
    html(&Deletes { shell: Shell::new(&dashboard, "/deletes", visitor), csrf, report, held, rows })
}

const UNSEEN: &str = "Nothing was confirmed: it is not known which list you saw. Look again.";

/// Lets go what the visitor was shown, and nothing that came to it since.
pub(super) async fn confirm(
    State(dashboard): State<Arc<Dashboard>>,
    Order(Posted { visitor, fields }): Order,
) -> Result<Redirect, Fault> {
    let said = match (fields.get("sure"), fields.get("seen").parse()) {
        ("yes", Ok(seen)) => match dashboard.engine.confirm_gc(seen).await? {
            Ok(()) => {
                tracing::warn!(%seen, by = visitor.name, "deletions confirmed, as the dashboard was told");
                "Confirmed: what was on the list goes, each copy when it is due."
            }
            Err(_) => UNSEEN,
        },
        ("yes", Err(_)) => UNSEEN,
        _ => "Nothing was confirmed: say first that you have looked at the list.",
    };
    dashboard.sessions.note(&visitor.session, said);
    Ok(Redirect::to("/deletes"))
}
