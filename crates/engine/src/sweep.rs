//! The sweeper removes what is no longer wanted: objects of failed attempts, and the copies of images that are gone.
//!
//! It removes only objects whose names Mimeo made itself and that stand in the ledger, and only after every image's
//! locations were read and none names them. Many images at once wait for an operator.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, atomic::Ordering},
};

use mimeo_core::{Change, DirtyMark, ImageId, Object, ObjectState, Record, Result, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::{
    Engine,
    status::{GcEntry, GcReport},
    walk::Walk,
};

/// Records looked at in one sweep.
const BATCH: usize = 1000;

pub(crate) async fn run(engine: Arc<Engine>, stop: CancellationToken) {
    loop {
        if let Err(error) = sweep(&engine).await {
            tracing::warn!(reason = error.reason.code(), error = error.chain(), "the sweep failed; it is tried again");
        }
        tokio::select! {
            () = tokio::time::sleep(engine.settings.gc.interval) => {}
            () = engine.sweep.notified() => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn sweep(engine: &Engine) -> Result<()> {
    let now = engine.clock.now();
    let records = engine.ledger.sweepable(BATCH).await?;
    let held = is_held(engine, &records, now).await?;
    engine.health.lock().held_deletes = if held { tombstones(engine, &records, now) } else { 0 };
    let confirmed = engine.deletes_confirmed.swap(false, Ordering::Relaxed);
    let due: Vec<(&Record, Object)> = records
        .iter()
        .flat_map(|record| candidates(engine, record).into_iter().map(move |candidate| (record, candidate)))
        .filter(|(record, candidate)| candidate.due <= now && (!held || confirmed || !is_tombstone(record)))
        .map(|(record, candidate)| (record, candidate.object))
        .collect();
    if !due.is_empty() {
        remove(engine, due).await?;
    }
    for record in records.iter().filter(|record| is_tombstone(record) && record.objects.is_empty()) {
        engine.ledger.commit(&[Change::Forget(record.image.id.clone())]).await?;
    }
    Ok(())
}

/// An object that is to go, and from when on it may.
struct Candidate {
    object: Object,
    due: Timestamp,
    why: &'static str,
}

fn candidates(engine: &Engine, record: &Record) -> Vec<Candidate> {
    let grace_ends =
        record.image.gone_at.map(|at| at.saturating_add(engine.settings.gc.grace).unwrap_or(Timestamp::MAX));
    let candidate = |object: &Object| {
        let part = engine.stores.get(&object.store)?;
        let (since, why) = match (object.state, grace_ends) {
            // A request that was cut off may publish its object for as long as the store may take over it.
            (ObjectState::Doomed, _) => {
                (object.since.saturating_add(part.timeout).unwrap_or(Timestamp::MAX), "left by an attempt that failed")
            }
            (ObjectState::Kept, Some(end)) => (end, "its image was deleted"),
            _ => return None,
        };
        Some(Candidate { object: object.clone(), due: since, why })
    };
    record.objects.iter().filter_map(candidate).collect()
}

fn is_tombstone(record: &Record) -> bool {
    record.image.gone_at.is_some()
}

/// Images whose copies would go now.
fn tombstones(engine: &Engine, records: &[Record], now: Timestamp) -> u64 {
    let kept = |object: &Object| object.state == ObjectState::Kept;
    let due = |record: &&Record| {
        is_tombstone(record)
            && candidates(engine, record).iter().any(|candidate| candidate.due <= now && kept(&candidate.object))
    };
    records.iter().filter(due).count() as u64
}

/// The guard against mass deletion: more than so many images, and more than such a share of all.
async fn is_held(engine: &Engine, records: &[Record], now: Timestamp) -> Result<bool> {
    let (gc, images) = (engine.settings.gc, tombstones(engine, records, now));
    if images <= gc.max_images {
        return Ok(false);
    }
    let all = engine.count_images().await?;
    let held = images * 100 > all * gc.max_percent;
    if held {
        tracing::warn!(images, all, "more deletions at once than the guard lets through; see `mimeo gc`");
    }
    Ok(held)
}

async fn remove(engine: &Engine, due: Vec<(&Record, Object)>) -> Result<()> {
    let mut named = named(engine, due.iter().map(|(_, object)| object.url.clone()).collect()).await?;
    let mut gone: HashMap<&ImageId, bool> = HashMap::new();
    for (record, object) in due {
        let id = &record.image.id;
        if let Some(image) = named.remove(&object.url) {
            tracing::warn!(%image, url = object.url, "an image names this object as its location; it stays");
            continue;
        }
        if object.state == ObjectState::Kept {
            let is_gone = match gone.get(id) {
                Some(is_gone) => *is_gone,
                None => *gone.entry(id).or_insert(engine.registry.look(id).await?.is_none()),
            };
            if !is_gone {
                // It is there after all: the next look takes the tombstone away.
                let due = engine.clock.now();
                engine.ledger.commit(&[Change::Dirty(DirtyMark { image: id.clone(), due })]).await?;
                engine.wake.notify_one();
                continue;
            }
        }
        delete(engine, &object).await?;
    }
    Ok(())
}

/// Which of these URLs an image names now, and which image.
async fn named(engine: &Engine, urls: HashSet<String>) -> Result<BTreeMap<String, ImageId>> {
    let (mut named, mut walk) = (BTreeMap::new(), Walk::new(engine.registry.as_ref(), None));
    while let Some(page) = walk.next().await? {
        for image in page {
            let ours = image.locations.iter().filter(|location| urls.contains(&location.url));
            named.extend(ours.map(|location| (location.url.clone(), image.id.clone())));
        }
    }
    Ok(named)
}

async fn delete(engine: &Engine, object: &Object) -> Result<()> {
    let Some(part) = engine.stores.get(&object.store) else { return Ok(()) };
    match crate::transfer::within(part.timeout, part, "deleting", part.store.delete(&object.name)).await {
        Ok(()) => {
            tracing::info!(store = %object.store, object = %object.name, "removed");
            engine.ledger.commit(&[Change::ObjectGone(object.store.clone(), object.name.clone())]).await
        }
        Err(error) => {
            tracing::warn!(store = %object.store, object = %object.name, error = error.chain(), "could not remove it yet");
            Ok(())
        }
    }
}

/// What a sweep would do, without doing it.
pub(crate) async fn report(engine: &Engine) -> Result<GcReport> {
    let records = engine.ledger.sweepable(BATCH).await?;
    let held = is_held(engine, &records, engine.clock.now()).await?;
    let entries = records.iter().flat_map(|record| {
        candidates(engine, record).into_iter().map(|candidate| GcEntry {
            image: record.image.id.clone(),
            name: record.image.name.clone(),
            store: candidate.object.store,
            object: candidate.object.name.to_string(),
            due: candidate.due,
            why: candidate.why.into(),
        })
    });
    Ok(GcReport { held, entries: entries.collect() })
}
