use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream};
use mimeo_core::{
    Error, ObjectName, Reason, Result, StoreName,
    ports::{ByteStream, Cursor, ObjectPage, Sink, Store},
};
use reqwest::{Method, Response, header};
use tokio::time::{Instant, sleep};

use super::{
    SwiftCredentials, SwiftStoreConfig,
    account::{Account, At},
    segments::{list, page, place, segment, total, unbroken},
    sink::SwiftSink,
};
use crate::{Live, http::range_start, stores::web::content_length, stream::skipping};

/// On the manifest: how many bytes the segments have together.
pub(super) const SIZE: &str = "X-Object-Meta-Mimeo-Size";

/// How long a large object may be shorter than it is: the server adds it up from listings, which may lag behind.
const SETTLES: Duration = Duration::from_secs(4);
const PAUSE: Duration = Duration::from_millis(250);

/// A probe answers soon or not at all.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// How many segments are removed at a time.
const DELETES: usize = 8;

/// Clones share their token and connections.
#[derive(Clone)]
pub struct SwiftStore(Arc<Shared>);

pub(super) struct Shared {
    pub(super) name: StoreName,
    pub(super) container: String,
    pub(super) segment_size: u64,
    /// In the locations.
    credentials: Live<SwiftCredentials>,
    pub(super) account: Account,
}

impl SwiftStore {
    /// Reads clouds.yaml where that is named; the login itself happens at the first use.
    pub fn new(config: SwiftStoreConfig) -> Result<Self> {
        let (account, credentials) = Account::new(&config)?;
        let SwiftStoreConfig { name, container, segment_size, .. } = config;
        let credentials = Live::new(credentials);
        Ok(Self(Arc::new(Shared { name, container, segment_size, credentials, account })))
    }
}

impl SwiftStore {
    /// From now on logins and locations have the password of this configuration, or of clouds.yaml as it is now.
    pub fn renew(&self, config: &SwiftStoreConfig) -> Result<()> {
        self.0.credentials.set(self.0.account.renew(config)?);
        Ok(())
    }
}

impl Shared {
    /// The first bytes of an object.
    pub(super) async fn get_range(&self, name: &str, length: u64) -> Result<ByteStream> {
        let range = format!("bytes=0-{}", length.saturating_sub(1));
        let response =
            self.account.send(&Method::GET, At::Object(name), |get| get.header(header::RANGE, &range)).await?;
        match (response.status().as_u16(), content_length(&response)) {
            (200 | 206, Some(told)) if told == length => Ok(self.body(response, 0)),
            (200 | 206, told) => {
                let message = format!("{}: {name} was to have {length} bytes, and has {told:?}", self.name);
                Err(Error::new(Reason::StoreError, message))
            }
            _ => Err(self.account.refused(&Method::GET, &response)),
        }
    }

    fn body(&self, response: Response, skip: u64) -> ByteStream {
        let (store, url) = (self.name.clone(), response.url().clone());
        skipping(response.bytes_stream(), skip, move |cause| {
            let message = format!("{store}: the connection broke while {url} was read");
            Error::new(Reason::StoreError, message).caused_by(cause.without_url())
        })
    }

    async fn remove(&self, name: &str) -> Result<()> {
        let response = self.account.send(&Method::DELETE, At::Object(name), |delete| delete).await?;
        match response.status().as_u16() {
            200..=299 | 404 => Ok(()),
            _ => Err(self.account.refused(&Method::DELETE, &response)),
        }
    }

    /// All segments of the object with a greater number than this.
    pub(super) async fn remove_segments_behind(&self, object: &ObjectName, last: u32) -> Result<()> {
        let segments = list(&self.account, object).await?;
        let names = segments.iter().filter(|each| each.number > last).map(|each| segment(object, each.number));
        let names: Vec<String> = names.collect::<Result<_>>()?;
        let deletes = stream::iter(names).map(|name| async move { self.remove(&name).await });
        deletes.buffer_unordered(DELETES).try_collect().await
    }
}

#[async_trait]
impl Store for SwiftStore {
    fn name(&self) -> &StoreName {
        &self.0.name
    }

    fn location(&self, object: &ObjectName) -> String {
        self.0.credentials.get().location(&self.0.container, object)
    }

    fn resumes(&self) -> Option<bool> {
        Some(true)
    }

    async fn open(&self, object: &ObjectName, size: Option<u64>) -> Result<Box<dyn Sink>> {
        self.0.account.create_container().await?;
        Ok(Box::new(SwiftSink::open(Arc::clone(&self.0), object.clone(), size)))
    }

    async fn kept(&self, object: &ObjectName) -> Result<u64> {
        let segments = list(&self.0.account, object).await?;
        Ok(total(unbroken(&segments)))
    }

