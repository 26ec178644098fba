use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use mimeo_core::{
    Error, ObjectName, Reason, Result, StoreName,
    ports::{ByteStream, Cursor, ObjectPage, Offer, Receipt, Sink, Store},
};
use tokio::sync::watch;

/// Objects in a page of a listing.
const PAGE: usize = 3;

/// What a [`FakeStore`] does wrong, from [`FakeStore::inject`] until [`FakeStore::heal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreFault {
    OpenFails(Reason),
    WriteFails(Reason),
    /// Takes no byte until it is healed.
    WriteStalls,
    /// Nothing is published.
    CloseFails(Reason),
    /// Publishes, and says that it did not: the answer was lost.
    ClosePublishesAndFails(Reason),
    CloseStalls,
    /// Publishes only so many bytes and says that all went well.
    Truncates(u64),
    /// What was kept of an object can be gone on with, but not be read before it is closed.
    KeptIsHidden,
    ReadFails(Reason),
    ReadStalls,
    /// Reads give other bytes of the same length.
    ReadsOther,
    ProbeFails(Reason),
    /// Of the first of its objects alone.
    ProbeOfOneFails(Reason),
    ProbeStalls,
    RoomFails(Reason),
    RoomStalls,
    DeleteFails(Reason),
    TakeFails(Reason),
    TakeStalls,
    ListFails(Reason),
}

/// One call of the port, in the order in which they came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreCall {
    Open(ObjectName),
    /// From this offset on.
    Resume(ObjectName, u64),
    Close(ObjectName),
    /// An object was taken from another store.
    Take(ObjectName),
    /// The sink was told of this other object.
    Like(ObjectName),
    /// Also a sink that was dropped before it was closed.
    Abort(ObjectName),
    Read(ObjectName, u64),
    Probe(ObjectName),
    Delete(ObjectName),
}

/// A store in memory that publishes whole objects only, unless it is made [`resumable`](Self::resumable). Clones share their objects, so that a test can watch what the engine holds.
#[derive(Debug, Clone)]
pub struct FakeStore {
    name: StoreName,
    scheme: &'static str,
    host: String,
    state: Arc<watch::Sender<State>>,
}

#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "they are what a store can do, each by itself")]
struct State {
    objects: BTreeMap<String, Bytes>,
    /// Of sinks that were not closed; only where the store is resumable.
    partial: BTreeMap<String, Bytes>,
    resumable: bool,
    sparse: bool,
    compares: bool,
    reopens: bool,
    givers: Vec<FakeStore>,
    listable: bool,
    /// For all objects together, if it tells.
    capacity: Option<u64>,
    written: u64,
    faults: Vec<StoreFault>,
    calls: Vec<StoreCall>,
}

impl FakeStore {
    pub fn new(name: &str) -> Self {
        let host = format!("{name}.example");
        let state = Arc::new(watch::Sender::new(State::default()));
        Self { name: name.parse().unwrap(), scheme: "http", host, state }
    }

    /// The same store, of a kind of which Glance removes the bits with a location: see [`FakeRegistry::reaches`](crate::FakeRegistry::reaches).
    #[must_use]
    pub fn removed_with_its_locations(self) -> Self {
        Self { scheme: "s3+https", ..self }
    }

    /// The same place with the same objects, under another name.
    #[must_use]
    pub fn renamed(&self, name: &str) -> Self {
        Self { name: name.parse().unwrap(), ..self.clone() }
    }

    /// The same store with the same objects, at another URL.
    #[must_use]
    pub fn moved(&self, host: &str) -> Self {
        Self { host: host.to_owned(), ..self.clone() }
    }

    /// From now on a sink that ends before it published leaves its bytes: they are seen by `kept`, `read` and `probe`, as
    /// with a server that writes in place, and are no published object until a resumed sink is closed.
    #[must_use]
    pub fn resumable(self) -> Self {
        self.state.send_modify(|state| state.resumable = true);
        self
    }

    /// From now on its sinks can skip.
    #[must_use]
    pub fn sparse(self) -> Self {
        self.state.send_modify(|state| state.sparse = true);
        self
    }

    /// From now on it is told of objects that are much the same.
    #[must_use]
    pub fn comparing(self) -> Self {
        self.state.send_modify(|state| state.compares = true);
        self
    }

    /// From now on an object that was not closed is gone on with under its name.
    #[must_use]
    pub fn reopening(self) -> Self {
        self.state.send_modify(|state| state.reopens = true);
        self
    }

    /// From now on it takes objects from the other by itself.
    #[must_use]
    pub fn taking_from(self, other: &FakeStore) -> Self {
        self.state.send_modify(|state| state.givers.push(other.clone()));
        self
    }

