//! The sweeper removes what is no longer wanted: objects of failed attempts, and the copies of images that are gone.
//!
//! It removes only objects whose names Mimeo made itself and that stand in the ledger, and only after every image's
//! locations were read and none names them. Many images at once wait for an operator.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures::future::join_all;
use mimeo_core::{
    Change, DirtyMark, ImageId, Object, ObjectState, Reason, Record, Result, StoreName, Timestamp, place,
    without_credentials,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    Engine,
    names::Names,
    status::{GcEntry, GcReport},
    transfer::{publish_limit, within},
    walk::Records,
};

/// So few deletions are never a mass, whatever their share: a cloud of ten images must be able to lose two.
const FEW: u64 = 5;
/// Deletions within this time count as one.
const GUARD_WINDOW: Duration = Duration::from_hours(1);
/// An object that an image's location names is looked at again after this.
const REST: Duration = Duration::from_mins(15);
/// So many objects of a store may fail to be removed before the rest waits for the next sweep.
const FAILURES: u32 = 8;
/// Until when tombstones were let through by an operator.
const CONFIRMED: &str = "deletes-confirmed";

pub(crate) async fn run(engine: Arc<Engine>, stop: CancellationToken) {
    let mut past = Past::default();
    loop {
        let swept = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            swept = sweep(&engine, &mut past) => swept,
        };
        if let Err(error) = swept {
            tracing::warn!(reason = error.reason.code(), error = error.chain(), "the sweep failed; it is tried again");
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = engine.sweep.notified() => {}
            () = tokio::time::sleep(engine.settings.gc.interval) => {}
        }
    }
}

/// Lets the tombstones of now through, however many they are.
pub(crate) async fn confirm(engine: &Engine) -> Result<()> {
    let now = engine.clock.now().to_string();
    engine.ledger.commit(&[Change::Bookmark(CONFIRMED.into(), now)]).await?;
    engine.sweep.notify_one();
    Ok(())
}

/// What the sweeps before this one did and found.
#[derive(Default)]
struct Past {
    /// When images lost their copies: a mass deletion is one however slowly it comes.
    removals: VecDeque<Instant>,
    /// Objects that had to stay, and since when.
    resting: BTreeMap<String, Instant>,
}

impl Past {
    fn removals_lately(&mut self) -> u64 {
        while self.removals.front().is_some_and(|at| at.elapsed() > GUARD_WINDOW) {
            self.removals.pop_front();
        }
        self.removals.len() as u64
    }
}

async fn sweep(engine: &Engine, past: &mut Past) -> Result<()> {
    past.resting.retain(|_, since| since.elapsed() < REST);
    let confirmed = confirmed(engine).await?;
    let held = held(engine, confirmed, past.removals_lately()).await?;
    engine.health.lock().held_deletes = held;
    let may_go = |record: &Record| held == 0 || record.image.gone_at.is_none_or(|at| at <= confirmed);
    let mut walk = Records::sweepable(engine.ledger.as_ref());
    while let Some(records) = walk.next().await? {
        let now = engine.clock.now();
        let due = records
            .iter()
            .filter(|record| may_go(record))
            .flat_map(|record| candidates(engine, record))
            .filter(|candidate| candidate.due <= now && !past.resting.contains_key(&candidate.object.url));
        remove(engine, due.map(|candidate| candidate.object).collect(), past).await?;
        for record in records.iter().filter(|record| record.image.gone_at.is_some() && record.objects.is_empty()) {
            engine.ledger.commit(&[Change::Forget(record.image.id.clone())]).await?;
            if record.image.gone_at > Some(confirmed) && !record.replicas.is_empty() {
                past.removals.push_back(Instant::now());
            }
        }
    }
    Ok(())
}

async fn confirmed(engine: &Engine) -> Result<Timestamp> {
    let text = engine.ledger.bookmark(CONFIRMED).await?;
    Ok(text.and_then(|text| text.parse().ok()).unwrap_or(Timestamp::UNIX_EPOCH))
}

/// The guard against mass deletion: how many images' copies wait for an operator, because with those that went lately
/// they are more than so many, or more than such a share of all.
async fn held(engine: &Engine, confirmed: Timestamp, lately: u64) -> Result<u64> {
    let (gc, counts) = (engine.settings.gc, engine.ledger.counts(confirmed).await?);
    let (images, all) = (counts.retiring + lately, counts.images + lately);
    let is_mass = images > gc.max_images || (images > FEW && images * 100 > all * gc.max_percent);
    if !is_mass || counts.retiring == 0 {
        return Ok(0);
    }
    tracing::warn!(images, all, "more deletions at once than the guard lets through; see `mimeo gc`");
    Ok(counts.retiring)
}

/// An object that is to go, and from when on it may.
struct Candidate {
    object: Object,
    due: Timestamp,
    why: &'static str,
}

