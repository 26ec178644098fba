use std::collections::BTreeMap;

use crate::{Digest, Failure, ImageId, ObjectName, Replica, StoreName, Timestamp};

/// What images are cut into for the digests that let an interrupted copy go on, in bytes (see `Policy::chunk`).
pub const CHUNK: u64 = 16 << 20;

/// Everything that the ledger knows of one image.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    pub image: ImageRow,
    pub replicas: BTreeMap<StoreName, Replica>,
    /// Every object that may exist at a store for this image.
    pub objects: Vec<Object>,
}

impl Record {
    pub fn new(id: ImageId) -> Self {
        Self { image: ImageRow::new(id), replicas: BTreeMap::new(), objects: Vec::new() }
    }

    pub fn object(&self, store: &StoreName, name: &ObjectName) -> Option<&Object> {
        self.objects.iter().find(|object| object.store == *store && object.name == *name)
    }

    /// The object that the replica is made of, as long as the ledger has it.
    pub fn object_of(&self, replica: &Replica) -> Option<&Object> {
        self.object(&replica.store, replica.object.as_ref()?)
    }
}

/// The image itself, as last observed.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageRow {
    pub id: ImageId,
    pub name: Option<String>,
    /// Glance's status, as text: what was last seen.
    pub status: Option<String>,
    pub size: Option<u64>,
    /// Glance's id of the project that it belongs to.
    pub owner: Option<String>,
    /// The stores that the rules wanted at the last look, in order.
    pub wanted: Vec<StoreName>,
    /// The names of the rules that matched then, in order.
    pub rules: Vec<String>,
    /// What stands in the way of the whole image, if anything does.
    pub trouble: Option<Failure>,
    pub observed_at: Option<Timestamp>,
    /// When an `image.delete` event told of its end. Evidence, not yet a conclusion.
    pub delete_seen: Option<Timestamp>,
    /// When somebody asked for all copies to be read again: a proof from before is not enough.
    pub verify_asked: Option<Timestamp>,
    /// When it was concluded that the image is gone: the tombstone. The grace period runs from here.
    pub gone_at: Option<Timestamp>,
}

impl ImageRow {
    pub fn new(id: ImageId) -> Self {
        Self {
            id,
            name: None,
            status: None,
            size: None,
            owner: None,
            wanted: Vec::new(),
            rules: Vec::new(),
            trouble: None,
            observed_at: None,
            delete_seen: None,
            verify_asked: None,
            gone_at: None,
        }
    }
}

/// Bits that Mimeo makes, or made, at a store. The row is there before the first byte and until the bits are
/// known to be gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    pub store: StoreName,
    pub name: ObjectName,
    pub url: String,
    pub state: ObjectState,
    pub since: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ObjectState {
    /// Being written, or left behind by a writer that died.
    Open,
    /// Closed; a replica's current object, or one that may become it.
    Kept,
    /// To be removed by the sweeper.
    Doomed,
    /// As doomed. But it was proven, and its image is wanted at the store again: it goes only if another copy is right.
    Regretted,
    /// A listing of the store showed it. It bears a name that Mimeo makes, but no record says who made it, and when: it
    /// may become a replica's object, and is removed only with an operator's word.
    Found,
}

impl ObjectState {
    /// Whether the sweeper is to remove it.
    #[must_use]
    pub fn is_to_go(self) -> bool {
        matches!(self, Self::Doomed | Self::Regretted)
    }
}

/// One durable change to the ledger; a slice of them is committed whole or not at all.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Inserts or replaces the image's row, except `delete_seen`, which only [`Change::DeleteSeen`] sets, and
    /// `verify_asked`, which only [`Change::VerifyAsked`] does.
    Image(ImageRow),
    /// Inserts or replaces one replica.
    Replica(ImageId, Replica),
    /// Drops one replica; nothing if there is none.
    ReplicaGone(ImageId, StoreName),
    /// Inserts or replaces one object. One that a listing found replaces none: it is known by then.
    Object(Object),
    /// Hands the object to the sweeper, from this time on; nothing if the ledger no longer has it.
    Doom(StoreName, ObjectName, Timestamp),
    /// Has the sweeper think twice about a doomed object; nothing if it is not doomed, or gone.
    Regret(StoreName, ObjectName),
    /// The object's bits are known to be gone.
    ObjectGone(StoreName, ObjectName),
    /// Look at this image again, no later than the mark says. Bumps the sequence, so that work under way does not
    /// count for it.
    Dirty(DirtyMark),
    /// An `image.delete` event was received.
    DeleteSeen(ImageId, Timestamp),
    /// The delete event was wrong: the image is there.
    DeleteUnseen(ImageId),
    /// All copies of the image are to be read again.
    VerifyAsked(ImageId, Timestamp),
    /// Keeps the BLAKE3 digests of consecutive chunks of the image, of which the first has the index `first`. They
    /// replace those of the same index.
    Chunks { image: ImageId, first: u64, digests: Vec<Digest> },
    /// Forgets the digests of the image's chunks.
    ChunksGone(ImageId),
    /// Forgets the image with all its replicas and digests: nothing of it is left anywhere.
    Forget(ImageId),
    /// Whatever of the image waits after a failure is due at this time. Touches nothing else, so that it may be sent
    /// while the image has a turn.
    TryAt(ImageId, Timestamp),
    /// A named bookmark, such as how far the scan has come.
    Bookmark(String, String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirtyMark {
    pub image: ImageId,
    pub due: Timestamp,
}

/// An image whose turn it is. `seq` tells whether it was marked again meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    pub image: ImageId,
    pub seq: u64,
    pub due: Timestamp,
}
