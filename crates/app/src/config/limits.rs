//! `[transfer]`, and the same limits in a store's section.

use std::{collections::BTreeMap, num::NonZeroUsize};

use mimeo_core::{Hours, InvalidSpan, Limits, Span, StoreLimits, StoreName};

use super::{
    document::{Item, Section},
    sections::list,
    units,
};
use crate::limits::{MOST_CONCURRENCY, check_memory};

/// What a store's section may say of limits.
pub(super) const STORE_KEYS: [&str; 3] = ["concurrency", "bandwidth", "hours"];

const CONCURRENCY: NonZeroUsize = NonZeroUsize::new(8).unwrap();
const MEMORY: NonZeroUsize = NonZeroUsize::new(32 << 20).unwrap();

/// `stores` are the limits of the enabled stores.
pub(super) fn transfer(section: &Section<'_>, stores: BTreeMap<StoreName, StoreLimits>) -> Limits {
    section.allow(&["concurrency", "memory", "bandwidth", "hours"]);
    let StoreLimits { concurrency, bandwidth, hours } = store(section);
    let concurrency = concurrency.unwrap_or(CONCURRENCY);
    let limits = Limits { concurrency, memory: section.value("memory", MEMORY, memory), bandwidth, hours, stores };
    let told_at = section.get("memory").or_else(|| section.get("concurrency"));
    if let (Some(item), Err(message)) = (told_at, check_memory(&limits)) {
        item.wrong(message);
    }
    limits
}

/// The keys that a store has in common with `[transfer]`.
pub(super) fn store(section: &Section<'_>) -> StoreLimits {
    StoreLimits {
        concurrency: section.get("concurrency").and_then(|item| concurrency(&item)),
        bandwidth: section.get("bandwidth").and_then(|item| item.parse(units::bandwidth)),
        hours: Hours(section.value("hours", Vec::new(), |item| list(item, span))),
    }
}

fn concurrency(item: &Item<'_>) -> Option<NonZeroUsize> {
    let number = item.number(1)?;
    let allowed = usize::try_from(number).ok().filter(|number| *number <= MOST_CONCURRENCY);
    if allowed.is_none() {
        item.wrong(format!("{number} is more than {MOST_CONCURRENCY}, which is the most; lower it"));
    }
    allowed.and_then(NonZeroUsize::new)
}

fn memory(item: &Item<'_>) -> Option<NonZeroUsize> {
    item.parse(|text| {
        let bytes = usize::try_from(units::size(text)?)
            .map_err(|_| format!("\"{text}\" is more than this machine can address; lower it"))?;
        NonZeroUsize::new(bytes).ok_or_else(|| format!("\"{text}\" must be more than nothing"))
    })
}

fn span(item: &Item<'_>) -> Option<Span> {
    item.parse(|text| text.parse().map_err(|error: InvalidSpan| error.to_string()))
}
