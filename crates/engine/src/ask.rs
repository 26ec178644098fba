//! Copies that only Glance can make: it is asked for them, a few at a time, and the image shows what came of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroUsize,
    sync::{Mutex, PoisonError},
};

use mimeo_core::{Change, Error, ImageId, Reason, Record, Replica, ReplicaState, Result, StoreName};

use crate::{
    Engine,
    note::{failed, postpone, update},
};

/// Images that Glance copies to one store at a time, unless the store's `concurrency` says otherwise. It has few workers,
/// and no location of an image that waits for one can be registered.
const COPIES: usize = 4;

/// Which images Glance copies to its stores at Mimeo's wish, as far as their looks have shown.
#[derive(Default)]
pub(crate) struct Asked(Mutex<BTreeMap<StoreName, BTreeSet<ImageId>>>);

impl Asked {
    /// What a look at the image showed.
    pub(crate) fn seen(&self, record: &Record, importing: bool) {
        let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for images in asked.values_mut() {
            images.remove(&record.image.id);
        }
        let copying = record.replicas.values().filter(|replica| importing && replica.state == ReplicaState::Copying);
        for replica in copying.filter(|replica| replica.object.is_none()) {
            asked.entry(replica.store.clone()).or_default().insert(record.image.id.clone());
        }
    }

    /// Counts the image in; false: there are enough.
    fn enter(&self, store: &StoreName, image: &ImageId, most: usize) -> bool {
        let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let images = asked.entry(store.clone()).or_default();
        images.contains(image) || (images.len() < most && images.insert(image.clone()))
    }
}

/// Asks Glance to copy the image to these of its stores. That they were asked for is in the ledger before.
pub(crate) async fn ask(engine: &Engine, record: &Record, stores: &[StoreName]) -> Result<()> {
    let id = &record.image.id;
    let limits = engine.limits();
    let most = |store| limits.stores.get(store).and_then(|own| own.concurrency).map_or(COPIES, NonZeroUsize::get);
    let (now, later): (Vec<_>, Vec<_>) = stores.iter().partition(|store| engine.asked.enter(store, id, most(store)));
    for store in later {
        let message = format!("{store}: Glance makes enough copies there already; it is asked for this one later");
        postpone(engine, id, store, &Error::new(Reason::StoreBusy, message)).await;
    }
    if now.is_empty() {
        return Ok(());
    }
    let asked = |store: &&StoreName| {
        let before = record.replicas.get(*store).cloned().unwrap_or_else(|| Replica::wanted((*store).clone()));
        Change::Replica(id.clone(), Replica { state: ReplicaState::Copying, proof: None, ..before })
    };
    engine.ledger.commit(&now.iter().map(asked).collect::<Vec<_>>()).await?;
    mimeo_crash::point("ask-noted");
    tracing::info!(stores = now.len(), "asking Glance to copy the image");
    let asked = copy_to(engine, id, &now).await;
    mimeo_crash::point("ask-sent");
    match asked {
        Err(error) if now.len() > 1 && blames_one(&error) => one_by_one(engine, id, &now).await,
        Err(error) => {
            for store in now {
                failed(engine, id, store, &error).await;
            }
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// Glance refuses all of them for the sake of one, and takes one request at a time: once one is taken, the others have
/// their turn when that has ended.
async fn one_by_one(engine: &Engine, id: &ImageId, stores: &[&StoreName]) -> Result<()> {
    let mut is_taken = false;
    for store in stores {
        if is_taken {
            update(engine, id, store, |replica, _| Replica { state: ReplicaState::Wanted, ..replica }).await?;
            continue;
        }
        match copy_to(engine, id, &[store]).await {
            Ok(()) => is_taken = true,
            Err(error) => failed(engine, id, store, &error).await,
        }
    }
    Ok(())
}

async fn copy_to(engine: &Engine, id: &ImageId, stores: &[&StoreName]) -> Result<()> {
    let backend = |store: &&StoreName| engine.settings.policy.backend(store).map(str::to_owned);
    engine.registry.copy_to(id, &stores.iter().filter_map(backend).collect::<Vec<_>>()).await
}

fn blames_one(error: &Error) -> bool {
    matches!(error.reason, Reason::GlanceCopyFailed | Reason::Conflict)
}
