//! One attempt: an object of its own for one image at one store, written, closed and proven; each step noted in the
//! ledger before the next.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError},
    time::Duration,
};

use mimeo_core::{
    Change, Error, Image, ImageId, Object, ObjectName, ObjectState, Proof, ProofKind, Reason, Record, Replica,
    ReplicaState, Result, StoreName, Timestamp, place,
};
use tokio::time::Instant;

use crate::{
    Engine, StorePart, like,
    note::{doubt, failed, update},
    progress::Phase,
    prove::{self, Expected, Haste, Known},
    sabotage::{self, Bug},
    transfer::{Chunks, Feed, Lane, Verified},
};

/// How often the digests of chunks are written down.
const KEEP_EVERY: Duration = Duration::from_secs(1);

/// Whether a copy that is broken off could be gone on with at any of the stores, as far as is known.
pub(crate) fn may_go_on(engine: &Engine, image: &Image, stores: &[StoreName]) -> bool {
    let resumes = |store: &StoreName| engine.stores.get(store).is_some_and(|part| part.store.resumes() != Some(false));
    image.size >= Some(2 * engine.settings.policy.chunk) && stores.iter().any(resumes)
}

/// Keeps the digests of the image's chunks. Without them a copy that is broken off begins anew: no reason to stop it.
pub(crate) async fn keep(engine: Arc<Engine>, image: ImageId, mut chunks: Chunks) {
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
        mimeo_crash::point("chunks-noted");
        first += count;
        tokio::time::sleep(KEEP_EVERY).await;
    }
}

/// What was read was not the image: its digests are of no use to anybody.
pub(crate) async fn disown_chunks(engine: &Engine, id: &ImageId) {
    if let Err(error) = engine.ledger.commit(&[Change::ChunksGone(id.clone())]).await {
        tracing::warn!(error = error.chain(), "the ledger keeps digests of bytes that are not the image's");
    }
}

/// The digests of chunks have done their work once no copy is left that could be gone on with.
pub(crate) async fn forget_chunks(engine: &Engine, id: &ImageId) -> Result<()> {
    let is_open = |object: &Object| object.state == ObjectState::Open;
    let none = engine.ledger.chunks(id).await?.is_empty();
    if none || engine.ledger.load(id).await?.is_some_and(|record| record.objects.iter().any(is_open)) {
        return Ok(());
    }
    mimeo_crash::point("chunks-done");
    engine.ledger.commit(&[Change::ChunksGone(id.clone())]).await
}

/// What is to become of an object that was not closed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Partial {
    GoOn,
    GiveUp,
}

pub(crate) struct Attempt {
    pub(crate) store: StoreName,
    pub(crate) object: ObjectName,
    /// The object is there in part, and only the rest is to be written.
    pub(crate) goes_on: bool,
}

/// An attempt for each store, known to the ledger before a byte is written.
pub(crate) async fn begin(
    engine: &Engine,
    id: &ImageId,
    stores: &[StoreName],
    partial: Partial,
) -> Result<Vec<Attempt>> {
    let record = engine.ledger.load(id).await?.unwrap_or_else(|| Record::new(id.clone()));
    let now = engine.clock.now();
    let (mut changes, mut attempts) = (Vec::new(), Vec::new());
    for store in stores {
        let Some(part) = engine.stores.get(store) else { continue };
        let before = record.replicas.get(store);
        let open = before.and_then(|replica| record.object(store, replica.object.as_ref()?));
        let open = open.filter(|object| object.state == ObjectState::Open);
        // At another place than where it was begun there is nothing of it.
        let is_there = open.is_some_and(|object| place(&object.url) == place(&part.store.location(&object.name)));
        let goes_on = is_there && partial == Partial::GoOn;
        let number = || next_attempt(engine, &record, now);
        let name = open.filter(|_| goes_on).map_or_else(|| ObjectName::new(id, number()), |object| object.name.clone());
        let url = part.store.location(&name);
        if let Some(given_up) = open.filter(|_| !goes_on) {
            changes.push(Change::Doom(store.clone(), given_up.name.clone(), now));
        }
        let (place, name_now, url_now) = (store.clone(), name.clone(), url.clone());
        let object = Object { store: place, name: name_now, url: url_now, state: ObjectState::Open, since: now };
        changes.extend((!sabotage::is(Bug::LedgerComesLater)).then_some(Change::Object(object)));
        let failure = before.and_then(|replica| replica.failure.clone());
        let replica = Replica {
            state: ReplicaState::Copying,
            object: Some(name.clone()),
            url: Some(url),
            failure,
            ..Replica::wanted(store.clone())
        };
        changes.push(Change::Replica(id.clone(), replica));
        let goes_on = goes_on && !part.store.reopens();
        attempts.push(Attempt { store: store.clone(), object: name, goes_on });
    }
    mimeo_crash::point("attempt-chosen");
    engine.ledger.commit(&changes).await?;
    mimeo_crash::point("attempt-known");
    Ok(attempts)
}

