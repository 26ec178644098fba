use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use mimeo_core::{
    Error, ObjectName, Reason, Result, StoreName,
    ports::{ByteStream, Cursor, ObjectPage, Sink, Store},
};
use russh_sftp::{client::error::Error as SftpError, protocol::OpenFlags};

use super::{SftpStoreConfig, connection::Connection, sink::SftpSink};
use crate::{
    Live,
    stores::{
        listing::{distinct, of_file},
        web::Web,
    },
};

/// More makes nothing faster.
const MOST_REQUEST: u32 = 128 << 10;

/// How many requests are under way while a kept part is read.
const READS: usize = 16;

#[derive(Debug, Clone)]
pub struct SftpStore {
    name: StoreName,
    config: Live<SftpStoreConfig>,
    web: Web,
    /// Bytes at most of one request.
    request: u32,
}

/// The two files of an object.
#[derive(Debug, Clone)]
pub(super) struct Names {
    /// For messages.
    pub(super) what: String,
    pub(super) object: String,
    /// Hidden from those who list the directory; most web servers give no such file.
    pub(super) part: String,
}

impl SftpStore {
    pub fn new(config: SftpStoreConfig) -> Result<Self> {
        let web = Web::new(config.name.clone(), config.read_url.clone())?;
        Ok(Self { name: config.name.clone(), config: Live::new(config), web, request: MOST_REQUEST })
    }

    /// From now on connections log in with the password, the key or the agent of this configuration; nothing else of it
    /// counts.
    pub fn renew(&self, config: SftpStoreConfig) {
        let SftpStoreConfig { key_file, key_passphrase, agent, password, .. } = config;
        let old = (*self.config.get()).clone();
        self.config.set(SftpStoreConfig { key_file, key_passphrase, agent, password, ..old });
    }

    /// With other requests, so that a test need not send large objects.
    #[doc(hidden)]
    #[must_use]
    pub fn with_request(self, bytes: u32) -> Self {
        Self { request: bytes, ..self }
    }

    async fn connect(&self) -> Result<Connection> {
        Connection::new(self.config.get(), self.request).await
    }

    /// Whether the object is where it was written.
    async fn is_there(&self, object: &ObjectName) -> Result<bool> {
        let (connection, names) = (self.connect().await?, self.names(object));
        connection.has_directory().await?;
        Ok(connection.size(&names.object).await?.is_some())
    }

    fn names(&self, object: &ObjectName) -> Names {
        let config = self.config.get();
        let path = &config.path;
        Names {
            what: format!("{}: {}/{object}", self.name, config.address()),
            object: format!("{path}/{object}"),
            part: format!("{path}/.{object}.part"),
        }
    }
}

#[async_trait]
impl Store for SftpStore {
    fn name(&self) -> &StoreName {
        &self.name
    }

    fn location(&self, object: &ObjectName) -> String {
        self.web.location(object).into()
    }

    fn is_sparse(&self) -> bool {
        true
    }

    fn resumes(&self) -> Option<bool> {
        Some(true)
    }

    async fn open(&self, object: &ObjectName, size: Option<u64>) -> Result<Box<dyn Sink>> {
        let (connection, names) = (self.connect().await?, self.names(object));
        let flags = OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::TRUNCATE;
        let handle = connection.open(&names.part, flags).await?;
        Ok(Box::new(SftpSink::new(connection, names, handle, size, 0)))
    }

    async fn kept(&self, object: &ObjectName) -> Result<u64> {
        let connection = self.connect().await?;
        let size = connection.size(&self.names(object).part).await?;
        if size.is_none() {
            connection.has_directory().await?;
        }
        Ok(size.unwrap_or_default())
    }

    async fn read_kept(&self, object: &ObjectName) -> Result<Option<ByteStream>> {
        let (connection, part) = (self.connect().await?, self.names(object).part);
        let Some(size) = connection.size(&part).await? else {
            let message = format!("{}: nothing was kept of {object}", self.name);
            return Err(Error::new(Reason::ObjectMissing, message));
        };
        let handle = connection.open(&part, OpenFlags::READ).await?;
        let kept = Arc::new(Kept { connection, handle, part, size });
        let step = kept.connection.request as usize;
        let reads = stream::iter((0..size).step_by(step)).map(move |offset| {
            let kept = kept.clone();
            async move { kept.read(offset).await }
        });
        Ok(Some(reads.buffered(READS).boxed()))
    }

    async fn resume(&self, object: &ObjectName, size: Option<u64>, offset: u64) -> Result<Box<dyn Sink>> {
        let (connection, names) = (self.connect().await?, self.names(object));
        let handle = connection.open(&names.part, OpenFlags::WRITE).await?;
        connection.resize(&handle, &names.part, offset).await?;
        Ok(Box::new(SftpSink::new(connection, names, handle, size, offset)))
    }

    async fn read(&self, object: &ObjectName, offset: u64) -> Result<ByteStream> {
        self.web.read_unless_there(object, offset, "path", self.is_there(object)).await
    }

    async fn probe(&self, object: &ObjectName) -> Result<Option<u64>> {
        self.web.probe_unless_there(object, "path", self.is_there(object)).await
    }

    async fn list(&self, _after: Option<&Cursor>) -> Result<Option<ObjectPage>> {
        let names = self.connect().await?.list().await?;
        let objects = distinct(names.iter().filter_map(|name| of_file(name)));
        Ok(Some(ObjectPage { objects, next: None }))
    }

    async fn room(&self) -> Result<Option<u64>> {
        Ok(self.connect().await?.room().await)
    }

    async fn delete(&self, object: &ObjectName) -> Result<()> {
        let (connection, names) = (self.connect().await?, self.names(object));
        connection.has_directory().await?;
        let was_there = connection.remove(&names.part).await? | connection.remove(&names.object).await?;
        match was_there {
            true => Ok(()),
            false => self.web.shown_gone(object, "path").await,
        }
    }
}

/// A part file while it is read.
struct Kept {
    connection: Connection,
    handle: String,
    part: String,
    size: u64,
}

impl Kept {
    /// What one request asks for, though the server may give it in pieces.
    async fn read(&self, offset: u64) -> Result<Bytes> {
        let length = u64::from(self.connection.request).min(self.size - offset);
        let mut bytes = Vec::new();
        loop {
            let got = bytes.len() as u64;
            let left = u32::try_from(length.saturating_sub(got)).unwrap_or_default();
            if left == 0 {
                return Ok(bytes.into());
            }
            match self.connection.sftp.read(self.handle.as_str(), offset + got, left).await {
                // Behind the end a server is to say so; this one would be asked for ever.
                Ok(data) if data.data.is_empty() => {
                    let cause = SftpError::UnexpectedBehavior("a read was answered with nothing".into());
                    return Err(self.connection.failed("read", &self.part, cause).await);
                }
                Ok(data) => bytes.extend_from_slice(&data.data),
                Err(cause) => return Err(self.connection.failed("read", &self.part, cause).await),
            }
        }
    }
}
