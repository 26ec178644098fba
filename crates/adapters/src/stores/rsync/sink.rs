use std::{
    io::SeekFrom,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use mimeo_core::{
    Error, ObjectName, Reason, Result,
    ports::{Receipt, Sink},
};
use tokio::{
    fs::File,
    io::{AsyncSeekExt, AsyncWriteExt},
};

use super::{
    spool::{Place, Spool},
    store::RsyncStore,
};

/// An object in the spool, which is sent when it is complete.
pub(super) struct RsyncSink {
    store: RsyncStore,
    object: ObjectName,
    spool: Spool,
    place: Place,
    file: File,
    size: Option<u64>,
    /// Up to here it was written or skipped.
    position: u64,
    sent: Arc<AtomicU64>,
}

impl RsyncSink {
    pub(super) async fn open(store: RsyncStore, object: ObjectName, size: Option<u64>) -> Result<Self> {
        let spool = store.spool.clone();
        let (place, file) = spool.place(&object, size.unwrap_or_default()).await?;
        Ok(Self { store, object, spool, place, file, size, position: 0, sent: Arc::default() })
    }

    /// The next bytes, for which there must be room.
    fn advance(&mut self, length: u64) -> Result<()> {
        match self.size {
            Some(size) if self.position + length > size => return Err(self.misfit(self.position + length, size)),
            Some(_) => {}
            None => self.place.grow(length)?,
        }
        self.position += length;
        Ok(())
    }

    fn misfit(&self, given: u64, size: u64) -> Error {
        let (store, object) = (&self.store.name, &self.object);
        let message = format!("{store}: {object} was given {given} bytes where {size} were announced");
        Error::new(Reason::StoreError, message)
    }
}

#[async_trait]
impl Sink for RsyncSink {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.advance(bytes.len() as u64)?;
        self.file.write_all(&bytes).await.map_err(|cause| self.spool.failed(&cause))
    }

    async fn skip(&mut self, length: u64) -> Result<()> {
        self.advance(length)?;
        let moved = self.file.seek(SeekFrom::Start(self.position)).await;
        moved.map(drop).map_err(|cause| self.spool.failed(&cause))
    }

    fn sent(&self) -> Option<Arc<AtomicU64>> {
        Some(self.sent.clone())
    }

    async fn close(mut self: Box<Self>) -> Result<Receipt> {
        if let Some(size) = self.size.filter(|size| *size != self.position) {
            return Err(self.misfit(self.position, size));
        }
        let written = async {
            self.file.flush().await?;
            self.file.set_len(self.position).await
        };
        written.await.map_err(|cause| self.spool.failed(&cause))?;
        mimeo_crash::point("rsync-spooled");
        self.store.send(&self.object, &self.place.path, self.position, &self.sent).await?;
        mimeo_crash::point("rsync-sent");
        self.sent.store(self.position, Ordering::Relaxed);
        // rsync ends well too where it passed a file over.
        self.store.published(&self.object, self.position).await
    }

    async fn abort(self: Box<Self>) {}
}
