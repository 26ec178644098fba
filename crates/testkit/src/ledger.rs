use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use mimeo_core::{
    Backlog, Change, Digest, DirtyMark, Due, Error, FORGOTTEN, Failure, HISTORY_KEPT, HISTORY_LINES, HistoryLine,
    HistoryState, HistoryStep, ImageFilter, ImageId, ImageRow, Object, ObjectName, ObjectState, Place, Reason, Record,
    Replica, ReplicaState, Result, StoreName, Tally, Timestamp, Told, follow, ports::Ledger,
};
use tokio::time::Instant;

use crate::sample;

/// A ledger in memory, with the semantics of the durable ones.
#[derive(Debug)]
pub struct MemoryLedger {
    tables: Mutex<Tables>,
    down: AtomicBool,
    full: AtomicBool,
    /// How many commits there may yet be before it is dead; `usize::MAX`: any number.
    left: AtomicUsize,
    /// Of which store it takes no replica.
    refused: Mutex<Option<StoreName>>,
    began: Instant,
}

impl Default for MemoryLedger {
    fn default() -> Self {
        let (tables, down, full, refused) = Default::default();
        Self { tables, down, full, left: AtomicUsize::new(usize::MAX), refused, began: Instant::now() }
    }
}

impl MemoryLedger {
    /// From now on the disk is full: what is there can be read, and nothing be written. Or there is room again.
    pub fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::SeqCst);
    }

    /// From now on every commit fails that changes a replica of this store; of none: no more.
    pub fn refuse(&self, store: Option<&StoreName>) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = store.cloned();
    }

    fn refuses(&self, change: &Change) -> bool {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(change, Change::Replica(_, replica) if refused.as_ref() == Some(&replica.store))
    }

    /// After so many more commits nothing is recorded any more, as after the death of its process, until
    /// [`revive`](Self::revive).
    pub fn dies_after(&self, commits: usize) {
        self.left.store(commits, Ordering::SeqCst);
    }

    pub fn is_dead(&self) -> bool {
        self.left.load(Ordering::SeqCst) == 0
    }

    pub fn revive(&self) {
        self.left.store(usize::MAX, Ordering::SeqCst);
    }

    /// What is in it now, for [`restore`](Self::restore).
    pub fn backup(&self) -> LedgerBackup {
        LedgerBackup(self.tables().clone())
    }

    /// Becomes what it was, or, from the default backup, as empty as a lost one.
    pub fn restore(&self, backup: &LedgerBackup) {
        *self.tables() = backup.0.clone();
    }

    /// The database's own clock: it follows tokio's.
    fn now(&self) -> Timestamp {
        milliseconds(sample::time(0).saturating_add(self.began.elapsed()).unwrap())
    }

    /// From now on every call fails, or works again.
    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    /// What it has of the image, whether it is down or not.
    pub fn record(&self, id: &ImageId) -> Option<Record> {
        self.tables().record(id)
    }

    /// Everything it has, whether it is down or not.
    pub fn records(&self) -> Vec<Record> {
        let tables = self.tables();
        tables.images.keys().filter_map(|id| tables.record(id)).collect()
    }

    /// The state of an object that it has, whether it is down or not.
    pub fn object_state(&self, store: &StoreName, name: &ObjectName) -> Option<ObjectState> {
        self.tables().objects.get(&key(store, name)).map(|object| object.state)
    }

    /// The mark of an image, whether it is down or not.
    pub fn mark(&self, id: &ImageId) -> Option<Due> {
        self.tables().marks(&[]).find(|due| due.image == *id)
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T>(&self, look: impl FnOnce(&Tables) -> T) -> Result<T> {
        self.access(|tables| Ok(look(tables)))
    }

    fn write<T>(&self, change: impl FnOnce(&mut Tables) -> Result<T>) -> Result<T> {
        if self.full.load(Ordering::SeqCst) {
            return Err(Error::new(Reason::Ledger, "the disk of the ledger is full"));
        }
        if self.is_dead() {
            return Err(Error::new(Reason::Ledger, "the process is dead"));
        }
        let changed = self.access(change)?;
        if self.left.load(Ordering::SeqCst) != usize::MAX {
            self.left.fetch_sub(1, Ordering::SeqCst);
        }
        Ok(changed)
    }

    fn access<T>(&self, change: impl FnOnce(&mut Tables) -> Result<T>) -> Result<T> {
        if self.down.load(Ordering::SeqCst) {
            return Err(Error::new(Reason::Ledger, "the ledger is down"));
        }
        change(&mut self.tables())
    }
}

