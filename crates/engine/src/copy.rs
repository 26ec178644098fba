//! Copies and proofs of one image, side by side; what is proven is registered without waiting for the slowest.

use std::{collections::BTreeSet, num::NonZeroU64, sync::Arc, time::Duration};

use futures::future::select_all;
use mimeo_core::{
    CHUNK, Change, Error, Image, ImageId, Object, ObjectName, ObjectState, Proof, ProofKind, Reason, Record, Replica,
    ReplicaState, Result, StoreName,
    plan::{Plan, SourceOf},
};
use tokio::{sync::OwnedSemaphorePermit, task::JoinSet, time::Instant};
use tracing::Instrument;

use crate::{
    Engine,
    gate::Pass,
    look::look,
    note::{failed, put_off, update},
    places::Place,
    progress::Phase,
    prove, register,
    transfer::{Chunks, Feed, Lane, Origin, Origins, Transfer, Verified},
    turn::Turn,
};

/// How often the digests of chunks are written down.
const KEEP_EVERY: Duration = Duration::from_secs(1);

/// How long a proven copy waits for its siblings, so that one PATCH registers them together: a share of the time that
/// the copy took, between these bounds.
const LINGER_SHARE: u32 = 10;
const LINGER: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Runs the plan's copies and proofs to their ends, which are in the ledger when this returns.
pub(crate) async fn run(engine: &Arc<Engine>, turn: &Turn, image: &Image, plan: &Plan) -> Result<()> {
    let origins = origins(engine, &image.id, &plan.sources).await?;
    let mut copies = Copies {
        engine,
        turn,
        image,
        origins,
        running: plan.copy.iter().chain(&plan.prove).cloned().collect(),
        to_start: Vec::new(),
        work: JoinSet::new(),
        readers: JoinSet::new(),
    };
    for store in &plan.prove {
        let (engine, id, store) = (Arc::clone(engine), image.id.clone(), store.clone());
        copies.work.spawn(async move { (prove(&engine, &id, &store).await, store) }.in_current_span());
    }
    copies.admit(&plan.copy).await;
    copies.attend().await?;
    // Whoever still runs was told to stop: nothing of it may go on when the next look begins.
    copies.work.shutdown().await;
    copies.readers.shutdown().await;
    forget_chunks(engine, &image.id).await
}

/// The digests of chunks have done their work once no copy is left that could be gone on with.
async fn forget_chunks(engine: &Engine, id: &ImageId) -> Result<()> {
    let record = engine.ledger.load(id).await?;
    let is_open = |object: &Object| object.state == ObjectState::Open;
    if record.is_some_and(|record| record.objects.iter().any(is_open)) || engine.ledger.chunks(id).await?.is_empty() {
        return Ok(());
    }
    engine.ledger.commit(&[Change::ChunksGone(id.clone())]).await
}

/// Where the image can be read: the plan's sources, as far as their objects are known.
async fn origins(engine: &Engine, id: &ImageId, sources: &[SourceOf]) -> Result<Origins> {
    let record = engine.ledger.load(id).await?;
    let copy = |store: &StoreName| {
        let object = record.as_ref()?.replicas.get(store)?.object.clone()?;
        Some(Origin::copy(&engine.stores.get(store)?.store, object))
    };
    let origin = |source: &SourceOf| match source {
        SourceOf::Service => Some(Origin::service(engine.registry.source(id))),
        SourceOf::Copy(store) => copy(store),
    };
    Ok(Origins::new(sources.iter().filter_map(origin).collect()))
}

/// The copies and proofs of one image that run side by side.
struct Copies<'a> {
    engine: &'a Arc<Engine>,
    turn: &'a Turn,
    image: &'a Image,
    origins: Origins,
    /// The stores whose copy or proof is not at its end.
    running: BTreeSet<StoreName>,
    /// Of those, the ones that wait for a place.
    to_start: Vec<(StoreName, Option<OwnedSemaphorePermit>)>,
    work: JoinSet<(bool, StoreName)>,
    readers: JoinSet<()>,
}

