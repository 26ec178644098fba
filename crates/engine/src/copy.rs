//! Copies and proofs of one image, side by side; what is proven is registered without waiting for the slowest.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use mimeo_core::{
    Change, Error, Image, ImageId, Object, ObjectName, ObjectState, Proof, ProofKind, Reason, Record, Replica,
    ReplicaState, Result, StoreName, plan::Plan,
};
use tokio::{sync::OwnedSemaphorePermit, task::JoinSet, time::Instant};
use tracing::Instrument;

use crate::{
    Engine,
    look::look,
    note::{failed, put_off, update},
    progress::Phase,
    prove, register,
    transfer::{Feed, Transfer, Verified},
    turn::Turn,
};

/// How long a proven copy waits for its siblings, so that one PATCH registers them together: a share of the time that
/// the copy took, between these bounds.
const LINGER_SHARE: u32 = 10;
const LINGER: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Runs the plan's copies and proofs to their ends, which are in the ledger when this returns.
pub(crate) async fn run(engine: &Arc<Engine>, turn: &Turn, image: &Image, plan: &Plan) -> Result<()> {
    if plan.copy.is_empty() && plan.prove.is_empty() {
        return Ok(());
    }
    let mut work = JoinSet::new();
    for store in &plan.prove {
        let (engine, id, store) = (Arc::clone(engine), image.id.clone(), store.clone());
        work.spawn(async move { (prove(&engine, &id, &store).await, store) }.in_current_span());
    }
    let mut readers = JoinSet::new();
    if !plan.copy.is_empty() {
        start_copies(engine, turn, image, &plan.copy, &mut work, &mut readers).await?;
    }
    let running = plan.copy.iter().chain(&plan.prove).cloned().collect();
    attend(engine, turn, image, running, &mut work).await;
    // Whoever still runs was told to stop: nothing of it may go on when the next look begins.
    work.shutdown().await;
    readers.shutdown().await;
    Ok(())
}

