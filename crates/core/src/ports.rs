//! The ports: what the engine asks of the world. Each trait is implemented by adapters and by a fake in the testkit,
//! and both pass the same conformance suite.
//!
//! Every future may be dropped at any point: that is how work is cancelled. What a dropped or failed call leaves
//! behind is said at each method. No method waits longer than its protocol's connect time-out for nothing: how long
//! a transfer may stand still is the engine's to decide.

use std::{
    collections::BTreeSet,
    pin::Pin,
    sync::{Arc, atomic::AtomicU64},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;

use crate::{
    Backlog, Change, Digest, DirtyMark, Due, Error, HistoryLine, Image, ImageFilter, ImageId, Location, ObjectName,
    Place, Reason, Record, Result, Snapshot, StoreName, Tally, Timestamp, Told, Visibility,
};

/// Bits, in chunks of the sender's own size; an empty chunk is a sign of life. After an error or the end nothing follows.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;

/// Tells the time. The only source of it for the engine's decisions.
pub trait Clock: Send + Sync {
    fn now(&self) -> Timestamp;
}

/// A repeatable, ranged read of one image's bits.
#[async_trait]
pub trait Source: Send + Sync {
    /// Starts to read at `offset`. Leaves nothing behind.
    async fn open(&self, offset: u64) -> Result<ByteStream>;
}

/// The image service: the truth about images and their locations.
#[async_trait]
pub trait Registry: Send + Sync {
    /// The image as it is now; `None` for a 404, which is not yet a deletion (promise 10).
    async fn look(&self, id: &ImageId) -> Result<Option<Image>>;

    /// The images that bear this name now, hidden ones too, at most a page of them.
    async fn named(&self, name: &str) -> Result<Vec<Image>>;

    /// Whether the token in use is shown, now, to see other projects' private images. Only then does a 404 mean
    /// that an image is gone.
    async fn sees_all(&self) -> Result<bool>;

    /// The roles that the token in use has now, as the identity service says; `None` where there is no such service.
    async fn roles(&self) -> Result<Option<BTreeSet<String>>>;

    /// A page of the images changed at or after `since`, over all projects and hidden ones too: the first page, or the
    /// one that `cursor` leads to. The order is one that changes do not disturb, so that a walk misses no image that is
    /// there, and hidden or shown, all the time. Where the cursor's image was deleted meanwhile the walk goes on behind
    /// it, or the answer is a [`Conflict`] and the walk must begin anew.
    ///
    /// [`Conflict`]: crate::Reason::Conflict
    async fn changed_since(&self, since: Option<Timestamp>, cursor: Option<&Cursor>) -> Result<Page>;

    /// Adds all the locations in one request: all or none. A lost answer leaves either.
    async fn add_locations(&self, id: &ImageId, locations: &[Location]) -> Result<()>;

    /// The image's locations become `keep`, in this order. `keep` and `remove` together must be, by their URLs, what the
    /// image has now; else it is a [`Conflict`] and nothing changes. All or nothing; a lost answer leaves either. The last
    /// location is never removed. Of those that are the image service gives up the bits too, where it can.
    ///
    /// [`Conflict`]: crate::Reason::Conflict
    async fn arrange_locations(&self, id: &ImageId, keep: &[Location], remove: &[Location]) -> Result<()>;

    /// Puts back what a PATCH of ours undid. Each is sent on its own; an error leaves the later ones unsent.
    async fn put_back(&self, id: &ImageId, undone: &Undone) -> Result<()>;

    /// Asks the image service to copy the image to stores of its own, by their ids there. An answer says that it began:
    /// the image shows it as `importing`, and at the end which stores have it. A lost answer leaves either.
    async fn copy_to(&self, id: &ImageId, backends: &[String]) -> Result<()>;

    /// The image's bits through the image service itself.
    fn source(&self, id: &ImageId) -> Arc<dyn Source>;
}

#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    pub images: Vec<Image>,
    /// Where the next page begins; `None` after the last.
    pub next: Option<Cursor>,
}

/// A place in a walk over images, or objects. Only the registry, or store, that made it can read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(pub String);

/// What others had changed, and a PATCH of ours set back: the values to restore.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Undone {
    pub visibility: Option<Visibility>,
    pub protected: Option<bool>,
    /// True: the image had been deactivated. False: reactivated.
    pub deactivated: Option<bool>,
}

/// A place for bits.
#[async_trait]
pub trait Store: Send + Sync {
    fn name(&self) -> &StoreName;

    /// The location URL under which Glance reads the object.
    fn location(&self, object: &ObjectName) -> String;

    /// Whether [`Sink::skip`] leaves out bytes that then read back as zeros.
    fn is_sparse(&self) -> bool {
        false
    }

    /// Whether an object that was never closed can be gone on with; `None`: not known before the store was used.
    fn resumes(&self) -> Option<bool> {
        Some(false)
    }

    /// Whether it is of use to a sink to know another object that is much the same ([`Sink::like`]).
    fn compares(&self) -> bool {
        false
    }

