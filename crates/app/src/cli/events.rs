//! `mimeo events`: what happened lately, and what happens now.

use std::time::Duration;

use futures::StreamExt;
use mimeo_engine::status::ChangeReport;
use reqwest::Response;
use serde_json::json;

use super::{Client, Failure, Outcome, images::seconds, note, print, visible};
use crate::api::Numbered;

/// Before a stream that ended is asked for anew.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy)]
pub(super) struct How {
    pub(super) follow: bool,
    pub(super) json: bool,
    /// Of those that have happened.
    pub(super) limit: usize,
}

pub(super) async fn events(client: &Client, how: How) -> Outcome {
    let past = client.changes(how.limit).await?;
    for Numbered { number, change } in &past.changes {
        show(*number, change, how.json)?;
    }
    if !how.follow {
        return Ok(());
    }
    let (mut last, mut is_away) = (past.last, false);
    loop {
        // A restart of `serve` is no end: what happened meanwhile comes then.
        match client.events(last).await? {
            Some(stream) => (last, is_away) = (follow(stream, last, how.json).await?, false),
            None if is_away => {}
            None => {
                note("mimeo serve does not answer; waiting for it");
                is_away = true;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Until the stream ends, as it does now and then; gives the number of the last change.
async fn follow(stream: Response, mut last: u64, json: bool) -> Outcome<u64> {
    let (mut bytes, mut lines) = (stream.bytes_stream(), Lines::default());
    while let Some(Ok(chunk)) = bytes.next().await {
        for event in lines.take(&chunk) {
            last = event.id.unwrap_or(last);
            if event.kind == "reset" {
                note("what happened since the last line is not told: it was too much, or the ledger is another one");
            }
            if event.kind == "change" {
                let change = serde_json::from_str(&event.data)
                    .map_err(|error| Failure::failed(format!("an event cannot be read: {error}")))?;
                show(last, &change, json)?;
            }
        }
    }
    Ok(last)
}

fn show(number: u64, change: &ChangeReport, json: bool) -> Outcome {
    if json {
        let mut line = json!(change);
        line["number"] = json!(number);
        return print(&format!("{line}\n"));
    }
    let line = &change.line;
    let times = (line.times > 1).then(|| format!("({} times since {})", line.times, seconds(line.since)));
    let why = match (&line.reason, &line.message) {
        (Some(code), Some(message)) => Some(format!("{code}: {message}")),
        (code, message) => code.clone().or_else(|| message.clone()),
    };
    let store = line.store.as_ref().map_or("-".to_owned(), ToString::to_string);
    let parts =
        [Some(seconds(line.at)), Some(change.image.to_string()), Some(store), Some(line.state.clone()), times, why];
    print(&(visible(&parts.into_iter().flatten().collect::<Vec<_>>().join("  ")) + "\n"))
}

/// One server-sent event.
#[derive(Debug, Default, PartialEq, Eq)]
struct Event {
    id: Option<u64>,
    kind: String,
    data: String,
}

/// Takes a stream of server-sent events apart, however it is cut.
#[derive(Default)]
struct Lines {
    rest: Vec<u8>,
    event: Event,
}

impl Lines {
    fn take(&mut self, chunk: &[u8]) -> Vec<Event> {
        self.rest.extend_from_slice(chunk);
        let mut events = Vec::new();
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            match line.trim_end().split_once(':') {
                Some(("id", id)) => self.event.id = id.trim().parse().ok(),
                Some(("event", kind)) => kind.trim().clone_into(&mut self.event.kind),
                Some(("data", data)) => self.event.data.push_str(data.trim_start()),
                // A comment, which keeps the connection alive.
                Some(_) => {}
                None => events.extend(Some(std::mem::take(&mut self.event)).filter(|event| !event.kind.is_empty())),
            }
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_read_however_it_is_cut() {
        let stream =
            b"event: ready\nid: 7\ndata: {}\n\n:\n\nevent: change\nid: 8\ndata: {\"at\":\"10:00\"}\n\nevent: cut";
        for size in 1..stream.len() {
            let mut lines = Lines::default();
            let events: Vec<Event> = stream.chunks(size).flat_map(|chunk| lines.take(chunk)).collect();
            let event = |id, kind: &str, data: &str| Event { id: Some(id), kind: kind.into(), data: data.into() };
            assert_eq!(events, [event(7, "ready", "{}"), event(8, "change", "{\"at\":\"10:00\"}")]);
        }
    }
}
