//! Copies and proofs of one image, side by side; what is proven is registered without waiting for the slowest.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU64,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::future::select_all;
use mimeo_core::{
    Digest, Error, Image, ImageId, ObjectName, Reason, Result, StoreName, Timestamp,
    plan::{Plan, Sight, SourceOf, Verification},
};
use tokio::{sync::OwnedSemaphorePermit, task::JoinSet, time::Instant};
use tracing::Instrument;

use crate::{
    Engine, arrange, ask,
    attempt::{self, Partial},
    gate::{Gate, Pass},
    look::look,
    note::{doubt, postpone},
    places::Place,
    prove::Haste,
    register, scrub, take,
    transfer::{Origin, Origins, Transfer},
    turn::Turn,
    verify::{self, Verified},
};

/// How long a proven copy waits for its siblings, so that one PATCH registers them together: a share of the time that
/// the copy took, between these bounds.
const LINGER_SHARE: u32 = 20;
const LINGER: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// Runs the plan's copies and proofs to their ends, which are in the ledger when this returns.
pub(crate) async fn run(engine: &Arc<Engine>, turn: &Turn, image: &Image, plan: &Plan) -> Result<()> {
    let origins = origins(engine, &image.id, &plan.sources).await?;
    let mut copies = Copies {
        engine,
        turn,
        image: image.clone(),
        origins,
        running: BTreeSet::new(),
        verifying: BTreeSet::new(),
        to_start: BTreeMap::new(),
        number: engine.places.arrive(),
        work: JoinSet::new(),
        readers: JoinSet::new(),
        is_bad: Arc::default(),
    };
    copies.take_on(plan).await;
    copies.attend(plan.next_look).await?;
    copies.end().await
}

/// Copies that were begun elsewhere.
pub(crate) struct Running {
    pub(crate) origins: Origins,
    pub(crate) stores: BTreeSet<StoreName>,
    pub(crate) work: JoinSet<Done>,
    pub(crate) readers: JoinSet<()>,
}

/// Takes over copies that run, to their ends, as if they had been begun in this turn.
pub(crate) async fn go_on(engine: &Arc<Engine>, turn: &Turn, image: &Image, running: Running) -> Result<()> {
    let Running { origins, stores, work, readers } = running;
    let (to_start, verifying, number) = (BTreeMap::new(), BTreeSet::new(), engine.places.arrive());
    let image = image.clone();
    let mut copies = Copies {
        engine,
        turn,
        image,
        origins,
        running: stores,
        verifying,
        to_start,
        number,
        work,
        readers,
        is_bad: Arc::default(),
    };
    copies.attend(None).await?;
    copies.end().await
}

/// Where the image can be read: the plan's sources, as far as their objects are known; in any case from the service, for
/// copies that come due later in the turn.
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
    let last = (!sources.contains(&SourceOf::Service)).then_some(&SourceOf::Service);
    Ok(Origins::new(sources.iter().chain(last).filter_map(origin).collect()))
}

/// The copies and proofs of one image that run side by side.
struct Copies<'a> {
    engine: &'a Arc<Engine>,
    turn: &'a Turn,
    /// As the last look showed it.
    image: Image,
    origins: Origins,
    /// The stores whose copy or proof is not at its end.
    running: BTreeSet<StoreName>,
    /// Those whose registered copy is being read again. Looks go on seeing to it meanwhile.
    verifying: BTreeSet<StoreName>,
    /// Of those, the ones that wait for a place.
    to_start: BTreeMap<StoreName, Wait>,
    /// Its rank among those who wait for a place.
    number: u64,
    work: JoinSet<Done>,
    readers: JoinSet<()>,
    /// A reading gave other bytes than the image's: what was kept of it is of no use.
    is_bad: Arc<AtomicBool>,
}

/// What has ended at a store.
pub(crate) enum Done {
    /// A copy or a proof, and the object if it is proven.
    Copied(StoreName, Option<ObjectName>),
    Verified(Verified),
}

