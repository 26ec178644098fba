//! The sweeper removes what is no longer wanted: objects of failed attempts, copies that the plan gave up, and those of
//! images that are gone.
//!
//! It removes only objects whose names Mimeo made itself and that stand in the ledger, and only after every image's
//! locations were read and none names them. Many images at once wait for an operator (`guard.rs`).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::future::join_all;
use mimeo_core::{
    Change, DirtyMark, ImageId, Object, ObjectState, Reason, Record, Replica, ReplicaState, Result, StoreName,
    Timestamp, place, without_credentials,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Engine, guard,
    names::Names,
    orders, prove,
    register::PROBE_LIMIT,
    sabotage::{self, Bug},
    status::{GcEntry, GcReport},
    transfer::{publish_limit, within},
    walk::Records,
};

/// So many objects of a store may fail to be removed before the rest waits for the next sweep.
const FAILURES: u32 = 8;
/// What an object waits for of which no record tells.
const CONFIRMATION: &str = "`mimeo gc --confirm`";

pub(crate) async fn run(engine: Arc<Engine>, stop: CancellationToken) {
    loop {
        let swept = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            swept = sweep(&engine) => swept,
        };
        match swept {
            Ok(()) => engine.meter.beat("sweep", engine.clock.now()),
            Err(error) => {
                tracing::warn!(
                    reason = error.reason.code(),
                    error = error.chain(),
                    "the sweep failed; it is tried again"
                );
            }
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = engine.sweep.notified() => {}
            () = tokio::time::sleep(engine.settings.gc.interval) => {}
        }
    }
}

async fn sweep(engine: &Engine) -> Result<()> {
    orders::end_moves(engine).await?;
    let verdict = guard::judge(engine).await?;
    engine.health.lock().held_deletes = verdict.held;
    let mut walk = Records::sweepable(engine.ledger.as_ref());
    while let Some(records) = walk.next().await? {
        let now = engine.clock.now();
        let due = records
            .iter()
            .filter(|record| verdict.lets_through(record))
            .flat_map(|record| candidates(engine, record, verdict.confirmed))
            .filter(|candidate| !engine.breakers.is_down(&candidate.object.store))
            .filter(|candidate| {
                candidate.due <= now && candidate.waits_for.is_none() && !engine.leftovers.rests(&candidate.object)
            });
        remove(engine, due.map(|candidate| candidate.object).collect()).await?;
        for record in records.iter().filter(|record| record.image.gone_at.is_some() && record.objects.is_empty()) {
            let mut changes = vec![Change::Forget(record.image.id.clone())];
            if guard::has_gone(record, verdict.confirmed) {
                changes.push(engine.guard.note(now));
            }
            engine.ledger.commit(&changes).await?;
            mimeo_crash::point("sweep-forgot");
        }
        for record in records.iter().filter(|record| has_ripe(engine, record, now) || was_cut_off(record)) {
            look_again(engine, &record.image.id).await?;
        }
    }
    Ok(())
}

/// Whether something of an image that is gone was being written when the process ended that was to give it up.
fn was_cut_off(record: &Record) -> bool {
    record.image.gone_at.is_some() && record.objects.iter().any(|object| object.state == ObjectState::Open)
}

/// Whether an unwanted copy of the image may go, as far as the ledger knows: the look decides.
fn has_ripe(engine: &Engine, record: &Record, now: Timestamp) -> bool {
    let before = engine.guard.unwanted_before(now, engine.settings.gc.grace);
    let is_registered = |store| record.replicas.get(store).is_some_and(|it| it.state == ReplicaState::Registered);
    record.image.gone_at.is_none()
        && record.image.wanted.iter().all(is_registered)
        && guard::unwanted(engine, record).into_iter().any(|(_, since)| since <= before)
}

/// An object that is to go, and from when on it may.
struct Candidate {
    object: Object,
    due: Timestamp,
    why: String,
    /// What must happen first.
    waits_for: Option<&'static str>,
}

