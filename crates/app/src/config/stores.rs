//! `enabled_stores`, `[store_defaults]` and `[stores.NAME]`.

#[cfg(feature = "file")]
mod file;
mod glance;
mod http;
#[cfg(feature = "rbd")]
mod rbd;
#[cfg(feature = "rsync")]
mod rsync;
#[cfg(feature = "s3")]
mod s3;
#[cfg(feature = "sftp")]
mod sftp;
#[cfg(any(feature = "sftp", feature = "rsync"))]
mod ssh;
#[cfg(feature = "swift")]
mod swift;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use mimeo_adapters::stores::{InvalidStoreUrl, base_url};
use mimeo_core::{StoreLimits, StoreName, Visibility, policy::StoreFacts};
use url::Url;

use super::{
    StoreConfig, StoreKind,
    document::{Document, Item, Section, of_this_machine, suggestion},
    limits,
    sections::{above_zero, list},
};

/// What every store's section, and `[store_defaults]`, may say beside its type and the limits.
const KEYS: &[&str] = &["timeout", "visibility"];

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
pub(super) fn read(document: &Document<'_>, enabled: &[StoreName], directory: &Path) -> Stores {
    let defaults = document.section("store_defaults");
    defaults.allow(&[&["type"], KEYS, &limits::STORE_KEYS].concat());
    let sections = document.section("stores");
    let mut stores = BTreeMap::new();
    for (name, at) in sections.keys() {
        match name.parse::<StoreName>() {
            Ok(name) => {
                let section = sections.get(name.as_str()).and_then(|item| item.table());
                let store = section
                    .and_then(|section| store(&Own { name: &name, section: section.over(&defaults), directory }));
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
        let places = store.kind.places();
        let shared = stores[..at].iter().find_map(|earlier| {
            let theirs = earlier.kind.places();
            let place = places.iter().find(|place| theirs.contains(place)).map(|(key, _)| *key);
            let key =
                place.or_else(|| (store.is_glances(earlier) || earlier.is_glances(store)).then_some("backend"))?;
            Some((key, &earlier.facts.name))
        });
        let section = sections.get(store.facts.name.as_str()).and_then(|item| item.table());
        if let (Some((key, earlier)), Some(section)) = (shared, section)
            && let Some(item) = [key, "url", "type"].iter().find_map(|key| section.get(key))
        {
            item.wrong(format!("is the same place as that of store \"{earlier}\"; give each its own"));
        }
    }
}

/// One store's section, over the defaults.
struct Own<'a> {
    name: &'a StoreName,
    section: Section<'a>,
    /// Of the file: relative paths count from it.
    directory: &'a Path,
}

impl<'a> Own<'a> {
    /// What must be given; `example` completes "missing; give …".
    fn required(&self, key: &str, example: &str) -> Option<Item<'a>> {
        let item = self.section.get(key);
        if item.is_none() {
            self.section.missing(key, &format!("missing; give {example}"));
        }
        item
    }

    /// A path of this machine.
    fn path(&self, item: &Item<'_>) -> Option<PathBuf> {
        item.parse(|text| match text.trim().is_empty() {
            true => Err("is empty; write a path, or remove the key".to_owned()),
            false => Ok(of_this_machine(self.directory, text)),
        })
    }

    /// The file that is named, and what is in it.
    fn file(&self, item: &Item<'_>) -> Option<(PathBuf, Vec<u8>)> {
        let path = self.path(item)?;
        match fs::read(&path) {
            Ok(content) => Some((path, content)),
            Err(error) => {
                item.wrong(format!("{} cannot be read: {error}; create it, readable for mimeo", path.display()));
                None
            }
        }
    }

    /// A URL that the names of objects are appended to.
    fn url(&self, key: &'static str, example: &str) -> Option<Url> {
        base(key, &self.required(key, example)?)
    }

    /// `None`: a mistake. `Some(None)`: the key is not there.
    fn url_if_given(&self, key: &'static str) -> Option<Option<Url>> {
        match self.section.get(key) {
            Some(item) => base(key, &item).map(Some),
            None => Some(None),
        }
    }
}

fn base(key: &'static str, item: &Item<'_>) -> Option<Url> {
    item.parse(|text| {
        base_url(key, text).map_err(|error: InvalidStoreUrl| format!("\"{}\" {}", error.value, error.rule))
    })
}

/// A type of store: its own keys, and what its section says. `None`: something is wrong.
struct Kind {
    name: &'static str,
    keys: &'static [&'static str],
    read: fn(&Own<'_>) -> Option<StoreKind>,
}

