use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use mimeo_core::{
    Change, Digest, DirtyMark, Due, Error, ImageId, ImageRow, Object, ObjectName, ObjectState, Reason, Record, Replica,
    Result, StoreName, Timestamp,
    ports::{Counts, Ledger},
};

/// A ledger in memory, with the semantics of the durable ones.
#[derive(Debug, Default)]
pub struct MemoryLedger {
    tables: Mutex<Tables>,
    down: AtomicBool,
}

impl MemoryLedger {
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
        self.write(|tables| Ok(look(tables)))
    }

    fn write<T>(&self, change: impl FnOnce(&mut Tables) -> Result<T>) -> Result<T> {
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
        self.write(|tables| {
            // Only a `Forget` can be refused, and then nothing of the rest stands either.
            let before = changes.iter().any(|change| matches!(change, Change::Forget(_))).then(|| tables.clone());
            let applied = changes.iter().try_for_each(|change| tables.apply(change));
            if let (Err(_), Some(before)) = (&applied, before) {
                *tables = before;
            }
            applied
        })
    }

    async fn due(&self, now: Timestamp, limit: usize, busy: &[ImageId]) -> Result<Vec<Due>> {
        self.read(|tables| {
            let mut due: Vec<Due> = tables.marks(busy).filter(|due| due.due <= now).collect();
            due.sort_by(|a, b| (a.due, &a.image).cmp(&(b.due, &b.image)));
            due.truncate(limit);
            due
        })
    }

    async fn next_due(&self, busy: &[ImageId]) -> Result<Option<Timestamp>> {
        self.read(|tables| tables.marks(busy).map(|due| due.due).min())
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

    async fn list(&self, after: Option<&ImageId>, limit: usize) -> Result<Vec<Record>> {
        self.read(|tables| {
            let ids = tables.images.keys().filter(|id| after.is_none_or(|after| *id > after)).take(limit);
            ids.filter_map(|id| tables.record(id)).collect()
        })
    }

    async fn sweepable(&self, after: Option<&ImageId>, limit: usize) -> Result<Vec<Record>> {
        self.read(|tables| {
            let records = tables.images.keys().filter(|id| after.is_none_or(|after| *id > after));
            records.filter_map(|id| tables.record(id)).filter(is_sweepable).take(limit).collect()
        })
    }

    async fn counts(&self, since: Timestamp) -> Result<Counts> {
        self.read(|tables| {
            let records = tables.images.keys().filter_map(|id| tables.record(id));
            let is_kept = |object: &Object| object.state == ObjectState::Kept;
            let retiring =
                records.filter(|it| it.image.gone_at > Some(since) && it.objects.iter().any(is_kept)).count();
            Counts { images: tables.images.len() as u64, retiring: retiring as u64 }
        })
    }

    async fn bookmark(&self, name: &str) -> Result<Option<String>> {
        self.read(|tables| tables.bookmarks.get(name).cloned())
    }

    async fn chunks(&self, id: &ImageId) -> Result<Vec<Digest>> {
        self.read(|tables| (0..).map_while(|number| tables.chunks.get(&(id.clone(), number)).cloned()).collect())
    }
}

#[derive(Debug, Default, Clone)]
struct Tables {
    images: BTreeMap<ImageId, ImageRow>,
    replicas: BTreeMap<(ImageId, StoreName), Replica>,
    objects: BTreeMap<(StoreName, String), Object>,
    dirty: BTreeMap<ImageId, Mark>,
    bookmarks: BTreeMap<String, String>,
    chunks: BTreeMap<(ImageId, u64), Digest>,
}

#[derive(Debug, Clone, Copy)]
struct Mark {
    seq: u64,
    due: Timestamp,
}

impl Tables {
    fn apply(&mut self, change: &Change) -> Result<()> {
        match change {
            Change::Image(row) => {
                let delete_seen = self.image(&row.id).delete_seen;
                self.images.insert(row.id.clone(), ImageRow { delete_seen, ..row.clone() });
            }
            Change::Replica(id, replica) => {
                self.image(id);
                self.replicas.insert((id.clone(), replica.store.clone()), replica.clone());
            }
            Change::Object(object) => {
                self.image(&object.name.image());
                self.objects.insert(key(&object.store, &object.name), object.clone());
            }
            Change::Doom(store, name, at) => {
                if let Some(object) = self.objects.get_mut(&key(store, name)) {
                    (object.state, object.since) = (ObjectState::Doomed, milliseconds(*at));
                }
            }
            Change::ObjectGone(store, name) => drop(self.objects.remove(&key(store, name))),
            Change::Dirty(mark) => self.mark(mark),
            Change::DeleteSeen(id, at) => self.image(id).delete_seen = Some(*at),
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
            Change::Forget(id) => self.forget(id)?,
            Change::TryAt(id, at) => {
                let replicas = self.replicas.iter_mut().filter(|((image, _), _)| image == id);
                for failure in replicas.filter_map(|(_, replica)| replica.failure.as_mut()) {
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

    fn forget(&mut self, id: &ImageId) -> Result<()> {
        if self.objects.values().any(|object| object.name.image() == *id) {
            let message = format!("image {id} still has objects at stores: it cannot be forgotten");
            return Err(Error::new(Reason::Ledger, message));
        }
        self.images.remove(id);
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

    fn marks(&self, busy: &[ImageId]) -> impl Iterator<Item = Due> {
        let free = self.dirty.iter().filter(|(id, _)| !busy.contains(id));
        free.map(|(id, mark)| Due { image: id.clone(), seq: mark.seq, due: mark.due })
    }
}

fn key(store: &StoreName, name: &ObjectName) -> (StoreName, String) {
    (store.clone(), name.to_string())
}

fn is_sweepable(record: &Record) -> bool {
    record.image.gone_at.is_some() || record.objects.iter().any(|object| object.state == ObjectState::Doomed)
}

/// Marks are kept in whole milliseconds, as a database keeps them.
fn milliseconds(time: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(time.as_millisecond()).unwrap_or(time)
}
