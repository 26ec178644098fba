//! Where the ledger's copies are, and where the configuration puts their stores: tells a store that was renamed, moved
//! or switched off. Nothing is done about it but by an operator's word.

use std::collections::{BTreeMap, BTreeSet};

use mimeo_core::{
    Change, Place, Record, Replica, Result, StoreName, are_surely_two, is_removed_with_its_bits, place,
    ports::{Ledger, Store},
    without_credentials,
};

use crate::{Engine, orders, status::RenameReport, walk::Records};

/// What the ledger has at one store, by the store's name there.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) objects: u64,
    /// Those that are not where the configuration puts the store.
    pub(crate) elsewhere: u64,
    /// Where one of those is.
    url: Option<String>,
    /// Of those the one that may be the very bits at the new place, and that Glance would remove with its location.
    perhaps_the_same: Option<String>,
    /// Enabled stores that are where this one's objects are, and how many of them.
    same_place: BTreeMap<StoreName, u64>,
}

pub(crate) async fn survey(engine: &Engine) -> Result<BTreeMap<StoreName, Found>> {
    let stores = engine.stores.values().map(|part| part.store.as_ref()).collect::<Vec<_>>();
    survey_of(engine.ledger.as_ref(), &stores).await
}

async fn survey_of(ledger: &dyn Ledger, stores: &[&dyn Store]) -> Result<BTreeMap<StoreName, Found>> {
    let mut all = BTreeMap::<StoreName, Found>::new();
    for Place { store: of, objects, doomed, name, url } in ledger.places().await? {
        let (found, live) = (all.entry(of.clone()).or_default(), objects - doomed);
        found.objects += objects;
        if live == 0 {
            continue;
        }
        let is_there = |store: &dyn Store| place(&store.location(&name)) == place(&url);
        match stores.iter().find(|store| *store.name() == of) {
            Some(store) if is_there(*store) => {}
            Some(store) => {
                found.elsewhere += live;
                if is_removed_with_its_bits(&url) && !are_surely_two(&url, &store.location(&name)) {
                    found.perhaps_the_same = Some(url.clone());
                }
                found.url = Some(url);
            }
            None => {
                for store in stores.iter().filter(|store| is_there(**store)) {
                    *found.same_place.entry(store.name().clone()).or_default() += live;
                }
            }
        }
    }
    Ok(all)
}

/// Enabled stores that are at the place of one that is not, and the name of that.
pub(crate) fn renamed(engine: &Engine, found: &BTreeMap<StoreName, Found>) -> BTreeMap<StoreName, StoreName> {
    let former = found.iter().filter(|(name, _)| !engine.settings.policy.enables(name));
    former.filter_map(|(name, found)| Some((found.new_name()?.clone(), name.clone()))).collect()
}

impl Found {
    fn new_name(&self) -> Option<&StoreName> {
        self.same_place.iter().max_by_key(|(_, count)| **count).map(|(name, _)| name)
    }

    /// The URL of one that is elsewhere and may not be withdrawn: Glance would remove bits that may be those at the new place.
    pub(crate) fn perhaps_the_same(&self) -> Option<String> {
        self.perhaps_the_same.as_deref().map(without_credentials)
    }

    /// What an operator should know of the store, and do about it.
    pub(crate) fn note(&self, engine: &Engine, name: &StoreName) -> Option<String> {
        let is_moving = engine.orders.lock().moving.contains_key(name);
        self.note_of(name, engine.settings.policy.enables(name), is_moving)
    }

    fn note_of(&self, name: &StoreName, is_enabled: bool, is_moving: bool) -> Option<String> {
        match (is_enabled, self.new_name()) {
            (true, _) if self.elsewhere > 0 => {
                let url = self.url.as_deref().map(without_credentials).unwrap_or_default();
                let cure = match is_moving {
                    true => "they are being proven at the new place".to_owned(),
                    false => format!(
                        "put the old URL back, or bring the files to the new place and run `mimeo stores move {name}`"
                    ),
                };
                Some(format!(
                    "{} of its copies are not where the configuration now puts it (one is at {url}); {cure}",
                    self.elsewhere
                ))
            }
            (true, _) => None,
            (false, Some(new)) => Some(format!(
                "{} copies are in the ledger under this name, which enabled_stores no longer names; {new} is at the \
                 same place: `mimeo stores rename {name} {new}` makes them its own",
                self.objects
            )),
            (false, None) => Some(format!(
                "not enabled; {} copies of it are kept as they are. Enable it again, under this or another name \
                 (`mimeo stores rename {name} NEW`); to be rid of it, enable it and run `mimeo drain`",
                self.objects
            )),
        }
    }
}

