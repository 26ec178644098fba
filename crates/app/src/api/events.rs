//! What happens, as it happens: server-sent events.
//!
//! Changes come from the numbered lines of the ledger's history, so that a listener who comes back misses none: the
//! event's `id` is the line's number. How far copies are is told beside them, and is not kept.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    http::HeaderMap,
    response::{
        IntoResponse, Sse,
        sse::{Event, KeepAlive},
    },
};
use futures::stream::{self, Stream};
use mimeo_engine::{Engine, Running, status::ChangeReport};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    Api,
    input::{Asked, number},
    problem::Problem,
    routes::Answer,
};

/// How often the ledger is asked for what is new.
const PAUSE: Duration = Duration::from_millis(500);
/// Then the listener comes again, with a token that is valid by then.
const LONGEST: Duration = Duration::from_mins(10);
/// Lines that are read at once.
const LINES: usize = 100;
/// Whoever is further behind begins anew.
const FARTHEST: u64 = 10_000;

/// Changes in one answer.
const MOST: u64 = 1000;
const USUAL: u64 = 100;

/// What became of images and copies, in the order in which it was written down.
#[derive(Serialize, Deserialize)]
pub(crate) struct Changes {
    pub changes: Vec<Numbered>,
    /// The number of the newest line that there is.
    pub last: u64,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Numbered {
    /// Grows from line to line; the `id` of the event that tells of it.
    pub number: u64,
    #[serde(flatten)]
    pub change: ChangeReport,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct From {
    /// As the header `Last-Event-ID`, which counts more.
    #[serde(default, deserialize_with = "number")]
    after: Option<u64>,
}

pub(super) async fn events(
    State(api): State<Api>,
    headers: HeaderMap,
    Asked(From { after }): Asked<From>,
) -> Result<impl IntoResponse, Problem> {
    let place = Arc::clone(&api.listeners).try_acquire_owned().map_err(|_| Problem::too_many_listeners())?;
    let known = match headers.get("last-event-id").map(|value| value.to_str().unwrap_or_default()) {
        None => after,
        Some(text) => Some(text.parse().map_err(|_| {
            Problem::bad_request(format!("Last-Event-ID: \"{text}\" is not the id of an event of Mimeo's"))
        })?),
    };
    let newest = api.engine.last_told().await?;
    // What the ledger never said is of another ledger, or of one that was restored.
    let is_resumed = known.is_some_and(|known| known <= newest && newest - known <= FARTHEST);
    let last = known.filter(|_| is_resumed).unwrap_or(newest);
    let first = match known {
        Some(_) if !is_resumed => vec![event("reset", last, &json!({"last": last}))],
        _ => vec![event("ready", last, &json!({"last": last}))],
    };
    let feed = Feed { engine: api.engine, stop: api.stop, last, running: Vec::new(), _place: place };
    Ok(Sse::new(feed.stream(first)).keep_alive(KeepAlive::new()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    #[serde(default, deserialize_with = "number")]
    after: Option<u64>,
    #[serde(default, deserialize_with = "number")]
    limit: Option<u64>,
}

/// Without `after`: the newest.
pub(super) async fn changes(State(api): State<Api>, Asked(Which { after, limit }): Asked<Which>) -> Answer<Changes> {
    let limit = limit.unwrap_or(USUAL);
    if !(1..=MOST).contains(&limit) {
        return Err(Problem::bad_request(format!("limit: {limit} is not from 1 to {MOST}")));
    }
    let last = api.engine.last_told().await?;
    let told = api
        .engine
        .told(after.unwrap_or(last.saturating_sub(limit)), usize::try_from(limit).unwrap_or(usize::MAX))
        .await?;
    let changes = told.into_iter().map(|(number, change)| Numbered { number, change }).collect();
    Ok(Json(Changes { changes, last }))
}

struct Feed {
    engine: Arc<Engine>,
    stop: CancellationToken,
    /// The number of the last line that was told.
    last: u64,
    /// As it was last told.
    running: Vec<Running>,
    _place: OwnedSemaphorePermit,
}

impl Feed {
    fn stream(self, first: Vec<Event>) -> impl Stream<Item = Result<Event, Infallible>> {
        let end = Instant::now() + LONGEST;
        let batches = stream::unfold((self, Some(first)), move |(mut feed, first)| async move {
            let events = match first {
                Some(first) => first,
                None => feed.next(end).await?,
            };
            Some((stream::iter(events.into_iter().map(Ok)), (feed, None)))
        });
        futures::StreamExt::flatten(batches)
    }

    /// What is new, as soon as there is something; `None` at the end, also where the ledger cannot be read.
    async fn next(&mut self, end: Instant) -> Option<Vec<Event>> {
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return None,
                () = sleep(PAUSE) => {}
            }
            if Instant::now() > end {
                return None;
            }
            let mut events = Vec::new();
            for (number, change) in self.engine.told(self.last, LINES).await.ok()? {
                self.last = number;
                events.push(event("change", number, &json!(change)));
            }
            let running = self.engine.running();
            if running != self.running {
                events.push(Event::default().event("transfers").data(json!({"transfers": running}).to_string()));
                self.running = running;
            }
            if !events.is_empty() {
                return Some(events);
            }
        }
    }
}

fn event(kind: &str, id: u64, data: &serde_json::Value) -> Event {
    Event::default().event(kind).id(id.to_string()).data(data.to_string())
}