/// Waits for the work, and looks at the image whenever something is proven or the image was marked again.
async fn attend(
    engine: &Arc<Engine>,
    turn: &Turn,
    image: &Image,
    mut running: BTreeSet<StoreName>,
    work: &mut JoinSet<(bool, StoreName)>,
) {
    let began = Instant::now();
    let mut register_at: Option<Instant> = None;
    loop {
        let linger = async {
            match register_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let is_time = tokio::select! {
            done = work.join_next() => {
                let Some(done) = done else { return };
                if let Ok((proven, store)) = done {
                    running.remove(&store);
                    if proven {
                        let wait = (began.elapsed() / LINGER_SHARE).clamp(LINGER.0, LINGER.1);
                        register_at.get_or_insert(Instant::now() + wait);
                    }
                }
                false
            }
            () = turn.poke.notified() => true,
            () = linger => true,
            () = turn.stop.cancelled() => return,
        };
        if is_time && !work.is_empty() {
            register_at = None;
            if !meanwhile(engine, image, &running).await {
                tracing::info!("the image changed: its copies are stopped");
                return;
            }
        }
    }
}

/// A look in the middle of running work: registers what is proven by now. False: the work is to stop.
async fn meanwhile(engine: &Engine, image: &Image, running: &BTreeSet<StoreName>) -> bool {
    let result = async {
        let look = look(engine, &image.id, running).await?;
        if !look.plan.register.is_empty() && !look.plan.stop {
            register::register(engine, &look.record, &look.plan.register).await?;
        }
        Ok(!look.plan.stop)
    };
    result.await.unwrap_or_else(|error: Error| {
        tracing::warn!(reason = error.reason.code(), error = error.chain(), "could not look at the image meanwhile");
        true
    })
}

/// Writes the new attempts into the ledger (promise 3), then starts one reader and a task for each store.
async fn start_copies(
    engine: &Arc<Engine>,
    turn: &Turn,
    image: &Image,
    stores: &[StoreName],
    work: &mut JoinSet<(bool, StoreName)>,
    readers: &mut JoinSet<()>,
) -> Result<()> {
    let permit = tokio::select! {
        permit = Arc::clone(&engine.readers).acquire_owned() => permit,
        () = turn.stop.cancelled() => return Ok(()),
    };
    let permit = permit.map_err(|_| Error::new(Reason::Cancelled, "no transfers are started any more"))?;
    let admitted = admit(engine, &image.id, stores).await;
    if admitted.is_empty() {
        return Ok(());
    }
    let names: Vec<StoreName> = admitted.iter().map(|(store, _)| store.clone()).collect();
    let attempts = begin(engine, &image.id, &names).await?;
    tracing::info!(stores = stores.len(), size = image.size, "copying");
    let source = engine.registry.source(&image.id);
    let transfer = Transfer::new(image.clone(), source, engine.settings.window, engine.settings.source_timeout);
    for ((store, object), (_, trial)) in attempts.into_iter().zip(admitted) {
        let (engine, image, feed) = (Arc::clone(engine), image.clone(), transfer.feed());
        let copying = async move {
            let _trial = trial;
            (copy(&engine, &image, &store, &object, feed).await, store)
        };
        work.spawn(copying.in_current_span());
    }
    readers.spawn(transfer.read(permit).in_current_span());
    Ok(())
}

/// The stores that may be tried now. To one whose last copy failed only a few are tried at a time, so that a store that
/// hangs takes no more than those few turns and transfers; the others wait with the store's own reason.
async fn admit(engine: &Engine, id: &ImageId, stores: &[StoreName]) -> Vec<(StoreName, Option<OwnedSemaphorePermit>)> {
    let mut admitted = Vec::new();
    for store in stores.iter().filter(|store| engine.stores.contains_key(*store)) {
        let Some((reason, last)) = engine.health.last_failure(store) else {
            admitted.push((store.clone(), None));
            continue;
        };
        if let Ok(trial) = Arc::clone(&engine.gates(store).trials).try_acquire_owned() {
            admitted.push((store.clone(), Some(trial)));
        } else {
            let message = format!("{store}: not tried now, as others are being tried after this failure: {last}");
            put_off(engine, id, store, &Error::new(reason, message)).await;
        }
    }
    admitted
}

/// One new attempt for each store, known to the ledger before a byte is written.
async fn begin(engine: &Engine, id: &ImageId, stores: &[StoreName]) -> Result<Vec<(StoreName, ObjectName)>> {
    let record = engine.ledger.load(id).await?.unwrap_or_else(|| Record::new(id.clone()));
    let now = engine.clock.now();
    let (mut changes, mut attempts) = (Vec::new(), Vec::new());
    for (store, number) in stores.iter().zip(next_attempt(&record, now)..) {
        let name = ObjectName::new(id, number);
        let Some(part) = engine.stores.get(store) else { continue };
        let url = part.store.location(&name);
        changes.push(Change::Object(Object {
            store: store.clone(),
            name: name.clone(),
            url: url.clone(),
            state: ObjectState::Open,
            since: now,
        }));
        let failure = record.replicas.get(store).and_then(|replica| replica.failure.clone());
        let replica = Replica {
            state: ReplicaState::Copying,
            object: Some(name.clone()),
            url: Some(url),
            failure,
            ..Replica::wanted(store.clone())
        };
        changes.push(Change::Replica(id.clone(), replica));
        attempts.push((store.clone(), name));
    }
    engine.ledger.commit(&changes).await?;
    Ok(attempts)
}

/// Attempts are numbered by time, so that a ledger that was lost does not lead to a name that was used before; and each
/// has its own number, so that two stores that are one server under two names do no harm to each other.
fn next_attempt(record: &Record, now: mimeo_core::Timestamp) -> u64 {
    let used = record.objects.iter().map(|object| object.name.attempt()).max().unwrap_or(0);
    u64::try_from(now.as_millisecond()).unwrap_or(0).max(used + 1)
}

/// Copies to one store and proves the copy. True: proven.
async fn copy(engine: &Engine, image: &Image, store: &StoreName, object: &ObjectName, feed: Feed) -> bool {
    let Some(part) = engine.stores.get(store) else { return false };
    let line = engine.board.show(&image.id, store, Phase::Copying, image.size);
    let written = feed.copy_to(part, object, &line, &engine.gates(store).slow).await;
    let recorded = match written {
        Ok(verified) => stored(engine, &image.id, store, object, part.store.location(object), verified).await,
        Err(error) => Err(error),
    };
    match recorded {
        Ok(()) => {
            drop(line);
            prove(engine, &image.id, store).await
        }
        Err(error) => {
            failed(engine, &image.id, store, &error).await;
            false
        }
    }
}

/// The object is closed: it is kept, and what it must read back as is known.
async fn stored(
    engine: &Engine,
    id: &ImageId,
    store: &StoreName,
    object: &ObjectName,
    url: String,
    verified: Verified,
) -> Result<()> {
    update(engine, id, store, |replica, changes| {
        let (store, name, since) = (store.clone(), object.clone(), engine.clock.now());
        changes.push(Change::Object(Object { store, name, url: url.clone(), state: ObjectState::Kept, since }));
        let (object, url) = (Some(object.clone()), Some(url));
        let (size, digest) = (Some(verified.size), Some(verified.digest));
        Replica { state: ReplicaState::Stored, object, url, size, digest, ..replica }
    })
    .await
}

/// Reads the stored object back. True: proven.
async fn prove(engine: &Engine, id: &ImageId, store: &StoreName) -> bool {
    match try_prove(engine, id, store).await {
        Ok(()) => {
            engine.health.succeeded(store, engine.clock.now());
            true
        }
        Err(error) => {
            failed(engine, id, store, &error).await;
            false
        }
    }
}

async fn try_prove(engine: &Engine, id: &ImageId, store: &StoreName) -> Result<()> {
    let lost = || Error::new(Reason::ObjectMissing, format!("{store}: the ledger has no closed object to prove"));
    let record = engine.ledger.load(id).await?.ok_or_else(lost)?;
    let replica = record.replicas.get(store).ok_or_else(lost)?;
    let (Some(object), Some(size), Some(digest)) = (&replica.object, replica.size, &replica.digest) else {
        return Err(lost());
    };
    let part = engine.stores.get(store).ok_or_else(lost)?;
    let closed = |_| Error::new(Reason::Cancelled, "no proofs are started any more");
    let _turn = engine.gates(store).proofs.acquire().await.map_err(closed)?;
    let line = engine.board.show(id, store, Phase::Proving, Some(size));
    prove::read_back(part, object, size, digest, &line).await?;
    let proof = Proof { kind: ProofKind::Readback, at: engine.clock.now() };
    update(engine, id, store, |replica, _| Replica {
        state: ReplicaState::Proven,
        proof: Some(proof),
        failure: None,
        ..replica
    })
    .await
}
