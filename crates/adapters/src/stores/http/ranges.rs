//! Ranged PUT: an object that the server writes in place, a segment at a time, so that a copy that was broken off can
//! be gone on with. Apache does it (RFC 9110, 14.5); nginx answers 501; some servers pass over `Content-Range` and
//! replace the whole object. Which of them this one is shows with each object's first bytes.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use mimeo_core::{
    Error, ObjectName, Reason, Result,
    ports::{Receipt, Sink, Store},
};
use reqwest::{Method, StatusCode, header};
use url::Url;

use super::{
    sink::{HttpSink, is_done},
    store::HttpStore,
};
use crate::{http::range_start, stores::web::content_length};

/// What one ranged PUT takes. Large enough that its answer is not waited for often.
pub(super) const SEGMENT: u64 = 64 << 20;

/// Whether the server takes ranged PUTs, as far as is known. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Ranges(Arc<AtomicU8>);

const TAKEN: u8 = 1;
const NOT_TAKEN: u8 = 2;

impl Ranges {
    pub(super) fn are_taken(&self) -> bool {
        self.known() == Some(true)
    }

    pub(super) fn are_not_taken(&self) -> bool {
        self.known() == Some(false)
    }

    pub(super) fn known(&self) -> Option<bool> {
        match self.0.load(Ordering::Relaxed) {
            TAKEN => Some(true),
            NOT_TAKEN => Some(false),
            _ => None,
        }
    }

    fn found(&self, taken: bool) -> bool {
        self.0.store(if taken { TAKEN } else { NOT_TAKEN }, Ordering::Relaxed);
        taken
    }

    /// An answer to a ranged PUT that was not done; others than these say nothing of ranges.
    fn refused(&self, status: StatusCode) {
        if matches!(status, StatusCode::BAD_REQUEST | StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::NOT_IMPLEMENTED) {
            self.found(false);
        }
    }
}

impl HttpStore {
    /// Makes the object with its first two bytes, each a ranged PUT, and looks whether both are there. Where they are
    /// not, nothing is left of the object.
    ///
    /// Every object begins so: Apache keeps what it has of a ranged PUT that was broken off only where the object
    /// was there before. The bytes are the object's own, so that a request that comes late changes nothing.
    async fn begins_in_ranges(&self, object: &ObjectName, size: u64, first: &[u8; 2]) -> Result<bool> {
        // Again where something else bore the name: that tells nothing of ranges, and is removed.
        let taken = match self.puts_two(object, size, first).await? {
            Some(3..) => self.puts_two(object, size, first).await?,
            taken => taken,
        };
        match taken {
            Some(size) => {
                let taken = self.ranges.found(size == 2);
                if !taken {
                    self.delete(object).await?;
                }
                Ok(taken)
            }
            None => Ok(false),
        }
    }

    /// The object's size after two ranged PUTs of a byte; of one that is then too large nothing is left. `None`: it did not
    /// come to that.
    async fn puts_two(&self, object: &ObjectName, size: u64, first: &[u8; 2]) -> Result<Option<u64>> {
        let url = self.written(object);
        for (at, byte) in (0..).zip(first) {
            let status = self.put_byte(&url, at, Some(size), *byte).await?;
            mimeo_crash::point("http-byte-put");
            if !is_done(status) {
                self.ranges.refused(status);
                // No answer of the server's own: what comes of the byte later is not known, so the name is used no more.
                self.unless_failing(&Method::PUT, &url, status)?;
                if at > 0 {
                    self.delete(object).await?;
                }
                return Ok(None);
            }
        }
        let size = self.written_size(&url).await?.ok();
        if size.is_none_or(|size| size > 2) {
            self.delete(object).await?;
        }
        Ok(size)
    }

    /// How much of the object is there to be gone on with. Where it is not known yet whether the server takes ranged
    /// PUTs, it is given the last byte once more; one that replaces the object with it has lost nothing of use.
    pub(super) async fn kept_of(&self, object: &ObjectName) -> Result<u64> {
        if self.ranges.are_not_taken() {
            return Ok(0);
        }
        let url = self.written(object);
        let kept = self.written_size(&url).await?.or_else(|status| self.unless_failing(&Method::HEAD, &url, status))?;
        if self.ranges.are_taken() {
            return Ok(kept);
        }
        let Some(last) = kept.checked_sub(1).filter(|last| *last > 0) else {
            return Ok(0);
        };
        let Some(byte) = self.written_byte(&url, last).await? else {
            return Ok(0);
        };
        let status = self.put_byte(&url, last, None, byte).await?;
        if !is_done(status) {
            self.ranges.refused(status);
            return self.unless_failing(&Method::PUT, &url, status);
        }
        // It may grow meanwhile, by what was still on its way when its writer was broken off.
        match self.written_size(&url).await? {
            Ok(now) => Ok(if self.ranges.found(now >= kept) { kept } else { 0 }),
            Err(status) => self.unless_failing(&Method::HEAD, &url, status),
        }
    }

