use async_trait::async_trait;
use futures::{StreamExt, stream};
use mimeo_core::{
    CHUNK, Error, ObjectName, Reason, Result, StoreName,
    ports::{ByteStream, Cursor, ObjectPage, Sink, Store},
};
use reqwest::{Method, StatusCode};

use super::{
    S3StoreConfig,
    api::{Api, Part},
    sink::{HeldSink, MOST_PARTS, Parts, PartsSink, WholeSink},
};
use crate::{
    Live,
    http::range_start,
    stores::{listing::distinct, web::content_length},
    stream::skipping,
};

/// What is held in memory of an object of unknown size: at least the 5 MiB that a part must have.
const HELD: usize = 8 << 20;

/// Begins the cursor of a listing that has come to the uploads: no server's own begins so.
const UPLOADS: &str = "\n";

#[derive(Debug, Clone)]
pub struct S3Store {
    name: StoreName,
    config: Live<S3StoreConfig>,
    api: Api,
    /// What the parts of an object have, as long as they are not too many.
    part: u64,
    held: usize,
}

impl S3Store {
    pub fn new(config: S3StoreConfig) -> Result<Self> {
        let api = Api::new(&config)?;
        Ok(Self { name: config.name.clone(), config: Live::new(config), api, part: CHUNK, held: HELD })
    }

    /// From now on requests, and the locations that bear them, have the keys of this configuration; nothing else of it
    /// counts.
    pub fn renew(&self, config: S3StoreConfig) {
        self.api.renew(&config.credentials);
        self.config.set(S3StoreConfig { credentials: config.credentials, ..(*self.config.get()).clone() });
    }

    /// With other parts, so that a test need not send large objects.
    #[doc(hidden)]
    #[must_use]
    pub fn with_part(self, bytes: u32) -> Self {
        Self { part: bytes.into(), held: bytes as usize, ..self }
    }

    /// The upload that has the most of this key, with its parts from the first on.
    async fn upload(&self, key: &str) -> Result<Option<(String, Vec<Part>)>> {
        let mut uploads = Vec::new();
        for id in self.api.uploads(key).await? {
            let parts = without_gap(self.api.parts(key, &id).await?);
            // One that was begun with checksums takes no part without.
            if self.api.checksum || parts.iter().all(|part| part.checksum.is_none()) {
                uploads.push((id, parts));
            }
        }
        Ok(uploads.into_iter().max_by_key(|(_, parts)| size_of(parts)))
    }

    /// Its parts cannot be read, and not all that is before `offset` is there.
    async fn give_up(&self, object: &ObjectName, size: Option<u64>, offset: u64) -> Error {
        let key = self.config.get().key(object);
        let what = self.api.what(&Method::PUT, &key);
        let size = size.map_or("unknown".into(), |size| size.to_string());
        let message = format!(
            "{what}: no upload that can be gone on with has what is before byte {offset} of {size}; it begins anew"
        );
        let error = Error::new(Reason::StoreError, message);
        match self.abort_uploads(&key).await {
            Ok(()) => error,
            Err(cause) => error.caused_by(cause),
        }
    }

    /// The object that a key is of.
    fn object(&self, key: &str) -> Option<ObjectName> {
        key.strip_prefix(&self.config.get().prefix)?.parse().ok()
    }