#[async_trait]
impl Ledger for MemoryLedger {
    async fn load(&self, id: &ImageId) -> Result<Option<Record>> {
        self.read(|tables| tables.record(id))
    }

    async fn commit(&self, changes: &[Change]) -> Result<()> {
        // As a real one, it takes its time: whoever is cancelled now has not written.
        tokio::task::yield_now().await;
        if changes.iter().any(|change| self.refuses(change)) {
            return Err(Error::new(Reason::Ledger, "the ledger does not take this"));
        }
        self.write(|tables| {
            // Only a `Forget` can be refused, and then nothing of the rest stands either.
            let before = changes.iter().any(|change| matches!(change, Change::Forget(_))).then(|| tables.clone());
            let now = self.now();
            let applied = changes.iter().try_for_each(|change| tables.apply(change, now));
            if let (Err(_), Some(before)) = (&applied, before) {
                *tables = before;
            }
            applied
        })
    }

    async fn marks(&self, now: Timestamp, limit: usize, busy: &[ImageId]) -> Result<Vec<Due>> {
        self.read(|tables| {
            let mut marks: Vec<Due> = tables.marks(busy).collect();
            marks.sort_by(|a, b| (a.due, &a.image).cmp(&(b.due, &b.image)));
            let later = marks.split_off(marks.partition_point(|mark| mark.due <= milliseconds(now)));
            marks.into_iter().take(limit).chain(later.into_iter().take(1)).collect()
        })
    }

    async fn settle(&self, due: &Due, next: Option<DirtyMark>) -> Result<()> {
        self.write(|tables| {
            let Some(mark) = tables.dirty.get_mut(&due.image).filter(|mark| mark.seq == due.seq) else {
                return Ok(());
            };
            match next {
                Some(next) => mark.due = milliseconds(next.due),
                None => drop(tables.dirty.remove(&due.image)),
            }
            Ok(())
        })
    }

    async fn find(&self, name_or_id: &str) -> Result<Vec<ImageId>> {
        let id = name_or_id.parse::<ImageId>().ok();
        self.read(|tables| {
            let named = |row: &&ImageRow| row.name.as_deref() == Some(name_or_id) || Some(&row.id) == id.as_ref();
            tables.images.values().filter(named).map(|row| row.id.clone()).collect()
        })
    }

    async fn named_near(&self, name: &str, limit: usize) -> Result<Vec<ImageId>> {
        self.read(|tables| {
            let mut named: Vec<(&str, &ImageId)> =
                tables.images.values().filter_map(|row| Some((row.name.as_deref()?, &row.id))).collect();
            named.sort();
            let (mut before, behind): (Vec<_>, Vec<_>) = named.into_iter().partition(|(other, _)| *other <= name);
            before.sort_by(|a, b| b.0.cmp(a.0).then(a.1.cmp(b.1)));
            let near = before.into_iter().take(limit).chain(behind.into_iter().take(limit));
            near.map(|(_, id)| id.clone()).collect()
        })
    }

    async fn page(&self, filter: &ImageFilter, after: Option<&ImageId>, limit: usize) -> Result<Vec<Record>> {
        self.read(|tables| {
            let ids = tables.images.keys().filter(|id| after.is_none_or(|after| *id > after));
            ids.filter_map(|id| tables.record(id)).filter(|record| filter.fits(record)).take(limit).collect()
        })
    }

