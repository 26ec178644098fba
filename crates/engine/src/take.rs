//! A copy that a store makes by itself from another's proven one. It is proven by reading it back, as any other.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::AtomicU64},
};

use mimeo_core::{
    Error, Image, ObjectName, ObjectState, Reason, Record, Replica, Result, StoreName,
    ports::{Offer, Receipt},
};

use crate::{
    Engine,
    attempt::{self, Partial},
    gate::Pass,
    like,
    note::{failed, postpone},
    progress::Phase,
    transfer::{Verified, while_sending},
};

/// Copies and proves, and gives the object if it is proven. Other bytes than the proven ones may be the giver's.
pub(crate) async fn run(engine: &Engine, image: &Image, store: &StoreName, giver: &StoreName) -> Option<ObjectName> {
    let Some(_pass) = pass(engine, store).await else {
        let message = format!("{store}: enough images wait for their turn there; this one is looked at later");
        postpone(engine, &image.id, store, &Error::new(Reason::StoreBusy, message)).await;
        return None;
    };
    let conditions = engine.conditions(engine.clock.now());
    if conditions.closed.contains_key(store) || conditions.draining.contains(store) {
        // The next look says until when it waits.
        return None;
    }
    match take(engine, image, store, giver).await {
        Ok(()) => attempt::prove(engine, image, store, &BTreeSet::from([giver.clone()])).await,
        Err(error) => {
            failed(engine, &image.id, store, &error).await;
            None
        }
    }
}

/// The right to copy to the store. `None`: as many wait for it as may.
async fn pass(engine: &Engine, store: &StoreName) -> Option<Pass> {
    let gates = engine.gates(store);
    if let Some(pass) = gates.copies.enter() {
        return Some(pass);
    }
    let _waiting = Arc::clone(&gates.waiting).try_acquire_owned().ok()?;
    loop {
        gates.copies.room().await;
        if let Some(pass) = gates.copies.enter() {
            return Some(pass);
        }
    }
}

async fn take(engine: &Engine, image: &Image, store: &StoreName, giver: &StoreName) -> Result<()> {
    let gone = || Error::new(Reason::Cancelled, format!("{store} or {giver} is not enabled any more"));
    let part = engine.stores.get(store).ok_or_else(gone)?;
    let area = engine.stores.get(giver).and_then(|part| part.store.area()).ok_or_else(gone)?;
    let (object, copied) = given(engine, image, giver).await?;
    let begun = attempt::begin(engine, &image.id, std::slice::from_ref(store), Partial::GiveUp).await?;
    let own = begun.into_iter().next().ok_or_else(gone)?.object;
    tracing::info!(%store, from = %giver, size = copied.size, "the store copies by itself");
    let line = engine.board.show(&image.id, store, Phase::Copying, image.size);
    engine.gates(store).room.take(part, &line).await?;
    let hint = like::object(engine, part, image, &own).await;
    let (offer, sent) = (Offer { area, object, size: copied.size, like: hint }, AtomicU64::new(0));
    let receipt = while_sending(&sent, part, part.store.take(&own, &offer, &sent)).await?;
    line.advance(usize::try_from(copied.size).unwrap_or(usize::MAX));
    check(store, &receipt, copied.size)?;
    mimeo_crash::point("object-taken");
    let url = part.store.location(&own);
    attempt::stored(engine, &image.id, store, &own, url, copied).await
}

/// The giver's copy, as it was proven.
async fn given(engine: &Engine, image: &Image, giver: &StoreName) -> Result<(ObjectName, Verified)> {
    let record = engine.ledger.load(&image.id).await?;
    let is_kept = |record: &Record, replica: &Replica| {
        record.object_of(replica).is_some_and(|object| object.state == ObjectState::Kept)
    };
    let found = record.and_then(|record| {
        let replica = record.replicas.get(giver).filter(|it| it.is_good() && is_kept(&record, it))?;
        Some((replica.object.clone()?, Verified { size: replica.size?, digest: Some(replica.digest.clone()?) }))
    });
    let message = || format!("the copy at {giver} is not proven any more; the image's own bits are copied");
    found.filter(|(_, copied)| Some(copied.size) == image.size).ok_or_else(|| Error::new(Reason::StoreBusy, message()))
}

fn check(store: &StoreName, receipt: &Receipt, expected: u64) -> Result<()> {
    match receipt.size {
        Some(size) if size != expected => {
            let message = format!("{store}: the store says it has {size} bytes of {expected} copied");
            Err(Error::new(Reason::ProofMismatch, message))
        }
        _ => Ok(()),
    }
}
