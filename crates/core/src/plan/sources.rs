//! Where an image's bits can be read.

use super::{Observation, Policy, SourceOf, is_kept};
use crate::{Image, StoreName};

/// A direct read of a proven copy spares the image service, and is cheaper unless it is known to be much slower.
pub(super) fn sources(policy: &Policy, seen: &Observation<'_>, image: &Image) -> Vec<SourceOf> {
    if image.hash.is_none() {
        // Nothing would show that the copy is no longer what it was.
        return vec![SourceOf::Service];
    }
    let readable = |store: &&StoreName| is_good(seen, image, store);
    let conditions = seen.conditions;
    let rate = |store: &StoreName| conditions.read_rates.get(store).copied();
    let mut copies: Vec<&StoreName> = policy.stores.iter().map(|facts| &facts.name).filter(readable).collect();
    copies.sort_by_key(|store| std::cmp::Reverse(rate(store)));
    let is_slow = |store: &&StoreName| {
        let rates = rate(store).zip(conditions.service_rate);
        conditions.failing.contains(*store) || rates.is_some_and(|(copy, service)| copy < service / 2)
    };
    let (slow, fast): (Vec<_>, Vec<_>) = copies.into_iter().partition(is_slow);
    let copy = |store: &StoreName| SourceOf::Copy(store.clone());
    fast.into_iter().map(copy).chain([SourceOf::Service]).chain(slow.into_iter().map(copy)).collect()
}

/// Whether the store's copy is proven, where it can be read now, and nothing is done with it.
pub(super) fn is_good(seen: &Observation<'_>, image: &Image, store: &StoreName) -> bool {
    let is_here = !seen.elsewhere.contains(store) && !seen.conditions.down.contains_key(store);
    let is_free = is_here && !seen.running.contains(store);
    seen.record.replicas.get(store).is_some_and(|replica| {
        is_free && replica.is_good() && replica.size == image.size && is_kept(seen.record, replica)
    })
}
