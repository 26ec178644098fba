//! Reading an image for somebody else, from the copy that was the fastest to read lately.

use std::{cmp::Reverse, ops::Range};

use mimeo_core::{ImageId, ObjectState, Replica, ReplicaState, Result, ports::ByteStream};

use crate::{
    Engine,
    transfer::{Origin, Origins, read},
};

impl Engine {
    /// These bytes of the image, which has `size`, out of a registered copy; a copy that breaks hands on to the next one,
    /// and at last to the image service. `None`: there is no copy. Whether whoever asks may have them is not asked here.
    pub async fn read_copy(&self, id: &ImageId, bytes: Range<u64>, size: u64) -> Result<Option<ByteStream>> {
        let Some(record) = self.ledger.load(id).await? else { return Ok(None) };
        let conditions = self.conditions(self.clock.now());
        let elsewhere = self.elsewhere(&record);
        // At another place than where its store is now nobody has proven it.
        let is_there = |replica: &Replica| {
            let is_kept = record.object_of(replica).is_some_and(|object| object.state == ObjectState::Kept);
            is_kept && replica.size == Some(size) && !elsewhere.contains(&replica.store)
        };
        let is_of_use = |replica: &&Replica| replica.state == ReplicaState::Registered && is_there(replica);
        let registered = record.replicas.values().filter(is_of_use);
        let is_well = |store| !conditions.failing.contains(store) && !conditions.down.contains_key(store);
        let mut copies: Vec<_> = registered.filter(|replica| is_well(&replica.store)).collect();
        copies.sort_by_key(|replica| Reverse(conditions.read_rates.get(&replica.store)));
        let origin =
            |replica: &&Replica| Some(Origin::copy(&self.stores.get(&replica.store)?.store, replica.object.clone()?));
        let mut origins: Vec<Origin> = copies.iter().filter_map(origin).collect();
        let is_within = record.image.size == Some(size) && bytes.end <= size;
        if origins.is_empty() || !is_within || bytes.is_empty() {
            return Ok(None);
        }
        origins.push(Origin::service(self.registry.source(id)));
        read(&Origins::new(origins), bytes.start, bytes.end - bytes.start, self.settings.source_timeout).await.map(Some)
    }
}
