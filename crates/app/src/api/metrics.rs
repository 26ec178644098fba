//! What the engine measured, in the text form that Prometheus reads. Decides nothing: names, labels, help.
//!
//! Labels are names from the configuration and words of Mimeo's own: no image's id or name, so that their number is
//! bounded. What the ledger would say is left out while it does not answer.

mod family;
mod process;

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use mimeo_core::{Backlog, ImageState, ReplicaState, StoreName, Tally, Timestamp};
use mimeo_engine::{Engine, Measured, Phase};
use prometheus::{TEXT_FORMAT, TextEncoder, proto::MetricFamily};

use self::family::{counter, gauge, histogram};
use super::{Pace, problem::Problem};
use crate::follow::{Board, Delivery, Listener};

pub(super) async fn metrics(
    State(engine): State<Arc<Engine>>,
    State(told): State<Board>,
    State(pace): State<Pace>,
) -> Result<Response, Problem> {
    let text = text(&engine.measured().await, &told.deliveries(), &pace);
    Ok(([(CONTENT_TYPE, TEXT_FORMAT)], text).into_response())
}

fn text(measured: &Measured, deliveries: &BTreeMap<Listener, Delivery>, pace: &Pace) -> String {
    let mut families = service(measured);
    families.extend(wished(pace));
    families.extend(copies(measured));
    families.extend(stores(measured));
    if let Some((tally, backlog)) = &measured.ledger {
        families.extend(holdings(measured.now, tally));
        families.extend(waiting(measured.now, backlog));
    }
    families.extend(webhook_families(measured.now, deliveries));
    families.extend(trace_families(measured.now, deliveries));
    families.extend(process::families());
    families.retain(|family| !family.get_metric().is_empty());
    // It fails only for a family that is empty or has no name.
    TextEncoder::new().encode_to_string(&families).unwrap_or_default()
}

/// What the configuration wants done, and how often.
fn wished(pace: &Pace) -> Vec<MetricFamily> {
    let loops = [("scan", pace.scan), ("sweep", pace.sweep)];
    vec![
        gauge(
            "mimeo_loop_interval_seconds",
            "How often the loop is to do its work.",
            loops.map(|(name, pace)| (vec![("loop", name)], pace.as_secs_f64())),
        ),
        gauge(
            "mimeo_scrub_period_seconds",
            "Within which each copy is to be read.",
            pace.scrub.map(|period| (Vec::<(&str, &str)>::new(), period.as_secs_f64())),
        ),
    ]
}

/// The process and what it talks to.
fn service(measured: &Measured) -> Vec<MetricFamily> {
    let counts = &measured.counts;
    let version = env!("CARGO_PKG_VERSION");
    let loops = counts.loops.iter().map(|(name, at)| (vec![("loop", *name)], seconds(*at)));
    let well = counts.turns - counts.broken_turns;
    let mut families = vec![
        gauge("mimeo_build_info", "Which Mimeo this is; always 1.", [(vec![("version", version)], 1.0)]),
        gauge("mimeo_observe", "Whether it only plans and reports.", alone(flag(measured.observe))),
        gauge("mimeo_loop_last_success_timestamp_seconds", "When each loop last did its work.", loops),
        gauge(
            "mimeo_ledger_up",
            "Whether the ledger answers and takes what is written.",
            alone(flag(measured.ledger_takes)),
        ),
        gauge("mimeo_glance_up", "Whether the last look at Glance succeeded.", alone(flag(measured.service_answers))),
        gauge("mimeo_turns_running", "Images that are at work.", alone(number(measured.turns))),
        counter(
            "mimeo_turns_total",
            "Turns of images that have ended.",
            [(vec![("outcome", "done")], number(well)), (vec![("outcome", "broken")], number(counts.broken_turns))],
        ),
    ];
    if let Some(events) = &measured.events {
        families.extend([
            gauge("mimeo_events_connected", "Whether notifications are listened to.", alone(flag(events.connected))),
            counter("mimeo_events_received_total", "Notifications that came.", alone(number(events.received))),
            counter(
                "mimeo_events_bad_total",
                "Messages that were no notification of an image.",
                alone(number(events.bad)),
            ),
        ]);
    }
    families
}

/// How copies come about.
fn copies(measured: &Measured) -> Vec<MetricFamily> {
    let counts = &measured.counts;
    let lags =
        counts.lags.iter().map(|((rule, store), lags)| (vec![("rule", rule.as_str()), ("store", name(store))], lags));
    let failures = counts.failures.iter().map(|((store, reason), count)| {
        let store = store.as_ref().map_or("", name);
        (vec![("store", store), ("reason", *reason)], number(*count))
    });
    let transfers = measured
        .transfers
        .iter()
        .map(|((store, phase), count)| (vec![("store", name(store)), ("phase", word(*phase))], number(*count)));
    let bytes = measured.traffic.iter().flat_map(|(store, moved)| {
        [("written", moved.written), ("read", moved.read)]
            .map(|(direction, bytes)| (vec![("store", name(store)), ("direction", direction)], number(bytes)))
    });
    vec![
        histogram(
            "mimeo_replication_lag_seconds",
            "From the event, or the scan, that told of the image to the registration of a copy; only of first copies.",
            lags,
        ),
        counter("mimeo_failures_total", "Tries that failed, and what looks found to be wrong, by reason.", failures),
        gauge("mimeo_transfers_running", "Copies that are written, or read back, now.", transfers),
        counter("mimeo_store_bytes_total", "Bytes of images written to stores, and read back from them.", bytes),
    ]
}