    async fn abort_uploads(&self, key: &str) -> Result<()> {
        for id in self.api.uploads(key).await? {
            self.api.abort(key, &id).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Store for S3Store {
    fn name(&self) -> &StoreName {
        &self.name
    }

    fn location(&self, object: &ObjectName) -> String {
        self.config.get().location(object)
    }

    fn resumes(&self) -> Option<bool> {
        Some(true)
    }

    async fn open(&self, object: &ObjectName, size: Option<u64>) -> Result<Box<dyn Sink>> {
        let (api, key) = (self.api.clone(), self.config.get().key(object));
        Ok(match size {
            None => Box::new(HeldSink::open(api, key, self.held)),
            Some(size) if size <= self.part => Box::new(WholeSink::open(&api, &key, size)),
            Some(size) => Box::new(PartsSink::new(Parts::begin(api, key).await?, size, part_size(size, self.part), 0)),
        })
    }

    async fn kept(&self, object: &ObjectName) -> Result<u64> {
        let upload = self.upload(&self.config.get().key(object)).await?;
        let of_use = |parts: &[Part]| parts.first().is_some_and(|part| part.size.is_multiple_of(self.part));
        Ok(upload.map_or(0, |(_, parts)| if of_use(&parts) { size_of(&parts) } else { 0 }))
    }

    /// Nobody can read the parts of an upload.
    async fn read_kept(&self, _object: &ObjectName) -> Result<Option<ByteStream>> {
        Ok(None)
    }

    /// A part cannot be begun in its middle, and those of a large object have several [`CHUNK`]s: the part that `offset`
    /// is in stays as it is, and what is given of it again is passed over. Where not all that is needed is there, it is
    /// removed, so that the copy can begin anew.
    async fn resume(&self, object: &ObjectName, size: Option<u64>, offset: u64) -> Result<Box<dyn Sink>> {
        let key = self.config.get().key(object);
        let (Some(total), Some((id, mut parts))) = (size, self.upload(&key).await?) else {
            return Err(self.give_up(object, size, offset).await);
        };
        let part_size = part_size(total, self.part);
        let count = offset.div_ceil(part_size);
        parts.truncate(usize::try_from(count).unwrap_or(usize::MAX));
        if offset > total || size_of(&parts) != total.min(count * part_size) {
            return Err(self.give_up(object, size, offset).await);
        }
        let sent = size_of(&parts);
        let parts = Parts::resume(self.api.clone(), key, id, parts);
        Ok(Box::new(PartsSink::new(parts, total, part_size, offset).passing_over(sent - offset)))
    }

    async fn read(&self, object: &ObjectName, offset: u64) -> Result<ByteStream> {
        let key = self.config.get().key(object);
        let Some(response) = self.api.get(&key, offset).await? else {
            // Nothing from there on: how much there should be is the reader's to know.
            return Ok(stream::empty().boxed());
        };
        let what = self.api.what(&Method::GET, &key);
        let skip = match response.status() {
            StatusCode::OK => offset,
            _ if range_start(&response) == Some(offset) => 0,
            status => {
                let message = format!("{what} answered {status} with another range than from {offset}");
                return Err(Error::new(Reason::StoreError, message));
            }
        };
        Ok(skipping(response.bytes_stream(), skip, move |cause| {
            let message = format!("{what}: the connection broke while it was read");
            Error::new(Reason::StoreError, message).caused_by(cause.without_url())
        }))
    }

    async fn probe(&self, object: &ObjectName) -> Result<Option<u64>> {
        let key = self.config.get().key(object);
        let Some(response) = self.api.head(&key).await? else {
            return Ok(None);
        };
        let what = self.api.what(&Method::HEAD, &key);
        let untold = || Error::new(Reason::StoreError, format!("{what} tells no Content-Length, which Glance needs"));
        content_length(&response).map(Some).ok_or_else(untold)
    }

    /// First the objects, then the uploads, which are no objects yet.
    async fn list(&self, after: Option<&Cursor>) -> Result<Option<ObjectPage>> {
        let config = self.config.get();
        let (prefix, after) = (&config.prefix, after.map(|Cursor(after)| after.as_str()));
        let upload = after.and_then(|after| after.strip_prefix(UPLOADS));
        let (keys, next) = match upload {
            None => {
                let (keys, next) = self.api.keys(prefix, after).await?;
                // One that leads to itself would have no end.
                let next = next.filter(|next| after != Some(next));
                (keys, Some(next.unwrap_or_else(|| UPLOADS.into())))
            }
            Some(marker) => {
                let marker = marker.split_once('\n').map(|(key, id)| (key.to_owned(), id.to_owned()));
                let page = self.api.uploads_from(prefix, marker.as_ref()).await?;
                let next = page.next.filter(|next| marker.as_ref() != Some(next));
                let next = next.map(|(key, id)| format!("{UPLOADS}{key}\n{id}"));
                (page.uploads.into_iter().map(|(key, _)| key).collect(), next)
            }
        };
        let objects = distinct(keys.iter().filter_map(|key| self.object(key)));
        Ok(Some(ObjectPage { objects, next: next.map(Cursor) }))
    }

    /// First the uploads: one of them may just become the object.
    async fn delete(&self, object: &ObjectName) -> Result<()> {
        let key = self.config.get().key(object);
        self.abort_uploads(&key).await?;
        mimeo_crash::point("s3-uploads-aborted");
        self.api.delete(&key).await
    }
}

/// The parts from the first on, as far as none is missing and all are of one size; the last may be shorter.
pub(super) fn without_gap(parts: Vec<Part>) -> Vec<Part> {
    let (mut found, mut size) = (Vec::new(), None);
    for (number, part) in (1..).zip(parts) {
        let full = *size.get_or_insert(part.size);
        if part.number != number || part.size > full {
            break;
        }
        let is_last = part.size < full;
        found.push(part);
        if is_last {
            break;
        }
    }
    found
}

/// As far as it can be counted: a server may list what it wants.
pub(super) fn size_of(parts: &[Part]) -> u64 {
    parts.iter().fold(0, |size, part| size.saturating_add(part.size))
}

/// `least`, or as many times that as keep the parts of an object of this size from being too many.
fn part_size(size: u64, least: u64) -> u64 {
    size.div_ceil(MOST_PARTS).next_multiple_of(least).max(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_no_part_can_have_are_no_crash() {
        let part = |number| Part { number, etag: String::new(), checksum: None, size: u64::MAX };
        assert_eq!(size_of(&[part(1), part(2)]), u64::MAX);
    }

    #[test]
    fn an_object_of_any_size_has_no_more_parts_than_may_be_each_of_whole_chunks() {
        for size in [1, CHUNK, CHUNK + 1, MOST_PARTS * CHUNK] {
            assert_eq!(part_size(size, CHUNK), CHUNK);
        }
        for size in [MOST_PARTS * CHUNK + 1, 1 << 40, 5 << 40] {
            let part = part_size(size, CHUNK);
            assert!(size.div_ceil(part) <= MOST_PARTS && part.is_multiple_of(CHUNK) && part > CHUNK, "{size}: {part}");
        }
    }
}