    /// From now on its objects can be listed.
    #[must_use]
    pub fn listable(self) -> Self {
        self.state.send_modify(|state| state.listable = true);
        self
    }

    /// From now on it tells how much room it has of so many bytes. What it is given beyond them is taken nevertheless.
    #[must_use]
    pub fn of_size(self, capacity: u64) -> Self {
        self.state.send_modify(|state| state.capacity = Some(capacity));
        self
    }

    /// How many bytes all its sinks were given; what was skipped does not count.
    pub fn written(&self) -> u64 {
        self.state.borrow().written
    }

    pub fn inject(&self, fault: StoreFault) {
        self.state.send_modify(|state| state.faults.push(fault));
    }

    /// Ends all faults; what stalled goes on.
    pub fn heal(&self) {
        self.state.send_modify(|state| state.faults.clear());
    }

    pub fn calls(&self) -> Vec<StoreCall> {
        self.state.borrow().calls.clone()
    }

    /// The names of the published objects.
    pub fn objects(&self) -> Vec<ObjectName> {
        self.state.borrow().objects.keys().map(|name| name.parse().unwrap()).collect()
    }

    /// Whether anything of the object is there, published or not.
    pub fn holds(&self, object: &ObjectName) -> bool {
        self.seen(object).is_some()
    }

    /// The names of everything that is there, published or not.
    pub fn everything(&self) -> Vec<ObjectName> {
        let state = self.state.borrow();
        let names: BTreeSet<&String> = state.objects.keys().chain(state.partial.keys()).collect();
        names.into_iter().map(|name| name.parse().unwrap()).collect()
    }

    /// The bytes as published, whatever faults are on.
    pub fn bits(&self, object: &ObjectName) -> Option<Bytes> {
        self.state.borrow().objects.get(object.as_str()).cloned()
    }

    /// Puts bytes there behind everyone's back; `None` takes the object away. A partial object stays one.
    pub fn tamper(&self, object: &ObjectName, bits: Option<Bytes>) {
        self.state.send_modify(|state| match bits {
            Some(bits) if state.partial.contains_key(object.as_str()) => {
                drop(state.partial.insert(object.to_string(), bits));
            }
            Some(bits) => drop(state.objects.insert(object.to_string(), bits)),
            None => {
                state.partial.remove(object.as_str());
                state.objects.remove(object.as_str());
            }
        });
    }

    /// The object that a location of this store's leads to.
    pub(crate) fn object_at(&self, url: &str) -> Option<ObjectName> {
        url.strip_prefix(&format!("{}://{}/", self.scheme, self.host))?.parse().ok()
    }

    /// The bytes as they are read, published or not.
    pub fn seen(&self, object: &ObjectName) -> Option<Bytes> {
        let state = self.state.borrow();
        state.objects.get(object.as_str()).or_else(|| state.partial.get(object.as_str())).cloned()
    }

    fn giver(&self, area: &str) -> Option<FakeStore> {
        let state = self.state.borrow();
        state.givers.iter().find(|giver| giver.area().as_deref() == Some(area)).cloned()
    }

    fn sink(&self, object: &ObjectName, size: Option<u64>, bits: Vec<u8>) -> Box<dyn Sink> {
        Box::new(FakeSink { store: self.clone(), object: object.clone(), size, bits, ended: false })
    }

    fn log(&self, call: StoreCall) {
        self.state.send_modify(|state| state.calls.push(call));
    }

    fn fault<T>(&self, pick: impl Fn(StoreFault) -> Option<T>) -> Option<T> {
        self.state.borrow().faults.iter().copied().find_map(pick)
    }

    fn fails(&self, what: &str, pick: impl Fn(StoreFault) -> Option<Reason>) -> Result<()> {
        match self.fault(pick) {
            Some(reason) => Err(Error::new(reason, format!("{}: {what} failed, as told to", self.name))),
            None => Ok(()),
        }
    }

    async fn stalls(&self, fault: StoreFault) {
        let mut state = self.state.subscribe();
        let _ = state.wait_for(|state| !state.faults.contains(&fault)).await;
    }
}

#[async_trait]
impl Store for FakeStore {
    fn name(&self) -> &StoreName {
        &self.name
    }

    fn location(&self, object: &ObjectName) -> String {
        format!("{}://{}/{object}", self.scheme, self.host)
    }

    fn is_sparse(&self) -> bool {
        self.state.borrow().sparse
    }

    fn resumes(&self) -> Option<bool> {
        Some(self.state.borrow().resumable)
    }

    fn compares(&self) -> bool {
        self.state.borrow().compares
    }

    fn reopens(&self) -> bool {
        self.state.borrow().reopens
    }