    async fn tally(&self) -> Result<Tally> {
        self.read(|tables| {
            let records: Vec<Record> = tables.images.keys().filter_map(|id| tables.record(id)).collect();
            Tally::of(&records)
        })
    }

    async fn backlog(&self, now: Timestamp) -> Result<Backlog> {
        self.read(|tables| {
            let (due, later): (Vec<Due>, Vec<Due>) = tables.marks(&[]).partition(|mark| mark.due <= now);
            Backlog {
                due: due.len() as u64,
                oldest_due: due.iter().map(|mark| mark.due).min(),
                later: later.len() as u64,
                unregistered_since: tables.images.keys().filter_map(|id| tables.unregistered_since(id)).min(),
            }
        })
    }

    async fn places(&self) -> Result<Vec<Place>> {
        self.read(|tables| {
            let mut places: BTreeMap<(StoreName, String), Place> = BTreeMap::new();
            for Object { store, name, url, state, .. } in tables.objects.values() {
                let root = url.replace(name.as_str(), "");
                let new =
                    || Place { store: store.clone(), objects: 0, doomed: 0, name: name.clone(), url: url.clone() };
                let place = places.entry((store.clone(), root)).or_insert_with(new);
                place.objects += 1;
                place.doomed += u64::from(state.is_to_go());
            }
            places.into_values().collect()
        })
    }

    async fn sweepable(&self, after: Option<&ImageId>, limit: usize) -> Result<Vec<Record>> {
        self.read(|tables| {
            let records = tables.images.keys().filter(|id| after.is_none_or(|after| *id > after));
            records.filter_map(|id| tables.record(id)).filter(is_sweepable).take(limit).collect()
        })
    }

    async fn count(&self) -> Result<u64> {
        self.read(|tables| tables.images.len() as u64)
    }

    async fn bookmark(&self, name: &str) -> Result<Option<String>> {
        self.read(|tables| tables.bookmarks.get(name).cloned())
    }

    async fn chunks(&self, id: &ImageId) -> Result<Vec<Digest>> {
        self.read(|tables| (0..).map_while(|number| tables.chunks.get(&(id.clone(), number)).cloned()).collect())
    }

    async fn unknown(&self, objects: &[ObjectName]) -> Result<Vec<ObjectName>> {
        self.read(|tables| {
            let known: BTreeSet<&str> = tables.objects.keys().map(|(_, name)| name.as_str()).collect();
            objects.iter().filter(|name| !known.contains(name.as_str())).cloned().collect()
        })
    }

    async fn history(&self, id: &ImageId) -> Result<Vec<HistoryLine>> {
        self.read(|tables| {
            let lines = tables.history.get(id).into_iter().flatten();
            lines.map(|(_, line)| line.clone()).collect()
        })
    }

    async fn told(&self, after: u64, limit: usize) -> Result<Vec<Told>> {
        self.read(|tables| {
            let told = |(image, (number, line)): (&ImageId, &(u64, HistoryLine))| Told {
                number: *number,
                image: image.clone(),
                line: line.clone(),
            };
            let lines = tables.history.iter().flat_map(|(id, lines)| lines.iter().map(move |line| (id, line)));
            let mut lines: Vec<Told> = lines.filter(|(_, (number, _))| *number > after).map(told).collect();
            lines.sort_by_key(|told| told.number);
            lines.truncate(limit);
            lines
        })
    }

    async fn last_told(&self) -> Result<u64> {
        self.read(|tables| tables.told)
    }
}

/// What a [`MemoryLedger`] held at a moment.
#[derive(Debug, Default, Clone)]
pub struct LedgerBackup(Tables);

#[derive(Debug, Default, Clone)]
struct Tables {
    images: BTreeMap<ImageId, ImageRow>,
    replicas: BTreeMap<(ImageId, StoreName), Replica>,
    objects: BTreeMap<(StoreName, String), Object>,
    dirty: BTreeMap<ImageId, Mark>,
    bookmarks: BTreeMap<String, String>,
    chunks: BTreeMap<(ImageId, u64), Digest>,
    /// Each line with its number.
    history: BTreeMap<ImageId, Vec<(u64, HistoryLine)>>,
    /// The highest of those numbers that was ever given.
    told: u64,
}

