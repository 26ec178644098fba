use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use crate::{Backoff, Digest, Error, ObjectName, Reason, StoreName, Timestamp};

/// A damaged image is read again after the longest wait of all, and at last after so many of them.
const REREADS: u32 = 64;
/// When a copy was seen is told to within this time: several looks in a row do not write it anew for each copy.
const SEEN: SignedDuration = SignedDuration::from_mins(1);

/// One image's copy on one store, as the ledger remembers it.
#[derive(Debug, Clone, PartialEq)]
pub struct Replica {
    pub store: StoreName,
    pub state: ReplicaState,
    /// The object that the newest attempt writes or wrote.
    pub object: Option<ObjectName>,
    /// What Glance reads: the location's URL of that object.
    pub url: Option<String>,
    /// Of the verified source; what the object must read back as.
    pub size: Option<u64>,
    pub digest: Option<Digest>,
    pub proof: Option<Proof>,
    /// When a read of the image last showed the location.
    pub seen_at: Option<Timestamp>,
    /// Since when it is to go although the image is there: no rule wants it any more, or its store is drained.
    pub unwanted_since: Option<Timestamp>,
    /// Why it is not further, when it is not.
    pub failure: Option<Failure>,
}

impl Replica {
    pub fn wanted(store: StoreName) -> Self {
        Self {
            store,
            state: ReplicaState::Wanted,
            object: None,
            url: None,
            size: None,
            digest: None,
            proof: None,
            seen_at: None,
            unwanted_since: None,
            failure: None,
        }
    }

    /// The same replica, one failure further on. Permanent reasons that a person may cure are looked at again at
    /// the slowest pace, a damaged image ever more rarely, and an empty one never by itself.
    #[must_use]
    pub fn failed(mut self, state: ReplicaState, error: &Error, backoff: Backoff, now: Timestamp) -> Self {
        let tries = self.failure.as_ref().map_or(0, |failure| failure.tries).saturating_add(1);
        let next_try = match error.reason {
            Reason::EmptyImage | Reason::ImageDeactivated => None,
            // The bits may have been changed on their way. But every try reads the whole image, so each waits for longer.
            Reason::SourceMismatch => {
                Some(Backoff { first: backoff.max, max: backoff.max.saturating_mul(REREADS) }.next(now, tries))
            }
            reason if reason.is_permanent() => Some(backoff.next(now, u32::MAX)),
            _ => Some(backoff.next(now, tries)),
        };
        self.state = state;
        self.failure = Some(Failure { reason: error.reason, message: error.chain(), tries, next_try });
        self
    }

    /// When its location was seen, once it is seen now.
    pub(crate) fn seen(&self, now: Timestamp) -> Option<Timestamp> {
        let is_fresh = |at: &Timestamp| (SignedDuration::ZERO..SEEN).contains(&now.duration_since(*at));
        self.seen_at.filter(is_fresh).or(Some(now))
    }

    /// Whether Mimeo itself has read it back and found it right.
    pub fn is_proven(&self) -> bool {
        self.proof.is_some_and(|proof| proof.kind == ProofKind::Readback)
    }

    /// Whether its bits were found right, and not otherwise since. One that nothing wants any more may still be read.
    pub fn is_good(&self) -> bool {
        use ReplicaState as R;
        matches!(self.state, R::Proven | R::Registered) || (self.state == R::Retiring && self.proof.is_some())
    }

    /// Whether its turn has come: never failed, or the wait after the failure is over.
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.failure.as_ref().is_none_or(|failure| failure.next_try.is_some_and(|at| at <= now))
    }
}

/// A replica's life: `wanted → copying → stored → proven → registered`, and the ways off it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReplicaState {
    Wanted,
    Copying,
    /// Closed at the store, not yet shown to be right.
    Stored,
    /// Read back and equal to the source.
    Proven,
    /// Proven, registered **and** seen in a later read of the image.
    Registered,
    Failed,
    /// Was registered; the last look could not confirm it.
    Suspect,
    /// It is to go: the image is gone, or nothing wants the copy there any more.
    Retiring,
    Gone,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub reason: Reason,
    pub message: String,
    /// Failures in a row.
    pub tries: u32,
    /// None: not by itself.
    pub next_try: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proof {
    pub kind: ProofKind,
    pub at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProofKind {
    /// Read again after it was closed, and its BLAKE3 digest was the source's; or, of one that was adopted, its hash the
    /// image's own.
    Readback,
    /// Glance wrote the copy and shows it; nobody has read it back.
    Glance,
}

/// An image's own state, derived from its replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageState {
    /// No rule wants it anywhere.
    Unmanaged,
    Pending,
    Replicating,
    Registered,
    /// Some wanted replicas are registered, others not.
    Degraded,
    Failed,
    Retiring,
}

