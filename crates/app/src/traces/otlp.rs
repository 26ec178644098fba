//! A way as OpenTelemetry's protocol has it over HTTP, in its JSON form.

use mimeo_core::{ImageId, Timestamp};
use mimeo_engine::status::HistoryReport;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::way::{CopyWay, Way};

/// The span kind `INTERNAL`.
const INTERNAL: u8 = 1;
/// The status code `ERROR`.
const ERROR: u8 = 2;

/// The same way has the same identifiers each time that it is sent.
pub(super) fn body(image: &ImageId, way: &Way<'_>) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let resource = attributes(&[("service.name", Some("mimeo")), ("service.version", Some(version))]);
    let traces = json!({"resourceSpans": [{
        "resource": {"attributes": resource},
        "scopeSpans": [{"scope": {"name": "mimeo", "version": version}, "spans": spans(image, way)}],
    }]});
    traces.to_string()
}

/// The way is the root; below it each copy, and below that each of its states.
fn spans(image: &ImageId, way: &Way<'_>) -> Vec<Value> {
    let mut trace = Trace::new(image, way);
    let mut root = trace.span(None, "replicate", way.begin, way.end);
    root["attributes"] = attributes(&[("mimeo.image.id", Some(&image.to_string()))]);
    root["events"] = way.image.iter().map(|line| event(line)).collect();
    let parent = root["spanId"].clone();
    trace.spans.push(root);
    for copy in &way.copies {
        trace.add_copy(&parent, copy);
    }
    trace.spans
}

struct Trace {
    id: String,
    spans: Vec<Value>,
}

impl Trace {
    fn new(image: &ImageId, way: &Way<'_>) -> Self {
        let id = digest(&format!("{image} {}", nanoseconds(way.begin)), 16);
        Self { id, spans: Vec::new() }
    }

    fn add_copy(&mut self, parent: &Value, copy: &CopyWay<'_>) {
        let store = ("mimeo.store", Some(copy.store.as_str()));
        let mut whole = self.span(Some(parent), "copy", copy.begin(), copy.end);
        whole["attributes"] = attributes(&[store]);
        let parent = whole["spanId"].clone();
        self.spans.push(whole);
        let ends = copy.states.iter().skip(1).map(|line| line.since).chain([copy.end]);
        for (line, end) in copy.states.iter().zip(ends) {
            let mut state = self.span(Some(&parent), &line.state, line.since, end);
            state["attributes"] = attributes(&[store, ("mimeo.reason", line.reason.as_deref())]);
            if line.is_a_failure() {
                state["status"] = json!({"code": ERROR, "message": line.message});
            }
            self.spans.push(state);
        }
    }

    fn span(&self, parent: Option<&Value>, name: &str, begin: Timestamp, end: Timestamp) -> Value {
        let mut span = json!({
            "traceId": self.id,
            "spanId": digest(&format!("{} {}", self.id, self.spans.len()), 8),
            "name": name,
            "kind": INTERNAL,
            "startTimeUnixNano": nanoseconds(begin),
            // A clock that was set back is no reason for a span that nothing can show.
            "endTimeUnixNano": nanoseconds(end.max(begin)),
        });
        if let Some(parent) = parent {
            span["parentSpanId"] = parent.clone();
        }
        span
    }
}

fn event(line: &HistoryReport) -> Value {
    let said = [("mimeo.reason", line.reason.as_deref()), ("message", line.message.as_deref())];
    json!({"timeUnixNano": nanoseconds(line.since), "name": line.state, "attributes": attributes(&said)})
}

/// Those that there are.
fn attributes(all: &[(&str, Option<&str>)]) -> Value {
    let there = all.iter().filter_map(|(key, value)| value.map(|value| (key, value)));
    there.map(|(key, value)| json!({"key": key, "value": {"stringValue": value}})).collect()
}

/// Numbers of 64 bits are text in this form.
fn nanoseconds(at: Timestamp) -> String {
    at.as_nanosecond().to_string()
}

/// An identifier of so many bytes, in hexadecimal.
fn digest(of: &str, bytes: usize) -> String {
    let mut digest = format!("{:x}", Sha256::digest(of));
    digest.truncate(2 * bytes);
    digest
}
