//! The prober of one store: asks for a registered copy on a fixed beat, as Glance would, and says when the store goes down
//! or is back.

use std::{sync::Arc, time::Duration};

use mimeo_core::{Error, ObjectName, Reason, Record, ReplicaState, StoreName};
use tokio_util::sync::CancellationToken;

use crate::{Engine, StorePart, scan, scrub, walk::Records};

/// After a probe without an answer, or when something else failed.
const AGAIN: Duration = Duration::from_secs(5);
/// Further, where all is well: it makes a beat of 15 s. With the time that a probe may take, and as many as it takes in a
/// row, a store that goes away is down within a minute.
const REST_OF_BEAT: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(5);
/// It may be ten thousand images that are concerned: new ones have their turns between them.
const BETWEEN: Duration = Duration::from_millis(20);

pub(crate) async fn run(engine: Arc<Engine>, store: StoreName, stop: CancellationToken) {
    let (Some(part), Some(bell)) = (engine.stores.get(&store), engine.breakers.bell(&store)) else { return };
    if let Err(error) = find_witness(&engine, &store).await {
        tracing::warn!(%store, error = error.chain(), "no copy was found that the store can be asked for");
    }
    let mut turned = None;
    loop {
        let answered = beat(&engine, part, &mut turned).await;
        scrub::hand_on(&engine, &store).await;
        let pause = async {
            tokio::time::sleep(AGAIN).await;
            if answered {
                let _ = tokio::time::timeout(REST_OF_BEAT, bell.notified()).await;
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = pause => {}
        }
    }
}

/// What the images concerned are to be told.
#[derive(Clone, Copy)]
enum Turn {
    Down,
    Back,
}

/// One probe. False: the store did not answer. `turned` is what is not yet told.
async fn beat(engine: &Engine, part: &StorePart, turned: &mut Option<Turn>) -> bool {
    let store = part.store.name();
    let Some(object) = engine.breakers.witness(store) else { return true };
    let now = || engine.clock.now();
    let answer = tokio::time::timeout(PATIENCE.min(part.timeout), part.store.probe(&object)).await;
    let answered = match answer.unwrap_or_else(|_| Err(no_answer(store))) {
        Ok(found) => {
            if engine.breakers.answered(store, now()) {
                tracing::info!(%store, "the store answers");
                *turned = Some(Turn::Back);
            }
            if found.is_none() {
                lost(engine, store, &object).await;
            }
            true
        }
        // It answers, and will not give this one: is it the store, or that copy alone?
        Err(error) if is_an_answer(error.reason) && gives_another(engine, part, &object).await => {
            tracing::warn!(%store, %object, error = error.chain(), "the store answers, and does not give this copy");
            if engine.breakers.answered(store, now()) {
                *turned = Some(Turn::Back);
            }
            read_again(engine, store, &object).await;
            true
        }
        Err(error) => {
            if engine.breakers.failed(store, &error, now()) {
                tracing::error!(%store, error = error.chain(), "the store does not answer: nothing is begun there, and its \
                    locations are put behind others");
                *turned = Some(Turn::Down);
            }
            false
        }
    };
    if let Some(turn) = *turned {
        match tell(engine, store, turn).await {
            Ok(()) => *turned = None,
            Err(error) => {
                tracing::error!(%store, error = error.chain(), "the images concerned could not be marked yet");
            }
        }
    }
    answered
}

fn no_answer(store: &StoreName) -> Error {
    Error::new(Reason::StoreStalled, format!("{store}: no answer to a probe within {PATIENCE:?}"))
}

/// The store answers, and the copy that it was asked for is not there: the image's copies are looked at.
async fn lost(engine: &Engine, store: &StoreName, object: &ObjectName) {
    engine.breakers.forget_witness(store);
    read_again(engine, store, object).await;
    if let Err(error) = find_witness(engine, store).await {
        tracing::warn!(%store, error = error.chain(), "no other copy was found that the store can be asked for");
    }
}

async fn read_again(engine: &Engine, store: &StoreName, object: &ObjectName) {
    let id = object.image();
    match engine.ledger.load(&id).await {
        Ok(Some(record)) if is_registered(&record, store, Some(object)) => {
            tracing::warn!(image = %id, %store, "a registered copy cannot be had: all copies of its image are read again");
            if let Err(error) = engine.verify(&id).await {
                tracing::error!(image = %id, error = error.chain(), "could not ask for that");
            }
        }
        _ => {}
    }
}

fn is_an_answer(reason: Reason) -> bool {
    !matches!(reason, Reason::StoreUnreachable | Reason::StoreStalled)
}

/// Asks for a registered copy of another image; if that is there, it is asked for from now on.
async fn gives_another(engine: &Engine, part: &StorePart, object: &ObjectName) -> bool {
    let store = part.store.name();
    let Ok(Some(other)) = registered_there(engine, store, Some(object)).await else { return false };
    let answer = tokio::time::timeout(PATIENCE.min(part.timeout), part.store.probe(&other)).await;
    let is_there = matches!(answer, Ok(Ok(Some(_))));
    if is_there {
        engine.breakers.forget_witness(store);
        engine.breakers.saw(store, &other);
    }
    is_there
}

fn is_registered(record: &Record, store: &StoreName, object: Option<&ObjectName>) -> bool {
    record.replicas.get(store).is_some_and(|replica| {
        let state = matches!(replica.state, ReplicaState::Registered | ReplicaState::Suspect);
        state && replica.object.is_some() && object.is_none_or(|object| replica.object.as_ref() == Some(object))
    })
}

/// Marks the images with a copy there that may have to be put behind others, or those that wait for the store.
async fn tell(engine: &Engine, store: &StoreName, turn: Turn) -> mimeo_core::Result<()> {
    let waits = |record: &Record| {
        let failure = record.replicas.get(store).and_then(|replica| replica.failure.as_ref());
        failure.is_some_and(|failure| failure.reason == Reason::StoreDown)
    };
    match turn {
        Turn::Down => scan::mark_where(engine, |record| is_registered(record, store, None), BETWEEN).await,
        Turn::Back => scan::mark_where(engine, waits, BETWEEN).await,
    }
}

/// A registered copy of the store, in the ledger. Later ones are found as they are seen.
async fn find_witness(engine: &Engine, store: &StoreName) -> mimeo_core::Result<()> {
    if let Some(object) = registered_there(engine, store, None).await? {
        engine.breakers.saw(store, &object);
    }
    Ok(())
}

/// A registered copy of the store, but not this one.
async fn registered_there(
    engine: &Engine,
    store: &StoreName,
    but: Option<&ObjectName>,
) -> mimeo_core::Result<Option<ObjectName>> {
    let mut walk = Records::all(engine.ledger.as_ref());
    while let Some(records) = walk.next().await? {
        let is_witness =
            |record: &&Record| is_registered(record, store, None) && !engine.elsewhere(record).contains(store);
        let mut found =
            records.iter().filter(is_witness).filter_map(|record| record.replicas.get(store)?.object.as_ref());
        if let Some(object) = found.find(|object| Some(*object) != but) {
            return Ok(Some(object.clone()));
        }
    }
    Ok(None)
}
