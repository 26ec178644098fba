//! What operators said of stores: which are drained, and which were moved and are to be proven where they are now. Kept in
//! the ledger, so that it outlives a restart.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use mimeo_core::{Change, Object, Record, Result, StoreName, Timestamp, plan::Conditions};
use tokio::sync::watch;

use crate::{
    Engine,
    sabotage::{self, Bug},
    scan::{mark_where, retry_where},
    survey,
    walk::Records,
};

/// The beginnings of the bookmarks, each followed by a store's name.
const DRAINING: &str = "draining:";
const MOVING: &str = "moving:";
/// What stands in a bookmark that no longer holds.
const ENDED: &str = "";

#[derive(Default)]
pub(crate) struct Orders {
    given: Mutex<Given>,
    /// Held while the ledger says something else than what is known here: at a start, what is read must not undo what is
    /// said meanwhile.
    saying: tokio::sync::Mutex<()>,
    /// Whether what was said before this process began was read.
    known: watch::Sender<bool>,
}

#[derive(Default)]
pub(crate) struct Given {
    /// Since when each is drained.
    pub(crate) draining: BTreeMap<StoreName, Timestamp>,
    pub(crate) moving: BTreeMap<StoreName, Timestamp>,
    /// Stores that are where the ledger knows another by a name that is no longer enabled, and that name.
    pub(crate) renamed: BTreeMap<StoreName, StoreName>,
}

impl Orders {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Given> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Before that nothing is placed anywhere.
    pub(crate) async fn are_known(&self) {
        let _ = self.known.subscribe().wait_for(|known| *known).await;
    }

    pub(crate) fn add_to(&self, conditions: &mut Conditions) {
        let given = self.lock();
        conditions.draining = given.draining.keys().cloned().collect();
        conditions.moving = given.moving.keys().cloned().collect();
        conditions.renamed.clone_from(&given.renamed);
    }
}

/// Reads what was said before this process began, and looks where the ledger's copies are.
pub(crate) async fn recall(engine: &Engine) -> Result<()> {
    let (mut draining, mut moving) = (BTreeMap::new(), BTreeMap::new());
    let _saying = engine.orders.saying.lock().await;
    for facts in &engine.settings.policy.stores {
        for (kind, orders) in [(DRAINING, &mut draining), (MOVING, &mut moving)] {
            let text = engine.ledger.bookmark(&format!("{kind}{}", facts.name)).await?;
            let since = text.and_then(|text| text.parse::<Timestamp>().ok());
            orders.extend(since.map(|since| (facts.name.clone(), since)));
        }
    }
    let found = survey::survey(engine).await?;
    let mut given = engine.orders.lock();
    *given = Given { draining, moving, renamed: survey::renamed(engine, &found) };
    engine.orders.known.send_replace(true);
    Ok(())
}

/// Looks anew under which names the ledger has copies. What was said of the stores meanwhile stays said.
pub(crate) async fn names_changed(engine: &Engine) -> Result<()> {
    let found = survey::survey(engine).await?;
    engine.orders.lock().renamed = survey::renamed(engine, &found);
    Ok(())
}

/// From now on, and after every restart, the store is to become empty.
pub(crate) async fn drain(engine: &Engine, store: &StoreName) -> Result<()> {
    let now = engine.clock.now();
    let saying = engine.orders.saying.lock().await;
    let since = engine.orders.lock().draining.get(store).copied().unwrap_or(now);
    write(engine, DRAINING, store, Some(since)).await?;
    mimeo_crash::point("drain-said");
    // Before the marks: whoever looks because of one is to know of it.
    engine.orders.lock().draining.insert(store.clone(), since);
    drop(saying);
    tracing::info!(%store, "the store is drained");
    if sabotage::is(Bug::DrainDoesNotWait) {
        give_up(engine, store).await?;
    }
    mark_store(engine, store).await
}

/// A deliberate bug.
async fn give_up(engine: &Engine, store: &StoreName) -> Result<()> {
    let (now, mut walk) = (engine.clock.now(), Records::all(engine.ledger.as_ref()));
    while let Some(records) = walk.next().await? {
        let held = records.iter().flat_map(|record| &record.objects).filter(|object| object.store == *store);
        for object in held {
            engine.ledger.commit(&[Change::Doom(store.clone(), object.name.clone(), now)]).await?;
        }
    }
    Ok(())
}

/// A copy whose removal has not begun stays.
pub(crate) async fn cancel_drain(engine: &Engine, store: &StoreName) -> Result<()> {
    let saying = engine.orders.saying.lock().await;
    write(engine, DRAINING, store, None).await?;
    engine.orders.lock().draining.remove(store);
    drop(saying);
    tracing::info!(%store, "the store is no longer drained");
    mark_store(engine, store).await
}

/// The copies that the ledger has at another place than where the configuration puts the store are to be proven there.
/// Gives how many they are.
pub(crate) async fn move_store(engine: &Engine, store: &StoreName) -> Result<u64> {
    let elsewhere = survey::survey(engine).await?.get(store).map_or(0, |found| found.elsewhere);
    if elsewhere == 0 {
        return Ok(0);
    }
    let now = engine.clock.now();
    let saying = engine.orders.saying.lock().await;
    write(engine, MOVING, store, Some(now)).await?;
    mimeo_crash::point("move-said");
    engine.orders.lock().moving.insert(store.clone(), now);
    drop(saying);
    tracing::info!(%store, copies = elsewhere, "the store's copies are proven at its new place");
    let is_elsewhere = |record: &Record| engine.elsewhere(record).contains(store);
    retry_where(engine, is_elsewhere).await?;
    Ok(elsewhere)
}

/// A move that has come to its end is one no longer: the next needs a word of its own.
pub(crate) async fn end_moves(engine: &Engine) -> Result<()> {
    let moving: Vec<StoreName> = engine.orders.lock().moving.keys().cloned().collect();
    if moving.is_empty() {
        return Ok(());
    }
    let found = survey::survey(engine).await?;
    for store in moving.iter().filter(|store| found.get(store).is_none_or(|found| found.elsewhere == 0)) {
        let _saying = engine.orders.saying.lock().await;
        write(engine, MOVING, store, None).await?;
        engine.orders.lock().moving.remove(store);
        tracing::info!(%store, "all of the store's copies are at its new place");
    }
    Ok(())
}

async fn write(engine: &Engine, kind: &str, store: &StoreName, since: Option<Timestamp>) -> Result<()> {
    let value = since.map_or(ENDED.to_owned(), |since| since.to_string());
    engine.ledger.commit(&[Change::Bookmark(format!("{kind}{store}"), value)]).await
}

/// Every image that has anything to do with the store is looked at again.
pub(crate) async fn mark_store(engine: &Engine, store: &StoreName) -> Result<()> {
    let is_touched = |record: &Record| record.image.wanted.contains(store) || concerns(record, store);
    mark_where(engine, is_touched, Duration::ZERO).await
}

/// Whether the image has, or had, anything at the store.
pub(crate) fn concerns(record: &Record, store: &StoreName) -> bool {
    let is_there = |object: &Object| object.store == *store;
    record.replicas.contains_key(store) || record.objects.iter().any(is_there)
}