const KINDS: &[Kind] = &[
    Kind {
        name: "http",
        keys: http::KEYS,
        read: |own| http::read(own).map(|config| StoreKind::Http(Box::new(config))),
    },
    #[cfg(feature = "file")]
    Kind { name: "file", keys: file::KEYS, read: |own| file::read(own).map(StoreKind::File) },
    #[cfg(feature = "s3")]
    Kind { name: "s3", keys: s3::KEYS, read: |own| s3::read(own).map(StoreKind::S3) },
    #[cfg(feature = "swift")]
    Kind { name: "swift", keys: swift::KEYS, read: |own| swift::read(own).map(StoreKind::Swift) },
    #[cfg(feature = "rbd")]
    Kind { name: "rbd", keys: rbd::KEYS, read: |own| rbd::read(own).map(StoreKind::Rbd) },
    #[cfg(feature = "sftp")]
    Kind { name: "sftp", keys: sftp::KEYS, read: |own| sftp::read(own).map(StoreKind::Sftp) },
    #[cfg(feature = "rsync")]
    Kind { name: "rsync", keys: rsync::KEYS, read: |own| rsync::read(own).map(StoreKind::Rsync) },
    Kind { name: "glance", keys: glance::KEYS, read: |own| Some(StoreKind::Glance(glance::read(own))) },
];

impl StoreConfig {
    /// Whether the other is, by its `backend`, the store that only Glance is to write here.
    fn is_glances(&self, other: &Self) -> bool {
        self.facts.backend.is_some() && self.facts.backend == other.backend
    }
}

impl StoreKind {
    /// What no other store may have too, each with its key.
    fn places(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Http(config) => http::places(config),
            #[cfg(feature = "file")]
            Self::File(config) => file::places(config),
            #[cfg(feature = "s3")]
            Self::S3(config) => s3::places(config),
            #[cfg(feature = "swift")]
            Self::Swift(config) => swift::places(config),
            #[cfg(feature = "rbd")]
            Self::Rbd(config) => rbd::places(config),
            #[cfg(feature = "sftp")]
            Self::Sftp(config) => sftp::places(config),
            #[cfg(feature = "rsync")]
            Self::Rsync(config) => rsync::places(config),
            Self::Glance(backend) => glance::places(backend),
        }
    }
}

/// None where something was wrong.
fn store(own: &Own<'_>) -> Option<(StoreConfig, StoreLimits)> {
    let section = &own.section;
    let kind = match section.get("type") {
        Some(item) => item.choice(&KINDS.iter().map(|kind| (kind.name, kind)).collect::<Vec<_>>()),
        None => KINDS.first(),
    };
    if section.get("type").is_none()
        && let Some(kinds) = other_kinds(section)
    {
        section.missing("type", &format!("missing; the keys are those of a store of type {kinds}"));
        return None;
    }
    let keys = kind.map_or(&[][..], |kind| kind.keys);
    if kind.is_some() {
        section.allow(&[&["type"], keys, KEYS, &limits::STORE_KEYS].concat());
    }
    let visibility = section.get("visibility").and_then(|item| list(&item, visibility));
    let timeout = section.value("timeout", Duration::from_mins(1), above_zero);
    let limits = limits::store(section);
    let backend = backend(section);
    let kind = (kind?.read)(own)?;
    let delegated = match &kind {
        StoreKind::Glance(backend) => Some(backend.clone()),
        _ => None,
    };
    let facts = StoreFacts { name: own.name.clone(), visibility, backend: delegated };
    Some((StoreConfig { kind, facts, timeout, backend: backend? }, limits))
}

/// Whose keys the section has, if they are not those of the type that it has without one.
fn other_kinds(section: &Section<'_>) -> Option<String> {
    let fits = |kind: &&Kind| {
        let known = [kind.keys, KEYS, &limits::STORE_KEYS].concat();
        section.keys().all(|(key, _)| known.contains(&key))
    };
    let fitting: Vec<String> = KINDS.iter().filter(fits).map(|kind| format!("\"{}\"", kind.name)).collect();
    let is_default = KINDS.first().is_some_and(|kind| fits(&kind));
    (!is_default && !fitting.is_empty()).then(|| fitting.join(" or "))
}

/// Glance's own id of the store, for the types that Glance has too.
fn backend(section: &Section<'_>) -> Option<Option<String>> {
    let Some(item) = section.get("backend") else { return Some(None) };
    let read = |text: &str| match text.trim().is_empty() {
        true => Err("is empty; give the store's id as in glance-api.conf, or leave the key out".to_owned()),
        false => Ok(text.to_owned()),
    };
    item.parse(read).map(Some)
}

fn visibility(item: &Item<'_>) -> Option<Visibility> {
    item.choice(&[
        ("public", Visibility::Public),
        ("community", Visibility::Community),
        ("shared", Visibility::Shared),
        ("private", Visibility::Private),
    ])
}