fn candidates(engine: &Engine, record: &Record, confirmed: Timestamp) -> Vec<Candidate> {
    let now = engine.clock.now();
    let steady = engine.steady.lasts(now);
    let later = |at: Timestamp, wait: Duration| at.saturating_add(wait).unwrap_or(Timestamp::MAX);
    let candidate = |object: &Object| {
        let part = engine.stores.get(&object.store);
        let (due, why) = match (object.state, record.image.gone_at) {
            // A request that was cut off may publish its object for as long as the store may take over that.
            (ObjectState::Doomed | ObjectState::Regretted, _) => {
                let limit = part.map(|part| publish_limit(part, record.image.size.unwrap_or(0)));
                let limit = limit.filter(|_| !sabotage::is(Bug::DeletedAtOnce));
                let unwanted = replica_of(record, object).filter(|replica| replica.unwanted_since.is_some());
                let why = unwanted.and_then(|replica| replica.failure.as_ref()).map(|failure| failure.message.clone());
                let why = why.unwrap_or_else(|| "left by a failed attempt, or no longer wanted".into());
                let limit = limit.unwrap_or_default();
                // As the ledger's clock has it, and in truth.
                let in_truth = limit.checked_sub(steady).map_or(Timestamp::MIN, |rest| later(now, rest));
                (later(object.since, limit).max(in_truth), why)
            }
            (ObjectState::Kept, Some(gone)) => (later(gone, engine.settings.gc.grace), "its image was deleted".into()),
            (ObjectState::Found, _) => (object.since, "found at the store, and in no record".into()),
            _ => return None,
        };
        let waits_for = match part {
            None => Some("its store is not enabled"),
            // A removal there would prove nothing of the bits here.
            Some(part) if place(&part.store.location(&object.name)) != place(&object.url) => {
                Some("its store is at another place now")
            }
            // It may be another Mimeo's.
            Some(_) if object.state == ObjectState::Found && object.since > confirmed => Some(CONFIRMATION),
            Some(_) => None,
        };
        Some(Candidate { object: object.clone(), due, why, waits_for })
    };
    record.objects.iter().filter_map(candidate).collect()
}

/// Removes those that no image names. The stores do not wait for each other.
async fn remove(engine: &Engine, due: Vec<Object>) -> Result<()> {
    if due.is_empty() {
        return Ok(());
    }
    let names = Names::read(engine, due.iter().map(|object| object.name.to_string()).collect()).await?;
    mimeo_crash::point("sweep-allowed");
    let mut by_store: BTreeMap<StoreName, Vec<Object>> = BTreeMap::new();
    for object in due {
        let id = object.name.image();
        match names.of(&object.name).filter(|_| !sabotage::is(Bug::NamesAreNotRead)) {
            None => by_store.entry(object.store.clone()).or_default().push(object),
            Some(image) if *image == id => look_again(engine, &id).await?,
            Some(image) => {
                tracing::warn!(%image, url = without_credentials(&object.url), "another image names this object as its location; it stays");
                engine.leftovers.stays(&object, &format!("image {image} names it as its location"));
            }
        }
    }
    let removals = join_all(by_store.into_values().map(|objects| remove_from_store(engine, objects))).await;
    removals.into_iter().collect()
}