/// The same without an engine: what an operator should know of where the ledger's copies are, by the stores' names.
pub async fn notes(
    ledger: &dyn Ledger,
    stores: &[&dyn Store],
    enabled: &[&StoreName],
) -> Result<Vec<(StoreName, String)>> {
    let found = survey_of(ledger, stores).await?;
    let note = |(name, found): (StoreName, Found)| {
        let note = found.note_of(&name, enabled.contains(&&name), false)?;
        Some((name, note))
    };
    Ok(found.into_iter().filter_map(note).collect())
}

/// Tells in the log what the operator should know.
pub(crate) async fn tell(engine: &Engine) -> Result<()> {
    for (store, note) in
        survey(engine).await?.iter().filter_map(|(name, found)| Some((name, found.note(engine, name)?)))
    {
        tracing::warn!(%store, "{note}");
    }
    let draining: Vec<StoreName> = engine.orders.lock().draining.keys().cloned().collect();
    for store in draining {
        tracing::info!(%store, "the store is drained, until `mimeo drain {store} --cancel`");
    }
    Ok(())
}

impl Engine {
    /// The enabled stores whose copy of the image is at another place than where the configuration puts them.
    pub(crate) fn elsewhere(&self, record: &Record) -> BTreeSet<StoreName> {
        let is_elsewhere = |replica: &&Replica| {
            let object = record.object_of(replica).zip(self.stores.get(&replica.store));
            object.is_some_and(|(object, part)| place(&part.store.location(&object.name)) != place(&object.url))
        };
        record.replicas.values().filter(is_elsewhere).map(|replica| replica.store.clone()).collect()
    }
}

/// What the ledger has of the store `from` is `to`'s from now on, image by image.
pub(crate) async fn rename(engine: &Engine, from: &StoreName, to: &StoreName) -> Result<RenameReport> {
    let (mut renamed, mut walk) = (RenameReport::default(), Records::all(engine.ledger.as_ref()));
    while let Some(records) = walk.next().await? {
        for record in records.iter().filter(|record| orders::concerns(record, from)) {
            let Some(_turn) = engine.turns.take(&record.image.id) else {
                renamed.busy += 1;
                continue;
            };
            // Now that nobody else works on it.
            let Some(record) = engine.ledger.load(&record.image.id).await? else { continue };
            match renaming(&record, from, to) {
                Some(changes) => {
                    engine.ledger.commit(&changes).await?;
                    mimeo_crash::point("rename-followed");
                    renamed.followed += 1;
                }
                None => renamed.both += 1,
            }
        }
    }
    orders::names_changed(engine).await?;
    tracing::info!(%from, %to, images = renamed.followed, "the store was renamed");
    orders::mark_store(engine, to).await?;
    Ok(renamed)
}

/// `None`: there is a copy under either name, and neither may be lost from sight.
fn renaming(record: &Record, from: &StoreName, to: &StoreName) -> Option<Vec<Change>> {
    if record.objects.iter().any(|object| object.store == *to) {
        return None;
    }
    let mut changes = Vec::new();
    for object in record.objects.iter().filter(|object| object.store == *from) {
        changes.push(Change::ObjectGone(from.clone(), object.name.clone()));
        changes.push(Change::Object(mimeo_core::Object { store: to.clone(), ..object.clone() }));
    }
    if let Some(replica) = record.replicas.get(from) {
        changes.push(Change::ReplicaGone(record.image.id.clone(), from.clone()));
        changes.push(Change::Replica(record.image.id.clone(), Replica { store: to.clone(), ..replica.clone() }));
    }
    Some(changes)
}
