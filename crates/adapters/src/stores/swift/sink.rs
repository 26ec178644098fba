use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use mimeo_core::{
    Error, ObjectName, Reason, Result,
    ports::{Receipt, Sink},
};
use reqwest::{Method, header};

use super::{
    account::{At, Put},
    segments::{prefix, segment},
    store::{SIZE, Shared},
};

/// An object in one PUT, or as a row of segments that the manifest publishes. Dropping it breaks off the PUT under way,
/// which no server takes for complete.
pub(super) struct SwiftSink {
    store: Arc<Shared>,
    object: ObjectName,
    size: Option<u64>,
    /// How many segments were begun; `None`: it is one PUT.
    segments: Option<u32>,
    /// Up to here it was written.
    position: u64,
    /// So many bytes before the position are in the next segment already, which is written again from its beginning.
    head: u64,
    /// The request under way, and how many bytes it still takes.
    put: Option<(Put, u64)>,
}

impl SwiftSink {
    /// What has no known size may turn out to be large.
    pub(super) fn open(store: Arc<Shared>, object: ObjectName, size: Option<u64>) -> Self {
        let segments = size.is_none_or(|size| size > store.segment_size).then_some(0);
        Self { store, object, size, segments, position: 0, head: 0, put: None }
    }

    /// Goes on behind `segments` whole ones, and `head` bytes of the next.
    pub(super) fn resume(
        store: Arc<Shared>,
        object: ObjectName,
        size: Option<u64>,
        position: u64,
        (segments, head): (u32, u64),
    ) -> Self {
        Self { store, object, size, segments: Some(segments), position, head, put: None }
    }

    async fn begin(&mut self) -> Result<()> {
        let left = self.size.map(|size| size - self.position);
        let Some(number) = self.segments.as_mut() else {
            let put = self.store.account.put(self.object.as_str(), self.size).await?;
            self.put = Some((put, left.unwrap_or(u64::MAX)));
            return Ok(());
        };
        *number += 1;
        let name = segment(&self.object, *number)?;
        let head = std::mem::take(&mut self.head);
        let length = left.map(|left| left.saturating_add(head).min(self.store.segment_size.max(head)));
        let put = self.store.account.put(&name, length).await?;
        self.put = Some((put, length.unwrap_or(self.store.segment_size.max(head))));
        if head > 0 {
            let mut bits = self.store.get_range(&name, head).await?;
            while let Some(bytes) = bits.try_next().await? {
                self.hand_over(bytes).await?;
            }
        }
        Ok(())
    }

    /// What the request under way has room for.
    async fn hand_over(&mut self, bytes: Bytes) -> Result<()> {
        let Some((put, left)) = &mut self.put else { return Ok(()) };
        *left = left.saturating_sub(bytes.len() as u64);
        match put.upload.write(bytes).await? {
            Some(response) => self.store.account.put_answered(&put.access, &response, false).await,
            None => Ok(()),
        }
    }

    async fn end_put(&mut self) -> Result<()> {
        let Some((Put { upload, access }, _)) = self.put.take() else { return Ok(()) };
        let response = upload.finish().await?;
        self.store.account.put_answered(&access, &response, true).await?;
        mimeo_crash::point("swift-put-ended");
        Ok(())
    }

    async fn publish(&self, segments: u32) -> Result<()> {
        // What bore the name before may have had more of them, and the manifest takes in all that are there.
        self.store.remove_segments_behind(&self.object, segments).await?;
        let (account, container) = (&self.store.account, &self.store.container);
        let manifest = format!("{container}/{}", prefix(&self.object));
        let with = |request: reqwest::RequestBuilder| {
            let request = request
                .header("X-Object-Manifest", &manifest)
                .header(SIZE, self.position)
                .header(header::CONTENT_LENGTH, 0);
            request.header(header::CONTENT_TYPE, "application/octet-stream")
        };
        let response = account.send(&Method::PUT, At::Object(self.object.as_str()), with).await?;
        match response.status().is_success() {
            true => Ok(()),
            false => Err(account.refused(&Method::PUT, &response)),
        }
    }

    fn misfit(&self, given: u64) -> Error {
        let (store, object, size) = (&self.store.name, &self.object, self.size.unwrap_or_default());
        let message = format!("{store}: {object} was given {given} bytes where {size} were announced");
        Error::new(Reason::StoreError, message)
    }
}

#[async_trait]
impl Sink for SwiftSink {
    async fn write(&mut self, mut bytes: Bytes) -> Result<()> {
        let given = self.position + bytes.len() as u64;
        if self.size.is_some_and(|size| given > size) {
            return Err(self.misfit(given));
        }
        while !bytes.is_empty() {
            match &self.put {
                None => self.begin().await?,
                Some((_, 0)) => self.end_put().await?,
                Some((_, left)) => {
                    let length = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                    self.position += length as u64;
                    self.hand_over(bytes.split_to(length)).await?;
                }
            }
        }
        Ok(())
    }

    async fn close(mut self: Box<Self>) -> Result<Receipt> {
        if self.size.is_some_and(|size| self.position != size) {
            return Err(self.misfit(self.position));
        }
        if self.segments.is_none() && self.put.is_none() {
            self.begin().await?;
        }
        self.end_put().await?;
        if let Some(segments) = self.segments {
            self.publish(segments).await?;
        }
        Ok(Receipt::default())
    }

    async fn abort(self: Box<Self>) {}
}