/// The right to copy to some of the stores that wait, and the place to read the image for them.
struct Admission {
    place: Place,
    passes: Vec<(StoreName, Pass)>,
}

impl Copies<'_> {
    /// The stores that may be tried now. To one whose last copy failed only a few are tried at a time, so that a store
    /// that hangs takes no more than those few turns and transfers; the others wait with the store's own reason.
    async fn admit(&mut self, stores: &[StoreName]) {
        for store in stores {
            if !self.engine.stores.contains_key(store) {
                self.running.remove(store);
                continue;
            }
            let Some((reason, last)) = self.engine.health.last_failure(store) else {
                self.to_start.push((store.clone(), None));
                continue;
            };
            if let Ok(trial) = Arc::clone(&self.engine.gates(store).trials).try_acquire_owned() {
                self.to_start.push((store.clone(), Some(trial)));
            } else {
                self.running.remove(store);
                let message = format!("{store}: not tried now, as others are being tried after this failure: {last}");
                put_off(self.engine, &self.image.id, store, &Error::new(reason, message)).await;
            }
        }
    }

    /// Starts what may start, waits for the work, and looks at the image whenever something is proven or the image was
    /// marked again.
    async fn attend(&mut self) -> Result<()> {
        let began = Instant::now();
        let mut register_at: Option<Instant> = None;
        while self.has_work() {
            let linger = async {
                match register_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let is_time = tokio::select! {
                done = self.work.join_next(), if !self.work.is_empty() => {
                    if let Some(Ok((proven, store))) = done {
                        self.running.remove(&store);
                        if proven {
                            self.prefer(&store).await;
                            let wait = (began.elapsed() / LINGER_SHARE).clamp(LINGER.0, LINGER.1);
                            register_at.get_or_insert(Instant::now() + wait);
                        }
                    }
                    false
                }
                admission = admission(self.engine, self.image, &self.to_start), if !self.to_start.is_empty() => {
                    self.start(admission).await?;
                    false
                }
                () = self.turn.poke.notified() => true,
                () = linger => true,
                () = self.turn.stop.cancelled() => return Ok(()),
            };
            if is_time && self.has_work() {
                register_at = None;
                if !meanwhile(self.engine, self.image, &self.running).await {
                    tracing::info!("the image changed: its copies are stopped");
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn has_work(&self) -> bool {
        !(self.work.is_empty() && self.to_start.is_empty())
    }

    /// Lets those who still read, or are yet to, read from a copy that was just proven.
    async fn prefer(&self, store: &StoreName) {
        let Some(part) = self.engine.stores.get(store) else { return };
        let record = self.engine.ledger.load(&self.image.id).await.ok().flatten();
        let object = record.and_then(|mut record| record.replicas.remove(store)?.object);
        if let Some(object) = object {
            self.origins.prefer(Origin::copy(&part.store, object));
        }
    }

    /// Writes the new attempts into the ledger (promise 3), then starts one reader and a task for each store.
    async fn start(&mut self, Admission { place, passes }: Admission) -> Result<()> {
        let (engine, image) = (self.engine, self.image);
        let stores: Vec<StoreName> = passes.iter().map(|(store, _)| store.clone()).collect();
        let attempts = begin(engine, &image.id, &stores, Partial::GoOn).await?;
        tracing::info!(stores = stores.len(), size = image.size, "copying");
        let patience = engine.settings.source_timeout;
        let transfer = Transfer::new(image.clone(), self.origins.clone(), place.window, patience);
        let slow = known_slow(engine, &stores);
        for (attempt, (_, pass)) in attempts.into_iter().zip(passes) {
            let trial = self.to_start.iter().position(|(waiting, _)| *waiting == attempt.store);
            let trial = trial.and_then(|at| self.to_start.swap_remove(at).1);
            // One that goes on is somewhere else than the others: they do not wait for it.
            let feed = transfer.feed(attempt.goes_on || slow.contains(&attempt.store));
            let (engine, image, store) = (Arc::clone(engine), image.clone(), attempt.store.clone());
            let copying = async move {
                let proven = copy(&engine, &image, attempt, feed).await;
                drop((trial, pass));
                (proven, store)
            };
            self.work.spawn(copying.in_current_span());
        }
        if may_go_on(engine, image, &stores) {
            let keeping = keep(Arc::clone(engine), image.id.clone(), transfer.chunks());
            self.readers.spawn(keeping.in_current_span());
        }
        let (engine, id) = (Arc::clone(engine), image.id.clone());
        let reading = async move {
            let began = Instant::now();
            let verdict = transfer.read(&engine.paces).await;
            if let Some(bytes) = verdict.from_service {
                engine.health.served(bytes, began.elapsed());
            }
            // Before the feeds are told: the next look is to know of it.
            for store in &verdict.liars {
                doubt(&engine, &id, store).await;
            }
            transfer.end(verdict).await;
            // The place bounds the memory of windows: it is given back when this one is empty.
            drop(place);
        };
        self.readers.spawn(reading.in_current_span());
        Ok(())
    }
}

/// Waits until at least one of the stores may have one more copy, and there is a place to read the image.
async fn admission(engine: &Engine, image: &Image, waiting: &[(StoreName, Option<OwnedSemaphorePermit>)]) -> Admission {
    loop {
        let rooms = waiting.iter().map(|(store, _)| Box::pin(engine.gates(store).copies.room()));
        select_all(rooms).await;
        let place = engine.places.enter(image.size.unwrap_or(u64::MAX)).await;
        let enter = |store: &StoreName| Some((store.clone(), engine.gates(store).copies.enter()?));
        let passes: Vec<_> = waiting.iter().filter_map(|(store, _)| enter(store)).collect();
        if !passes.is_empty() {
            return Admission { place, passes };
        }
    }
}

/// The stores that were, or may go, much slower lately than the fastest of them.
fn known_slow(engine: &Engine, stores: &[StoreName]) -> BTreeSet<StoreName> {
    let limits = engine.limits();
    let rate = |store: &StoreName| {
        let limit = limits.stores.get(store).and_then(|own| own.bandwidth).map(NonZeroU64::get);
        engine.health.write_rate(store).into_iter().chain(limit).min().unwrap_or(u64::MAX)
    };
    let fastest = stores.iter().map(rate).max().unwrap_or(0);
    stores.iter().filter(|store| rate(store) < fastest / 2).cloned().collect()
}

/// The copy was read and did not have the image's hash: it is to be proven anew.
async fn doubt(engine: &Engine, id: &ImageId, store: &StoreName) {
    tracing::error!(%store, "the copy gave other bytes than the image's; it is proven anew");
    let doubted =
        update(engine, id, store, |replica, _| Replica { state: ReplicaState::Stored, proof: None, ..replica });
    if let Err(error) = doubted.await {
        tracing::error!(%store, error = error.chain(), "the ledger did not take the doubt");
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

/// Whether a copy that is broken off could be gone on with at any of the stores, as far as is known.
fn may_go_on(engine: &Engine, image: &Image, stores: &[StoreName]) -> bool {
    let resumes = |store: &StoreName| engine.stores.get(store).is_some_and(|part| part.store.resumes() != Some(false));
    image.size >= Some(2 * CHUNK) && stores.iter().any(resumes)
}

/// Keeps the digests of the image's chunks. Without them a copy that is broken off begins anew: no reason to stop it.
async fn keep(engine: Arc<Engine>, image: ImageId, mut chunks: Chunks) {
    let mut first = 0;
    loop {
        let digests = chunks.next().await;
        if digests.is_empty() {
            return;
        }
        let count = digests.len() as u64;
        if let Err(error) = engine.ledger.commit(&[Change::Chunks { image: image.clone(), first, digests }]).await {
            return tracing::warn!(error = error.chain(), "the ledger does not take the digests of chunks");
        }
        first += count;
        tokio::time::sleep(KEEP_EVERY).await;
    }
}

/// What is to become of an object that was not closed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Partial {
    GoOn,
    GiveUp,
}

struct Attempt {
    store: StoreName,
    object: ObjectName,
    /// The object is there in part.
    goes_on: bool,
}

/// An attempt for each store, known to the ledger before a byte is written.
async fn begin(engine: &Engine, id: &ImageId, stores: &[StoreName], partial: Partial) -> Result<Vec<Attempt>> {
    let record = engine.ledger.load(id).await?.unwrap_or_else(|| Record::new(id.clone()));
    let now = engine.clock.now();
    let (mut changes, mut attempts) = (Vec::new(), Vec::new());
    for (store, number) in stores.iter().zip(next_attempt(&record, now)..) {
        let Some(part) = engine.stores.get(store) else { continue };
        let before = record.replicas.get(store);
        let open = before.and_then(|replica| record.object(store, replica.object.as_ref()?));
        let open = open.filter(|object| object.state == ObjectState::Open);
        let goes_on = open.is_some() && partial == Partial::GoOn;
        let name = open.filter(|_| goes_on).map_or_else(|| ObjectName::new(id, number), |object| object.name.clone());
        let url = part.store.location(&name);
        if let Some(given_up) = open.filter(|_| !goes_on) {
            changes.push(Change::Doom(store.clone(), given_up.name.clone(), now));
        }
        changes.push(Change::Object(Object {
            store: store.clone(),
            name: name.clone(),
            url: url.clone(),
            state: ObjectState::Open,
            since: now,
        }));
        let failure = before.and_then(|replica| replica.failure.clone());
        let replica = Replica {
            state: ReplicaState::Copying,
            object: Some(name.clone()),
            url: Some(url),
            failure,
            ..Replica::wanted(store.clone())
        };
        changes.push(Change::Replica(id.clone(), replica));
        attempts.push(Attempt { store: store.clone(), object: name, goes_on });
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
async fn copy(engine: &Engine, image: &Image, attempt: Attempt, feed: Feed) -> bool {
    let store = attempt.store.clone();
    match write(engine, image, attempt, feed).await {
        Ok(()) => prove(engine, &image.id, &store).await,
        Err(error) => {
            failed(engine, &image.id, &store, &error).await;
            false
        }
    }
}

/// Writes the object, or the rest of it, and notes that it is closed.
async fn write(engine: &Engine, image: &Image, attempt: Attempt, feed: Feed) -> Result<()> {
    let (id, store, mut object) = (&image.id, &attempt.store, attempt.object);
    let gone = || Error::new(Reason::Cancelled, format!("{store} is not enabled any more"));
    let part = engine.stores.get(store).ok_or_else(gone)?;
    let line = engine.board.show(id, store, Phase::Copying, image.size);
    let mut from = 0;
    if attempt.goes_on {
        let digests = engine.ledger.chunks(id).await?;
        from = prove::kept(part, &object, image.size.unwrap_or(0), &digests, &engine.paces).await?;
        if from == 0 {
            let anew = begin(engine, id, std::slice::from_ref(store), Partial::GiveUp).await?;
            object = anew.into_iter().next().ok_or_else(gone)?.object;
        } else {
            tracing::info!(%store, from, "going on with what was kept");
            line.advance(usize::try_from(from).unwrap_or(usize::MAX));
        }
    }
    let lane = Lane { part, paces: &engine.paces, line: &line, slow: &engine.gates(store).slow };
    let began = Instant::now();
    let verified = feed.copy_to(&object, from, &lane).await?;
    engine.health.wrote(store, verified.size - from, began.elapsed());
    stored(engine, id, store, &object, part.store.location(&object), verified).await
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
    let began = Instant::now();
    prove::read_back(part, object, size, digest, &line, &engine.paces).await?;
    engine.health.read(store, size, began.elapsed());
    let proof = Proof { kind: ProofKind::Readback, at: engine.clock.now() };
    update(engine, id, store, |replica, _| Replica {
        state: ReplicaState::Proven,
        proof: Some(proof),
        failure: None,
        ..replica
    })
    .await
}
