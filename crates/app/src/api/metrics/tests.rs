use std::{collections::BTreeSet, time::Duration};

use mimeo_core::{ImageState, ReplicaState};
use mimeo_engine::{Counts, LAG_BOUNDS, Lags, Traffic, status::EventsReport};

use super::*;

const ALERTS: &str = include_str!("../../../../../deploy/prometheus/alerts.yml");
const DASHBOARD: &str = include_str!("../../../../../deploy/grafana/mimeo.json");
const GUIDE: &str = include_str!("../../../../../docs/monitoring.md");
const RUNBOOK: &str = include_str!("../../../../../docs/runbook.md");

fn store() -> StoreName {
    "http1".parse().unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// Something of everything.
fn measured() -> Measured {
    let mut lags = Lags { count: 3, sum: 90_007.0, ..Lags::default() };
    (lags.buckets[0], lags.buckets[2]) = (1, 1);
    let counts = Counts {
        lags: [(("public \"images\"".to_owned(), store()), lags)].into(),
        failures: [((Some(store()), "store-full"), 2), ((None, "image-service-error"), 1)].into(),
        loops: [("dispatch", at(90))].into(),
        turns: 5,
        broken_turns: 1,
    };
    let tally = Tally {
        images: [(ImageState::Registered, 7)].into(),
        replicas: [(store(), [(ReplicaState::Registered, 7), (ReplicaState::Failed, 1)].into())].into(),
        oldest_proofs: [(store(), at(40))].into(),
        contested: 1,
        hidden: None,
    };
    let backlog = Backlog { due: 2, oldest_due: Some(at(99)), later: 3, unregistered_since: Some(at(70)) };
    Measured {
        now: at(100),
        counts,
        ledger: Some((tally, backlog)),
        ledger_takes: true,
        service_answers: false,
        stores_up: [(store(), true)].into(),
        draining: vec![store()],
        traffic: [(store(), Traffic { written: 10, read: 20 })].into(),
        transfers: [((store(), Phase::Copying), 1)].into(),
        turns: 1,
        events: Some(EventsReport { connected: true, received: 9, bad: 0, last_error: None }),
        held_deletes: 0,
        observe: false,
    }
}

fn pace() -> Pace {
    let (scan, sweep) = (Duration::from_mins(5), Duration::from_mins(1));
    Pace { scan, sweep, scrub: Some(Duration::from_hours(24)) }
}

fn whole() -> String {
    let failing = Delivery { delivered: 4, failed: 2, given_up: 1, failing_since: Some(at(95)) };
    let well = Delivery { delivered: 7, ..Delivery::default() };
    text(&measured(), &[(Listener::Webhook("pager".into()), failing), (Listener::Traces, well)].into(), &pace())
}

/// The names of the samples.
fn names(text: &str) -> BTreeSet<&str> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples.filter_map(|line| line.split([' ', '{']).next()).collect()
}

/// The names of metrics that a text speaks of.
fn named(text: &str) -> BTreeSet<&str> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words.filter(|word| word.starts_with("mimeo_") || word.starts_with("process_")).collect()
}

#[test]
fn what_was_measured_stands_there_with_its_labels() {
    let text = whole();
    for line in [
        "mimeo_images{state=\"registered\"} 7",
        "mimeo_images{state=\"failed\"} 0",
        "mimeo_replicas{store=\"http1\",state=\"gone\"} 0",
        "mimeo_loop_interval_seconds{loop=\"scan\"} 300",
        "mimeo_scrub_period_seconds 86400",
        "mimeo_replicas{store=\"http1\",state=\"failed\"} 1",
        "mimeo_oldest_proof_age_seconds{store=\"http1\"} 60",
        "mimeo_oldest_unregistered_seconds 30",
        "mimeo_queue_images{due=\"later\"} 3",
        "mimeo_queue_oldest_seconds 1",
        "mimeo_glance_up 0",
        "mimeo_images_not_visible 0",
        "mimeo_store_bytes_total{store=\"http1\",direction=\"read\"} 20",
        "mimeo_failures_total{store=\"\",reason=\"image-service-error\"} 1",
        "mimeo_turns_total{outcome=\"done\"} 4",
        "mimeo_loop_last_success_timestamp_seconds{loop=\"dispatch\"} 90",
        "mimeo_replication_lag_seconds_bucket{rule=\"public \\\"images\\\"\",store=\"http1\",le=\"2\"} 1",
        "mimeo_replication_lag_seconds_bucket{rule=\"public \\\"images\\\"\",store=\"http1\",le=\"5\"} 2",
        "mimeo_replication_lag_seconds_bucket{rule=\"public \\\"images\\\"\",store=\"http1\",le=\"+Inf\"} 3",
        "mimeo_replication_lag_seconds_sum{rule=\"public \\\"images\\\"\",store=\"http1\"} 90007",
        "mimeo_webhook_up{webhook=\"pager\"} 0",
        "mimeo_webhook_failing_seconds{webhook=\"pager\"} 5",
        "mimeo_webhook_given_up_total{webhook=\"pager\"} 1",
        "mimeo_traces_up 1",
        "mimeo_traces_exported_total 7",
    ] {
        assert!(text.lines().any(|it| it == line), "no {line} in\n{text}");
    }
    assert!(LAG_BOUNDS.is_sorted());
}

#[test]
fn without_the_ledger_the_rest_is_told() {
    let text = text(&Measured { ledger: None, ledger_takes: false, ..measured() }, &BTreeMap::new(), &pace());
    assert!(text.contains("\nmimeo_ledger_up 0\n") && text.contains("\nmimeo_store_up{"));
    assert!(!text.contains("mimeo_images") && !text.contains("mimeo_queue"));
}

#[test]
fn alerts_dashboard_and_guide_name_only_what_there_is_and_the_guide_names_all() {
    let text = whole();
    let there = names(&text);
    for (place, said) in [("alerts", ALERTS), ("dashboard", DASHBOARD)] {
        let said = named(said);
        assert!(!said.is_empty() && said.is_subset(&there), "{place}: {:?}", said.difference(&there));
    }
    let families: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert_eq!(named(GUIDE), families);
}

#[test]
fn every_alert_has_its_place_in_the_runbook() {
    let alerts = ALERTS.lines().filter(|line| line.trim().starts_with("- alert: ")).count();
    let links: Vec<&str> =
        ALERTS.lines().filter_map(|line| line.split_once("/runbook.md#")).map(|(_, place)| place).collect();
    assert!(alerts > 0 && links.len() == alerts);
    let anchor = |heading: &str| heading.to_lowercase().replace(' ', "-").replace(':', "");
    let anchors: Vec<String> = RUNBOOK.lines().filter_map(|line| line.strip_prefix("## ")).map(anchor).collect();
    let missing: Vec<&&str> = links.iter().filter(|link| !anchors.iter().any(|anchor| anchor == *link)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
