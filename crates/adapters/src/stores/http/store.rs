use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use mimeo_core::{
    Error, ObjectName, Reason, Result, StoreName,
    ports::{ByteStream, Sink, Store},
};
use reqwest::{Client, Method, RequestBuilder, StatusCode, redirect};
use url::Url;

use super::{
    Access, HttpStoreConfig,
    ranges::{RangedSink, Ranges, SEGMENT},
    sink::HttpSink,
};
use crate::{
    Live,
    http::CONNECT_TIMEOUT,
    stores::web::{Web, append, built, refused},
    upload::unanswered,
};

#[derive(Debug, Clone)]
pub struct HttpStore {
    config: HttpStoreConfig,
    writer: Live<Writer>,
    web: Web,
    pub(super) directory: Directory,
    pub(super) ranges: Ranges,
    pub(super) segment: u64,
}

/// Whether it was looked for since the last PUT that did not find it. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Directory(Arc<AtomicBool>);

impl Directory {
    /// A PUT there was not done.
    pub(super) fn refused(&self, store: &StoreName, url: &Url, status: StatusCode) -> Error {
        if matches!(status, StatusCode::NOT_FOUND | StatusCode::CONFLICT) {
            self.0.store(false, Ordering::Relaxed);
        }
        refused(store, &Method::PUT, url, status)
    }
}

/// For PUT and DELETE, which no redirect may lead elsewhere.
#[derive(Debug)]
struct Writer {
    client: Client,
    access: Access,
}

impl Writer {
    fn new(store: &StoreName, access: Access) -> Result<Self> {
        Ok(Self { client: built(store, access.writer().redirect(redirect::Policy::none()))?, access })
    }
}

impl HttpStore {
    pub fn new(config: HttpStoreConfig) -> Result<Self> {
        let access = &config.access;
        let writer = Live::new(Writer::new(&config.name, access.clone())?);
        let reader = match config.read_url {
            Some(_) => access.reader(),
            None => access.reader_of_the_same(),
        };
        let web = Web::reached_by(reader, config.name.clone(), config.readable().clone())?;
        Ok(Self { config, writer, web, directory: Directory::default(), ranges: Ranges::default(), segment: SEGMENT })
    }

    /// From now on requests have the password, the token or the certificate of this configuration; nothing else of it
    /// counts.
    pub fn renew(&self, config: HttpStoreConfig) -> Result<()> {
        let Access { login, identity, .. } = config.access;
        let access = Access { login, identity, ..self.config.access.clone() };
        self.writer.set(Writer::new(&self.config.name, access)?);
        Ok(())
    }

    /// With other segments, so that a test need not send large objects.
    #[doc(hidden)]
    #[must_use]
    pub fn with_segment(self, bytes: u64) -> Self {
        Self { segment: bytes, ..self }
    }

    /// The whole object in one request.
    pub(super) fn plain_put(&self, object: &ObjectName, size: Option<u64>) -> HttpSink {
        let url = self.written(object);
        let put = self.request(Method::PUT, &url);
        HttpSink::start(put, self.config.name.clone(), url, self.directory.clone(), size)
    }

    /// One to where objects are written, with the credentials for it.
    pub(super) fn request(&self, method: Method, url: &Url) -> RequestBuilder {
        let writer = self.writer.get();
        writer.access.logged_in(writer.client.request(method, url.clone()))
    }

    pub(super) fn written(&self, object: &ObjectName) -> Url {
        append(&self.config.url, object)
    }

    /// Makes the directory where the server says that there is none: Apache takes no PUT there. What goes wrong with it
    /// shows at the PUT.
    async fn prepare(&self) -> Result<()> {
        let Ok(mkcol) = Method::from_bytes(b"MKCOL") else { return Ok(()) };
        let (mut url, mut missing) = (self.config.url.clone(), Vec::new());
        if self.status(&Method::HEAD, &url).await? != Some(StatusCode::NOT_FOUND) {
            return Ok(());
        }
        while url.path() != "/" && self.status(&mkcol, &url).await? == Some(StatusCode::CONFLICT) {
            let Ok(parent) = url.join("..") else { break };
            missing.push(std::mem::replace(&mut url, parent));
        }
        while let Some(url) = missing.pop() {
            self.status(&mkcol, &url).await?;
            mimeo_crash::point("http-directory-made");
        }
        Ok(())
    }

