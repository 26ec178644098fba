use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt, stream};
use mimeo_core::{
    Error, ObjectName, Reason, Result, StoreName,
    ports::{ByteStream, Sink, Store},
};
use reqwest::{Client, Method, Response, StatusCode, header, redirect};
use url::Url;

use super::{
    HttpStoreConfig,
    ranges::{RangedSink, Ranges, SEGMENT},
    sink::HttpSink,
};
use crate::{
    http::{client, range_start},
    stream::skipping,
};

/// A probe answers at once or not at all: a URL that is slow now must not be given to Glance.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// As many as Glance's HTTP driver follows.
const REDIRECTS: usize = 5;

#[derive(Debug, Clone)]
pub struct HttpStore {
    config: HttpStoreConfig,
    /// For PUT and DELETE, which no redirect may lead elsewhere.
    pub(super) writer: Client,
    reader: Client,
    pub(super) ranges: Ranges,
    pub(super) segment: u64,
}

impl HttpStore {
    pub fn new(config: HttpStoreConfig) -> Result<Self> {
        let failed = |cause: reqwest::Error| {
            let message = format!("{}: no HTTP client can be made", config.name);
            Error::new(Reason::StoreUnreachable, message).caused_by(cause)
        };
        // HTTP/1.1 alone: there a connection that breaks off is an upload that no server takes for complete. A proxy
        // of the environment is not for stores, as it is not for Glance's driver.
        let plain = || client().http1_only().no_proxy();
        let writer = plain().redirect(redirect::Policy::none()).build().map_err(failed)?;
        let reader = plain().redirect(as_glance_follows()).build().map_err(failed)?;
        Ok(Self { config, writer, reader, ranges: Ranges::default(), segment: SEGMENT })
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

    fn read_from(&self, object: &ObjectName) -> Url {
        append(self.config.readable(), object)
    }

    pub(super) fn failed(&self, method: &Method, url: &Url, cause: reqwest::Error) -> Error {
        unanswered(&self.config.name, method, url, cause)
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
        self.read_from(object).into()
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
        let url = self.read_from(object);
        let mut request = self.reader.get(url.clone());
        if offset > 0 {
            request = request.header(header::RANGE, format!("bytes={offset}-"));
        }
        let response = request.send().await.map_err(|cause| self.failed(&Method::GET, &url, cause))?;
        let skip = match response.status() {
            StatusCode::OK => offset,
            StatusCode::PARTIAL_CONTENT if range_start(&response) == Some(offset) => 0,
            // Nothing from there on: how much there should be is the reader's to know.
            StatusCode::RANGE_NOT_SATISFIABLE => return Ok(stream::empty().boxed()),
            StatusCode::NOT_FOUND | StatusCode::GONE => {
                let message = format!("{}: GET {url} answered {}: the object is gone", self.name(), response.status());
                return Err(Error::new(Reason::ObjectMissing, message));
            }
            status => return Err(self.refused(&Method::GET, &url, status)),
        };
        let store = self.name().clone();
        Ok(skipping(response.bytes_stream(), skip, move |cause| {
            let message = format!("{store}: the connection broke while {url} was read");
            Error::new(Reason::StoreError, message).caused_by(cause.without_url())
        }))
    }

    async fn probe(&self, object: &ObjectName) -> Result<Option<u64>> {
        let url = self.read_from(object);
        let asked = self.reader.head(url.clone()).timeout(PROBE_TIMEOUT).send().await;
        let response = asked.map_err(|cause| self.failed(&Method::HEAD, &url, cause))?;
        match response.status() {
            StatusCode::OK => {
                let untold = || {
                    let message = format!("{}: HEAD {url} tells no Content-Length, which Glance needs", self.name());
                    Error::new(Reason::StoreError, message)
                };
                content_length(&response).map(Some).ok_or_else(untold)
            }
            StatusCode::NOT_FOUND | StatusCode::GONE => Ok(None),
            status => Err(self.refused(&Method::HEAD, &url, status)),
        }
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

/// An answer that is none of those hoped for.
pub(super) fn refused(store: &StoreName, method: &Method, url: &Url, status: StatusCode) -> Error {
    let (reason, cure) = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            (Reason::StoreRefused, ": allow Mimeo's address, and let the server's user write there")
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            (Reason::StoreRefused, ": enable the method there (nginx: dav_methods PUT DELETE; Apache: Dav On)")
        }
        StatusCode::PAYLOAD_TOO_LARGE => {
            (Reason::StoreFull, ": raise the server's limit (nginx: client_max_body_size; Apache: LimitRequestBody)")
        }
        StatusCode::INSUFFICIENT_STORAGE => (Reason::StoreFull, ": it has no room left"),
        StatusCode::NOT_FOUND | StatusCode::CONFLICT if method == Method::PUT => {
            (Reason::StoreError, ": the directory is not there; make it, or correct the store's url")
        }
        status if status.is_redirection() => (Reason::StoreError, ": redirected; write the final address in url"),
        _ => (Reason::StoreError, ""),
    };
    Error::new(reason, format!("{store}: {method} {url} answered {status}{cure}"))
}

/// No answer at all.
pub(super) fn unanswered(store: &StoreName, method: &Method, url: &Url, cause: reqwest::Error) -> Error {
    let (reason, what) = match () {
        () if cause.is_connect() => (Reason::StoreUnreachable, "found no connection"),
        () if cause.is_timeout() => (Reason::StoreUnreachable, "had no answer in time"),
        () => (Reason::StoreError, "broke off"),
    };
    Error::new(reason, format!("{store}: {method} {url} {what}")).caused_by(cause.without_url())
}

/// Glance's driver follows these two statuses and no other.
fn as_glance_follows() -> redirect::Policy {
    redirect::Policy::custom(|attempt| {
        let followed = matches!(attempt.status(), StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND);
        match followed && attempt.previous().len() <= REDIRECTS {
            true => attempt.follow(),
            false => attempt.stop(),
        }
    })
}

/// The configured URL ends with a slash, and an object's name needs no escaping.
fn append(base: &Url, object: &ObjectName) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}{object}", base.path()));
    url
}

/// Not the body's length, which is 0 for a HEAD.
pub(super) fn content_length(response: &Response) -> Option<u64> {
    response.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
