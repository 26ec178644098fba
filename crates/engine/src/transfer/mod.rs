//! The transfer: the source is read once and hashed; every sink takes the same pieces at its own pace.
//!
//! Owns the flow of bytes of one image. Knows nothing of the ledger, of locations or of what comes after a close.

mod chunks;
mod feed;
mod hash;
mod piece;
mod reader;
mod window;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::{collections::BTreeSet, pin::pin, sync::Arc, task::Poll, time::Duration};

use bytes::Bytes;
use futures::{Stream, StreamExt, poll};
use mimeo_core::{ContentHash, Digest, Error, HashAlgorithm, Image, Reason, Result, StoreName};
use tokio::{sync::oneshot, time::Instant};

pub(crate) use self::{
    chunks::{Chunk, Chunks},
    feed::{Feed, Lane, publish_limit, while_sending, within},
    hash::ContentHasher,
    reader::{Origin, Origins, read},
};
use self::{
    hash::{Effort, Hasher},
    piece::pieces,
    reader::Reader,
    window::Window,
};
use crate::{
    pace::Paces,
    sabotage::{self, Bug},
};

/// What the whole source was, once it was read and found to be what Glance says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verified {
    pub(crate) size: u64,
    /// `None` of bits of which nobody can tell yet what they are to be.
    pub(crate) digest: Option<Digest>,
}

/// What a reading has shown of the image, and of the places that it was read from.
pub(crate) struct Verdict {
    ending: Result<Verified, SourceFailure>,
    /// The bytes were not the image's: what was kept of them is of no use.
    pub(crate) is_bad: bool,
    /// The whole image's bytes, if all came through the image service.
    pub(crate) from_service: Option<u64>,
    /// The stores whose copies were read and are not the image.
    pub(crate) liars: BTreeSet<StoreName>,
    /// The stores whose copies could not be read, and why.
    pub(crate) broken: Vec<(StoreName, Error)>,
}

impl Verdict {
    /// Of bits that passed: there is no place to blame, and nothing to be kept of what failed.
    fn of_passing(passed: Result<Verified>) -> Self {
        let is_bad = passed.is_err();
        let ending = passed.map_err(SourceFailure::from);
        Self { ending, is_bad, from_service: None, liars: BTreeSet::new(), broken: Vec::new() }
    }
}

/// Why the source was no good. Every sink is told the same.
#[derive(Debug, Clone)]
pub(crate) struct SourceFailure {
    reason: Reason,
    message: String,
}

impl From<Error> for SourceFailure {
    fn from(error: Error) -> Self {
        Self { reason: error.reason, message: error.chain() }
    }
}

impl From<SourceFailure> for Error {
    fn from(failure: SourceFailure) -> Self {
        Error::new(failure.reason, failure.message)
    }
}

/// One image on its way to some stores. Feeds are taken first, then `read` runs beside them; what it found is told to
/// them by `end`. Dropping a transfer ends its feeds with an error: they never wait for ever.
pub(crate) struct Transfer {
    window: Arc<Window<Verified>>,
    origins: Origins,
    image: Image,
    /// What the bits are by the copies that there are, if anything tells.
    known: Vec<Digest>,
    patience: Duration,
}

impl Transfer {
    pub(crate) fn new(image: Image, origins: Origins, window: usize, patience: Duration) -> Self {
        Self { window: Window::new(window), origins, image, known: Vec::new(), patience }
    }

    /// Of an image of which Glance tells no hash: what its bits were when they were copied before.
    pub(crate) fn of_known(mut self, known: Vec<Digest>) -> Self {
        self.known = known;
        self
    }

    /// Of bits that pass once, while another waits for them: no sink may hold them up for longer than a moment.
    pub(crate) fn live(image: Image, origins: Origins, window: usize, patience: Duration) -> Self {
        Self { window: Window::live(window), origins, image, known: Vec::new(), patience }
    }

