//! Adoption: what Mimeo's own objects the image's locations show, and what a listing of the stores shows, is made known
//! to a ledger that does not know it, because it is new or is an old one that came back.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::future::join_all;
use mimeo_core::{
    Change, DirtyMark, Image, Object, ObjectName, ObjectState, Result, STORE_KEY, StoreName, bare, place,
    plan::{CHECK_PROPERTY, Shown},
    ports::ObjectPage,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    Engine, StorePart,
    names::names_in,
    sabotage::{self, Bug},
    transfer::within,
};

/// That the stores were listed for this ledger.
const SURVEYED: &str = "surveyed";
/// So long a new ledger's first copies wait for the stores to be listed: what is there need not be copied.
const FIRST_SURVEY: Duration = Duration::from_mins(1);
/// A store that could not be listed is listed again after this.
const RETRY: Duration = Duration::from_mins(1);

/// What is to be noted in a ledger that was put back: the stores may hold what it does not know.
pub fn came_back() -> Change {
    Change::Bookmark(SURVEYED.into(), String::new())
}

/// The image's locations that lead exactly to where a store puts an object that Mimeo made for this very image
/// (promise 9). What the location's metadata say decides only between two stores that are one place.
pub(crate) fn shown(engine: &Engine, image: &Image) -> Vec<Shown> {
    if image.properties.contains_key(CHECK_PROPERTY) {
        return Vec::new();
    }
    let mut found: Vec<Shown> = Vec::new();
    for location in &image.locations {
        let names = names_in(location).into_iter().filter_map(|name| name.parse::<ObjectName>().ok());
        let is_its_own = |name: &ObjectName| name.image() == image.id || sabotage::is(Bug::LocationIsAuthority);
        let Some(object) = names.into_iter().find(is_its_own) else { continue };
        let leads_there = |part: &&StorePart| {
            let url = part.store.location(&object);
            location.url == bare(&url) || place(&location.url) == place(&url)
        };
        let is_labelled = |part: &&StorePart| {
            location.metadata.get(STORE_KEY).and_then(|label| label.as_str()) == Some(part.store.name().as_str())
        };
        let parts: Vec<&StorePart> = engine.stores.values().filter(leads_there).collect();
        let part = parts.iter().copied().find(is_labelled).or_else(|| parts.first().copied());
        found.extend(part.map(|part| Shown {
            store: part.store.name().clone(),
            url: part.store.location(&object),
            object,
        }));
    }
    found
}

/// Lists the stores at the start and as often as there is a full scan. `surveyed` tells of the end of the first pass.
pub(crate) async fn run(engine: Arc<Engine>, surveyed: CancellationToken, stop: CancellationToken) {
    let mut told = BTreeMap::new();
    let (mut left, mut full_at) = (Vec::new(), Instant::now());
    loop {
        if Instant::now() >= full_at {
            left = engine.stores.values().collect();
            full_at = Instant::now() + engine.settings.full_scan_interval;
        }
        left = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            left = survey(&engine, left, &mut told) => left,
        };
        surveyed.cancel();
        let again = if left.is_empty() { full_at } else { full_at.min(Instant::now() + RETRY) };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep_until(again) => {}
        }
    }
}

/// On a ledger for which the stores were never listed, waits for that a while.
pub(crate) async fn before_the_first_copy(engine: &Engine, surveyed: &CancellationToken, stop: &CancellationToken) {
    if engine.ledger.bookmark(SURVEYED).await.is_ok_and(|bookmark| bookmark.is_some_and(|at| !at.is_empty())) {
        return;
    }
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = surveyed.cancelled() => {}
        () = tokio::time::sleep(FIRST_SURVEY) => tracing::warn!("the stores are still being listed; copies begin without"),
    }
}

/// Gives those that could not be listed. `told` holds what was logged of each: it is said again when it is another.
async fn survey<'a>(
    engine: &'a Engine,
    parts: Vec<&'a StorePart>,
    told: &mut BTreeMap<StoreName, String>,
) -> Vec<&'a StorePart> {
    let listed = join_all(parts.into_iter().map(|part| async move { (part, list(engine, part).await) })).await;
    let mut left = Vec::new();
    for (part, listed) in listed {
        let store = part.store.name();
        let Err(error) = listed else {
            told.remove(store);
            continue;
        };
        if told.insert(store.clone(), error.chain()).is_none_or(|before| before != error.chain()) {
            tracing::warn!(%store, reason = error.reason.code(), error = error.chain(), "could not list the store");
        }
        left.push(part);
    }
    if left.is_empty() {
        let mark = Change::Bookmark(SURVEYED.into(), engine.clock.now().to_string());
        if let Err(error) = engine.ledger.commit(&[mark]).await {
            tracing::warn!(error = error.chain(), "the ledger does not take that the stores were listed");
        }
    }
    left
}

/// Enters each object of one store that bears a name of Mimeo's making and has no row. An object that is being made has
/// one before its first byte.
async fn list(engine: &Engine, part: &StorePart) -> Result<()> {
    let store = part.store.name();
    let mut after = None;
    loop {
        let listing = part.store.list(after.as_ref());
        let Some(ObjectPage { objects, next }) = within(part.timeout, part, "listing the objects", listing).await?
        else {
            return Ok(());
        };
        let unknown = engine.ledger.unknown(&objects).await?;
        if !unknown.is_empty() {
            tracing::info!(%store, objects = unknown.len(), "found objects that no record knows");
            enter(engine, part, unknown).await?;
        }
        match next {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
    }
}

/// The next look at each image says what becomes of its objects.
async fn enter(engine: &Engine, part: &StorePart, objects: Vec<ObjectName>) -> Result<()> {
    let concluding = engine.concluding.read().await;
    let now = engine.clock.now();
    let changes = objects.into_iter().flat_map(|name| {
        let mark = DirtyMark { image: name.image(), due: now };
        let (store, url) = (part.store.name().clone(), part.store.location(&name));
        [Change::Object(Object { store, name, url, state: ObjectState::Found, since: now }), Change::Dirty(mark)]
    });
    engine.ledger.commit(&changes.collect::<Vec<_>>()).await?;
    drop(concluding);
    mimeo_crash::point("found-entered");
    engine.wake.notify_one();
    Ok(())
}