impl ReplicaState {
    pub const ALL: [Self; 9] = [
        Self::Wanted,
        Self::Copying,
        Self::Stored,
        Self::Proven,
        Self::Registered,
        Self::Failed,
        Self::Suspect,
        Self::Retiring,
        Self::Gone,
    ];
}

impl ImageState {
    pub const ALL: [Self; 7] = [
        Self::Unmanaged,
        Self::Pending,
        Self::Replicating,
        Self::Registered,
        Self::Degraded,
        Self::Failed,
        Self::Retiring,
    ];

    /// `states` are those of the wanted replicas; `gone` is whether the image itself was deleted.
    pub fn of(gone: bool, states: &[ReplicaState]) -> Self {
        use ReplicaState as R;
        let any = |wanted: &[R]| states.iter().any(|state| wanted.contains(state));
        if gone {
            return Self::Retiring;
        }
        match states {
            [] => Self::Unmanaged,
            all if all.iter().all(|state| *state == R::Registered) => Self::Registered,
            _ if any(&[R::Copying, R::Stored]) => Self::Replicating,
            _ if any(&[R::Registered, R::Suspect]) => Self::Degraded,
            _ if any(&[R::Failed]) => Self::Failed,
            _ if any(&[R::Proven]) => Self::Replicating,
            _ => Self::Pending,
        }
    }
}

macro_rules! as_serialized {
    ($($name:ident),*) => {$(
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.serialize(f)
            }
        }
    )*};
}
as_serialized!(ReplicaState, ImageState, ProofKind);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::{ReplicaState as R, *};

    #[test]
    fn an_image_is_registered_only_when_every_wanted_replica_is() {
        let cases: [(&[R], ImageState); 8] = [
            (&[], ImageState::Unmanaged),
            (&[R::Wanted, R::Wanted], ImageState::Pending),
            (&[R::Registered, R::Copying], ImageState::Replicating),
            (&[R::Registered, R::Failed], ImageState::Degraded),
            (&[R::Registered, R::Proven], ImageState::Degraded),
            (&[R::Failed, R::Proven], ImageState::Failed),
            (&[R::Proven, R::Proven], ImageState::Replicating),
            (&[R::Registered, R::Registered], ImageState::Registered),
        ];
        for (states, expected) in cases {
            assert_eq!(ImageState::of(false, states), expected, "{states:?}");
        }
        assert_eq!(ImageState::of(true, &[R::Registered]), ImageState::Retiring);
    }

    #[test]
    fn failures_back_off_and_hopeless_ones_are_not_tried_again_by_themselves() {
        let backoff = Backoff { first: Duration::from_secs(1), max: Duration::from_mins(1) };
        let (now, store) = (Timestamp::UNIX_EPOCH, "a".parse::<StoreName>().unwrap());
        let after = |reason| {
            let error = Error::new(reason, "no");
            Replica::wanted(store.clone()).failed(R::Failed, &error, backoff, now).failure.unwrap().next_try
        };
        assert_eq!(after(Reason::StoreError).unwrap().as_second(), 1);
        assert_eq!(after(Reason::LocationsForbidden).unwrap().as_second(), 60);
        assert_eq!(after(Reason::EmptyImage), None);
        assert_eq!(after(Reason::SourceMismatch).unwrap().as_second(), 60);
    }

    #[test]
    fn a_damaged_image_is_read_again_ever_more_rarely() {
        let backoff = Backoff { first: Duration::from_secs(1), max: Duration::from_mins(10) };
        let error = Error::new(Reason::SourceMismatch, "other bytes");
        let mut replica = Replica::wanted("a".parse().unwrap());
        let waits: Vec<i64> = (0..8)
            .map(|_| {
                replica = replica.clone().failed(R::Failed, &error, backoff, Timestamp::UNIX_EPOCH);
                replica.failure.as_ref().unwrap().next_try.unwrap().as_second() / 60
            })
            .collect();
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 640, 640]);
    }
}
