//! Withdrawal: which locations of an image lead to objects that are to go.

use super::{Observation, Plan};
use crate::{Change, Failure, Image, ObjectState, Reason};

/// Adds them to the plan, but for the last location that the image has; and says why any of them stay.
///
/// What stands in the ledger as doomed goes, and so does what this plan dooms. A location that only bears an object's name
/// is not taken for it: which bits it leads to is not Mimeo's to know.
pub(super) fn step(plan: &mut Plan, image: &Image, seen: &Observation<'_>) -> Option<Failure> {
    let dooms_now = |object: &crate::Object| {
        let is_it = |change: &Change| matches!(change, Change::Doom(store, name, _) if *store == object.store && *name == object.name);
        plan.changes.iter().any(is_it)
    };
    let objects = seen.record.objects.iter();
    let doomed: Vec<&str> = objects
        .filter(|object| object.state == ObjectState::Doomed || dooms_now(object))
        .map(|object| object.url.as_str())
        .collect();
    let is_doomed = |location: &&crate::Location| doomed.iter().any(|url| location.leads_to(url));
    let mut urls: Vec<String> = image.locations.iter().filter(is_doomed).map(|location| location.url.clone()).collect();
    let before = seen.record.image.trouble.as_ref();
    if urls.is_empty() {
        return None;
    }
    let failed = before.filter(|before| before.reason == Reason::NotWithdrawn).cloned();
    let rests = failed.as_ref().is_some_and(|failure| failure.next_try.is_none_or(|at| at > seen.now));
    if rests {
        return failed;
    }
    let last = (urls.len() == image.locations.len()).then(|| urls.remove(0));
    plan.withdraw = urls;
    match last {
        Some(url) if plan.withdraw.is_empty() => Some(last_location(&url)),
        _ => failed,
    }
}

fn last_location(url: &str) -> Failure {
    let message = format!(
        "{} leads to a copy that is bad, or is to go, and is the only location that the image has: it stays until another \
         is registered; where no good copy is left, upload the image anew",
        crate::without_credentials(url)
    );
    Failure { reason: Reason::LastLocation, message, tries: 1, next_try: None }
}
