use std::{fs::File, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use mimeo_core::{
    Error, Reason, Result,
    ports::{Receipt, Sink},
};
use tokio::sync::oneshot;

use super::disk::Disk;
use crate::stores::writer::Writer;

/// One object while it is written, beside its place.
pub(super) struct FileSink {
    disk: Disk,
    writer: Writer,
    size: Option<u64>,
    /// Behind `writer`, which must be dropped first.
    _closing: oneshot::Sender<()>,
}

impl FileSink {
    pub(super) fn new(disk: Disk, file: File, size: Option<u64>, position: u64, most: usize) -> Self {
        let writer = Writer::new(file, position, most, Arc::clone(&disk.calls.0));
        let closing = close_aside(disk.clone(), Arc::clone(&writer.file));
        Self { disk, writer, size, _closing: closing }
    }

    /// That so many bytes more are no more than were announced.
    fn check(&self, more: u64) -> Result<()> {
        match self.size {
            Some(size) if self.writer.position + more > size => Err(self.misfit(self.writer.position + more, size)),
            _ => Ok(()),
        }
    }

    fn misfit(&self, given: u64, size: u64) -> Error {
        let (store, part) = (&self.disk.store, self.disk.part());
        let message = format!("{store}: {} was given {given} bytes where {size} were announced", part.display());
        Error::new(Reason::StoreError, message)
    }

    fn failed(&self, cause: std::io::Error) -> Error {
        self.disk.failed("cannot write", &self.disk.part(), cause)
    }

    async fn flush(&mut self) -> Result<()> {
        self.writer.flush().await.map_err(|cause| self.failed(cause))
    }
}

/// Sees to it that the file is not closed by whoever drops the sink, but as a call: a file server that is away lets
/// nobody close what was written. What is given back tells by its end that the sink is gone.
#[expect(clippy::disallowed_methods, reason = "it has nothing to tell, and nobody may have to wait for it")]
fn close_aside(disk: Disk, file: Arc<File>) -> oneshot::Sender<()> {
    let (closing, closed) = oneshot::channel();
    tokio::spawn(async move {
        let _ = closed.await;
        let leave = disk.leave().await;
        disk.call(leave, |_| drop(file));
    });
    closing
}

#[async_trait]
impl Sink for FileSink {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.check(bytes.len() as u64)?;
        self.writer.write(bytes).await.map_err(|cause| self.failed(cause))
    }

    async fn skip(&mut self, length: u64) -> Result<()> {
        self.flush().await?;
        self.check(length)?;
        self.writer.position += length;
        Ok(())
    }

    async fn close(mut self: Box<Self>) -> Result<Receipt> {
        let length = self.writer.position;
        if let Some(size) = self.size.filter(|size| length != *size) {
            return Err(self.misfit(length, size));
        }
        self.flush().await?;
        self.writer.written().await.map_err(|cause| self.failed(cause))?;
        let file = Arc::clone(&self.writer.file);
        let publish = move |disk: &Disk| {
            disk.publish(&file, length)?;
            let told = file.metadata().map_err(|cause| disk.failed("cannot look at", &disk.published(), cause))?;
            Ok(Receipt { size: Some(told.len()) })
        };
        self.disk.run(publish).await
    }

    /// Nothing more comes after it.
    async fn abort(mut self: Box<Self>) {
        let _ = self.writer.written().await;
    }
}
