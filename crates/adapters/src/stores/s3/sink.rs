use async_trait::async_trait;
use bytes::{Buf, Bytes, BytesMut};
use mimeo_core::{
    Error, Reason, Result,
    ports::{Receipt, Sink},
};
use reqwest::{Method, RequestBuilder, Response, header};

use super::{
    answer::Answer,
    api::{Api, Part},
    checked::{self, Checksum},
};
use crate::upload::Upload;

/// As many as one upload may have.
pub(super) const MOST_PARTS: u64 = 10_000;

/// One request while its body is sent: the whole object, or a part of it.
struct Put {
    upload: Upload,
    what: String,
    size: u64,
    /// How many bytes it still takes.
    left: u64,
    checksum: Option<Checksum>,
}

impl Put {
    fn start(request: RequestBuilder, what: String, size: u64, is_checked: bool) -> Self {
        let (checksum, length) = match is_checked {
            true => (Some(Checksum::new()), checked::framed(size)),
            false => (None, size),
        };
        Self { upload: Upload::start(request, what.clone(), Some(length)), what, size, left: size, checksum }
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let is_first = self.left == self.size;
        self.left = self.left.saturating_sub(bytes.len() as u64);
        if let Some(checksum) = &mut self.checksum {
            checksum.update(&bytes);
            if is_first {
                self.send(checked::begin(self.size)).await?;
            }
        }
        self.send(bytes).await
    }

    async fn send(&mut self, bytes: Bytes) -> Result<()> {
        let Some(response) = self.upload.write(bytes).await? else {
            return Ok(());
        };
        let status = response.status();
        if status.is_success() {
            let message = format!("{} answered {status} before it had the whole body", self.what);
            return Err(Error::new(Reason::StoreError, message));
        }
        Err(Answer::of(self.what.clone(), response).await?.refused())
    }

    /// The answer, and the checksum of what was sent.
    async fn finish(mut self) -> Result<(Response, Option<String>)> {
        let checksum = self.checksum.take().map(Checksum::value);
        if let Some(checksum) = checksum.as_ref().filter(|_| self.left == 0) {
            self.send(checked::end(self.size, checksum)).await?;
        }
        let response = self.upload.finish().await?;
        if !response.status().is_success() {
            return Err(Answer::of(self.what, response).await?.refused());
        }
        if checksum.as_ref().is_some_and(|checksum| !checked::is_told(response.headers(), checksum)) {
            let message = format!(
                "{} was answered without the SHA-256 that was sent: the server does not know it; remove checksum from the \
                 store's section",
                self.what
            );
            return Err(Error::new(Reason::StoreRefused, message));
        }
        Ok((response, checksum))
    }
}

/// An object of a known size in one request.
pub(super) struct WholeSink(Put);

impl WholeSink {
    pub(super) fn open(api: &Api, key: &str, size: u64) -> Self {
        Self(Put::start(api.put(key, size), api.what(&Method::PUT, key), size, api.checksum))
    }
}

#[async_trait]
impl Sink for WholeSink {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.0.write(bytes).await
    }

    async fn close(self: Box<Self>) -> Result<Receipt> {
        self.0.finish().await?;
        Ok(Receipt::default())
    }

    async fn abort(self: Box<Self>) {}
}

/// A multipart upload. Each part's answer is awaited when the body of the next one is complete: two are under way at
/// most.
pub(super) struct Parts {
    api: Api,
    key: String,
    id: String,
    sent: Vec<Part>,
    /// The last part, once its body is complete.
    unanswered: Option<Put>,
}

impl Parts {
    pub(super) async fn begin(api: Api, key: String) -> Result<Self> {
        let id = api.create(&key).await?;
        mimeo_crash::point("s3-upload-begun");
        Ok(Self::resume(api, key, id, Vec::new()))
    }

    /// Behind these parts.
    pub(super) fn resume(api: Api, key: String, id: String, sent: Vec<Part>) -> Self {
        Self { api, key, id, sent, unanswered: None }
    }

    fn next(&self, size: u64) -> Result<Put> {
        let before = self.sent.len() + usize::from(self.unanswered.is_some());
        let number = u16::try_from(before + 1).ok().filter(|number| u64::from(*number) <= MOST_PARTS);
        let what = format!("{} (part {})", self.api.what(&Method::PUT, &self.key), before + 1);
        let Some(number) = number else {
            let message =
                format!("{what}: an object has {MOST_PARTS} parts at most; this one's size was not known before");
            return Err(Error::new(Reason::StoreFull, message));
        };
        Ok(Put::start(self.api.part(&self.key, &self.id, number, size), what, size, self.api.checksum))
    }

    /// Takes a part with a complete body, and the answer to the one before it.
    async fn push(&mut self, part: Put) -> Result<()> {
        match self.unanswered.replace(part) {
            Some(before) => self.answered(before).await,
            None => Ok(()),
        }
    }