#[derive(Debug, Clone, Copy)]
struct Mark {
    seq: u64,
    due: Timestamp,
}

impl Tables {
    fn apply(&mut self, change: &Change, now: Timestamp) -> Result<()> {
        match change {
            Change::Image(row) => {
                let ImageRow { delete_seen, verify_asked, .. } = *self.image(&row.id);
                self.images.insert(row.id.clone(), ImageRow { delete_seen, verify_asked, ..row.clone() });
                let tries = row.trouble.as_ref().map_or(0, |trouble| trouble.tries);
                self.note(&row.id, &HistoryState::of_image(row), tries, now);
            }
            Change::Replica(id, replica) => {
                self.image(id);
                self.replicas.insert((id.clone(), replica.store.clone()), replica.clone());
                let tries = replica.failure.as_ref().map_or(0, |failure| failure.tries);
                self.note(id, &HistoryState::of_replica(replica), tries, now);
            }
            Change::ReplicaGone(id, store) => drop(self.replicas.remove(&(id.clone(), store.clone()))),
            Change::Object(object) => {
                self.image(&object.name.image());
                let key = key(&object.store, &object.name);
                if object.state != ObjectState::Found || !self.objects.contains_key(&key) {
                    self.objects.insert(key, object.clone());
                }
            }
            Change::Doom(store, name, at) => {
                if let Some(object) = self.objects.get_mut(&key(store, name)) {
                    (object.state, object.since) = (ObjectState::Doomed, milliseconds(*at));
                }
            }
            Change::Regret(store, name) => {
                if let Some(object) =
                    self.objects.get_mut(&key(store, name)).filter(|object| object.state == ObjectState::Doomed)
                {
                    object.state = ObjectState::Regretted;
                }
            }
            Change::ObjectGone(store, name) => drop(self.objects.remove(&key(store, name))),
            Change::Dirty(mark) => self.mark(mark),
            Change::DeleteSeen(id, at) => self.image(id).delete_seen = Some(*at),
            Change::VerifyAsked(id, at) => self.image(id).verify_asked = Some(milliseconds(*at)),
            Change::DeleteUnseen(id) => {
                if let Some(row) = self.images.get_mut(id) {
                    row.delete_seen = None;
                }
            }
            Change::Chunks { image, first, digests } => {
                self.image(image);
                let numbered = (*first..).zip(digests);
                self.chunks.extend(numbered.map(|(number, digest)| ((image.clone(), number), digest.clone())));
            }
            Change::ChunksGone(id) => self.chunks.retain(|(image, _), _| image != id),
            Change::Forget(id) => self.forget(id, now)?,
            Change::TryAt(id, at) => {
                let replicas = self.replicas.iter_mut().filter(|((image, _), _)| image == id);
                for failure in replicas.filter_map(|(_, replica)| replica.failure.as_mut()) {
                    failure.next_try = Some(milliseconds(*at));
                }
                if let Some(failure) = self.images.get_mut(id).and_then(|row| row.trouble.as_mut()) {
                    failure.next_try = Some(milliseconds(*at));
                }
            }
            Change::Bookmark(name, value) => drop(self.bookmarks.insert(name.clone(), value.clone())),
        }
        Ok(())
    }

    /// The image's row, a bare one if there was none.
    fn image(&mut self, id: &ImageId) -> &mut ImageRow {
        self.images.entry(id.clone()).or_insert_with(|| ImageRow::new(id.clone()))
    }

    fn mark(&mut self, new: &DirtyMark) {
        let due = milliseconds(new.due);
        let mark = self.dirty.entry(new.image.clone()).or_insert(Mark { seq: 0, due });
        *mark = Mark { seq: mark.seq + 1, due: mark.due.min(due) };
    }