    async fn put_byte(&self, url: &Url, at: u64, size: Option<u64>, byte: u8) -> Result<StatusCode> {
        let put = self.request(Method::PUT, url).header(header::CONTENT_RANGE, content_range(at, 1, size));
        let sent = put.body(vec![byte]).send().await;
        Ok(sent.map_err(|cause| self.failed(&Method::PUT, url, cause))?.status())
    }

    /// The object's size where it is written, or what was answered instead; 0: it is not there.
    async fn written_size(&self, url: &Url) -> Result<std::result::Result<u64, StatusCode>> {
        let sent = self.request(Method::HEAD, url).send().await;
        let response = sent.map_err(|cause| self.failed(&Method::HEAD, url, cause))?;
        Ok(match response.status() {
            StatusCode::OK => Ok(content_length(&response).unwrap_or_default()),
            StatusCode::NOT_FOUND | StatusCode::GONE => Ok(0),
            status => Err(status),
        })
    }

    async fn written_byte(&self, url: &Url, at: u64) -> Result<Option<u8>> {
        let failed = |cause| self.failed(&Method::GET, url, cause);
        let get = self.request(Method::GET, url).header(header::RANGE, format!("bytes={at}-{at}"));
        let mut response = get.send().await.map_err(failed)?;
        if response.status() != StatusCode::PARTIAL_CONTENT || range_start(&response) != Some(at) {
            return Ok(None);
        }
        Ok(response.chunk().await.map_err(failed)?.and_then(|bytes| bytes.first().copied()))
    }

    /// A server that has a trouble may have kept the object; one that refuses for good cannot go on with it.
    fn unless_failing(&self, method: &Method, url: &Url, status: StatusCode) -> Result<u64> {
        match status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED {
            true => Err(self.refused(method, url, status)),
            false => Ok(0),
        }
    }
}

/// An object of a known size as a row of ranged PUTs, or as one plain PUT where the server turns out not to take them.
pub(super) struct RangedSink {
    store: HttpStore,
    object: ObjectName,
    size: u64,
    /// Up to here it was written.
    position: u64,
    /// The first byte, where it came alone: two are needed to begin.
    held: Bytes,
    begun: bool,
    /// The request under way, and how many bytes it still takes.
    put: Option<(HttpSink, u64)>,
}

impl RangedSink {
    pub(super) fn open(store: HttpStore, object: ObjectName, size: u64) -> Self {
        Self { store, object, size, position: 0, held: Bytes::new(), begun: false, put: None }
    }

    pub(super) fn resume(store: HttpStore, object: ObjectName, size: u64, offset: u64) -> Self {
        Self { position: offset, begun: true, ..Self::open(store, object, size) }
    }

    async fn begin(&mut self, first: &[u8; 2]) -> Result<()> {
        if !self.store.begins_in_ranges(&self.object, self.size, first).await? {
            self.put = Some((self.store.plain_put(&self.object, Some(self.size)), self.size));
        }
        self.begun = true;
        Ok(())
    }

    fn next_put(&self) -> (HttpSink, u64) {
        let length = self.store.segment.min(self.size - self.position);
        let url = self.store.written(&self.object);
        let range = content_range(self.position, length, Some(self.size));
        let put = self.store.request(Method::PUT, &url).header(header::CONTENT_RANGE, range);
        (HttpSink::start(put, self.store.name().clone(), url, self.store.directory.clone(), Some(length)), length)
    }

    async fn end_put(&mut self) -> Result<Receipt> {
        match self.put.take() {
            Some((put, _)) => Box::new(put).close().await,
            // All of the object was there before.
            None => Ok(Receipt::default()),
        }
    }

    fn misfit(&self, given: u64) -> Error {
        let (store, url, size) = (self.store.name(), self.store.written(&self.object), self.size);
        let message = format!("{store}: PUT {url} was given {given} bytes where {size} were announced");
        Error::new(Reason::StoreError, message)
    }
}

#[async_trait]
impl Sink for RangedSink {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let mut bytes = match self.held.is_empty() {
            true => bytes,
            false => [std::mem::take(&mut self.held), bytes].concat().into(),
        };
        let given = self.position + bytes.len() as u64;
        if given > self.size {
            return Err(self.misfit(given));
        }
        if !self.begun {
            let Some(first) = bytes.first_chunk() else {
                self.held = bytes;
                return Ok(());
            };
            self.begin(first).await?;
        }
        while !bytes.is_empty() {
            if self.put.is_none() {
                self.put = Some(self.next_put());
            }
            let Some((put, left)) = &mut self.put else { continue };
            let length = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
            put.write(bytes.split_to(length)).await?;
            *left -= length as u64;
            self.position += length as u64;
            if *left == 0 && self.position < self.size {
                self.end_put().await?;
                mimeo_crash::point("http-segment-ended");
            }
        }
        Ok(())
    }

    async fn close(mut self: Box<Self>) -> Result<Receipt> {
        match self.position < self.size {
            true => Err(self.misfit(self.position)),
            false => self.end_put().await,
        }
    }

    async fn abort(self: Box<Self>) {}
}

fn content_range(offset: u64, length: u64, size: Option<u64>) -> String {
    let size = size.map_or("*".into(), |size| size.to_string());
    format!("bytes {offset}-{}/{size}", offset + length - 1)
}
