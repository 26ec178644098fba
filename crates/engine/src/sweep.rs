//! The sweeper removes what is no longer wanted: objects of failed attempts, and the copies of images that are gone.
//!
//! It removes only objects whose names Mimeo made itself and that stand in the ledger, and only after every image's
//! locations were read and none names them. Many images at once wait for an operator.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use mimeo_core::{Change, DirtyMark, ImageId, Object, ObjectState, Record, Result, Timestamp};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    Engine,
    status::{GcEntry, GcReport},
    walk::Walk,
};

/// Records looked at in one sweep.
const BATCH: usize = 1000;
/// So few deletions are never a mass, whatever their share: a cloud of ten images must be able to lose two.
const FEW: u64 = 5;
/// Deletions within this time count as one.
const GUARD_WINDOW: Duration = Duration::from_hours(1);

pub(crate) async fn run(engine: Arc<Engine>, stop: CancellationToken) {
    let mut swept = Swept::default();
    loop {
        if let Err(error) = sweep(&engine, &mut swept).await {
            tracing::warn!(reason = error.reason.code(), error = error.chain(), "the sweep failed; it is tried again");
        }
        tokio::select! {
            () = tokio::time::sleep(engine.settings.gc.interval) => {}
            () = engine.sweep.notified() => {}
            () = stop.cancelled() => return,
        }
    }
}

/// What the sweeps before this one did and said.
#[derive(Default)]
struct Swept {
    /// When images lost their copies: a mass deletion is one however slowly it comes.
    at: VecDeque<Instant>,
    /// The objects whose keeping was told already.
    told: HashSet<String>,
}

impl Swept {
    fn note(&mut self) {
        self.at.push_back(Instant::now());
    }

    fn lately(&mut self) -> u64 {
        while self.at.front().is_some_and(|at| at.elapsed() > GUARD_WINDOW) {
            self.at.pop_front();
        }
        self.at.len() as u64
    }
}

async fn sweep(engine: &Engine, swept: &mut Swept) -> Result<()> {
    let now = engine.clock.now();
    let records = engine.ledger.sweepable(BATCH).await?;
    let confirmed = engine.deletes_confirmed.swap(false, Ordering::Relaxed);
    if confirmed {
        swept.at.clear();
    }
    let held = is_held(engine, &records, swept.lately()).await?;
    engine.health.lock().held_deletes = if held && !confirmed { tombstones(&records) } else { 0 };
    let due: Vec<(&Record, Object)> = records
        .iter()
        .flat_map(|record| candidates(engine, record).into_iter().map(move |candidate| (record, candidate)))
        .filter(|(record, candidate)| candidate.due <= now && (!held || confirmed || !is_tombstone(record)))
        .map(|(record, candidate)| (record, candidate.object))
        .collect();
    if !due.is_empty() {
        remove(engine, due, swept).await?;
    }
    for record in records.iter().filter(|record| is_tombstone(record) && record.objects.is_empty()) {
        engine.ledger.commit(&[Change::Forget(record.image.id.clone())]).await?;
        if !confirmed && !record.replicas.is_empty() {
            swept.note();
        }
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

/// Images whose copies are to go, now or when their grace period ends.
fn tombstones(records: &[Record]) -> u64 {
    let has_copies = |record: &&Record| record.objects.iter().any(|object| object.state == ObjectState::Kept);
    records.iter().filter(|record| is_tombstone(record)).filter(has_copies).count() as u64
}

/// The guard against mass deletion: more than so many images, or more than such a share of all, are to go or went lately.
async fn is_held(engine: &Engine, records: &[Record], lately: u64) -> Result<bool> {
    let (gc, images) = (engine.settings.gc, tombstones(records) + lately);
    if images == lately || images <= gc.max_images.min(FEW) {
        return Ok(false);
    }
    let all = engine.count_images().await? + lately;
    let held = images > gc.max_images || (images > FEW && images * 100 > all * gc.max_percent);
    if held {
        tracing::warn!(images, all, "more deletions at once than the guard lets through; see `mimeo gc`");
    }
    Ok(held)
}

async fn remove(engine: &Engine, due: Vec<(&Record, Object)>, swept: &mut Swept) -> Result<()> {
    let mut named = named(engine, due.iter().map(|(_, object)| object.url.clone()).collect()).await?;
    let mut gone: HashMap<&ImageId, bool> = HashMap::new();
    for (record, object) in due {
        let id = &record.image.id;
        if let Some(image) = named.remove(&object.url) {
            if image == *id {
                look_again(engine, id).await?;
            } else if swept.told.insert(object.url.clone()) {
                tracing::warn!(%image, url = object.url, "another image names this object as its location; it stays");
            }
            continue;
        }
        if object.state == ObjectState::Kept {
            let is_gone = match gone.get(id) {
                Some(is_gone) => *is_gone,
                None => *gone.entry(id).or_insert(engine.registry.look(id).await?.is_none()),
            };
            if !is_gone {
                look_again(engine, id).await?;
                continue;
            }
        }
        delete(engine, &object).await?;
    }
    Ok(())
}

/// The image is there after all: the next look takes the tombstone away.
async fn look_again(engine: &Engine, id: &ImageId) -> Result<()> {
    let due = engine.clock.now();
    engine.ledger.commit(&[Change::Dirty(DirtyMark { image: id.clone(), due })]).await?;
    engine.wake.notify_one();
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
    let held = is_held(engine, &records, 0).await?;
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
