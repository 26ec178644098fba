use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use mimeo_core::{
    Error, ObjectName, Reason, Result, StoreName,
    ports::{ByteStream, Receipt, Sink, Store},
};
use tokio::sync::watch;

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
    ReadFails(Reason),
    ReadStalls,
    /// Reads give other bytes of the same length.
    ReadsOther,
    ProbeFails(Reason),
    ProbeStalls,
    DeleteFails(Reason),
}

/// One call of the port, in the order in which they came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreCall {
    Open(ObjectName),
    Close(ObjectName),
    /// Also a sink that was dropped before it was closed.
    Abort(ObjectName),
    Read(ObjectName, u64),
    Probe(ObjectName),
    Delete(ObjectName),
}

/// A store in memory. Clones share their objects, so that a test can watch what the engine holds.
#[derive(Debug, Clone)]
pub struct FakeStore {
    name: StoreName,
    state: Arc<watch::Sender<State>>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Bytes>,
    faults: Vec<StoreFault>,
    calls: Vec<StoreCall>,
}

impl FakeStore {
    pub fn new(name: &str) -> Self {
        Self { name: name.parse().unwrap(), state: Arc::new(watch::Sender::new(State::default())) }
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

    /// The bytes as published, whatever faults are on.
    pub fn bits(&self, object: &ObjectName) -> Option<Bytes> {
        self.state.borrow().objects.get(object.as_str()).cloned()
    }

    /// Puts bytes there behind everyone's back; `None` takes the object away.
    pub fn tamper(&self, object: &ObjectName, bits: Option<Bytes>) {
        self.state.send_modify(|state| match bits {
            Some(bits) => drop(state.objects.insert(object.to_string(), bits)),
            None => drop(state.objects.remove(object.as_str())),
        });
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
        format!("http://{}.example/{object}", self.name)
    }

    async fn open(&self, object: &ObjectName, size: Option<u64>) -> Result<Box<dyn Sink>> {
        self.log(StoreCall::Open(object.clone()));
        self.fails("open", |fault| match fault {
            StoreFault::OpenFails(reason) => Some(reason),
            _ => None,
        })?;
        Ok(Box::new(FakeSink { store: self.clone(), object: object.clone(), size, bits: Vec::new(), closed: false }))
    }

    async fn read(&self, object: &ObjectName, offset: u64) -> Result<ByteStream> {
        self.log(StoreCall::Read(object.clone(), offset));
        self.stalls(StoreFault::ReadStalls).await;
        self.fails("read", |fault| match fault {
            StoreFault::ReadFails(reason) => Some(reason),
            _ => None,
        })?;
        let missing = || Error::new(Reason::ObjectMissing, format!("{}: no object {object}", self.name));
        let mut bits = self.bits(object).ok_or_else(missing)?;
        if self.fault(|fault| (fault == StoreFault::ReadsOther).then_some(())).is_some() {
            bits = bits.iter().map(|byte| !byte).collect();
        }
        let rest = bits.slice(bits.len().min(usize::try_from(offset).unwrap())..);
        Ok(stream::iter(chunks(&rest).into_iter().map(Ok)).boxed())
    }

    async fn probe(&self, object: &ObjectName) -> Result<Option<u64>> {
        self.log(StoreCall::Probe(object.clone()));
        self.stalls(StoreFault::ProbeStalls).await;
        self.fails("probe", |fault| match fault {
            StoreFault::ProbeFails(reason) => Some(reason),
            _ => None,
        })?;
        Ok(self.bits(object).map(|bits| bits.len() as u64))
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
    closed: bool,
}

#[async_trait]
impl Sink for FakeSink {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.store.stalls(StoreFault::WriteStalls).await;
        self.store.fails("write", |fault| match fault {
            StoreFault::WriteFails(reason) => Some(reason),
            _ => None,
        })?;
        self.bits.extend_from_slice(&bytes);
        Ok(())
    }

    async fn close(mut self: Box<Self>) -> Result<Receipt> {
        self.store.log(StoreCall::Close(self.object.clone()));
        self.closed = true;
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
        self.store.tamper(&self.object, Some(std::mem::take(&mut self.bits).into()));
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
        if !self.closed {
            self.store.log(StoreCall::Abort(self.object.clone()));
        }
    }
}

/// The bits in pieces of 64 KiB, as a real store sends them.
pub(crate) fn chunks(bits: &Bytes) -> Vec<Bytes> {
    const CHUNK: usize = 64 * 1024;
    (0..bits.len()).step_by(CHUNK).map(|at| bits.slice(at..bits.len().min(at + CHUNK))).collect()
}