/// One after the other, until the store fails: it is asked again at the next sweep.
async fn remove_from_store(engine: &Engine, objects: Vec<Object>) -> Result<()> {
    let mut failures = 0;
    for mut object in objects {
        let id = object.name.image();
        if object.state == ObjectState::Kept && engine.registry.look(&id).await?.is_some() {
            look_again(engine, &id).await?;
            continue;
        }
        let Some(part) = engine.stores.get(&object.store) else { continue };
        if object.state == ObjectState::Found {
            // No look takes it over any more when it is doomed.
            let Some(turn) = engine.turns.take(&id) else { continue };
            let record = engine.ledger.load(&id).await?;
            let now = record.as_ref().and_then(|record| record.object(&object.store, &object.name));
            if now.is_some_and(|now| now.state == ObjectState::Found) {
                object.state = ObjectState::Doomed;
                let doom = Change::Doom(object.store.clone(), object.name.clone(), engine.clock.now());
                engine.ledger.commit(&[doom]).await?;
            }
            drop(turn);
            engine.wake.notify_one();
        }
        let record = engine.ledger.load(&id).await?;
        // While others were removed it may have been taken over for the image's copy.
        let now = record.as_ref().and_then(|record| record.object(&object.store, &object.name));
        if now.is_none_or(|now| now.state != object.state) {
            continue;
        }
        let replica = record.as_ref().and_then(|record| replica_of(record, &object));
        if let Some(record) = &record
            && replica.is_some_and(Replica::is_proven)
            && is_last(engine, record, &object).await?
        {
            let why = "it is the image's last proven copy that answers";
            tracing::warn!(store = %object.store, object = %object.name, "not removed: {why}");
            engine.leftovers.stays(&object, why);
            if !has_other_good(engine, record, &object) {
                keep(engine, &object).await?;
            }
            look_again(engine, &id).await?;
            continue;
        }
        let is_regretted = object.state == ObjectState::Regretted;
        if let Some(record) = record.as_ref().filter(|record| is_regretted && record.image.gone_at.is_none())
            && !has_other_good(engine, record, &object)
        {
            tracing::warn!(store = %object.store, object = %object.name, "not removed: no other copy is known to be right; it is read again");
            keep(engine, &object).await?;
            look_again(engine, &id).await?;
            continue;
        }
        if sabotage::is(Bug::ForgottenBeforeDeleted) {
            engine.ledger.commit(&[Change::ObjectGone(object.store.clone(), object.name.clone())]).await?;
        }
        if let Err(error) = within(part.timeout, part, "deleting", part.store.delete(&object.name)).await {
            let (store, name) = (&object.store, &object.name);
            // Told once, until it changes.
            if engine.leftovers.failed(&object, &error) {
                tracing::warn!(%store, object = %name, error = error.chain(), "could not remove it yet");
            }
            engine.breakers.suspect(store, error.reason);
            match error.reason {
                Reason::StoreInUse | Reason::StoreRefused => {}
                Reason::StoreUnreachable | Reason::StoreStalled => break,
                _ if failures == FAILURES => break,
                _ => failures += 1,
            }
            continue;
        }
        mimeo_crash::point("sweep-removed");
        tracing::info!(store = %object.store, object = %object.name, "removed");
        if engine.leftovers.removed(&object) {
            engine.sweep.notify_one();
        }
        // Whoever waited for it to be gone looks again.
        let is_waited_for = replica.is_some_and(|replica| replica.unwanted_since.is_some());
        engine.ledger.commit(&[Change::ObjectGone(object.store, object.name)]).await?;
        mimeo_crash::point("sweep-noted");
        if is_waited_for {
            look_again(engine, &id).await?;
        }
    }
    Ok(())
}

pub(crate) fn replica_of<'a>(record: &'a Record, object: &Object) -> Option<&'a Replica> {
    record.replicas.get(&object.store).filter(|replica| replica.object.as_ref() == Some(&object.name))
}

