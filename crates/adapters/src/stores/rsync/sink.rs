use std::sync::{Arc, atomic::AtomicU64};

use async_trait::async_trait;
use bytes::Bytes;
use mimeo_core::{
    Error, ObjectName, Reason, Result,
    ports::{Receipt, Sink},
};

use super::{
    spool::{Place, Spool},
    store::RsyncStore,
};
use crate::stores::writer::{GATHERED, Writer};

/// An object in the spool, which is sent when it is complete.
pub(super) struct RsyncSink {
    store: RsyncStore,
    object: ObjectName,
    spool: Spool,
    place: Place,
    writer: Writer,
    size: Option<u64>,
    like: Option<ObjectName>,
    sent: Arc<AtomicU64>,
}

impl RsyncSink {
    pub(super) async fn open(store: RsyncStore, object: ObjectName, size: Option<u64>) -> Result<Self> {
        let spool = store.spool.clone();
        let place = spool.place(&object, size.unwrap_or_default()).await?;
        let writer = Writer::new(place.file(&object).await?, 0, GATHERED, spool.calls());
        Ok(Self { store, object, spool, place, writer, size, like: None, sent: Arc::default() })
    }

    /// That there is room for so many bytes more.
    fn make_room(&mut self, length: u64) -> Result<()> {
        let given = self.writer.position + length;
        match self.size {
            Some(size) if given > size => Err(self.misfit(given, size)),
            Some(_) => Ok(()),
            None => self.place.grow(length),
        }
    }

    fn misfit(&self, given: u64, size: u64) -> Error {
        let (store, object) = (&self.store.name, &self.object);
        let message = format!("{store}: {object} was given {given} bytes where {size} were announced");
        Error::new(Reason::StoreError, message)
    }
}

#[async_trait]
impl Sink for RsyncSink {
    fn like(&mut self, other: &ObjectName) {
        self.like = Some(other.clone());
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.make_room(bytes.len() as u64)?;
        self.writer.write(bytes).await.map_err(|cause| self.spool.failed(&cause))
    }

    async fn skip(&mut self, length: u64) -> Result<()> {
        self.make_room(length)?;
        self.writer.flush().await.map_err(|cause| self.spool.failed(&cause))?;
        self.writer.position += length;
        Ok(())
    }

    fn sent(&self) -> Option<Arc<AtomicU64>> {
        Some(self.sent.clone())
    }

    async fn close(mut self: Box<Self>) -> Result<Receipt> {
        let size = self.writer.position;
        if let Some(announced) = self.size.filter(|announced| *announced != size) {
            return Err(self.misfit(size, announced));
        }
        let written = async {
            self.writer.flush().await?;
            self.writer.written().await?;
            self.writer.file.set_len(size)
        };
        written.await.map_err(|cause| self.spool.failed(&cause))?;
        let path = self.place.renamed(&self.object, self.like.as_ref()).await?;
        mimeo_crash::point("rsync-spooled");
        self.store.send(&self.object, &path, size, self.like.is_some(), &self.sent).await
    }

    async fn abort(self: Box<Self>) {}
}
