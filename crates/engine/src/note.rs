//! Notes in the ledger about one replica: each is one commit.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use mimeo_core::{Change, Error, ImageId, ObjectState, Reason, Replica, ReplicaState, Result, StoreName};

use crate::{
    Engine,
    sabotage::{self, Bug},
};

/// A failure: told, held against the store if it is the store's own, and kept.
pub(crate) async fn failed(engine: &Engine, id: &ImageId, store: &StoreName, error: &Error) {
    tracing::warn!(%store, reason = error.reason.code(), error = error.chain(), "this replica failed");
    if error.reason.is_the_stores() {
        engine.health.failed(store, error);
    }
    engine.breakers.suspect(store, error.reason);
    engine.breakers.tried(store, error, engine.clock.now());
    put_off(engine, id, store, error).await;
}

/// Keeps the reason and the next try. A closed object that merely could not be read is kept for another proof, and of one
/// that was not closed the next look decides; any other is the sweeper's.
async fn put_off(engine: &Engine, id: &ImageId, store: &StoreName, error: &Error) {
    let now = engine.clock.now();
    let is_bad = matches!(
        error.reason,
        Reason::ProofMismatch | Reason::ObjectMissing | Reason::SourceMismatch | Reason::SourceSize | Reason::StoreFull
    );
    let is_bad = is_bad || sabotage::is(Bug::WhatIsOutOfReachIsBad);
    let result = update(engine, id, store, |replica, changes| {
        let is_closed = matches!(
            replica.state,
            ReplicaState::Stored | ReplicaState::Proven | ReplicaState::Registered | ReplicaState::Suspect
        );
        let keeps = is_closed && !is_bad;
        let state = if keeps { replica.state } else { ReplicaState::Failed };
        let undecided = replica.state == ReplicaState::Copying && !is_bad;
        if let (false, Some(name)) = (keeps || undecided, replica.object.clone()) {
            changes.push(Change::Doom(store.clone(), name, now));
        }
        let mut failed = replica.failed(state, error, engine.settings.policy.backoff, now);
        if let Some(failure) = failed.failure.as_mut().filter(|_| sabotage::is(Bug::TriedNoMore)) {
            failure.next_try = failure.next_try.filter(|_| failure.tries < 3);
        }
        failed
    });
    if let Err(error) = result.await {
        tracing::error!(%store, error = error.chain(), "the ledger did not take the failure");
    }
    mimeo_crash::point("failure-noted");
}

/// Keeps why a copy is not begun now, and when it is tried next. What there is of an object is left as it is. Nothing was
/// tried, so no failure is counted.
pub(crate) async fn postpone(engine: &Engine, id: &ImageId, store: &StoreName, error: &Error) {
    let now = engine.clock.now();
    let noted = write(engine, id, store, |replica, _| {
        replica.failed(ReplicaState::Failed, error, engine.settings.policy.backoff, now)
    });
    if let Err(error) = noted.await {
        tracing::error!(%store, error = error.chain(), "the ledger did not take why a copy waits");
    }
}

/// Copies that gave other bytes than the image's, of which the ledger does not know yet.
#[derive(Default)]
pub(crate) struct Doubts(Mutex<BTreeSet<(ImageId, StoreName)>>);

impl Doubts {
    fn add(&self, id: &ImageId, store: &StoreName) {
        self.all().insert((id.clone(), store.clone()));
    }

    pub(crate) fn of(&self, id: &ImageId) -> Vec<StoreName> {
        self.all().iter().filter(|(image, _)| image == id).map(|(_, store)| store.clone()).collect()
    }

    fn remove(&self, id: &ImageId, store: &StoreName) {
        self.all().remove(&(id.clone(), store.clone()));
    }

    fn all(&self) -> MutexGuard<'_, BTreeSet<(ImageId, StoreName)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The copy was read, and gave other bytes than the image's: it is to be proven anew, and is not registered before that.
pub(crate) fn doubt(engine: &Engine, id: &ImageId, store: &StoreName) {
    tracing::error!(%store, "the copy gave other bytes than the image's; it is proven anew");
    engine.doubts.add(id, store);
}

/// Has the ledger take what it is still to know of the image's copies, before anything is planned.
pub(crate) async fn doubts(engine: &Engine, id: &ImageId) -> Result<()> {
    for store in engine.doubts.of(id) {
        if let Some(record) = engine.ledger.load(id).await?
            && let Some(replica) = record.replicas.get(&store).filter(|replica| replica.proof.is_some())
            && record.object_of(replica).is_some_and(|object| object.state == ObjectState::Kept)
        {
            // Whatever became of it meanwhile, its proof counts no more, and nothing is waited for.
            let doubted = Replica { state: ReplicaState::Stored, proof: None, failure: None, ..replica.clone() };
            engine.ledger.commit(&[Change::Replica(id.clone(), doubted)]).await?;
        }
        engine.doubts.remove(id, &store);
    }
    Ok(())
}

/// Changes one replica, and whatever else belongs to the same step, in one commit. If it has failed once more, that is
/// counted.
pub(crate) async fn update(
    engine: &Engine,
    id: &ImageId,
    store: &StoreName,
    change: impl FnOnce(Replica, &mut Vec<Change>) -> Replica + Send,
) -> Result<()> {
    if let Some(reason) = write(engine, id, store, change).await? {
        engine.meter.failed(store, reason);
    }
    Ok(())
}

/// Gives why the replica failed, if it has failed once more.
async fn write(
    engine: &Engine,
    id: &ImageId,
    store: &StoreName,
    change: impl FnOnce(Replica, &mut Vec<Change>) -> Replica + Send,
) -> Result<Option<Reason>> {
    let record = engine.ledger.load(id).await?;
    let replica = record.and_then(|mut record| record.replicas.remove(store));
    let replica = replica.unwrap_or_else(|| Replica::wanted(store.clone()));
    let tries = replica.failure.as_ref().map_or(0, |failure| failure.tries);
    let mut changes = Vec::new();
    let replica = change(replica, &mut changes);
    let failure = replica.failure.as_ref().filter(|failure| failure.tries > tries);
    let reason = failure.map(|failure| failure.reason);
    changes.push(Change::Replica(id.clone(), replica));
    engine.ledger.commit(&changes).await?;
    Ok(reason)
}
