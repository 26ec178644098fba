//! Reading an image for somebody else, from the copy that was the fastest to read lately.

use std::cmp::Reverse;

use mimeo_core::{ImageId, ReplicaState, Result, ports::ByteStream};

use crate::{
    Engine,
    transfer::{Origin, Origins, read},
};

impl Engine {
    /// So many bytes of the image, from `offset` on, out of a registered copy; a copy that breaks hands on to the next one,
    /// and at last to the image service. `None`: there is no copy. Whether whoever asks may have them is not asked here.
    pub async fn read_copy(&self, id: &ImageId, offset: u64, length: u64) -> Result<Option<ByteStream>> {
        let Some(record) = self.ledger.load(id).await? else { return Ok(None) };
        let conditions = self.conditions(self.clock.now());
        let registered = record.replicas.values().filter(|replica| replica.state == ReplicaState::Registered);
        let is_well = |store| !conditions.failing.contains(store) && !conditions.down.contains_key(store);
        let mut copies: Vec<_> = registered.filter(|replica| is_well(&replica.store)).collect();
        copies.sort_by_key(|replica| Reverse(conditions.read_rates.get(&replica.store)));
        let origin = |replica: &&mimeo_core::Replica| {
            Some(Origin::copy(&self.stores.get(&replica.store)?.store, replica.object.clone()?))
        };
        let mut origins: Vec<Origin> = copies.iter().filter_map(origin).collect();
        let is_within = record.image.size.is_some_and(|size| offset.saturating_add(length) <= size);
        if origins.is_empty() || !is_within || length == 0 {
            return Ok(None);
        }
        origins.push(Origin::service(self.registry.source(id)));
        read(&Origins::new(origins), offset, length, self.settings.source_timeout).await.map(Some)
    }
}
