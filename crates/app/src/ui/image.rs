//! One image: its copies, why something is not as it should be, what to do, and what became of it.

use std::sync::Arc;

use askama::Template;
use axum::{
    extract::{Path, State},
    response::{IntoResponse, Redirect, Response},
};
use mimeo_core::{ImageId, ProofKind, Timestamp};
use mimeo_engine::{
    Progress,
    status::{HistoryReport, ImageReport, ReasonReport, ReplicaReport},
};

use super::{
    Dashboard, SLOW,
    fault::Fault,
    find::Filter,
    images::name,
    live::{self, Parts},
    page::{Answer, Shell, html},
    posted::{Order, Posted},
    session::Visitor,
    show::{self, Html, Sign},
};

#[derive(Template)]
#[template(path = "image.html")]
struct Page {
    shell: Shell,
    id: ImageId,
    name: String,
    /// For those who may change something.
    csrf: Option<String>,
    copies: Html,
    history: Html,
}

#[derive(Template)]
#[template(path = "copies.html")]
struct Copies {
    state: Sign,
    facts: Vec<(&'static str, Html)>,
    problems: Vec<Problem>,
    rows: Vec<Copy>,
}

struct Problem {
    /// A store, or the image.
    subject: String,
    what: show::Problem,
    next: Html,
}

struct Copy {
    store: String,
    state: Sign,
    progress: Option<Bar>,
    location: Option<String>,
    proof: Html,
    seen: Html,
}

struct Bar {
    bytes: u64,
    total: Option<u64>,
    words: String,
}

#[derive(Template)]
#[template(path = "history.html")]
struct History {
    lines: Vec<Line>,
}

struct Line {
    at: Html,
    times: Option<Html>,
    store: String,
    state: Sign,
    why: String,
    code: Option<String>,
}

pub(super) async fn page(State(dashboard): State<Arc<Dashboard>>, visitor: Visitor, Path(id): Path<String>) -> Answer {
    let id = image_id(&id)?;
    let report = dashboard.engine.image(&id).await?;
    let history = history(&dashboard, &id).await?;
    let (name, copies) = match &report {
        Some(report) => (name(report), copies(report, dashboard.now())?),
        // Of one that is gone its history is kept for a while.
        None if !history.lines.is_empty() => (id.to_string(), gone()),
        None => return Err(Fault::unknown_image(&id)),
    };
    let csrf = visitor.may_change().filter(|_| report.is_some());
    let shell = Shell::new(&dashboard, "/", visitor).live(format!("/images/{id}/live"));
    html(&Page { shell, id, name, csrf, copies, history: Html::made(&history)? })
}

pub(super) async fn live(
    State(dashboard): State<Arc<Dashboard>>,
    visitor: Visitor,
    Path(id): Path<String>,
) -> Result<Response, Fault> {
    let id = image_id(&id)?;
    live::stream(dashboard, visitor, SLOW, move |dashboard| {
        let id = id.clone();
        async move {
            let copies = match dashboard.engine.image(&id).await? {
                Some(report) => copies(&report, dashboard.now())?,
                None => gone(),
            };
            Ok(Parts::from([("copies", copies), ("history", Html::made(&history(&dashboard, &id).await?)?)]))
        }
    })
}

pub(super) async fn retry(
    State(dashboard): State<Arc<Dashboard>>,
    Path(id): Path<String>,
    Order(Posted { visitor, .. }): Order,
) -> Result<Redirect, Fault> {
    let id = image_id(&id)?;
    dashboard.engine.replicate(&id).await?;
    tracing::info!(image = %id, by = visitor.name, "to be tried again now, as the dashboard was told");
    dashboard.sessions.note(&visitor.session, "Mimeo looks at the image now and tries again what failed.");
    Ok(Redirect::to(&format!("/images/{id}")))
}

pub(super) async fn verify(
    State(dashboard): State<Arc<Dashboard>>,
    Path(id): Path<String>,
    Order(Posted { visitor, .. }): Order,
) -> Result<impl IntoResponse, Fault> {
    let id = image_id(&id)?;
    dashboard.engine.image(&id).await?.ok_or_else(|| Fault::unknown_image(&id))?;
    dashboard.engine.verify(&id).await?;
    tracing::info!(image = %id, by = visitor.name, "to be read again, as the dashboard was told");
    dashboard.sessions.note(&visitor.session, "All copies are read again; their proofs become new one by one.");
    Ok(Redirect::to(&format!("/images/{id}")))
}

fn image_id(text: &str) -> Result<ImageId, Fault> {
    text.parse().map_err(|error: mimeo_core::InvalidId| Fault::bad_request(error.to_string()))
}

fn gone() -> Html {
    Html::prose("Nothing of this image is left anywhere. This is what became of it.")
}

fn copies(image: &ImageReport, now: Timestamp) -> Result<Html, Fault> {
    let size = image.size.map_or("not known yet".to_owned(), |size| format!("{} ({size} bytes)", show::bytes(size)));
    let mut facts = vec![("Size", Html::text(&size)), ("Last look", Html::time_or(image.observed_at, now, "not yet"))];
    if let Some(owner) = &image.owner {
        let theirs = Filter { owner: owner.clone(), ..Filter::default() };
        facts.push(("Project", Html::link(&theirs.address("/", ""), owner)));
    }
    if !image.rules.is_empty() {
        facts.push(("Rules", Html::text(&image.rules.join(", "))));
    }
    let copies = Copies {
        state: image.state.into(),
        facts,
        problems: problems(image, now),
        rows: image.replicas.iter().map(|copy| row(copy, now)).collect(),
    };
    Ok(Html::made(&copies)?)
}

/// What holds up the image as a whole is told once, and not again for each copy.
fn problems(image: &ImageReport, now: Timestamp) -> Vec<Problem> {
    let own = image.reason.iter().map(|reason| problem("The image".into(), reason, None, now));
    let of_copies = image.replicas.iter().filter_map(|copy| {
        let reason = copy.reason.as_ref().filter(|reason| image.reason.as_ref() != Some(reason))?;
        Some(problem(copy.store.to_string(), reason, Some(copy), now))
    });
    own.chain(of_copies).collect()
}

fn problem(subject: String, reason: &ReasonReport, copy: Option<&ReplicaReport>, now: Timestamp) -> Problem {
    let next = copy.and_then(|copy| copy.next_try);
    let next = match (next, reason.permanent) {
        (Some(next), true) => Html::time(next, now).after("Waiting alone does not cure it. Looked at again:"),
        (Some(next), false) => Html::time(next, now).after("Tried again by itself:"),
        (None, true) => Html::text("Waiting alone does not cure it."),
        (None, false) => Html::default(),
    };
    // A message begins with its store, as the subject does.
    let message = reason.message.strip_prefix(&format!("{subject}: ")).unwrap_or(&reason.message).to_owned();
    let what = show::Problem::from(&ReasonReport { message, ..reason.clone() });
    Problem { subject, what, next }
}

fn row(copy: &ReplicaReport, now: Timestamp) -> Copy {
    let wanted = if copy.wanted { "" } else { ", no longer wanted" };
    let state = Sign { word: format!("{}{wanted}", copy.state), ..copy.state.into() };
    let bar = |progress: Progress| Bar { bytes: progress.bytes, total: progress.total, words: show::done(&progress) };
    let proof = match (copy.proof, copy.proven_at) {
        (Some(ProofKind::Readback), Some(at)) => Html::time(at, now).after("read back"),
        (Some(ProofKind::Glance), Some(at)) => Html::time(at, now).after("by Glance alone"),
        _ => Html::time_or(None, now, "none yet"),
    };
    Copy {
        store: copy.store.to_string(),
        state,
        progress: copy.progress.map(bar),
        location: copy.location.clone(),
        proof,
        seen: Html::time_or(copy.seen_at, now, "not yet"),
    }
}

async fn history(dashboard: &Dashboard, id: &ImageId) -> Result<History, Fault> {
    let (lines, now) = (dashboard.engine.history(id).await?, dashboard.now());
    Ok(History { lines: lines.into_iter().rev().map(|line| past(line, now)).collect() })
}

fn past(line: HistoryReport, now: Timestamp) -> Line {
    let since = || Html::time(line.since, now).after(&format!("{} times, first", line.times));
    Line {
        at: Html::time(line.at, now),
        times: (line.times > 1).then(since),
        store: line.store.map_or("the image".to_owned(), |store| store.to_string()),
        state: show::past(&line.state, line.reason.is_some()),
        why: line.message.unwrap_or_default(),
        code: line.reason,
    }
}