fn stores(measured: &Measured) -> Vec<MetricFamily> {
    let up = measured.stores_up.iter().map(|(store, up)| (vec![("store", name(store))], flag(*up)));
    let draining = measured.draining.iter().map(|store| (vec![("store", name(store))], 1.0));
    vec![
        gauge("mimeo_store_up", "Whether the store answers.", up),
        gauge("mimeo_store_draining", "Stores that are to become empty.", draining),
        gauge(
            "mimeo_held_deletes",
            "Deletions that wait for mimeo gc --confirm.",
            alone(number(measured.held_deletes)),
        ),
    ]
}

/// What the ledger holds.
fn holdings(now: Timestamp, tally: &Tally) -> Vec<MetricFamily> {
    // Also those of which there are none: a share of nothing is no zero.
    let images = ImageState::ALL.map(|state| {
        (vec![("state", state.to_string())], number(tally.images.get(&state).copied().unwrap_or_default()))
    });
    let replicas = tally.replicas.iter().flat_map(|(store, states)| {
        ReplicaState::ALL.map(|state| {
            let labels = vec![("store", store.to_string()), ("state", state.to_string())];
            (labels, number(states.get(&state).copied().unwrap_or_default()))
        })
    });
    let proofs = tally.oldest_proofs.iter().map(|(store, at)| (vec![("store", name(store))], age(now, Some(*at))));
    vec![
        gauge("mimeo_images", "Images by their state.", images),
        gauge("mimeo_replicas", "Copies by store and state.", replicas),
        gauge(
            "mimeo_oldest_proof_age_seconds",
            "Of each store's registered copies, how long ago the one was read that was read first.",
            proofs,
        ),
        gauge(
            "mimeo_contested_images",
            "Images of which another writer keeps removing a location.",
            alone(number(tally.contested)),
        ),
        gauge(
            "mimeo_images_not_visible",
            "Whether Glance does not show images that there are, or may be.",
            alone(flag(tally.hidden.is_some())),
        ),
    ]
}

fn waiting(now: Timestamp, backlog: &Backlog) -> Vec<MetricFamily> {
    vec![
        gauge(
            "mimeo_queue_images",
            "Images that are to be looked at: now, or later.",
            [(vec![("due", "now")], number(backlog.due)), (vec![("due", "later")], number(backlog.later))],
        ),
        gauge(
            "mimeo_queue_oldest_seconds",
            "How long the first of them has been due.",
            alone(age(now, backlog.oldest_due)),
        ),
        gauge(
            "mimeo_oldest_unregistered_seconds",
            "How long the copy has been missing that has been missing the longest; 0: every image is where it should be.",
            alone(age(now, backlog.unregistered_since)),
        ),
    ]
}

fn webhook_families(now: Timestamp, deliveries: &BTreeMap<Listener, Delivery>) -> Vec<MetricFamily> {
    let each = |value: fn(&Delivery, Timestamp) -> f64| {
        let webhooks = deliveries.iter().filter_map(|(listener, delivery)| match listener {
            Listener::Webhook(name) => Some((vec![("webhook", name.clone())], value(delivery, now))),
            Listener::Traces => None,
        });
        webhooks.collect::<Vec<_>>()
    };
    vec![
        gauge(
            "mimeo_webhook_up",
            "Whether the webhook took what was sent last.",
            each(|it, _| flag(it.failing_since.is_none())),
        ),
        gauge(
            "mimeo_webhook_failing_seconds",
            "For how long the webhook has taken nothing.",
            each(|it, now| age(now, it.failing_since)),
        ),
        counter("mimeo_webhook_deliveries_total", "Events that the webhook took.", each(|it, _| number(it.delivered))),
        counter(
            "mimeo_webhook_failures_total",
            "Deliveries that failed; each is tried again.",
            each(|it, _| number(it.failed)),
        ),
        counter(
            "mimeo_webhook_given_up_total",
            "Events that the webhook refused for so long that it was told the next.",
            each(|it, _| number(it.given_up)),
        ),
    ]
}

fn trace_families(now: Timestamp, deliveries: &BTreeMap<Listener, Delivery>) -> Vec<MetricFamily> {
    let Some(delivery) = deliveries.get(&Listener::Traces) else { return Vec::new() };
    vec![
        gauge(
            "mimeo_traces_up",
            "Whether the collector took the trace that was sent last.",
            alone(flag(delivery.failing_since.is_none())),
        ),
        gauge(
            "mimeo_traces_failing_seconds",
            "For how long the collector has taken nothing.",
            alone(age(now, delivery.failing_since)),
        ),
        counter("mimeo_traces_exported_total", "Traces that the collector took.", alone(number(delivery.delivered))),
        counter(
            "mimeo_traces_failures_total",
            "Exports that failed; each is tried again.",
            alone(number(delivery.failed)),
        ),
        counter(
            "mimeo_traces_given_up_total",
            "Traces that the collector refused for so long that it was sent the next.",
            alone(number(delivery.given_up)),
        ),
    ]
}

fn alone(value: f64) -> [(Vec<(&'static str, &'static str)>, f64); 1] {
    [(Vec::new(), value)]
}

fn name(store: &StoreName) -> &str {
    store.as_str()
}

fn word(phase: Phase) -> &'static str {
    match phase {
        Phase::Copying => "copying",
        Phase::Proving => "proving",
    }
}

fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}

/// Counts beyond 2^53 lose their last digits, as every number in Prometheus does.
#[expect(clippy::cast_precision_loss)]
fn number(value: u64) -> f64 {
    value as f64
}

fn seconds(at: Timestamp) -> f64 {
    at.duration_since(Timestamp::UNIX_EPOCH).as_secs_f64()
}

fn age(now: Timestamp, since: Option<Timestamp>) -> f64 {
    since.map_or(0.0, |since| now.duration_since(since).as_secs_f64().max(0.0))
}

#[cfg(test)]
mod tests;