/// Attempts are numbered by time, so that a ledger that was lost does not lead to a name that was used before; and each
/// has its own number, so that two stores that are one server under two names do no harm to each other. Two that begin at
/// the same moment do not know of each other from the ledger.
fn next_attempt(engine: &Engine, record: &Record, now: Timestamp) -> u64 {
    // An object that somebody else named so may have any number: none of Mimeo's own is as high.
    let own = record.objects.iter().map(|object| object.name.attempt()).filter(|number| *number < u64::MAX / 2);
    let used = own.max().unwrap_or(0);
    let by_time = u64::try_from(now.as_millisecond()).unwrap_or(0).max(used + 1);
    let mut last = engine.last_attempt.lock().unwrap_or_else(PoisonError::into_inner);
    *last = by_time.max(*last + 1);
    *last
}

/// Copies to one store and proves the copy. Gives the object, if it is proven. A copy of staged bits is proven once the image
/// is made of them.
pub(crate) async fn copy(engine: &Engine, image: &Image, attempt: Attempt, feed: Feed) -> Option<ObjectName> {
    let store = attempt.store.clone();
    match write(engine, image, attempt, feed).await {
        Ok((Verified { digest: None, .. }, _)) => None,
        Ok((_, lenders)) => prove(engine, image, &store, &lenders).await,
        Err(error) => {
            failed(engine, &image.id, &store, &error).await;
            None
        }
    }
}

/// Writes the object, or the rest of it, and notes that it is closed.
async fn write(
    engine: &Engine,
    image: &Image,
    attempt: Attempt,
    feed: Feed,
) -> Result<(Verified, BTreeSet<StoreName>)> {
    let (id, store, mut object) = (&image.id, &attempt.store, attempt.object);
    let gone = || Error::new(Reason::Cancelled, format!("{store} is not enabled any more"));
    let part = engine.stores.get(store).ok_or_else(gone)?;
    let line = engine.board.show(id, store, Phase::Copying, image.size);
    let mut from = 0;
    if attempt.goes_on {
        let (digests, chunk) = (engine.ledger.chunks(id).await?, engine.settings.policy.chunk);
        from = prove::kept(part, &object, image.size.unwrap_or(0), (&digests, chunk), &engine.paces).await?;
        mimeo_crash::point("kept-proven");
        if from == 0 {
            let anew = begin(engine, id, std::slice::from_ref(store), Partial::GiveUp).await?;
            object = anew.into_iter().next().ok_or_else(gone)?.object;
        } else {
            tracing::info!(%store, from, "going on with what was kept");
            line.begin_at(from);
        }
    }
    engine.gates(store).room.take(part, &line).await?;
    let slow = &engine.gates(store).slow;
    let hint = like::object(engine, part, image, &object).await;
    let way = Lane { part, paces: &engine.paces, line: &line, health: &engine.health, slow, like: hint };
    let began = Instant::now();
    let (verified, lenders) = feed.copy_to(&object, from, &way).await?;
    if from == 0 {
        engine.health.wrote(store, verified.size, began.elapsed());
    }
    mimeo_crash::point("object-closed");
    stored(engine, id, store, &object, part.store.location(&object), verified.clone()).await?;
    mimeo_crash::point("object-noted");
    Ok((verified, lenders))
}

/// The object is closed: it is kept, and what it must read back as is known.
pub(crate) async fn stored(
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
        let (size, digest) = (Some(verified.size), verified.digest);
        Replica { state: ReplicaState::Stored, object, url, size, digest, ..replica }
    })
    .await
}