    /// Whether [`open`](Store::open) under the name of an object that was never closed finds by itself what is there of
    /// it, though it is given all bytes again.
    fn reopens(&self) -> bool {
        false
    }

    /// Where its objects lie, as a URL, for stores that can [`take`](Store::take) them from there.
    fn area(&self) -> Option<String> {
        None
    }

    /// Whether it takes objects from another store's area by itself. It may find out that it cannot.
    fn takes_from(&self, _area: &str) -> bool {
        false
    }

    /// Makes the object from another store's closed one, without a source and a sink, and counts in `sent` how far that
    /// is. It ends when the object is published. What a failure leaves is as after [`open`](Store::open); once dropped
    /// it stops as soon as the store can.
    async fn take(&self, object: &ObjectName, offer: &Offer, _sent: &AtomicU64) -> Result<Receipt> {
        let message = format!("{}: cannot take {object} from {}", self.name(), offer.area);
        Err(Error::new(Reason::StoreError, message))
    }

    /// Starts a new object. Until [`Sink::close`] succeeds it may exist in part, or not at all.
    async fn open(&self, object: &ObjectName, size: Option<u64>) -> Result<Box<dyn Sink>>;

    /// How many bytes from its beginning an object that was never closed has. 0: none, or the store cannot go on with
    /// them. Whether they are right is the caller's to find out.
    async fn kept(&self, _object: &ObjectName) -> Result<u64> {
        Ok(0)
    }

    /// What was kept of an object that was never closed, from its beginning. `None`: nobody can read it before it is
    /// closed, so that it is proven with the rest.
    async fn read_kept(&self, object: &ObjectName) -> Result<Option<ByteStream>> {
        self.read(object, 0).await.map(Some)
    }

    /// Goes on with an object that was never closed, from `offset`, which is no more than was kept; what was behind it
    /// is replaced. What a failure leaves is as after [`open`](Store::open), the bytes before `offset` with it.
    async fn resume(&self, object: &ObjectName, _size: Option<u64>, offset: u64) -> Result<Box<dyn Sink>> {
        let message = format!("{}: cannot go on with an object: {object} from byte {offset}", self.name());
        Err(Error::new(Reason::StoreError, message))
    }

    /// Reads the object from `offset` where Glance would read it. Leaves nothing behind.
    async fn read(&self, object: &ObjectName, offset: u64) -> Result<ByteStream>;

    /// Asks for the object as Glance does before it takes a location: its size, or `None` where there is none.
    async fn probe(&self, object: &ObjectName) -> Result<Option<u64>>;

    /// A page of the objects, closed or not, that bear a name of Mimeo's making: the first page, or the one that `after`
    /// leads to. `None`: the store cannot be listed. Others' objects are passed over; one that comes or goes meanwhile may
    /// be among them or not. Leaves nothing behind.
    async fn list(&self, _after: Option<&Cursor>) -> Result<Option<ObjectPage>> {
        Ok(None)
    }

    /// How many more bytes it takes, where it can tell. What an object that is being written will still need is not
    /// taken off. Leaves nothing behind.
    async fn room(&self) -> Result<Option<u64>> {
        Ok(None)
    }

    /// Removes the object; one that is not there is no error. A lost answer leaves either.
    async fn delete(&self, object: &ObjectName) -> Result<()>;
}

/// An object that another store has, for one that takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The other store's [`area`](Store::area), and the object's name there.
    pub area: String,
    pub object: ObjectName,
    pub size: u64,
    /// As in [`Sink::like`].
    pub like: Option<ObjectName>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectPage {
    /// Each once in a page; the same again in a later one does no harm.
    pub objects: Vec<ObjectName>,
    /// Where the next page begins; `None` after the last.
    pub next: Option<Cursor>,
}

/// One object while it is written. Dropping it is an abort without waiting.
#[async_trait]
pub trait Sink: Send {
    /// Before the first byte: a closed object of the store that is probably much the same. It is a hint; whether it is
    /// there, or of use, changes nothing of what is published.
    fn like(&mut self, _other: &ObjectName) {}

    /// Hands over the next bytes; waits while the store cannot take them.
    async fn write(&mut self, bytes: Bytes) -> Result<()>;

    /// Goes on behind so many bytes, which are to read back as zeros. Only asked of a store that is sparse.
    async fn skip(&mut self, length: u64) -> Result<()> {
        Err(Error::new(Reason::StoreError, format!("the store cannot leave out {length} zeros")))
    }

    /// Counts the bytes that [`close`](Sink::close) has sent so far, where it is only then that they travel.
    fn sent(&self) -> Option<Arc<AtomicU64>> {
        None
    }

    /// Publishes the object and tells what the store says of it. After an error it may exist or not.
    async fn close(self: Box<Self>) -> Result<Receipt>;

    /// Gives up. What the store kept of it is the ledger's to know and the sweeper's to remove.
    async fn abort(self: Box<Self>);
}

/// What a store says of a closed object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Receipt {
    /// As counted by the store, where it tells.
    pub size: Option<u64>,
}