    /// One store's share of the transfer. One that is known to be slower than the others holds up nobody.
    pub(crate) fn feed(&self, slow: bool) -> Feed {
        Feed {
            cursor: self.window.sink(slow),
            origins: self.origins.clone(),
            size: self.image.size,
            patience: self.patience,
            since: Instant::now(),
        }
    }

    /// The digests of the image's chunks of this length as they pass.
    pub(crate) fn chunks(&self, length: u64) -> Chunks {
        Chunks::hash(self.window.hash(), length, Effort::of(self.image.size))
    }

    /// Reads the source to its end.
    pub(crate) async fn read(&self, paces: &Paces) -> Verdict {
        let mut reader = Reader::new(&self.origins, 0, self.image.size, self.patience);
        let read = self.pump(&mut reader, paces).await;
        let (used, broken) = reader.findings();
        let is_other = |error: &Error| matches!(error.reason, Reason::SourceMismatch | Reason::SourceSize);
        let from_service = read.as_ref().ok().filter(|_| used.is_empty()).map(|verified| verified.size);
        let liars = if read.as_ref().is_err_and(is_other) { used } else { BTreeSet::new() };
        let is_bad = read.as_ref().is_err_and(is_other);
        let ending = read.map_err(|error| not_glances(error, &liars).into());
        Verdict { ending, is_bad, from_service, liars, broken }
    }

    /// Takes the bits as they pass, to their end. What they are to be is told later, by the image that they have become;
    /// nothing told means that they have become none.
    pub(crate) async fn pass(&self, bits: impl Stream<Item = Bytes>, told: oneshot::Receiver<Image>) -> Verdict {
        // Glance hashes by SHA-512 unless it is told otherwise; bits whose hash cannot be compared are not proven.
        let hashes = self.hash(Some(HashAlgorithm::Sha512));
        let passed = async {
            let (size, image) = self.take_all(bits, told).await?;
            verify_passed(hashes, size, &image).await
        };
        Verdict::of_passing(passed.await)
    }

    /// As `pass`, of bits that are staged: what they are to be shows only when the image is made of them.
    pub(crate) async fn stage(&self, bits: impl Stream<Item = Bytes>, told: oneshot::Receiver<Image>) -> Verdict {
        let staged = self.take_all(bits, told).await;
        Verdict::of_passing(staged.map(|(size, _)| Verified { size, digest: None }))
    }

    /// Tells every feed how the reading went. Returns when nothing of the image is in memory any more.
    pub(crate) async fn end(self, verdict: Verdict) {
        self.window.finish(verdict.ending);
        self.window.drain().await;
    }

    async fn pump(&self, reader: &mut Reader, paces: &Paces) -> Result<Verified> {
        let hashes = self.hash(self.image.hash.as_ref().map(|hash| hash.algorithm));
        let mut size = 0_u64;
        while let Some(chunk) = self.meanwhile(reader.next()).await? {
            if let Some(origin) = reader.store() {
                self.meanwhile(paces.take(&origin, chunk.len())).await;
            }
            // Read once, and written by each sink that is fed from here: none of them waits for it on its own.
            self.meanwhile(paces.take_of_all(chunk.len() * (1 + self.window.attached_sinks()))).await;
            let offset = size;
            size += chunk.len() as u64;
            if self.image.size.is_some_and(|expected| size > expected) {
                break;
            }
            for piece in pieces(chunk, offset) {
                if !self.window.push(piece).await {
                    return Err(Error::new(Reason::Cancelled, "no store was left to copy to"));
                }
            }
        }
        check_size(&self.image, size)?;
        self.window.complete();
        let verified = hashes.verify(size, self.image.hash.as_ref()).await?;
        let is_known = |digest| self.known.contains(digest);
        if !self.known.is_empty() && !verified.digest.as_ref().is_some_and(is_known) {
            let message = "Glance gives other bits than those that the image's proven copies were made of, and tells no hash of \
                           it: these are not copied";
            return Err(Error::new(Reason::SourceMismatch, message));
        }
        Ok(verified)
    }