    fn area(&self) -> Option<String> {
        Some(format!("fake://{}/", self.name))
    }

    fn takes_from(&self, area: &str) -> bool {
        self.giver(area).is_some()
    }

    async fn take(&self, object: &ObjectName, offer: &Offer, sent: &AtomicU64) -> Result<Receipt> {
        self.log(StoreCall::Take(object.clone()));
        self.stalls(StoreFault::TakeStalls).await;
        self.fails("take", |fault| match fault {
            StoreFault::TakeFails(reason) => Some(reason),
            _ => None,
        })?;
        let bits = self.giver(&offer.area).and_then(|giver| giver.seen(&offer.object)).ok_or_else(|| {
            Error::new(Reason::StoreError, format!("{}: there is no {}{}", self.name, offer.area, offer.object))
        })?;
        let size = bits.len() as u64;
        sent.store(size, Ordering::Relaxed);
        self.state.send_modify(|state| drop(state.objects.insert(object.to_string(), bits)));
        Ok(Receipt { size: Some(size) })
    }

    async fn open(&self, object: &ObjectName, size: Option<u64>) -> Result<Box<dyn Sink>> {
        self.log(StoreCall::Open(object.clone()));
        self.fails("open", |fault| match fault {
            StoreFault::OpenFails(reason) => Some(reason),
            _ => None,
        })?;
        Ok(self.sink(object, size, Vec::new()))
    }

    async fn kept(&self, object: &ObjectName) -> Result<u64> {
        self.stalls(StoreFault::ProbeStalls).await;
        self.fails("kept", |fault| match fault {
            StoreFault::ProbeFails(reason) => Some(reason),
            _ => None,
        })?;
        Ok(self.seen(object).filter(|_| self.state.borrow().resumable).map_or(0, |bits| bits.len() as u64))
    }

    async fn read_kept(&self, object: &ObjectName) -> Result<Option<ByteStream>> {
        match self.fault(|fault| (fault == StoreFault::KeptIsHidden).then_some(())) {
            Some(()) => Ok(None),
            None => self.read(object, 0).await.map(Some),
        }
    }

    async fn resume(&self, object: &ObjectName, size: Option<u64>, offset: u64) -> Result<Box<dyn Sink>> {
        self.log(StoreCall::Resume(object.clone(), offset));
        self.fails("resume", |fault| match fault {
            StoreFault::OpenFails(reason) => Some(reason),
            _ => None,
        })?;
        let resumes = self.state.borrow().resumable;
        let beginning = self.seen(object).filter(|bits| resumes && bits.len() as u64 >= offset);
        let Some(beginning) = beginning else {
            let message = format!("{}: {object} has no {offset} bytes to go on behind", self.name);
            return Err(Error::new(Reason::StoreError, message));
        };
        // As soon as anything is written it is no longer what was published, if it was.
        self.state.send_modify(|state| {
            state.objects.remove(object.as_str());
            state.partial.insert(object.to_string(), beginning.clone());
        });
        Ok(self.sink(object, size, beginning[..usize::try_from(offset).unwrap()].to_vec()))
    }

    async fn read(&self, object: &ObjectName, offset: u64) -> Result<ByteStream> {
        self.log(StoreCall::Read(object.clone(), offset));
        self.stalls(StoreFault::ReadStalls).await;
        self.fails("read", |fault| match fault {
            StoreFault::ReadFails(reason) => Some(reason),
            _ => None,
        })?;
        let missing = || Error::new(Reason::ObjectMissing, format!("{}: no object {object}", self.name));
        let mut bits = self.seen(object).ok_or_else(missing)?;
        if self.fault(|fault| (fault == StoreFault::ReadsOther).then_some(())).is_some() {
            bits = bits.iter().map(|byte| !byte).collect();
        }
        let rest = bits.slice(bits.len().min(usize::try_from(offset).unwrap())..);
        Ok(stream::iter(chunks(&rest).into_iter().map(Ok)).boxed())
    }

    async fn probe(&self, object: &ObjectName) -> Result<Option<u64>> {
        self.log(StoreCall::Probe(object.clone()));
        self.stalls(StoreFault::ProbeStalls).await;
        let is_first = self.everything().first() == Some(object);
        self.fails("probe", |fault| match fault {
            StoreFault::ProbeFails(reason) => Some(reason),
            StoreFault::ProbeOfOneFails(reason) if is_first => Some(reason),
            _ => None,
        })?;
        Ok(self.seen(object).map(|bits| bits.len() as u64))
    }