/// Reads the stored object back, and gives it if it is proven. Other bytes than it is to have may be those of `lenders`, whose
/// copies were read for it alone.
pub(crate) async fn prove(
    engine: &Engine,
    image: &Image,
    store: &StoreName,
    lenders: &BTreeSet<StoreName>,
) -> Option<ObjectName> {
    match try_prove(engine, image, store).await {
        Ok(object) => {
            engine.health.succeeded(store, engine.clock.now());
            engine.breakers.worked(store);
            Some(object)
        }
        Err(error) => {
            for lender in lenders.iter().filter(|_| error.reason == Reason::ProofMismatch) {
                doubt(engine, &image.id, lender);
            }
            failed(engine, &image.id, store, &error).await;
            None
        }
    }
}

async fn try_prove(engine: &Engine, image: &Image, store: &StoreName) -> Result<ObjectName> {
    let id = &image.id;
    let lost = || Error::new(Reason::ObjectMissing, format!("{store}: the ledger has no closed object to prove"));
    let record = engine.ledger.load(id).await?.ok_or_else(lost)?;
    let replica = record.replicas.get(store).ok_or_else(lost)?;
    let (Some(object), Some(size)) = (&replica.object, replica.size) else { return Err(lost()) };
    // Of an object that was adopted, or made of staged bits, only the image's own hash tells what it must be.
    let content = || image.hash.as_ref().map(Known::Content);
    let bytes = replica.digest.as_ref().map(Known::Digest).or_else(content).ok_or_else(lost)?;
    let part = engine.stores.get(store).ok_or_else(lost)?;
    let moved = moved_from(engine, &record, replica, part)?;
    let closed = |_| Error::new(Reason::Cancelled, "no proofs are started any more");
    let _turn = engine.gates(store).proofs.acquire().await.map_err(closed)?;
    let line = engine.board.show(id, store, Phase::Proving, Some(size));
    let began = Instant::now();
    let expected = Expected { object, size, bytes };
    let read = match replica.digest.clone().filter(|_| sabotage::is(Bug::UnprovenIsRegistered)) {
        Some(digest) => Ok(digest),
        None => prove::read_back(part, &expected, &line, &engine.paces, Haste::Normal).await,
    };
    let digest = read.map_err(|error| if moved.is_some() { not_at_the_new_place(store, error) } else { error })?;
    mimeo_crash::point("copy-read-back");
    if replica.digest.is_none() {
        tracing::info!(%store, %object, "it reads back as the image");
    }
    engine.health.read(store, size, began.elapsed());
    let proof = Proof { kind: ProofKind::Readback, at: engine.clock.now() };
    let url = moved.as_ref().map(|object| object.url.clone());
    update(engine, id, store, |replica, changes| {
        changes.extend(moved.map(Change::Object));
        let (url, digest) = (url.or(replica.url), Some(digest));
        Replica { state: ReplicaState::Proven, url, digest, proof: Some(proof), failure: None, ..replica }
    })
    .await?;
    mimeo_crash::point("copy-proven");
    Ok(object.clone())
}

/// The object as it is to be recorded once it is proven where its store is now, if that is not where it was made. Only
/// an operator says that it is to be looked for there.
fn moved_from(engine: &Engine, record: &Record, replica: &Replica, part: &StorePart) -> Result<Option<Object>> {
    let store = &replica.store;
    let Some(object) = record.object_of(replica).filter(|_| engine.elsewhere(record).contains(store)) else {
        return Ok(None);
    };
    if !engine.orders.lock().moving.contains_key(store) {
        let message = format!("{store}: the copy is not where the configuration now puts the store");
        return Err(Error::new(Reason::StoreMoved, message));
    }
    Ok(Some(Object { url: part.store.location(&object.name), ..object.clone() }))
}

/// That it is not there, or not rightly, says nothing of the copy at the old place.
fn not_at_the_new_place(store: &StoreName, error: Error) -> Error {
    match error.reason {
        Reason::ObjectMissing | Reason::ProofMismatch => {
            let message = format!(
                "{store}: the copy is not rightly at the store's new place; bring the file there and run `mimeo stores \
                 move {store}` again, or give the new place a store's name of its own"
            );
            Error::new(Reason::StoreMoved, message).caused_by(error)
        }
        _ => error,
    }
}
