//! `enabled_stores`, `[store_defaults]` and `[stores.NAME]`.

use std::{collections::BTreeMap, time::Duration};

use mimeo_adapters::stores::http::HttpStoreConfig;
use mimeo_core::{StoreLimits, StoreName, Visibility, policy::StoreFacts};

use super::{
    StoreConfig,
    document::{Document, Item, Section, suggestion},
    limits,
    sections::{above_zero, list},
};

const STORE_KEYS: &[&str] = &["type", "url", "read_url", "timeout", "visibility"];
const DEFAULT_KEYS: &[&str] = &["type", "timeout", "visibility"];

/// The enabled stores that have a section without mistakes, in the operator's order, and the limits of each.
pub(super) type Stores = (Vec<StoreConfig>, BTreeMap<StoreName, StoreLimits>);

/// The names that are well formed, in the operator's order.
pub(super) fn enabled(root: &Section<'_>) -> Vec<StoreName> {
    let Some(item) = root.get("enabled_stores") else {
        root.missing("enabled_stores", "missing; name the stores to use, as in enabled_stores = [\"http1\"]");
        return Vec::new();
    };
    let name = |item: &Item<'_>| item.parse(|text| text.parse::<StoreName>().map_err(|error| error.to_string()));
    list(&item, name).unwrap_or_default()
}

/// The sections of other than the enabled stores enable nothing, but are checked too.
pub(super) fn read(document: &Document<'_>, enabled: &[StoreName]) -> Stores {
    let defaults = document.section("store_defaults");
    defaults.allow(&[DEFAULT_KEYS, &limits::STORE_KEYS].concat());
    let sections = document.section("stores");
    let mut stores = BTreeMap::new();
    for (name, at) in sections.keys() {
        match name.parse::<StoreName>() {
            Ok(name) => {
                let section = sections.get(name.as_str()).and_then(|item| item.table());
                let store = section.and_then(|section| store(&name, &section.over(&defaults)));
                stores.insert(name, store);
            }
            Err(error) => document.add(at, "stores", error.to_string()),
        }
    }
    report_missing(document, enabled, &sections);
    let chosen = enabled.iter().filter_map(|name| stores.remove(name)?);
    let (chosen, limits): (Vec<StoreConfig>, _) =
        chosen.map(|(store, limits)| (store.clone(), (store.facts.name, limits))).unzip();
    report_shared(&chosen, &sections);
    (chosen, limits)
}

fn report_missing(document: &Document<'_>, enabled: &[StoreName], sections: &Section<'_>) {
    let known: Vec<&str> = sections.keys().map(|(name, _)| name).collect();
    let items = document.root().get("enabled_stores").filter(|_| !enabled.is_empty()).and_then(|item| item.array());
    for item in items.unwrap_or_default() {
        let Some(name) = item.text().filter(|name| enabled.iter().any(|enabled| enabled.as_str() == name)) else {
            continue;
        };
        if !known.contains(&name.as_str()) {
            let advice = if known.is_empty() { String::new() } else { format!(", or {}", suggestion(&name, &known)) };
            item.wrong(format!("\"{name}\" has no section; add [stores.{name}] with its url{advice}"));
        }
    }
}

/// Two stores that write, or are read, at one place would count one copy twice.
fn report_shared(stores: &[StoreConfig], sections: &Section<'_>) {
    for (at, store) in stores.iter().enumerate() {
        for earlier in &stores[..at] {
            let key = match (store.http.url == earlier.http.url, store.http.readable() == earlier.http.readable()) {
                (true, _) => "url",
                (false, true) => "read_url",
                (false, false) => continue,
            };
            let section = sections.get(store.facts.name.as_str()).and_then(|item| item.table());
            if let Some(item) = section.and_then(|section| section.get(key).or_else(|| section.get("url"))) {
                item.wrong(format!("is the same place as that of store \"{}\"; give each its own", earlier.facts.name));
            }
        }
    }
}

/// None where something was wrong.
fn store(name: &StoreName, section: &Section<'_>) -> Option<(StoreConfig, StoreLimits)> {
    section.allow(&[STORE_KEYS, &limits::STORE_KEYS].concat());
    let kind = match section.get("type") {
        Some(item) => item.parse(|text| match text {
            "http" => Ok(()),
            _ => Err(format!("unknown type \"{text}\"; known: http")),
        }),
        None => Some(()),
    };
    let url = section.get("url");
    if url.is_none() {
        section.missing("url", "missing; give the place to write to, like \"http://10.0.0.11/images/\"");
    }
    let read_url = section.get("read_url");
    let visibility = section.get("visibility").and_then(|item| list(&item, visibility));
    let timeout = section.value("timeout", Duration::from_mins(1), above_zero);
    let limits = limits::store(section);
    kind?;
    let http = http(name, &url?, read_url.as_ref())?;
    Some((StoreConfig { http, facts: StoreFacts { name: name.clone(), visibility }, timeout }, limits))
}

fn http(name: &StoreName, url: &Item<'_>, read_url: Option<&Item<'_>>) -> Option<HttpStoreConfig> {
    let write_to = url.text()?;
    let read_from = match read_url {
        Some(item) => Some(item.text()?),
        None => None,
    };
    let built = HttpStoreConfig::new(name.clone(), &write_to, read_from.as_deref());
    if let Err(error) = &built {
        let item = read_url.filter(|_| error.key == "read_url").unwrap_or(url);
        item.wrong(format!("\"{}\" {}", error.value, error.rule));
    }
    built.ok()
}

fn visibility(item: &Item<'_>) -> Option<Visibility> {
    item.choice(&[
        ("public", Visibility::Public),
        ("community", Visibility::Community),
        ("shared", Visibility::Shared),
        ("private", Visibility::Private),
    ])
}