    /// Takes what passes, all of it, and gives its length and what it has become.
    async fn take_all(&self, bits: impl Stream<Item = Bytes>, told: oneshot::Receiver<Image>) -> Result<(u64, Image)> {
        let mut bits = pin!(bits);
        let mut size = 0_u64;
        while let Some(chunk) = self.meanwhile(bits.next()).await {
            let offset = size;
            size += chunk.len() as u64;
            for piece in pieces(chunk, offset) {
                if !self.window.push(piece).await {
                    return Err(Error::new(Reason::Cancelled, "no store was left to copy to"));
                }
            }
        }
        self.window.complete();
        let refused = |_| Error::new(Reason::Cancelled, "Glance did not take the upload");
        let image = told.await.map_err(refused)?;
        if image.size != Some(size) {
            let message = "Glance has more or less of the upload than passed; it is copied later";
            return Err(Error::new(Reason::Cancelled, message));
        }
        Ok((size, image))
    }

    fn hash(&self, content: Option<HashAlgorithm>) -> Hashes {
        let effort = Effort::of(self.image.size);
        let content = content.map(|algorithm| Hasher::content(self.window.hash(), algorithm, effort));
        Hashes { content, blake3: Hasher::blake3(self.window.hash(), effort) }
    }

    /// While the reader waits, the sinks work off what there is.
    async fn meanwhile<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        if let Poll::Ready(done) = poll!(&mut work) {
            return done;
        }
        self.window.wake();
        work.await
    }
}

/// The hashes of everything that passes.
struct Hashes {
    content: Option<Hasher>,
    blake3: Hasher,
}

impl Hashes {
    async fn verify(self, size: u64, expected: Option<&ContentHash>) -> Result<Verified> {
        let hashing = || Error::new(Reason::SourceUnreadable, "hashing broke down");
        if let (Some(hash), Some(expected)) = (self.content, expected) {
            let found = hash.finish().await.ok_or_else(hashing)?;
            if found != expected.value {
                let message = format!(
                    "the image's bits hash to {found}, but Glance says {}: the original is damaged and is not copied",
                    expected.value
                );
                return Err(Error::new(Reason::SourceMismatch, message));
            }
        }
        Ok(Verified { size, digest: Some(self.blake3.digest().await.ok_or_else(hashing)?) })
    }
}

/// Whether what passed is what the image service has made of it.
async fn verify_passed(hashes: Hashes, size: u64, image: &Image) -> Result<Verified> {
    let hash = image.hash.as_ref().filter(|hash| hash.algorithm == HashAlgorithm::Sha512);
    if hash.is_none() {
        let message = "Glance tells no SHA-512 of the image: what passed cannot be compared with it";
        return Err(Error::new(Reason::SourceUnreadable, message));
    }
    let hash = hash.filter(|_| !sabotage::is(Bug::UploadIsNotCompared));
    // Nothing is wrong with the image: Glance converts some.
    hashes.verify(size, hash).await.map_err(|error| match error.reason {
        Reason::SourceMismatch => {
            Error::new(Reason::Cancelled, "Glance made other bits of the upload; they are copied")
        }
        _ => error,
    })
}

fn check_size(image: &Image, size: u64) -> Result<()> {
    match image.size {
        Some(expected) if size != expected => {
            let message = format!("the source gave {size} bytes or more, but Glance says {expected}");
            Err(Error::new(Reason::SourceSize, message))
        }
        _ => Ok(()),
    }
}

/// Where copies were read, a wrong hash says nothing of the original.
fn not_glances(error: Error, liars: &BTreeSet<StoreName>) -> Error {
    if liars.is_empty() {
        return error;
    }
    let stores = liars.iter().map(StoreName::as_str).collect::<Vec<_>>().join(", ");
    let message = format!("the copy at {stores} no longer has the image's hash; it is proven anew and not read again");
    Error::new(Reason::SourceUnreadable, message)
}

impl Drop for Transfer {
    fn drop(&mut self) {
        let broken = Error::new(Reason::SourceUnreadable, "the reading broke down");
        self.window.finish(Err(broken.into()));
    }
}