/// The right to hold a turn while a store is waited for; `None` as long as it did not have to be.
type Wait = Option<OwnedSemaphorePermit>;

/// The right to try a store whose last copy failed.
type Trial = Option<OwnedSemaphorePermit>;

/// The right to copy to some of the stores that wait, and the place to read the image for them.
struct Admission {
    place: Place,
    passes: Vec<(StoreName, Vec<Pass>)>,
}

impl Copies<'_> {
    /// Begins what the plan asks for, beside what runs.
    async fn take_on(&mut self, plan: &Plan) {
        for store in &plan.prove {
            self.running.insert(store.clone());
            let (engine, image, store) = (Arc::clone(self.engine), self.image.clone(), store.clone());
            let proving = async move {
                let proven = attempt::prove(&engine, &image, &store, &BTreeSet::new()).await;
                Done::Copied(store, proven)
            };
            self.work.spawn(proving.in_current_span());
        }
        for Verification { store, asked } in &plan.verify {
            self.verify(store, *asked);
        }
        for (store, giver) in plan.take.clone() {
            self.running.insert(store.clone());
            let (engine, image) = (Arc::clone(self.engine), self.image.clone());
            let taking = async move {
                let proven = take::run(&engine, &image, &store, &giver).await;
                Done::Copied(store, proven)
            };
            self.work.spawn(taking.in_current_span());
        }
        for store in plan.copy.iter().filter(|store| self.engine.stores.contains_key(*store)) {
            match self.engine.health.last_failure(store) {
                Some((reason, last)) if self.engine.gates(store).trials.available_permits() == 0 => {
                    postpone(self.engine, &self.image.id, store, &tried_by_others(store, reason, &last)).await;
                }
                _ => {
                    self.running.insert(store.clone());
                    self.to_start.insert(store.clone(), None);
                }
            }
        }
        self.bound_waiting().await;
    }

    /// Begins to read the store's registered copy again, unless that goes on already or others take the places for it.
    fn verify(&mut self, store: &StoreName, asked: bool) {
        if self.verifying.contains(store) {
            return;
        }
        let (engine, id) = (Arc::clone(self.engine), self.image.id.clone());
        let slot = engine.scrubs.enter(store, &id);
        if slot.is_none() && !asked {
            return;
        }
        self.verifying.insert(store.clone());
        let haste = if asked { Haste::Normal } else { Haste::Scrub };
        let store = store.clone();
        let verifying = async move {
            let _slot = slot;
            Done::Verified(verify::read_again(&engine, &id, &store, haste).await)
        };
        self.work.spawn(verifying.in_current_span());
    }

    /// What has ended is noted. Here, and not where it ran: no look is under way that knows of the time before.
    async fn ended(&mut self, done: Done) {
        match done {
            Done::Copied(store, proven) => {
                self.running.remove(&store);
                if let Some(object) = proven {
                    self.prefer(&store, object);
                }
            }
            Done::Verified(verified) => {
                verify::note(self.engine, &self.image.id, &verified).await;
                self.verifying.remove(&verified.store);
                scrub::hand_on(self.engine, &verified.store).await;
            }
        }
    }

    /// A busy store is not waited for by so many images that others get no turn.
    async fn bound_waiting(&mut self) {
        let mut too_many = Vec::new();
        let is_alone = self.to_start.len() == 1;
        for (store, wait) in self.to_start.iter_mut().filter(|(_, wait)| wait.is_none()) {
            let gates = self.engine.gates(store);
            if gates.copies.has_room() && (!is_alone || gates.alone.has_room()) {
                continue;
            }
            *wait = Arc::clone(&gates.waiting).try_acquire_owned().ok();
            if wait.is_none() {
                too_many.push(store.clone());
            }
        }
        for store in too_many {
            self.to_start.remove(&store);
            self.running.remove(&store);
            let message = format!("{store}: enough images wait for their turn there; this one is looked at later");
            postpone(self.engine, &self.image.id, &store, &Error::new(Reason::StoreBusy, message)).await;
        }
    }

    /// Starts what may start, waits for the work, and looks at the image whenever something was proven or has failed, it
    /// was marked again, or its next look is due.
    async fn attend(&mut self, next_look: Option<Timestamp>) -> Result<()> {
        let began = Instant::now();
        let mut look_at = self.engine.instant(next_look);
        while self.has_work() {
            let due = async {
                match look_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            // What runs comes to an end and what waits is started at some time; looks may come due for ever: they are last.
            let is_time = tokio::select! {
                biased;
                () = self.turn.stop.cancelled() => return Ok(()),
                done = self.work.join_next(), if !self.work.is_empty() => {
                    if let Some(Ok(done)) = done {
                        self.ended(done).await;
                        let wait = (began.elapsed() / LINGER_SHARE).clamp(LINGER.0, LINGER.1);
                        let soon = Instant::now() + wait;
                        look_at = Some(look_at.map_or(soon, |at| at.min(soon)));
                    }
                    false
                }
                admission = admission(self.engine, &self.image, self.number, &self.to_start), if !self.to_start.is_empty() => {
                    let before = self.running.len();
                    if let Some(admission) = admission {
                        self.start(admission).await?;
                    }
                    self.bound_waiting().await;
                    // Who was turned away has another time to be looked at.
                    let soon = Instant::now() + LINGER.0;
                    look_at = look_at.into_iter().chain((self.running.len() < before).then_some(soon)).min();
                    false
                }
                () = due => true,
                () = self.turn.poke.notified() => true,
            };
            if is_time && self.has_work() {
                let Some(next_look) = self.meanwhile().await else {
                    tracing::info!("the image changed: its copies are stopped");
                    return Ok(());
                };
                look_at = self.engine.instant(next_look);
            }
        }
        Ok(())
    }

    /// Whoever still runs was told to stop: nothing of it may go on when the next look begins.
    async fn end(mut self) -> Result<()> {
        self.work.shutdown().await;
        self.readers.shutdown().await;
        if self.is_bad.load(Ordering::Relaxed) {
            attempt::disown_chunks(self.engine, &self.image.id).await;
        }
        attempt::forget_chunks(self.engine, &self.image.id).await
    }

    fn has_work(&self) -> bool {
        !(self.work.is_empty() && self.to_start.is_empty())
    }

    /// A look in the middle of running work: registers what is proven by now, takes on what has come due, and says when
    /// the next look is. `None`: the work is to stop.
    async fn meanwhile(&mut self) -> Option<Option<Timestamp>> {
        let (engine, id) = (self.engine, &self.image.id.clone());
        let result = async {
            let look = look(engine, id, &self.running).await?;
            if let Sight::Present(image) = &look.sight {
                self.image.clone_from(image);
            }
            if !look.plan.stop {
                arrange::arrange(engine, &look).await?;
            }
            if !look.plan.register.is_empty() && !look.plan.stop {
                register::register(engine, &look.record, &look.plan.register).await?;
            }
            if !look.plan.ask.is_empty() && !look.plan.stop {
                ask::ask(engine, &look.record, &look.plan.ask).await?;
            }
            Ok::<_, Error>(look.plan)
        };
        match result.await {
            Ok(plan) if plan.stop => None,
            Ok(plan) => {
                if self.running.is_empty() && !plan.copy.is_empty() {
                    // Nobody reads yet: what is known to be good by now is not what was when the turn began.
                    self.origins = origins(engine, id, &plan.sources).await.unwrap_or_else(|_| self.origins.clone());
                }
                self.take_on(&plan).await;
                Some(plan.next_look)
            }
            Err(error) => {
                tracing::warn!(
                    reason = error.reason.code(),
                    error = error.chain(),
                    "could not look at the image meanwhile"
                );
                Some(Some(engine.settings.policy.backoff.next(engine.clock.now(), 3)))
            }
        }
    }

    /// Lets those who still read, or are yet to, read from a copy that was just proven; where the image's hash would show that it is
    /// no longer what it was.
    fn prefer(&self, store: &StoreName, object: ObjectName) {
        if let Some(part) = self.engine.stores.get(store).filter(|_| self.image.hash.is_some()) {
            self.origins.prefer(Origin::copy(&part.store, object));
        }
    }

    /// Of those who have waited so long, the ones whose store still takes copies: it is within its hours, and to one whose
    /// last copy failed only a few are tried at a time, so that a store that hangs takes no more than those few places.
    async fn still_admitted(&mut self, passes: Vec<(StoreName, Vec<Pass>)>) -> BTreeMap<StoreName, (Vec<Pass>, Trial)> {
        let conditions = self.engine.conditions(self.engine.clock.now());
        let mut admitted = BTreeMap::new();
        for (store, passes) in passes {
            self.to_start.remove(&store);
            let failure = self.engine.health.last_failure(&store);
            let trial = Arc::clone(&self.engine.gates(&store).trials).try_acquire_owned().ok();
            let is_closed = conditions.closed.contains_key(&store) || conditions.draining.contains(&store);
            match (is_closed, failure) {
                // The next look says until when it waits.
                (true, _) => drop(self.running.remove(&store)),
                (false, Some((reason, last))) if trial.is_none() => {
                    self.running.remove(&store);
                    postpone(self.engine, &self.image.id, &store, &tried_by_others(&store, reason, &last)).await;
                }
                (false, failure) => drop(admitted.insert(store, (passes, trial.filter(|_| failure.is_some())))),
            }
        }
        admitted
    }

    /// Of an image without a hash: the digests of its proven copies, and whether other bits were given for one of the stores
    /// before.
    async fn known(&self, stores: &[StoreName]) -> Result<(Vec<Digest>, bool)> {
        if self.image.hash.is_some() {
            return Ok((Vec::new(), false));
        }
        let Some(record) = self.engine.ledger.load(&self.image.id).await? else { return Ok((Vec::new(), false)) };
        let failure = |store| record.replicas.get(store).and_then(|replica| replica.failure.as_ref());
        let was_other = stores.iter().filter_map(failure).any(|failure| failure.reason == Reason::SourceMismatch);
        Ok((verify::known_digests(self.engine, &record), was_other))
    }

    /// Writes the new attempts into the ledger (promise 3), then starts one reader and a task for each store.
    async fn start(&mut self, Admission { place, passes }: Admission) -> Result<()> {
        let (engine, image) = (self.engine, &self.image.clone());
        let mut passes = self.still_admitted(passes).await;
        if passes.is_empty() {
            return Ok(());
        }
        let stores: Vec<StoreName> = passes.keys().cloned().collect();
        let (known, was_other) = self.known(&stores).await?;
        let attempts = attempt::begin(engine, &image.id, &stores, Partial::GoOn).await?;
        tracing::info!(stores = stores.len(), size = image.size, "copying");
        let patience = engine.settings.source_timeout;
        let asks = !known.is_empty() && !was_other;
        let transfer = Transfer::new(image.clone(), self.origins.clone(), place.window, patience).of_known(known);
        let slow = known_slow(engine, &stores);
        for attempt in attempts {
            let pass = passes.remove(&attempt.store);
            // One that goes on is somewhere else than the others: they do not wait for it.
            let feed = transfer.feed(attempt.goes_on || slow.contains(&attempt.store));
            let (engine, image, store) = (Arc::clone(engine), image.clone(), attempt.store.clone());
            let copying = async move {
                let proven = attempt::copy(&engine, &image, attempt, feed).await;
                drop(pass);
                Done::Copied(store, proven)
            };
            self.work.spawn(copying.in_current_span());
        }
        if attempt::may_go_on(engine, image, &stores) {
            let keeping =
                attempt::keep(Arc::clone(engine), image.id.clone(), transfer.chunks(engine.settings.policy.chunk));
            self.readers.spawn(keeping.in_current_span());
        }
        let (engine, id, is_bad) = (Arc::clone(engine), image.id.clone(), Arc::clone(&self.is_bad));
        let reading = async move {
            let began = Instant::now();
            let verdict = transfer.read(&engine.paces).await;
            if let Some(bytes) = verdict.from_service {
                engine.health.served(bytes, began.elapsed());
            }
            // Before the feeds are told: the next look is to know of it.
            for store in &verdict.liars {
                doubt(&engine, &id, store);
            }
            for (store, error) in verdict.broken.iter().filter(|(_, error)| error.reason.is_the_stores()) {
                engine.health.failed(store, error);
            }
            is_bad.fetch_or(verdict.is_bad, Ordering::Relaxed);
            if verdict.is_bad {
                attempt::disown_chunks(&engine, &id).await;
            }
            if verdict.is_bad && asks {
                // It may have been one of Mimeo's copies that Glance gave.
                verify::ask(&engine, &id).await;
            }
            transfer.end(verdict).await;
            // The place bounds the memory of windows: it is given back when this one is empty.
            drop(place);
        };
        self.readers.spawn(reading.in_current_span());
        Ok(())
    }
}

