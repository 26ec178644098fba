use std::{fs::File, os::unix::fs::FileExt, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use mimeo_core::{
    Error, Reason, Result,
    ports::{Receipt, Sink},
};
use tokio::{sync::oneshot, task::JoinHandle};

use super::disk::Disk;

/// What is written at once: each write is handed to another thread, which costs more than copying a few bytes.
pub(super) const GATHERED: usize = 512 << 10;

/// One object while it is written, beside its place. While one part is written the next is gathered.
pub(super) struct FileSink {
    disk: Disk,
    file: Arc<File>,
    size: Option<u64>,
    /// Behind what was given, skipped or gathered.
    position: u64,
    gathered: Vec<u8>,
    most: usize,
    /// Gives its memory back.
    writing: Option<JoinHandle<Result<Vec<u8>>>>,
    /// Behind `file`, which must be dropped first.
    _closing: oneshot::Sender<()>,
}

impl FileSink {
    pub(super) fn new(disk: Disk, file: File, size: Option<u64>, position: u64, most: usize) -> Self {
        let file = Arc::new(file);
        let closing = close_aside(disk.clone(), Arc::clone(&file));
        Self { disk, file, size, position, gathered: Vec::new(), most, writing: None, _closing: closing }
    }

    fn advance(&mut self, length: u64) -> Result<()> {
        self.position += length;
        match self.size {
            Some(size) if self.position > size => Err(self.misfit(size)),
            _ => Ok(()),
        }
    }

    fn misfit(&self, size: u64) -> Error {
        let (store, part, given) = (&self.disk.store, self.disk.part(), self.position);
        let message = format!("{store}: {} was given {given} bytes where {size} were announced", part.display());
        Error::new(Reason::StoreError, message)
    }

    /// Has what was gathered written, behind what is being written.
    async fn flush(&mut self) -> Result<()> {
        let mut empty = self.written().await?;
        if self.gathered.is_empty() {
            return Ok(());
        }
        let leave = self.disk.leave().await;
        std::mem::swap(&mut self.gathered, &mut empty);
        let (file, mut bytes) = (Arc::clone(&self.file), empty);
        let offset = self.position - bytes.len() as u64;
        self.writing = Some(self.disk.call(leave, move |disk| {
            let written = file.write_all_at(&bytes, offset);
            written.map_err(|cause| disk.failed("cannot write", &disk.part(), cause))?;
            bytes.clear();
            Ok(bytes)
        }));
        Ok(())
    }

    async fn written(&mut self) -> Result<Vec<u8>> {
        let Some(writing) = &mut self.writing else { return Ok(Vec::new()) };
        let written = writing.await;
        self.writing = None;
        self.disk.finished(written)
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
    async fn write(&mut self, mut bytes: Bytes) -> Result<()> {
        while !bytes.is_empty() {
            let part = bytes.split_to(bytes.len().min(self.most - self.gathered.len()));
            self.advance(part.len() as u64)?;
            self.gathered.extend_from_slice(&part);
            if self.gathered.len() == self.most {
                self.flush().await?;
            }
        }
        Ok(())
    }

    async fn skip(&mut self, length: u64) -> Result<()> {
        self.flush().await?;
        self.advance(length)
    }

    async fn close(mut self: Box<Self>) -> Result<Receipt> {
        if let Some(size) = self.size.filter(|size| self.position != *size) {
            return Err(self.misfit(size));
        }
        self.flush().await?;
        self.written().await?;
        let (file, length) = (self.file, self.position);
        let publish = move |disk: &Disk| {
            disk.publish(&file, length)?;
            let told = file.metadata().map_err(|cause| disk.failed("cannot look at", &disk.published(), cause))?;
            Ok(Receipt { size: Some(told.len()) })
        };
        self.disk.run(publish).await
    }

    /// Nothing more comes after it.
    async fn abort(mut self: Box<Self>) {
        let _ = self.written().await;
    }
}