    async fn read_kept(&self, object: &ObjectName) -> Result<Option<ByteStream>> {
        let segments = unbroken(&list(&self.0.account, object).await?).to_vec();
        let (store, object) = (Arc::clone(&self.0), object.clone());
        let bodies = stream::iter(segments).then(move |each| {
            let (store, name) = (Arc::clone(&store), segment(&object, each.number));
            async move { store.get_range(&name?, each.bytes).await }
        });
        Ok(Some(bodies.try_flatten().boxed()))
    }

    async fn resume(&self, object: &ObjectName, size: Option<u64>, offset: u64) -> Result<Box<dyn Sink>> {
        let segments = list(&self.0.account, object).await?;
        let found = place(unbroken(&segments), offset).filter(|_| size.is_none_or(|size| size >= offset));
        let Some((whole, head)) = found else {
            let message = format!("{}: cannot go on with {object} of {size:?} bytes from {offset}", self.name());
            return Err(Error::new(Reason::StoreError, message));
        };
        // Whoever counts what was kept, or publishes it, would take in whatever is behind those that are written now.
        self.0.remove_segments_behind(object, whole + u32::from(head > 0)).await?;
        Ok(Box::new(SwiftSink::resume(Arc::clone(&self.0), object.clone(), size, offset, (whole, head))))
    }

    async fn read(&self, object: &ObjectName, offset: u64) -> Result<ByteStream> {
        let range = format!("bytes={offset}-");
        let settled = Instant::now() + SETTLES;
        loop {
            let get = |get: reqwest::RequestBuilder| match offset {
                0 => get,
                _ => get.header(header::RANGE, &range),
            };
            let response = self.0.account.send(&Method::GET, At::Object(object.as_str()), get).await?;
            let skip = match response.status().as_u16() {
                200 => offset,
                206 if range_start(&response) == Some(offset) => 0,
                // Nothing from there on: how much there should be is the reader's to know.
                416 => return Ok(stream::empty().boxed()),
                404 => {
                    self.0.account.has_container().await?;
                    return Err(self.0.account.refused(&Method::GET, &response));
                }
                _ => return Err(self.0.account.refused(&Method::GET, &response)),
            };
            let told = content_length(&response).map(|length| length.saturating_add(offset - skip));
            if is_short(&response, told) && Instant::now() < settled {
                sleep(PAUSE).await;
                continue;
            }
            return Ok(self.0.body(response, skip));
        }
    }

    async fn probe(&self, object: &ObjectName) -> Result<Option<u64>> {
        let settled = Instant::now() + SETTLES;
        loop {
            let head = |head: reqwest::RequestBuilder| head.timeout(PROBE_TIMEOUT);
            let response = self.0.account.send(&Method::HEAD, At::Object(object.as_str()), head).await?;
            match response.status().as_u16() {
                200 | 204 => {}
                404 => return self.0.account.has_container().await.map(|()| None),
                _ => return Err(self.0.account.refused(&Method::HEAD, &response)),
            }
            let told = content_length(&response);
            if is_short(&response, told) && Instant::now() < settled {
                sleep(PAUSE).await;
                continue;
            }
            let untold = || {
                let message =
                    format!("{}: HEAD {} tells no Content-Length, which Glance needs", self.0.name, response.url());
                Error::new(Reason::StoreError, message)
            };
            return told.map(Some).ok_or_else(untold);
        }
    }

    async fn list(&self, after: Option<&Cursor>) -> Result<Option<ObjectPage>> {
        page(&self.0.account, after).await.map(Some)
    }

    /// What the quotas of the container and of the account leave. Who may not look at the account sees the container's.
    async fn room(&self) -> Result<Option<u64>> {
        let mut room = None;
        for (at, of) in [(At::Container(""), "Container"), (At::Account, "Account")] {
            let head = |head: reqwest::RequestBuilder| head.timeout(PROBE_TIMEOUT);
            let response = self.0.account.send(&Method::HEAD, at, head).await?;
            let left = response.status().is_success().then(|| left_of_quota(response.headers(), of)).flatten();
            room = room.into_iter().chain(left).min();
        }
        Ok(room)
    }

    async fn delete(&self, object: &ObjectName) -> Result<()> {
        // The manifest first: without its segments it would be a shorter object.
        self.0.remove(object.as_str()).await?;
        mimeo_crash::point("swift-manifest-removed");
        self.0.remove_segments_behind(object, 0).await
    }
}

/// What is left of the quota of a `Container` or an `Account`, where it has one.
fn left_of_quota(headers: &header::HeaderMap, of: &str) -> Option<u64> {
    let number = |name: String| headers.get(name)?.to_str().ok()?.trim().parse::<u64>().ok();
    let quota = number(format!("X-{of}-Meta-Quota-Bytes"))?;
    Some(quota.saturating_sub(number(format!("X-{of}-Bytes-Used"))?))
}

/// Whether the server counts fewer bytes than were written.
fn is_short(response: &Response, told: Option<u64>) -> bool {
    let written = response.headers().get(SIZE).and_then(|size| size.to_str().ok()?.parse::<u64>().ok());
    written.is_some_and(|written| told.is_none_or(|told| told < written))
}
