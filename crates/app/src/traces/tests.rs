//! What is made of a history. What a collector reads is compared by the end-to-end tests.

use std::collections::BTreeMap;

use mimeo_core::{Change, Failure, ImageId, ImageRow, Reason, Replica, ports::Ledger};
use mimeo_testkit::{FakeRegistry, MemoryLedger, sample};
use serde_json::{Value, json};

use super::*;
use crate::api::tests::engine;

/// A line of an image (`""`) or of its copy at a store, at a second.
fn line(second: i64, store: &str, state: &str) -> HistoryReport {
    let (at, store) = (sample::time(second), (!store.is_empty()).then(|| store.parse().unwrap()));
    HistoryReport { at, since: at, times: 1, store, state: state.into(), reason: None, message: None }
}

fn failed(second: i64, store: &str, reason: Reason) -> HistoryReport {
    let (reason, message) = (Some(reason.code().to_owned()), Some("as told".into()));
    HistoryReport { reason, message, ..line(second, store, "failed") }
}

/// Two copies, of which one fails once.
fn first_way() -> Vec<HistoryReport> {
    vec![
        line(0, "", "queued"),
        line(10, "", "active"),
        line(11, "http1", "copying"),
        line(11, "http2", "copying"),
        line(13, "http1", "stored"),
        failed(14, "http2", Reason::StoreFull),
        line(15, "http1", "proven"),
        line(16, "http1", "registered"),
        line(20, "http2", "copying"),
        line(22, "http2", "stored"),
        line(23, "http2", "proven"),
        line(24, "http2", "registered"),
    ]
}

fn spans(history: &[HistoryReport]) -> Vec<Value> {
    let body: Value = serde_json::from_str(&otlp::body(&ImageId::nil(), &way(history).unwrap())).unwrap();
    body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().clone()
}

/// Name, store, and how many seconds from where to where.
fn shown(spans: &[Value]) -> Vec<(String, String, i64, i64)> {
    let second = |span: &Value, key: &str| {
        let at: i128 = span[key].as_str().unwrap().parse().unwrap();
        Timestamp::from_nanosecond(at).unwrap().as_second() - sample::time(0).as_second()
    };
    let show = |span: &Value| {
        let store = &span["attributes"][0]["value"]["stringValue"];
        let words = |value: &Value| value.as_str().unwrap().to_owned();
        (words(&span["name"]), words(store), second(span, "startTimeUnixNano"), second(span, "endTimeUnixNano"))
    };
    spans.iter().map(show).collect()
}

#[test]
fn a_way_is_a_tree_of_the_image_its_copies_and_their_states() {
    let spans = spans(&first_way());
    let nil = ImageId::nil();
    let expected = [
        ("replicate", nil.as_str(), 10, 24),
        ("copy", "http1", 11, 16),
        ("copying", "http1", 11, 13),
        ("stored", "http1", 13, 15),
        ("proven", "http1", 15, 16),
        ("copy", "http2", 11, 24),
        ("copying", "http2", 11, 14),
        ("failed", "http2", 14, 20),
        ("copying", "http2", 20, 22),
        ("stored", "http2", 22, 23),
        ("proven", "http2", 23, 24),
    ];
    assert_eq!(shown(&spans), expected.map(|(name, at, from, to)| (name.to_owned(), at.to_owned(), from, to)));
    let by_id: BTreeMap<&str, &Value> = spans.iter().map(|span| (span["spanId"].as_str().unwrap(), span)).collect();
    assert_eq!(by_id.len(), spans.len(), "an identifier for each");
    let parents: Vec<&str> = spans
        .iter()
        .map(|span| span["parentSpanId"].as_str().map_or("", |parent| by_id[parent]["name"].as_str().unwrap()))
        .collect();
    assert_eq!(parents[..3], ["", "replicate", "copy"]);
    assert!(spans.iter().all(|span| span["traceId"] == spans[0]["traceId"]));
    assert_eq!(spans[0]["events"][0]["name"], "active", "what set it in motion; the upload is not Mimeo's way");
    assert_eq!(spans[7]["status"], json!({"code": 2, "message": "as told"}));
    assert_eq!(spans[7]["attributes"][1]["value"]["stringValue"], "store-full");
}

#[test]
fn a_copy_that_is_made_again_has_a_trace_of_its_own() {
    let mut history = first_way();
    let first = spans(&history);
    history.extend([
        line(100, "http1", "suspect"),
        line(101, "http1", "copying"),
        line(103, "http1", "stored"),
        line(104, "http1", "proven"),
        line(105, "http1", "registered"),
    ]);
    let again = spans(&history);
    let names: Vec<_> = again.iter().map(|span| span["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["replicate", "copy", "suspect", "copying", "stored", "proven"]);
    assert_eq!(shown(&again)[0].2, 100, "it did not begin with the image");
    assert_ne!(again[0]["traceId"], first[0]["traceId"]);
}

#[test]
fn what_only_waits_has_not_failed() {
    let mut history = first_way();
    history[5] = failed(14, "http2", Reason::OutsideHours);
    assert!(spans(&history).iter().all(|span| span.get("status").is_none()));
}

#[test]
fn a_registered_copy_that_is_only_told_again_is_no_way() {
    let told = HistoryReport { message: Some("other words".into()), ..line(2, "http1", "registered") };
    assert_eq!(way(&[line(0, "", "active"), line(1, "http1", "registered"), told]), None);
}

#[tokio::test]
async fn one_trace_is_told_and_not_before_the_last_copy_is_registered() {
    let ledger = Arc::new(MemoryLedger::default());
    let engine = engine(FakeRegistry::default(), ledger.clone());
    let exporter = Exporter { endpoint: "http://127.0.0.1:1/v1/traces".parse().unwrap(), http: http_client().unwrap() };
    let (id, stores) = (sample::id(1), ["http1", "http2"].map(|name| name.parse::<mimeo_core::StoreName>().unwrap()));
    let row = ImageRow { status: Some("active".into()), wanted: stores.to_vec(), ..ImageRow::new(id.clone()) };
    let replica = |store: usize, state| {
        let failure = (state == ReplicaState::Failed).then(|| Failure {
            reason: Reason::StoreFull,
            message: "as told".into(),
            tries: 1,
            next_try: None,
        });
        Change::Replica(id.clone(), Replica { state, failure, ..Replica::wanted(stores[store].clone()) })
    };
    let mut messages = 0;
    let mut after = 0;
    for (changes, so_far) in [
        (vec![Change::Image(row), replica(0, ReplicaState::Copying), replica(1, ReplicaState::Copying)], 0),
        (vec![replica(0, ReplicaState::Registered), replica(1, ReplicaState::Failed)], 0),
        (vec![replica(1, ReplicaState::Copying)], 0),
        (vec![replica(1, ReplicaState::Registered)], 1),
        (vec![replica(0, ReplicaState::Suspect), replica(1, ReplicaState::Suspect)], 1),
        (vec![replica(0, ReplicaState::Registered), replica(1, ReplicaState::Registered)], 2),
    ] {
        ledger.commit(&changes).await.unwrap();
        for (number, change) in engine.told(after, 50).await.unwrap() {
            after = number;
            messages += usize::from(exporter.message(&engine, number, &change).await.unwrap().is_some());
        }
        assert_eq!(messages, so_far, "after {changes:?}");
    }
}
