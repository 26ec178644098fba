use std::{collections::VecDeque, io, mem, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use mimeo_core::{
    Error, Reason, Result,
    ports::{Receipt, Sink},
};
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout},
};

use super::{
    ceph::{Ceph, answered, blocking},
    ffi::{Answer, Image},
    share::Share,
    store::{SNAPSHOT, Sizes, WRITTEN},
};
use crate::http::CONNECT_TIMEOUT;

/// So many chunks make a request, however small they are.
const CHUNKS: usize = 1024;
/// An image of unknown size grows by so many requests at least, and by no more than this at once.
const LEAST: u64 = 8;
const GROWTH: u64 = 8 << 30;

/// One image while it is written. It holds what is gathered for the next request and what is under way: requests of
/// `request` bytes, as many as its share and one. Once dropped, the image is closed after the last request's end.
pub(super) struct RbdSink {
    ceph: Ceph,
    spec: String,
    sizes: Sizes,
    share: Share,
    image: Arc<Image>,
    /// As announced.
    size: Option<u64>,
    /// Of the image, by now.
    capacity: u64,
    /// Up to here it was written or skipped.
    position: u64,
    /// What ends at `position` and was not sent yet.
    gathered: Vec<Bytes>,
    /// The requests under way, each with where it ends.
    requests: VecDeque<(u64, Answer)>,
    /// Up to here all is at the store.
    stored: u64,
    /// Up to here it was noted that all is at the store.
    noted: u64,
    noted_at: Instant,
    noting: Option<JoinHandle<io::Result<()>>>,
}

impl RbdSink {
    /// Goes on behind `offset`. The image has the announced size, or ends at `offset`.
    pub(super) fn new(
        ceph: Ceph,
        spec: String,
        (sizes, share): (Sizes, Share),
        image: Image,
        size: Option<u64>,
        offset: u64,
    ) -> Self {
        Self {
            ceph,
            spec,
            sizes,
            share,
            image: Arc::new(image),
            size,
            capacity: size.unwrap_or(offset),
            position: offset,
            gathered: Vec::new(),
            requests: VecDeque::new(),
            stored: offset,
            noted: offset,
            noted_at: Instant::now(),
            noting: None,
        }
    }

    /// Half as much is gathered where there are many writers.
    fn request(&self) -> u64 {
        match self.share.requests() {
            1 => self.sizes.request / 2,
            _ => self.sizes.request,
        }
    }