/// Waits until the stores may have one more copy, and there is a place to read the image. `None`: another was quicker.
async fn admission(
    engine: &Engine,
    image: &Image,
    number: u64,
    waiting: &BTreeMap<StoreName, Wait>,
) -> Option<Admission> {
    room(engine, waiting).await;
    let place = engine.places.enter(image.size.unwrap_or(u64::MAX), number).await;
    let enter = |store: &StoreName| Some((store.clone(), vec![engine.gates(store).copies.enter()?]));
    let mut passes: Vec<(StoreName, Vec<Pass>)> = waiting.keys().filter_map(enter).collect();
    if let [(store, held)] = &mut passes[..] {
        held.push(engine.gates(store).alone.enter()?);
    }
    (!passes.is_empty()).then_some(Admission { place, passes })
}

/// Waits until the image could be copied to two of the stores, or to one that it may be read for alone.
async fn room(engine: &Engine, waiting: &BTreeMap<StoreName, Wait>) {
    loop {
        let has_room = |store: &&StoreName| engine.gates(store).copies.has_room();
        let (open, full): (Vec<&StoreName>, Vec<&StoreName>) = waiting.keys().partition(has_room);
        let mut gates: Vec<&Gate> = full.iter().map(|store| &*engine.gates(store).copies).collect();
        match open[..] {
            [] => {}
            [only] if !engine.gates(only).alone.has_room() => gates.push(&engine.gates(only).alone),
            _ => return,
        }
        select_all(gates.into_iter().map(|gate| Box::pin(gate.room()))).await;
    }
}

fn tried_by_others(store: &StoreName, reason: Reason, last: &str) -> Error {
    let message = format!("{store}: not tried now, as others are being tried after this failure: {last}");
    Error::new(reason, message)
}

/// The stores that are known to be much slower than the fastest of them, or may not go as fast.
fn known_slow(engine: &Engine, stores: &[StoreName]) -> BTreeSet<StoreName> {
    let limits = engine.limits();
    let limit = |store: &StoreName| limits.stores.get(store).and_then(|own| own.bandwidth).map(NonZeroU64::get);
    let rate = |store: &StoreName| engine.health.write_rate(store).into_iter().chain(limit(store)).min();
    let fastest = stores.iter().filter_map(rate).max().unwrap_or(0);
    let unlimited = stores.iter().any(|store| limit(store).is_none());
    let is_slow = |store: &&StoreName| {
        let without_measure = engine.health.write_rate(store).is_none();
        rate(store).is_some_and(|rate| rate < fastest / 2) || (limit(store).is_some() && without_measure && unlimited)
    };
    stores.iter().filter(is_slow).cloned().collect()
}