/// Notifications of the image service.
#[async_trait]
pub trait Events: Send {
    /// Waits for the next event; reconnects by itself for as long as it takes. What cannot be read as an event is
    /// counted, logged once and passed over. `None` when the source has ended for good.
    async fn next(&mut self) -> Option<Delivery>;

    /// How the connection does, for the status.
    fn health(&self) -> Arc<EventsHealth>;
}

/// An event with its acknowledgement, which is due once the ledger has the event: an event that was not
/// acknowledged comes again.
pub struct Delivery {
    pub event: ImageEvent,
    pub ack: Box<dyn Acknowledge>,
}

#[async_trait]
pub trait Acknowledge: Send {
    async fn acknowledge(self: Box<Self>);
}

/// Something happened to an image. It means "look again"; only `kind` and `snapshot` are kept as evidence.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageEvent {
    pub image: ImageId,
    pub kind: EventKind,
    /// The record as the event's sender saved it, for finding out what a PATCH of ours undid.
    pub snapshot: Option<Snapshot>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    Changed,
    Deleted,
}

/// Counters and the last error of an event source; shared with the status.
#[derive(Debug, Default)]
pub struct EventsHealth {
    state: std::sync::Mutex<EventsState>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventsState {
    pub connected: bool,
    pub received: u64,
    /// Messages that were no image event that Mimeo understands.
    pub bad: u64,
    pub last_error: Option<String>,
}

impl EventsHealth {
    pub fn update(&self, change: impl FnOnce(&mut EventsState)) {
        change(&mut self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }

    pub fn state(&self) -> EventsState {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

/// Mimeo's durable record. When a call returns, what it wrote survives a crash; a failed call wrote nothing.
#[async_trait]
pub trait Ledger: Send + Sync {
    async fn load(&self, id: &ImageId) -> Result<Option<Record>>;

    /// All of the changes or none of them.
    async fn commit(&self, changes: &[Change]) -> Result<()>;

    /// Up to `limit` marks that are due by `now`, in the order in which they came due, and the first that is not; none of
    /// those of `busy`.
    async fn marks(&self, now: Timestamp, limit: usize, busy: &[ImageId]) -> Result<Vec<Due>>;

    /// Clears the mark that `seq` names, or moves it to `next`; does nothing if the image was marked again.
    async fn settle(&self, due: &Due, next: Option<DirtyMark>) -> Result<()>;

    /// The images with this name, or this id. Several may share a name.
    async fn find(&self, name_or_id: &str) -> Result<Vec<ImageId>>;

    /// The images whose names stand next to this one in order of their bytes: up to `limit` with the same name or one
    /// before it, the nearest first, then up to `limit` behind it.
    async fn named_near(&self, name: &str, limit: usize) -> Result<Vec<ImageId>>;

    /// Up to `limit` of the records that fit, in order of their ids, those after `after`.
    async fn page(&self, filter: &ImageFilter, after: Option<&ImageId>, limit: usize) -> Result<Vec<Record>>;

    /// What it holds, in numbers; as quick for many images as for few, or nearly.
    async fn tally(&self) -> Result<Tally>;

    /// What waits at this time. It may take its time where very many images wait.
    async fn backlog(&self, now: Timestamp) -> Result<Backlog>;

    /// Where the objects are, as quick as [`tally`](Ledger::tally): one for each store and each URL without its object's name.
    async fn places(&self) -> Result<Vec<Place>>;

    /// As [`page`](Ledger::page), but only the records that have a tombstone, a doomed object or an unwanted replica.
    async fn sweepable(&self, after: Option<&ImageId>, limit: usize) -> Result<Vec<Record>>;

    /// How many images the ledger knows.
    async fn count(&self) -> Result<u64>;

    async fn bookmark(&self, name: &str) -> Result<Option<String>>;

    /// The digests of the image's chunks, from the first without a gap: what follows a gap is left out.
    async fn chunks(&self, id: &ImageId) -> Result<Vec<Digest>>;

    /// Of these objects, those that the ledger has no row of, at whichever store: two may be one place.
    async fn unknown(&self, objects: &[ObjectName]) -> Result<Vec<ObjectName>>;

    /// What became of the image and its copies, the oldest first: derived from every commit, in the same transaction.
    /// The newest [`HISTORY_LINES`] are kept, for at least [`HISTORY_KEPT`] after the image was forgotten.
    ///
    /// [`HISTORY_LINES`]: crate::HISTORY_LINES
    /// [`HISTORY_KEPT`]: crate::HISTORY_KEPT
    async fn history(&self, id: &ImageId) -> Result<Vec<HistoryLine>>;

    /// Up to `limit` lines of every image's history, in order of their numbers, those after `after`. What is no longer
    /// in the history, because it came again or is too old, is not here either.
    async fn told(&self, after: u64, limit: usize) -> Result<Vec<Told>>;

    /// The highest number that a line was ever given; 0: none yet.
    async fn last_told(&self) -> Result<u64>;
}