    /// Sends what was gathered, and waits while too many requests are under way.
    async fn send(&mut self) -> Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        while self.requests.len() >= self.share.requests() {
            self.settle().await.map_err(|cause| self.failed("writing", cause))?;
        }
        self.grow().await.map_err(|cause| self.failed("growing", cause))?;
        self.note().await.map_err(|cause| self.failed("writing", cause))?;
        let chunks = mem::take(&mut self.gathered);
        let length: usize = chunks.iter().map(Bytes::len).sum();
        let answer = self.image.write(self.position - length as u64, chunks);
        self.requests.push_back((self.position, answer));
        Ok(())
    }

    /// Waits for the oldest request, and can be called again where it was dropped. What comes after a request that
    /// failed is of no use.
    async fn settle(&mut self) -> io::Result<()> {
        let Some((end, answer)) = self.requests.front_mut() else { return Ok(()) };
        if let Err(cause) = answered(answer).await {
            self.requests.clear();
            return Err(cause);
        }
        self.stored = *end;
        self.requests.pop_front();
        Ok(())
    }

    async fn settle_all(&mut self) -> io::Result<()> {
        while !self.requests.is_empty() {
            self.settle().await?;
        }
        if let Some(noting) = &mut self.noting {
            let noted = noting.await;
            self.noting = None;
            noted.map_err(io::Error::other)??;
        }
        Ok(())
    }

    /// Makes room up to `position` where the size is not known, and much at once. Nothing else is under way then: a
    /// request or a note may have librbd read the image's header anew, and put back the size that was there before.
    async fn grow(&mut self) -> io::Result<()> {
        if self.position <= self.capacity {
            return Ok(());
        }
        self.settle_all().await?;
        let (image, more) = (Arc::clone(&self.image), self.position.clamp(LEAST * self.sizes.request, GROWTH));
        let capacity = self.position + more;
        blocking(move || image.resize(capacity)).await?;
        self.capacity = capacity;
        Ok(())
    }

    /// Notes how far the image is stored, in the background, where that was long ago.
    async fn note(&mut self) -> io::Result<()> {
        let Sizes { noted_every, noted_after, .. } = self.sizes;
        if self.stored - self.noted < noted_every || self.noted_at.elapsed() < noted_after {
            return Ok(());
        }
        match &mut self.noting {
            Some(noting) if !noting.is_finished() => return Ok(()),
            Some(noting) => {
                let noted = noting.await;
                self.noting = None;
                noted.map_err(io::Error::other)??;
            }
            None => {}
        }
        let (image, stored) = (Arc::clone(&self.image), self.stored);
        self.noting = Some(tokio::task::spawn_blocking(move || image.set_metadata(WRITTEN, &stored.to_string())));
        (self.noted, self.noted_at) = (stored, Instant::now());
        Ok(())
    }

    fn failed(&self, doing: &str, cause: io::Error) -> Error {
        self.ceph.failed(&format!("{doing} {}", self.spec), cause)
    }

    fn check_length(&self, given: u64, complete: bool) -> Result<()> {
        match self.size {
            Some(size) if given > size || complete && given < size => {
                let (store, spec) = (&self.ceph.config.name, &self.spec);
                let message = format!("{store}: {spec} was given {given} bytes where {size} were announced");
                Err(Error::new(Reason::StoreError, message))
            }
            _ => Ok(()),
        }
    }

    async fn give_up(mut self) {
        // What is not noted is written again.
        let _ = self.settle_all().await;
        let (image, stored) = (self.image, self.stored);
        let _ = blocking(move || {
            image.set_metadata(WRITTEN, &stored.to_string())?;
            closed(image)
        })
        .await;
    }
}

#[async_trait]
impl Sink for RbdSink {
    async fn write(&mut self, mut bytes: Bytes) -> Result<()> {
        self.check_length(self.position + bytes.len() as u64, false)?;
        while !bytes.is_empty() {
            let request = self.request();
            let room = request - self.position % request;
            let length = usize::try_from(room).map_or(bytes.len(), |room| room.min(bytes.len()));
            self.gathered.push(bytes.split_to(length));
            self.position += length as u64;
            if self.position.is_multiple_of(request) || self.gathered.len() >= CHUNKS {
                self.send().await?;
            }
        }
        Ok(())
    }

    async fn skip(&mut self, length: u64) -> Result<()> {
        self.check_length(self.position + length, false)?;
        self.send().await?;
        self.position += length;
        Ok(())
    }

    async fn close(mut self: Box<Self>) -> Result<Receipt> {
        self.check_length(self.position, true)?;
        self.send().await?;
        self.settle_all().await.map_err(|cause| self.failed("writing", cause))?;
        let Self { ceph, spec, image, position, capacity, .. } = *self;
        let published = blocking(move || {
            if position != capacity {
                image.resize(position)?;
            }
            image.flush()?;
            // A clone would inherit it.
            image.remove_metadata(WRITTEN).or_else(unless_missing)?;
            mimeo_crash::point("rbd-flushed");
            image.snapshot(SNAPSHOT)?;
            mimeo_crash::point("rbd-snapshot-made");
            image.protect(SNAPSHOT)?;
            let size = image.size()?;
            closed(image).map(|()| size)
        });
        let size = published.await.map_err(|cause| ceph.failed(&format!("publishing {spec}"), cause))?;
        Ok(Receipt { size: Some(size) })
    }

    async fn abort(self: Box<Self>) {
        let _ = timeout(CONNECT_TIMEOUT, self.give_up()).await;
    }
}

/// Closes the image, whose requests have all ended.
fn closed(image: Arc<Image>) -> io::Result<()> {
    Arc::into_inner(image).map_or(Ok(()), Image::close)
}

fn unless_missing(cause: io::Error) -> io::Result<()> {
    match cause.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(cause),
    }
}