fn candidates(engine: &Engine, record: &Record) -> Vec<Candidate> {
    let later = |at: Timestamp, wait: Duration| at.saturating_add(wait).unwrap_or(Timestamp::MAX);
    let candidate = |object: &Object| {
        let part = engine.stores.get(&object.store)?;
        let (due, why) = match (object.state, record.image.gone_at) {
            // A request that was cut off may publish its object for as long as the store may take over that.
            (ObjectState::Doomed, _) => {
                let limit = publish_limit(part, record.image.size.unwrap_or(0));
                (later(object.since, limit), "left by an attempt that failed")
            }
            (ObjectState::Kept, Some(gone)) => (later(gone, engine.settings.gc.grace), "its image was deleted"),
            _ => return None,
        };
        // Where the store is at another place by now, a removal there would prove nothing of the bits here.
        let is_here = place(&part.store.location(&object.name)) == place(&object.url);
        is_here.then(|| Candidate { object: object.clone(), due, why })
    };
    record.objects.iter().filter_map(candidate).collect()
}

/// Removes those that no image names. The stores do not wait for each other.
async fn remove(engine: &Engine, due: Vec<Object>, past: &mut Past) -> Result<()> {
    if due.is_empty() {
        return Ok(());
    }
    let names = Names::read(engine, due.iter().map(|object| object.name.to_string()).collect()).await?;
    let mut by_store: BTreeMap<StoreName, Vec<Object>> = BTreeMap::new();
    for object in due {
        let id = object.name.image();
        match names.of(&object.name) {
            None => by_store.entry(object.store.clone()).or_default().push(object),
            Some(image) if *image == id => look_again(engine, &id).await?,
            Some(image) => {
                tracing::warn!(%image, url = without_credentials(&object.url), "another image names this object as its location; it stays");
                past.resting.insert(object.url, Instant::now());
            }
        }
    }
    let removals = join_all(by_store.into_values().map(|objects| remove_from_store(engine, objects))).await;
    for stuck in removals {
        past.resting.extend(stuck?.into_iter().map(|url| (url, Instant::now())));
    }
    Ok(())
}

/// One after the other, until the store fails: it is asked again at the next sweep. Gives the URLs of those that will
/// not go for a while: others are built on them, or they are protected.
async fn remove_from_store(engine: &Engine, objects: Vec<Object>) -> Result<Vec<String>> {
    let (mut stuck, mut failures) = (Vec::new(), 0);
    for object in objects {
        let id = object.name.image();
        if object.state == ObjectState::Kept && engine.registry.look(&id).await?.is_some() {
            look_again(engine, &id).await?;
            continue;
        }
        let Some(part) = engine.stores.get(&object.store) else { continue };
        if let Err(error) = within(part.timeout, part, "deleting", part.store.delete(&object.name)).await {
            let (store, name) = (&object.store, &object.name);
            tracing::warn!(%store, object = %name, error = error.chain(), "could not remove it yet");
            engine.health.lock().not_removed.insert((store.clone(), name.clone()), error.chain());
            match error.reason {
                Reason::StoreInUse | Reason::StoreRefused => stuck.push(object.url),
                Reason::StoreUnreachable | Reason::StoreStalled => break,
                _ if failures == FAILURES => break,
                _ => failures += 1,
            }
            continue;
        }
        engine.health.lock().not_removed.remove(&(object.store.clone(), object.name.clone()));
        tracing::info!(store = %object.store, object = %object.name, "removed");
        engine.ledger.commit(&[Change::ObjectGone(object.store, object.name)]).await?;
    }
    Ok(stuck)
}

/// The image is there after all: the next look takes the tombstone away.
async fn look_again(engine: &Engine, id: &ImageId) -> Result<()> {
    let due = engine.clock.now();
    engine.ledger.commit(&[Change::Dirty(DirtyMark { image: id.clone(), due })]).await?;
    engine.wake.notify_one();
    Ok(())
}

/// What the next sweeps are to do.
pub(crate) async fn report(engine: &Engine) -> Result<GcReport> {
    let (mut entries, mut walk) = (Vec::new(), Records::sweepable(engine.ledger.as_ref()));
    let not_removed = engine.health.lock().not_removed.clone();
    let why = |candidate: &Candidate| {
        let failure = not_removed.get(&(candidate.object.store.clone(), candidate.object.name.clone()));
        failure.map_or(candidate.why.into(), |failure| format!("{}; not removed yet: {failure}", candidate.why))
    };
    while let Some(records) = walk.next().await? {
        entries.extend(records.iter().flat_map(|record| {
            candidates(engine, record).into_iter().map(|candidate| GcEntry {
                image: record.image.id.clone(),
                name: record.image.name.clone(),
                due: candidate.due,
                why: why(&candidate),
                object: candidate.object.name.to_string(),
                store: candidate.object.store,
            })
        }));
    }
    Ok(GcReport { held: engine.health.lock().held_deletes > 0, entries })
}