    fn note(&mut self, id: &ImageId, what: &HistoryState, tries: u32, now: Timestamp) {
        let lines = self.history.entry(id.clone()).or_default();
        let subject = what.store.clone();
        let (places, newest): (Vec<usize>, Vec<HistoryLine>) = lines
            .iter()
            .enumerate()
            .rev()
            .filter(|(_, (_, line))| line.what.store == subject)
            .take(2)
            .map(|(place, (_, line))| (place, line.clone()))
            .unzip();
        if let HistoryStep::Add { line, replaces } = follow(&newest, what, tries, now) {
            // From the end on, so that those before keep their places.
            places[..replaces].iter().for_each(|place| drop(lines.remove(*place)));
            self.told += 1;
            lines.push((self.told, line));
            lines.drain(..lines.len().saturating_sub(HISTORY_LINES));
        }
    }

    fn forget(&mut self, id: &ImageId, now: Timestamp) -> Result<()> {
        if self.objects.values().any(|object| object.name.image() == *id) {
            let message = format!("image {id} still has objects at stores: it cannot be forgotten");
            return Err(Error::new(Reason::Ledger, message));
        }
        if self.images.remove(id).is_some() {
            self.note(id, &HistoryState::forgotten(), 0, now);
            let images = &self.images;
            self.history.retain(|id, lines| {
                let forgotten = lines.iter().map(|(_, line)| line).rfind(|line| line.what.state == FORGOTTEN);
                let is_old = forgotten.is_some_and(|line| line.at.saturating_add(HISTORY_KEPT).unwrap() < now);
                images.contains_key(id) || !is_old
            });
        }
        self.replicas.retain(|(image, _), _| image != id);
        self.chunks.retain(|(image, _), _| image != id);
        Ok(())
    }

    fn record(&self, id: &ImageId) -> Option<Record> {
        let image = self.images.get(id)?.clone();
        let replicas = self.replicas.iter().filter(|((image, _), _)| image == id);
        let replicas = replicas.map(|((_, store), replica)| (store.clone(), replica.clone())).collect();
        let objects = self.objects.values().filter(|object| object.name.image() == *id).cloned().collect();
        Some(Record { image, replicas, objects })
    }

    /// Of the image's copies that are wanted, tried and not registered, when the first was so.
    fn unregistered_since(&self, id: &ImageId) -> Option<Timestamp> {
        let record = self.record(id).filter(|record| record.image.gone_at.is_none())?;
        let is_tried = |replica: &&Replica| {
            let tries = |failure: &Failure| failure.next_try.is_some() && failure.reason != Reason::OutsideHours;
            replica.failure.as_ref().is_none_or(tries)
        };
        let waits = |replica: &&Replica| {
            replica.state != ReplicaState::Registered && record.image.wanted.contains(&replica.store)
        };
        let since = |replica: &Replica| {
            let lines = self.history.get(id)?.iter().map(|(_, line)| line);
            let of_store = lines.rev().filter(|line| line.what.store.as_ref() == Some(&replica.store));
            let was_as_wished =
                |line: &&HistoryLine| line.what.state == "registered" || line.what.reason == Some(Reason::OutsideHours);
            of_store.take_while(|line| !was_as_wished(line)).map(|line| line.since).min()
        };
        record.replicas.values().filter(is_tried).filter(waits).filter_map(since).min()
    }

    fn marks(&self, busy: &[ImageId]) -> impl Iterator<Item = Due> {
        let free = self.dirty.iter().filter(|(id, _)| !busy.contains(id));
        free.map(|(id, mark)| Due { image: id.clone(), seq: mark.seq, due: mark.due })
    }
}

fn key(store: &StoreName, name: &ObjectName) -> (StoreName, String) {
    (store.clone(), name.to_string())
}

fn is_sweepable(record: &Record) -> bool {
    record.image.gone_at.is_some()
        || record.objects.iter().any(|object| object.state.is_to_go() || object.state == ObjectState::Found)
        || record.replicas.values().any(|replica| replica.unwanted_since.is_some())
}

/// Marks are kept in whole milliseconds, as a database keeps them.
fn milliseconds(time: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(time.as_millisecond()).unwrap_or(time)
}
