//! The order of an image's locations: Glance reads the first that it can open, and may hang on one that does not answer.

use super::{Observation, Policy};
use crate::{Image, Location, Replica, StoreName};

/// Those of stores that answer first, and otherwise as they stand; `None` where it is so already.
pub(super) fn demoted(seen: &Observation<'_>, image: &Image) -> Option<Vec<String>> {
    let is_down =
        |location: &&Location| store(seen, location).is_some_and(|store| seen.conditions.down.contains_key(store));
    let (down, up): (Vec<&Location>, Vec<&Location>) = image.locations.iter().partition(is_down);
    changed(image, up.into_iter().chain(down))
}

/// Mimeo's own in the operator's order of the stores, in those places that are Mimeo's; those of others stay where they are.
/// Whatever does not answer is last.
pub(super) fn returned(policy: &Policy, seen: &Observation<'_>, image: &Image) -> Option<Vec<String>> {
    let rank = |location: &Location| {
        let store = store(seen, location)?;
        let is_down = seen.conditions.down.contains_key(store);
        let enabled = policy.stores.iter().position(|facts| facts.name == *store);
        Some((is_down, enabled.unwrap_or(usize::MAX)))
    };
    let mut own: Vec<&Location> = image.locations.iter().filter(|location| rank(location).is_some()).collect();
    own.sort_by_key(|location| rank(location));
    let (down, own): (Vec<&Location>, Vec<&Location>) =
        own.into_iter().partition(|location| rank(location).is_some_and(|(is_down, _)| is_down));
    let mut own = own.into_iter();
    let places = image.locations.iter().filter(|location| rank(location).is_none_or(|(is_down, _)| !is_down));
    let filled =
        places.map(|location| if rank(location).is_some() { own.next().unwrap_or(location) } else { location });
    changed(image, filled.chain(down))
}

/// The store of a copy of Mimeo's own.
fn store<'a>(seen: &'a Observation<'_>, location: &Location) -> Option<&'a StoreName> {
    let is_at = |replica: &&Replica| replica.url.as_deref().is_some_and(|url| location.leads_to(url));
    let own = |replica: &&Replica| replica.object.is_some();
    seen.record.replicas.values().filter(own).find(is_at).map(|replica| &replica.store)
}

fn changed<'a>(image: &Image, order: impl Iterator<Item = &'a Location>) -> Option<Vec<String>> {
    let order: Vec<String> = order.map(|location| location.url.clone()).collect();
    (!order.iter().eq(image.locations.iter().map(|location| &location.url))).then_some(order)
}
