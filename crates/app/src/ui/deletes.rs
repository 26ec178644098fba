//! What is to be removed from the stores, and the word of an operator that lets many removals at once through.

use std::sync::Arc;

use askama::Template;
use axum::{extract::State, response::Redirect};
use mimeo_core::Result;
use mimeo_engine::{
    Engine,
    status::{GcEntry, GcReport},
};

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
/// Images that are asked for at once.
const PAGE: usize = 500;

#[derive(Template)]
#[template(path = "deletes.html")]
struct Deletes {
    shell: Shell,
    csrf: Option<String>,
    report: GcReport,
    copies: usize,
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
    let ((report, copies, held), now) = (listed(&dashboard.engine).await?, dashboard.now());
    let row = |entry: &GcEntry| Row {
        id: entry.image.to_string(),
        name: entry.name.clone().unwrap_or_else(|| entry.image.to_string()),
        store: entry.store.to_string(),
        object: entry.object.clone(),
        due: Html::time(entry.due, now),
        held: entry.held,
        why: entry.why.clone(),
    };
    let (csrf, rows) = (visitor.may_change(), report.entries.iter().take(ROWS).map(row).collect());
    html(&Deletes { shell: Shell::new(&dashboard, "/deletes", visitor), csrf, report, copies, held, rows })
}

/// What is to be removed: as many entries as are shown, how many copies there are, and how many of them are held.
async fn listed(engine: &Engine) -> Result<(GcReport, usize, usize)> {
    let held_of = |report: &GcReport| report.entries.iter().filter(|entry| entry.held).count();
    let mut report = engine.gc(None, PAGE).await?;
    let (mut copies, mut held) = (report.entries.len(), held_of(&report));
    while let Some(after) = report.next.clone() {
        report.entries.truncate(ROWS);
        let page = engine.gc(Some(&after), PAGE).await?;
        (copies, held) = (copies + page.entries.len(), held + held_of(&page));
        report = report.and(page);
    }
    Ok((report, copies, held))
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
