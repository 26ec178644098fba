//! Copies that only Glance can make: it is asked for all of an image's at once, and the image shows what came of it.

use mimeo_core::{Change, ImageId, Record, Replica, ReplicaState, Result, StoreName};

use crate::{Engine, note::failed};

/// Asks Glance to copy the image to these of its stores. That they were asked for is in the ledger before.
pub(crate) async fn ask(engine: &Engine, record: &Record, stores: &[StoreName]) -> Result<()> {
    let id: &ImageId = &record.image.id;
    let policy = &engine.settings.policy;
    let backends: Vec<String> = stores.iter().filter_map(|store| policy.backend(store).map(str::to_owned)).collect();
    let asked = |store: &StoreName| {
        let before = record.replicas.get(store).cloned().unwrap_or_else(|| Replica::wanted(store.clone()));
        Change::Replica(id.clone(), Replica { state: ReplicaState::Copying, proof: None, ..before })
    };
    engine.ledger.commit(&stores.iter().map(asked).collect::<Vec<_>>()).await?;
    tracing::info!(stores = stores.len(), "asking Glance to copy the image");
    if let Err(error) = engine.registry.copy_to(id, &backends).await {
        for store in stores {
            failed(engine, id, store, &error).await;
        }
    }
    Ok(())
}