    async fn answered(&mut self, part: Put) -> Result<()> {
        let (what, size) = (part.what.clone(), part.size);
        let (response, checksum) = part.finish().await?;
        let etag = response.headers().get(header::ETAG).and_then(|etag| etag.to_str().ok());
        let missing = || Error::new(Reason::StoreError, format!("{what} was answered without an ETag"));
        let etag = etag.ok_or_else(missing)?.to_owned();
        let number = u16::try_from(self.sent.len() + 1).unwrap_or(u16::MAX);
        self.sent.push(Part { number, size, etag, checksum });
        mimeo_crash::point("s3-part-answered");
        Ok(())
    }

    async fn complete(mut self) -> Result<Receipt> {
        if let Some(last) = self.unanswered.take() {
            self.answered(last).await?;
        }
        mimeo_crash::point("s3-parts-sent");
        self.api.complete(&self.key, &self.id, &self.sent).await?;
        Ok(Receipt::default())
    }
}

/// An object of a known size in parts, each of which is sent as it comes.
pub(super) struct PartsSink {
    parts: Parts,
    size: u64,
    part_size: u64,
    /// Up to here it was written.
    position: u64,
    /// So much of what comes next is in `parts` already.
    over: u64,
    part: Option<Put>,
}

impl PartsSink {
    /// What is before `position` is in `parts` already.
    pub(super) fn new(parts: Parts, size: u64, part_size: u64, position: u64) -> Self {
        Self { parts, size, part_size, position, over: 0, part: None }
    }

    /// The parts have this many bytes behind `position` too.
    pub(super) fn passing_over(self, over: u64) -> Self {
        Self { over, ..self }
    }

    fn misfit(&self, given: u64) -> Error {
        let what = self.parts.api.what(&Method::PUT, &self.parts.key);
        Error::new(Reason::StoreError, format!("{what} was given {given} bytes where {} were announced", self.size))
    }
}

#[async_trait]
impl Sink for PartsSink {
    async fn write(&mut self, mut bytes: Bytes) -> Result<()> {
        let given = self.position + bytes.len() as u64;
        if given > self.size {
            return Err(self.misfit(given));
        }
        let over = usize::try_from(self.over).map_or(bytes.len(), |over| over.min(bytes.len()));
        bytes.advance(over);
        self.over -= over as u64;
        self.position += over as u64;
        while !bytes.is_empty() {
            let mut part = match self.part.take() {
                Some(part) => part,
                None => self.parts.next(self.part_size.min(self.size - self.position))?,
            };
            let length = usize::try_from(part.left).map_or(bytes.len(), |left| left.min(bytes.len()));
            part.write(bytes.split_to(length)).await?;
            self.position += length as u64;
            match part.left {
                0 => self.parts.push(part).await?,
                _ => self.part = Some(part),
            }
        }
        Ok(())
    }

    async fn close(self: Box<Self>) -> Result<Receipt> {
        match self.position < self.size {
            true => Err(self.misfit(self.position)),
            false => self.parts.complete().await,
        }
    }

    async fn abort(self: Box<Self>) {}
}

/// An object of unknown size. S3 wants to know each request's length before its body: so much is held back as makes a
/// part. What is no more than that is sent in one request.
pub(super) struct HeldSink {
    api: Api,
    key: String,
    part_size: usize,
    held: BytesMut,
    parts: Option<Parts>,
}

impl HeldSink {
    pub(super) fn open(api: Api, key: String, part_size: usize) -> Self {
        Self { api, key, part_size, held: BytesMut::new(), parts: None }
    }

    async fn send(&mut self) -> Result<()> {
        let mut parts = match self.parts.take() {
            Some(parts) => parts,
            None => Parts::begin(self.api.clone(), self.key.clone()).await?,
        };
        let mut part = parts.next(self.held.len() as u64)?;
        part.write(self.held.split().freeze()).await?;
        parts.push(part).await?;
        self.parts = Some(parts);
        Ok(())
    }
}

#[async_trait]
impl Sink for HeldSink {
    async fn write(&mut self, mut bytes: Bytes) -> Result<()> {
        while !bytes.is_empty() {
            if self.held.len() == self.part_size {
                self.send().await?;
            }
            let length = bytes.len().min(self.part_size - self.held.len());
            self.held.extend_from_slice(&bytes.split_to(length));
        }
        Ok(())
    }

    async fn close(mut self: Box<Self>) -> Result<Receipt> {
        if self.parts.is_none() {
            let mut whole = WholeSink::open(&self.api, &self.key, self.held.len() as u64);
            whole.write(self.held.freeze()).await?;
            return Box::new(whole).close().await;
        }
        if !self.held.is_empty() {
            self.send().await?;
        }
        match self.parts {
            Some(parts) => parts.complete().await,
            None => Ok(Receipt::default()),
        }
    }

    async fn abort(self: Box<Self>) {}
}
