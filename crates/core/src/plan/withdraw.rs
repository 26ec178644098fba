//! Withdrawal: which locations of an image lead to objects that are to go, or stand there twice.

use super::{Observation, Plan};
use crate::{
    Change, Failure, Image, Location, Reason, Record, Replica, STORE_KEY, are_surely_two, is_removed_with_its_bits,
};

/// Adds them to the plan, but for the last location that the image has; and says why any of them stay.
///
/// What stands in the ledger as doomed goes, and so does what this plan dooms, and where a copy was before its store was
/// moved. A location that only bears an object's name
/// is not taken for it: which bits it leads to is not Mimeo's to know.
pub(super) fn step(plan: &mut Plan, image: &Image, seen: &Observation<'_>) -> Option<Failure> {
    let dooms_now = |object: &crate::Object| {
        let is_it = |change: &Change| matches!(change, Change::Doom(store, name, _) if *store == object.store && *name == object.name);
        plan.changes.iter().any(is_it)
    };
    let objects = seen.record.objects.iter();
    let doomed: Vec<&str> = objects
        .filter(|object| object.state.is_to_go() || dooms_now(object))
        .map(|object| object.url.as_str())
        .collect();
    let is_to_go = |location: &&Location| {
        doomed.iter().any(|url| location.leads_to(url)) || is_former(image, seen.record, location)
    };
    let mut urls: Vec<String> = Vec::new();
    for location in image.locations.iter().filter(is_to_go) {
        if !urls.contains(&location.url) {
            urls.push(location.url.clone());
        }
    }
    let before = seen.record.image.trouble.as_ref();
    let is_doubled = image.doubles().next().is_some();
    if urls.is_empty() && !is_doubled {
        return None;
    }
    let failed = before.filter(|before| before.reason == Reason::NotWithdrawn).cloned();
    let rests = failed.as_ref().is_some_and(|failure| failure.next_try.is_none_or(|at| at > seen.now));
    if rests {
        return failed;
    }
    let all_go = image.locations.iter().all(|location| urls.contains(&location.url));
    let last = (all_go && !urls.is_empty()).then(|| urls.remove(0));
    plan.withdraw = urls;
    plan.doubled = is_doubled;
    match last {
        Some(url) if plan.withdraw.is_empty() => Some(last_location(&url)),
        _ => failed,
    }
}

/// Whether it is the location that a copy had before its store was moved: Mimeo's own, of the very object that the image
/// now has registered at another URL. Where Glance removes the bits with a location, only one that surely leads to other
/// bits than that.
fn is_former(image: &Image, record: &Record, location: &Location) -> bool {
    let own = location.url.strip_suffix("/snap").unwrap_or(&location.url);
    let has_moved = |replica: &Replica| {
        let (Some(name), Some(url)) = (&replica.object, &replica.url) else { return false };
        let is_moved = own.ends_with(name.as_str()) && !location.leads_to(url) && image.has_location(url);
        let spares_bits = !is_removed_with_its_bits(&location.url) || are_surely_two(&location.url, url);
        is_moved && replica.is_proven() && spares_bits
    };
    let is_known = record.objects.iter().any(|object| location.leads_to(&object.url));
    !is_known && location.metadata.contains_key(STORE_KEY) && record.replicas.values().any(has_moved)
}

fn last_location(url: &str) -> Failure {
    let message = format!(
        "{} leads to a copy that is bad, or is to go, and is the only location that the image has: it stays until another \
         is registered; where no good copy is left, upload the image anew",
        crate::without_credentials(url)
    );
    Failure { reason: Reason::LastLocation, message, tries: 1, next_try: None }
}