    /// What the server answers to a request without a body; `None`: nothing that makes sense, or not soon.
    async fn status(&self, method: &Method, url: &Url) -> Result<Option<StatusCode>> {
        match self.request(method.clone(), url).timeout(CONNECT_TIMEOUT).send().await {
            Ok(response) => Ok(Some(response.status())),
            Err(cause) if cause.is_connect() => Err(self.failed(method, url, cause)),
            Err(_) => Ok(None),
        }
    }

    /// Whether the object is where it was written, where that is another place than where it is read. A server that does not
    /// say so is no witness that it is gone.
    async fn is_there(&self, object: &ObjectName) -> Result<bool> {
        let url = self.written(object);
        if url == self.web.location(object) {
            return Ok(false);
        }
        let asked = self.request(Method::HEAD, &url).timeout(CONNECT_TIMEOUT).send().await;
        match asked.map_err(|cause| self.failed(&Method::HEAD, &url, cause))?.status() {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND | StatusCode::GONE => Ok(false),
            status => Err(self.refused(&Method::HEAD, &url, status)),
        }
    }

    pub(super) fn failed(&self, method: &Method, url: &Url, cause: reqwest::Error) -> Error {
        unanswered(&format!("{}: {method} {url}", self.config.name), cause)
    }

    pub(super) fn refused(&self, method: &Method, url: &Url, status: StatusCode) -> Error {
        refused(&self.config.name, method, url, status)
    }
}

#[async_trait]
impl Store for HttpStore {
    fn name(&self) -> &StoreName {
        &self.config.name
    }

    fn location(&self, object: &ObjectName) -> String {
        self.web.location(object).into()
    }

    /// Known once an object of two segments was begun, or an object that had been begun was asked for.
    fn resumes(&self) -> Option<bool> {
        self.ranges.known()
    }

    async fn open(&self, object: &ObjectName, size: Option<u64>) -> Result<Box<dyn Sink>> {
        if !self.directory.0.load(Ordering::Relaxed) {
            self.prepare().await?;
            self.directory.0.store(true, Ordering::Relaxed);
        }
        match size {
            Some(size) if size >= 2 * self.segment && !self.ranges.are_not_taken() => {
                Ok(Box::new(RangedSink::open(self.clone(), object.clone(), size)))
            }
            _ => Ok(Box::new(self.plain_put(object, size))),
        }
    }

    async fn kept(&self, object: &ObjectName) -> Result<u64> {
        self.kept_of(object).await
    }

    async fn resume(&self, object: &ObjectName, size: Option<u64>, offset: u64) -> Result<Box<dyn Sink>> {
        match size {
            Some(size) if size >= offset && self.ranges.are_taken() => {
                Ok(Box::new(RangedSink::resume(self.clone(), object.clone(), size, offset)))
            }
            _ => {
                let message = format!("{}: cannot go on with {object} of {size:?} bytes from {offset}", self.name());
                Err(Error::new(Reason::StoreError, message))
            }
        }
    }

    async fn read(&self, object: &ObjectName, offset: u64) -> Result<ByteStream> {
        self.web.read_unless_there(object, offset, "url", self.is_there(object)).await
    }

    async fn probe(&self, object: &ObjectName) -> Result<Option<u64>> {
        self.web.probe_unless_there(object, "url", self.is_there(object)).await
    }

    async fn delete(&self, object: &ObjectName) -> Result<()> {
        let url = self.written(object);
        let sent = self.request(Method::DELETE, &url).send().await;
        match sent.map_err(|cause| self.failed(&Method::DELETE, &url, cause))?.status() {
            StatusCode::OK | StatusCode::ACCEPTED | StatusCode::NO_CONTENT => Ok(()),
            StatusCode::NOT_FOUND | StatusCode::GONE if url == self.web.location(object) => Ok(()),
            StatusCode::NOT_FOUND | StatusCode::GONE => self.web.shown_gone(object, "url").await,
            status => Err(self.refused(&Method::DELETE, &url, status)),
        }
    }
}
