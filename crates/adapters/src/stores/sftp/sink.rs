use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use mimeo_core::{
    Error, Reason, Result,
    ports::{Receipt, Sink},
};
use russh_sftp::client::error::Error as SftpError;

use super::{connection::Connection, store::Names};

/// What may be on its way unacknowledged: as much as OpenSSH's window lets through, and all that a sink holds.
const IN_FLIGHT: usize = 2 << 20;

/// One file while it is written aside. Dropping it leaves there what has arrived.
pub(super) struct SftpSink {
    connection: Arc<Connection>,
    names: Names,
    handle: String,
    size: Option<u64>,
    /// Up to here it was written or skipped.
    position: u64,
    /// Up to here it was written.
    written: u64,
    requests: FuturesUnordered<BoxFuture<'static, std::result::Result<(), SftpError>>>,
}

impl SftpSink {
    /// `handle` is of the part file, which has `offset` bytes.
    pub(super) fn new(connection: Connection, names: Names, handle: String, size: Option<u64>, offset: u64) -> Self {
        let connection = Arc::new(connection);
        Self { connection, names, handle, size, position: offset, written: offset, requests: FuturesUnordered::new() }
    }

    async fn send(&mut self, piece: Bytes) -> Result<()> {
        let most = IN_FLIGHT / self.connection.request as usize;
        while self.requests.len() >= most {
            let done = self.requests.next().await;
            self.check(done).await?;
        }
        let (connection, handle, offset) = (self.connection.clone(), self.handle.clone(), self.position);
        self.position += piece.len() as u64;
        self.written = self.position;
        let write = async move { connection.sftp.write(handle, offset, piece.into()).await.map(drop) };
        self.requests.push(write.boxed());
        Ok(())
    }

    /// Sends what waits to be sent, and takes the answers that have come.
    async fn progress(&mut self) -> Result<()> {
        while let Some(done @ Some(_)) = self.requests.next().now_or_never() {
            self.check(done).await?;
        }
        Ok(())
    }

    async fn check(&mut self, done: Option<std::result::Result<(), SftpError>>) -> Result<()> {
        match done {
            Some(Err(cause)) => Err(self.connection.failed("write", &self.names.part, cause).await),
            _ => Ok(()),
        }
    }

    /// The next `length` bytes, if the object has so many.
    fn fits(&self, length: u64) -> Result<()> {
        match self.size {
            Some(size) if self.position + length > size => Err(self.misfit(self.position + length, size)),
            _ => Ok(()),
        }
    }

    fn misfit(&self, given: u64, size: u64) -> Error {
        let message = format!("{}: was given {given} bytes where {size} were announced", self.names.what);
        Error::new(Reason::StoreError, message)
    }
}

#[async_trait]
impl Sink for SftpSink {
    async fn write(&mut self, mut bytes: Bytes) -> Result<()> {
        self.fits(bytes.len() as u64)?;
        while !bytes.is_empty() {
            let length = bytes.len().min(self.connection.request as usize);
            self.send(bytes.split_to(length)).await?;
        }
        self.progress().await
    }

    async fn skip(&mut self, length: u64) -> Result<()> {
        self.fits(length)?;
        self.position += length;
        Ok(())
    }

    async fn close(mut self: Box<Self>) -> Result<Receipt> {
        if let Some(size) = self.size.filter(|size| *size != self.position) {
            return Err(self.misfit(self.position, size));
        }
        while let Some(done) = self.requests.next().await {
            self.check(Some(done)).await?;
        }
        let (connection, names) = (&self.connection, &self.names);
        if self.written < self.position {
            connection.resize(&self.handle, &names.part, self.position).await?;
        }
        let size = connection.finish(std::mem::take(&mut self.handle), &names.part).await?;
        if let Some(size) = size.filter(|size| *size != self.position) {
            let message = format!("{}: the server has {size} bytes of {}", names.what, self.position);
            return Err(Error::new(Reason::StoreError, message));
        }
        mimeo_crash::point("sftp-written");
        connection.rename(&names.part, &names.object).await?;
        Ok(Receipt { size })
    }

    async fn abort(self: Box<Self>) {}
}
