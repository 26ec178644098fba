//! What people ask of a ledger: a page of images, and how many there are of each kind. Every ledger answers by these
//! rules.

use std::collections::BTreeMap;

use crate::{
    Failure, HistoryLine, ImageId, ImageState, ObjectName, Reason, Record, Replica, ReplicaState, StoreName, Timestamp,
    plan,
};

/// From so many losses in a row on it is no accident that a location is gone.
pub const CONTESTED: u32 = 3;

/// Which images are meant: those that fit all that is said. The default is every image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageFilter {
    /// A part of the name, or the beginning of the id; capital letters (of ASCII) count as small ones.
    pub text: Option<String>,
    pub state: Option<ImageState>,
    /// Glance's id of the project.
    pub owner: Option<String>,
    /// The name of a rule that matches it.
    pub rule: Option<String>,
    /// Has a replica there.
    pub store: Option<StoreName>,
    /// Has a replica in this state; at `store`, if that is named.
    pub replica: Option<ReplicaState>,
}

impl ImageFilter {
    pub fn fits(&self, record: &Record) -> bool {
        let has = |replica: &Replica| {
            self.store.as_ref().is_none_or(|store| replica.store == *store)
                && self.replica.is_none_or(|state| replica.state == state)
        };
        let asks_for_replica = self.store.is_some() || self.replica.is_some();
        self.text.as_deref().is_none_or(|text| is_called(record, &text.to_ascii_lowercase()))
            && self.state.is_none_or(|state| plan::state(record) == state)
            && self.owner.as_ref().is_none_or(|owner| record.image.owner.as_ref() == Some(owner))
            && self.rule.as_ref().is_none_or(|rule| record.image.rules.contains(rule))
            && (!asks_for_replica || record.replicas.values().any(has))
    }
}

fn is_called(record: &Record, text: &str) -> bool {
    let name = record.image.name.as_deref().unwrap_or_default();
    name.to_ascii_lowercase().contains(text) || record.image.id.as_str().starts_with(text)
}

/// What a ledger holds, in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    pub images: BTreeMap<ImageState, u64>,
    pub replicas: BTreeMap<StoreName, BTreeMap<ReplicaState, u64>>,
    /// Of each store's registered copies, the oldest proof.
    pub oldest_proofs: BTreeMap<StoreName, Timestamp>,
    /// Images of which another writer keeps removing a location of Mimeo's.
    pub contested: u64,
    /// Why images cannot be seen, of one of those.
    pub hidden: Option<Failure>,
}

impl Tally {
    pub fn of<'a>(records: impl IntoIterator<Item = &'a Record>) -> Self {
        let mut tally = Self::default();
        for record in records {
            tally.add(record);
        }
        tally
    }

    fn add(&mut self, record: &Record) {
        *self.images.entry(plan::state(record)).or_default() += 1;
        self.contested += u64::from(record.replicas.values().any(is_contested));
        let hides = |trouble: &&Failure| trouble.reason == Reason::ImageNotVisible;
        self.hidden = self.hidden.take().or_else(|| record.image.trouble.as_ref().filter(hides).cloned());
        for replica in record.replicas.values() {
            *self.replicas.entry(replica.store.clone()).or_default().entry(replica.state).or_default() += 1;
            if let (ReplicaState::Registered, Some(proof)) = (replica.state, replica.proof) {
                let oldest = self.oldest_proofs.entry(replica.store.clone()).or_insert(proof.at);
                *oldest = proof.at.min(*oldest);
            }
        }
    }
}

fn is_contested(replica: &Replica) -> bool {
    let losses = replica.failure.as_ref().filter(|failure| failure.reason == Reason::LocationLost);
    losses.is_some_and(|failure| failure.tries >= CONTESTED)
}

/// What a ledger still has to do, for those who watch whether it gets done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Images whose mark is due.
    pub due: u64,
    pub oldest_due: Option<Timestamp>,
    /// Images whose mark comes due later.
    pub later: u64,
    /// Since when the copy that waits the longest is wanted and not registered: from the first line after its last
    /// registration, or after it last waited for its store's hours, as far back as its history goes. A copy that is not
    /// tried by itself, or waits for those hours, does not count.
    pub unregistered_since: Option<Timestamp>,
}

/// A line of an image's history, with its place among those of all images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Grows with each line that is written, whichever image it is of. A line that came again has a new one.
    pub number: u64,
    pub image: ImageId,
    pub line: HistoryLine,
}

/// Where objects of a store are that have all but their names in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub store: StoreName,
    pub objects: u64,
    /// Of those.
    pub doomed: u64,
    /// One that is there, or was.
    pub name: ObjectName,
    /// Its location.
    pub url: String,
}
