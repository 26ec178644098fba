//! Intake: every event becomes a mark in the ledger, and is acknowledged after that.

use std::{sync::Arc, time::Duration};

use futures::FutureExt;
use mimeo_core::{
    Change, DirtyMark,
    ports::{Delivery, EventKind, Events},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Engine,
    sabotage::{self, Bug},
};

/// Events that share one commit at most.
const BATCH: usize = 128;
const LEDGER_RETRY: Duration = Duration::from_secs(1);

pub(crate) async fn run(engine: Arc<Engine>, mut events: Box<dyn Events>, stop: CancellationToken) {
    loop {
        let first = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            delivery = events.next() => delivery,
        };
        let Some(first) = first else {
            tracing::warn!("the events have ended; the scan goes on");
            return stop.cancelled().await;
        };
        let mut batch = vec![first];
        while batch.len() < BATCH {
            match events.next().now_or_never() {
                Some(Some(delivery)) => batch.push(delivery),
                _ => break,
            }
        }
        if !take(&engine, batch, &stop).await {
            return;
        }
    }
}

/// Commits the batch, however long the ledger takes, and acknowledges it. False: stopped before that, and the events
/// will come again.
async fn take(engine: &Engine, batch: Vec<Delivery>, stop: &CancellationToken) -> bool {
    let now = engine.clock.now();
    let mut changes = Vec::new();
    for Delivery { event, .. } in &batch {
        if let Some(snapshot) = &event.snapshot {
            engine.recent.note(&event.image, snapshot.clone());
        }
        if event.kind == EventKind::Deleted {
            changes.push(Change::DeleteSeen(event.image.clone(), now));
        }
        changes.push(Change::Dirty(DirtyMark { image: event.image.clone(), due: now }));
    }
    mimeo_crash::point("events-heard");
    loop {
        let taken = engine.ledger.commit(&changes).await;
        engine.health.wrote_down(&taken);
        let Err(error) = taken else { break };
        if sabotage::is(Bug::AcknowledgedTooEarly) {
            break;
        }
        tracing::error!(error = error.chain(), "the ledger did not take events; they wait");
        tokio::select! {
            biased;
            () = stop.cancelled() => return false,
            () = tokio::time::sleep(LEDGER_RETRY) => {}
        }
    }
    mimeo_crash::point("events-kept");
    for Delivery { event, ack } in batch {
        ack.acknowledge().await;
        engine.turns.poke(&event.image);
    }
    mimeo_crash::point("events-acknowledged");
    engine.wake.notify_one();
    true
}