/// Whether the image is there and has no other proven copy that is registered and answers now (promise 2). Looked at
/// right before the removal: the plan that gave the object up may be old by now.
pub(crate) async fn is_last(engine: &Engine, record: &Record, object: &Object) -> Result<bool> {
    if record.image.gone_at.is_some() {
        return Ok(false);
    }
    // A 404 alone is no deletion: the next look finds out.
    let Some(image) = engine.registry.look(&record.image.id).await? else { return Ok(true) };
    let (doubted, elsewhere) = (engine.doubts.of(&record.image.id), engine.elsewhere(record));
    let others = record.replicas.values().filter(|other| other.store != object.store && other.is_proven());
    for other in others.filter(|other| !elsewhere.contains(&other.store) && !doubted.contains(&other.store)) {
        let is_shown = other.url.as_deref().is_some_and(|url| image.has_location(url));
        let kept = record.object_of(other).filter(|it| is_shown && it.state == ObjectState::Kept);
        if let (Some(kept), Some(size), Some(part)) = (kept, other.size, engine.stores.get(&other.store))
            && prove::probe(part, &kept.name, size, PROBE_LIMIT).await.is_ok()
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the ledger has another copy that was found right, and not otherwise since, where the configuration puts its store.
fn has_other_good(engine: &Engine, record: &Record, object: &Object) -> bool {
    let (doubted, elsewhere) = (engine.doubts.of(&record.image.id), engine.elsewhere(record));
    let is_other =
        |other: &&Replica| other.object.as_ref() != Some(&object.name) && other.is_good() && other.is_proven();
    let mut others = record.replicas.values().filter(is_other).map(|other| &other.store);
    others.any(|store| engine.stores.contains_key(store) && !doubted.contains(store) && !elsewhere.contains(store))
}

/// It is, or may be, the only one that is right: the others are made of it before it goes.
async fn keep(engine: &Engine, object: &Object) -> Result<()> {
    let kept = Object { state: ObjectState::Kept, since: engine.clock.now(), ..object.clone() };
    engine.ledger.commit(&[Change::Object(kept)]).await
}

/// The image is there after all: the next look takes the tombstone away.
async fn look_again(engine: &Engine, id: &ImageId) -> Result<()> {
    let due = engine.clock.now();
    engine.ledger.commit(&[Change::Dirty(DirtyMark { image: id.clone(), due })]).await?;
    engine.wake.notify_one();
    Ok(())
}

/// What the next sweeps are to do to so many images behind this one.
pub(crate) async fn report(engine: &Engine, after: Option<&ImageId>, limit: usize) -> Result<GcReport> {
    // Before the first is read, and between looks: what is not on the list is from later.
    let concluded = if after.is_none() { Some(engine.concluding.write().await) } else { None };
    let as_of = engine.clock.now();
    drop(concluded);
    let mut entries = Vec::new();
    let confirmed = guard::confirmed(engine).await?;
    let (mut found, is_guarded) = (0, engine.health.lock().held_deletes > 0);
    let why = |candidate: &Candidate| {
        let failure = engine.leftovers.why(&candidate.object.store, &candidate.object.name);
        let hindrance = candidate.waits_for.map(|what| format!("waits: {what}"));
        let hindrance = hindrance.or_else(|| failure.map(|failure| format!("not removed yet: {}", failure.message)));
        hindrance.map_or_else(|| candidate.why.clone(), |hindrance| format!("{}; {hindrance}", candidate.why))
    };
    let waits = |record: &Record, replica: &Replica, since: Timestamp| GcEntry {
        image: record.image.id.clone(),
        name: record.image.name.clone(),
        due: since.saturating_add(engine.settings.gc.grace).unwrap_or(Timestamp::MAX),
        held: is_guarded && since > confirmed,
        why: replica.failure.as_ref().map(|failure| failure.message.clone()).unwrap_or_default(),
        object: replica.object.as_ref().map(ToString::to_string).unwrap_or_default(),
        store: replica.store.clone(),
    };
    // One more tells whether there is a next page.
    let mut records = engine.ledger.sweepable(after, limit.saturating_add(1)).await?;
    let is_last = records.len() <= limit;
    records.truncate(limit);
    let next = records.last().filter(|_| !is_last).map(|last| last.image.id.clone());
    for record in records.iter().filter(|record| record.image.gone_at.is_none()) {
        entries
            .extend(guard::unwanted(engine, record).into_iter().map(|(replica, since)| waits(record, replica, since)));
    }
    for record in &records {
        let is_held = is_guarded && record.image.gone_at > Some(confirmed);
        let candidates = candidates(engine, record, confirmed);
        found += candidates.iter().filter(|candidate| candidate.waits_for == Some(CONFIRMATION)).count() as u64;
        entries.extend(candidates.into_iter().map(|candidate| GcEntry {
            image: record.image.id.clone(),
            name: record.image.name.clone(),
            due: candidate.due,
            held: is_held || candidate.waits_for == Some(CONFIRMATION),
            why: why(&candidate),
            object: candidate.object.name.to_string(),
            store: candidate.object.store,
        }));
    }
    Ok(GcReport { held: is_guarded, found, as_of, entries, next })
}