    /// In pages of few, so that a listing of a handful has to follow cursors.
    async fn list(&self, after: Option<&Cursor>) -> Result<Option<ObjectPage>> {
        self.fails("list", |fault| match fault {
            StoreFault::ListFails(reason) => Some(reason),
            _ => None,
        })?;
        let state = self.state.borrow();
        if !state.listable {
            return Ok(None);
        }
        let names: BTreeSet<&String> = state.objects.keys().chain(state.partial.keys()).collect();
        let mut rest = names.into_iter().filter(|name| after.is_none_or(|Cursor(after)| *name > after)).cloned();
        let page: Vec<String> = rest.by_ref().take(PAGE).collect();
        let next = rest.next().and(page.last().cloned()).map(Cursor);
        Ok(Some(ObjectPage { objects: page.iter().filter_map(|name| name.parse().ok()).collect(), next }))
    }

    async fn room(&self) -> Result<Option<u64>> {
        self.stalls(StoreFault::RoomStalls).await;
        self.fails("room", |fault| match fault {
            StoreFault::RoomFails(reason) => Some(reason),
            _ => None,
        })?;
        let state = self.state.borrow();
        let taken: usize = state.objects.values().chain(state.partial.values()).map(Bytes::len).sum();
        Ok(state.capacity.map(|capacity| capacity.saturating_sub(taken as u64)))
    }

    async fn delete(&self, object: &ObjectName) -> Result<()> {
        self.log(StoreCall::Delete(object.clone()));
        self.fails("delete", |fault| match fault {
            StoreFault::DeleteFails(reason) => Some(reason),
            _ => None,
        })?;
        self.tamper(object, None);
        Ok(())
    }
}

struct FakeSink {
    store: FakeStore,
    object: ObjectName,
    size: Option<u64>,
    bits: Vec<u8>,
    ended: bool,
}

#[async_trait]
impl Sink for FakeSink {
    fn like(&mut self, other: &ObjectName) {
        self.store.log(StoreCall::Like(other.clone()));
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.store.stalls(StoreFault::WriteStalls).await;
        self.store.fails("write", |fault| match fault {
            StoreFault::WriteFails(reason) => Some(reason),
            _ => None,
        })?;
        self.bits.extend_from_slice(&bytes);
        self.store.state.send_modify(|state| state.written += bytes.len() as u64);
        Ok(())
    }

    async fn skip(&mut self, length: u64) -> Result<()> {
        if !self.store.is_sparse() {
            let message = format!("{}: cannot leave out {length} zeros", self.store.name);
            return Err(Error::new(Reason::StoreError, message));
        }
        self.bits.resize(self.bits.len() + usize::try_from(length).unwrap(), 0);
        Ok(())
    }

    async fn close(mut self: Box<Self>) -> Result<Receipt> {
        self.store.log(StoreCall::Close(self.object.clone()));
        self.ended = true;
        self.store.stalls(StoreFault::CloseStalls).await;
        self.store.fails("close", |fault| match fault {
            StoreFault::CloseFails(reason) => Some(reason),
            _ => None,
        })?;
        if self.size.is_some_and(|size| size != self.bits.len() as u64) {
            let message = format!("{}: {} bytes came instead of {:?}", self.store.name, self.bits.len(), self.size);
            return Err(Error::new(Reason::StoreError, message));
        }
        let told = self.bits.len() as u64;
        let kept = self.store.fault(|fault| match fault {
            StoreFault::Truncates(length) => usize::try_from(length).ok(),
            _ => None,
        });
        self.bits.truncate(kept.unwrap_or(usize::MAX));
        let bits = Bytes::from(std::mem::take(&mut self.bits));
        self.store.state.send_modify(|state| {
            state.partial.remove(self.object.as_str());
            state.objects.insert(self.object.to_string(), bits);
        });
        self.store.fails("close", |fault| match fault {
            StoreFault::ClosePublishesAndFails(reason) => Some(reason),
            _ => None,
        })?;
        Ok(Receipt { size: Some(told) })
    }

    async fn abort(self: Box<Self>) {}
}

impl Drop for FakeSink {
    fn drop(&mut self) {
        if !self.ended {
            self.store.log(StoreCall::Abort(self.object.clone()));
        }
        // Nothing is left of what was published.
        let bits = Bytes::from(std::mem::take(&mut self.bits));
        if self.store.resumes() == Some(true) && !bits.is_empty() {
            self.store.state.send_modify(|state| drop(state.partial.insert(self.object.to_string(), bits)));
        }
    }
}

/// The bits in pieces of 64 KiB, as a real store sends them.
pub(crate) fn chunks(bits: &Bytes) -> Vec<Bytes> {
    const CHUNK: usize = 64 * 1024;
    (0..bits.len()).step_by(CHUNK).map(|at| bits.slice(at..bits.len().min(at + CHUNK))).collect()
}
