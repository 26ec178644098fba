use async_trait::async_trait;
use mimeo_core::{
    Error, ObjectName, Reason, Result, StoreName,
    ports::{ByteStream, Sink, Store},
};
use reqwest::{Client, Method, StatusCode, redirect};
use url::Url;

use super::{
    HttpStoreConfig,
    ranges::{RangedSink, Ranges, SEGMENT},
    sink::HttpSink,
};
use crate::{
    stores::web::{Web, append, built, plain_client, refused},
    upload::unanswered,
};

#[derive(Debug, Clone)]
pub struct HttpStore {
    config: HttpStoreConfig,
    /// For PUT and DELETE, which no redirect may lead elsewhere.
    pub(super) writer: Client,
    web: Web,
    pub(super) ranges: Ranges,
    pub(super) segment: u64,
}

impl HttpStore {
    pub fn new(config: HttpStoreConfig) -> Result<Self> {
        let writer = built(&config.name, plain_client().redirect(redirect::Policy::none()))?;
        let web = Web::new(config.name.clone(), config.readable().clone())?;
        Ok(Self { config, writer, web, ranges: Ranges::default(), segment: SEGMENT })
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
        HttpSink::start(self.writer.put(url.clone()), self.config.name.clone(), url, size)
    }

    pub(super) fn written(&self, object: &ObjectName) -> Url {
        append(&self.config.url, object)
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
        self.web.read(object, offset).await
    }

    async fn probe(&self, object: &ObjectName) -> Result<Option<u64>> {
        self.web.probe(object).await
    }

    async fn delete(&self, object: &ObjectName) -> Result<()> {
        let url = self.written(object);
        let sent = self.writer.delete(url.clone()).send().await;
        match sent.map_err(|cause| self.failed(&Method::DELETE, &url, cause))?.status() {
            StatusCode::OK
            | StatusCode::ACCEPTED
            | StatusCode::NO_CONTENT
            | StatusCode::NOT_FOUND
            | StatusCode::GONE => Ok(()),
            status => Err(self.refused(&Method::DELETE, &url, status)),
        }
    }
}
