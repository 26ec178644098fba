//! Copies and proofs of one image, side by side; what is proven is registered without waiting for the slowest.

use std::{collections::BTreeSet, num::NonZeroU64, sync::Arc, time::Duration};

use futures::future::select_all;
use mimeo_core::{
    Error, Image, ImageId, Replica, ReplicaState, Result, StoreName,
    plan::{Plan, SourceOf},
};
use tokio::{sync::OwnedSemaphorePermit, task::JoinSet, time::Instant};
use tracing::Instrument;

use crate::{
    Engine,
    attempt::{self, Partial},
    gate::Pass,
    look::look,
    note::{put_off, update},
    places::Place,
    register,
    transfer::{Origin, Origins, Transfer},
    turn::Turn,
};

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
        copies.work.spawn(async move { (attempt::prove(&engine, &id, &store).await, store) }.in_current_span());
    }
    copies.admit(&plan.copy).await;
    copies.attend().await?;
    // Whoever still runs was told to stop: nothing of it may go on when the next look begins.
    copies.work.shutdown().await;
    copies.readers.shutdown().await;
    attempt::forget_chunks(engine, &image.id).await
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
        let attempts = attempt::begin(engine, &image.id, &stores, Partial::GoOn).await?;
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
                let proven = attempt::copy(&engine, &image, attempt, feed).await;
                drop((trial, pass));
                (proven, store)
            };
            self.work.spawn(copying.in_current_span());
        }
        if attempt::may_go_on(engine, image, &stores) {
            let keeping = attempt::keep(Arc::clone(engine), image.id.clone(), transfer.chunks());
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
