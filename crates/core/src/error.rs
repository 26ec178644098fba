use std::error::Error as StdError;

use serde::{Deserialize, Serialize};

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure: why (a [`Reason`] that callers branch on), a sentence for the operator, and the cause beneath.
///
/// The adapter that knows sets the reason. `Display` is the sentence alone and never repeats the cause.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub reason: Reason,
    pub message: String,
    #[source]
    cause: Option<Box<dyn StdError + Send + Sync>>,
    is_unsent: bool,
}

impl Error {
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), cause: None, is_unsent: false }
    }

    #[must_use]
    pub fn caused_by(mut self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// The request never left: it has no effect, now or later.
    #[must_use]
    pub fn unsent(mut self) -> Self {
        self.is_unsent = true;
        self
    }

    pub fn is_unsent(&self) -> bool {
        self.is_unsent
    }

    /// The sentence with all its causes, for a log line or a status.
    pub fn chain(&self) -> String {
        let mut text = self.message.clone();
        let mut cause = self.source();
        while let Some(error) = cause {
            let more = error.to_string();
            if !text.contains(&more) {
                text = format!("{text}: {more}");
            }
            cause = error.source();
        }
        text
    }
}

/// The last of its causes: those before it say the same once more, in a library's words.
pub fn root_cause(error: &dyn StdError) -> String {
    error.source().map_or_else(|| error.to_string(), root_cause)
}

/// Makes [`Reason`] with its code, so that code and variant cannot drift apart.
macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $permanent:literal;)*) => {
        /// Why something is not as it should be. The code is a contract: it stands in `mimeo status`, the API and
        /// the guide (docs/reasons.md).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Reason {
            $($(#[$doc])* #[serde(rename = $code)] $variant,)*
        }

        impl Reason {
            pub const ALL: &'static [Reason] = &[$(Reason::$variant),*];

            pub fn code(self) -> &'static str {
                match self { $(Reason::$variant => $code,)* }
            }

            /// Whether it is a store's own failure, and neither Glance's nor the image's.
            pub fn is_the_stores(self) -> bool {
                matches!(
                    self,
                    Self::StoreUnreachable
                        | Self::StoreRefused
                        | Self::StoreFull
                        | Self::StoreError
                        | Self::StoreStalled
                        | Self::ProofMismatch
                        | Self::ObjectMissing
                )
            }

            /// Whether something went wrong; else it is the usual course of things, and takes its time.
            pub fn is_a_failure(self) -> bool {
                !matches!(
                    self,
                    Self::ImageNotActive
                        | Self::ImageImporting
                        | Self::ImageDeleted
                        | Self::NotWanted
                        | Self::AfterOthers
                        | Self::StoreBusy
                        | Self::OutsideHours
                        | Self::Cancelled
                )
            }

            pub fn from_code(code: &str) -> Option<Reason> {
                Self::ALL.iter().copied().find(|reason| reason.code() == code)
            }

            /// What it means, and what to do: its row in the guide.
            pub fn cure(self) -> &'static str {
                let row = format!("| `{}` | ", self.code());
                let text = GUIDE.lines().find_map(|line| line.strip_prefix(&row)?.split_once("| "));
                text.map_or("", |(_, text)| text.trim_end_matches(['|', ' ']))
            }

            /// Whether waiting alone cannot cure it: somebody has to change something first.
            pub fn is_permanent(self) -> bool {
                match self { $(Reason::$variant => $permanent,)* }
            }
        }
    };
}

/// One text for the guide, the API and the dashboard.
const GUIDE: &str = include_str!("../../../docs/reasons.md");

reasons! {
    /// Glance does not register a location of size 0. Never tried again.
    EmptyImage = "empty-image", true;
    /// The image is deactivated: Glance takes no locations until it is reactivated.
    ImageDeactivated = "image-deactivated", true;
    /// The image has no bits yet, or lost them (`queued`, `saving`, `killed`, …).
    ImageNotActive = "image-not-active", false;
    /// Glance is importing; a change of locations now would be wiped.
    ImageImporting = "image-importing", false;
    /// Glance answers 404 and Mimeo's token is not shown to see every project's images: nothing may be concluded.
    ImageNotVisible = "image-not-visible", false;
    /// The image is gone; its copies wait for the end of the grace period.
    ImageDeleted = "image-deleted", true;

    /// No rule wants the copy there any more: it goes once every wanted copy is registered.
    NotWanted = "not-wanted", false;
    /// The store refuses to remove it, again and again. Tried again when somebody asks, or when it removes another.
    DeleteRefused = "delete-refused", true;
    /// The store is drained, and the rules give this image no other place.
    NoOtherPlace = "no-other-place", true;
    /// The other copies of the image were never proven by Mimeo.
    LastProvenCopy = "last-proven-copy", true;
    /// Glance made the copy, and only Glance can remove it.
    GlancesCopy = "glances-copy", true;

    /// No connection to Glance or Keystone, or no answer in time.
    ImageServiceUnreachable = "image-service-unreachable", false;
    /// Glance or Keystone answered with an error of its own (5xx, or something unreadable).
    ImageServiceError = "image-service-error", false;
    /// Keystone or Glance refused Mimeo's credentials, or its role does not allow this.
    NotAllowed = "not-allowed", true;
    /// The image's record changed under the request (409); looked at again.
    Conflict = "conflict", false;

    /// `show_multiple_locations` is off, or the policy forbids it: Glance answers 403 to a location.
    LocationsForbidden = "locations-forbidden", true;
    /// `image_location_quota` is too small for one more location (413).
    LocationQuota = "location-quota", true;
    /// Glance refuses this URL although it answers (400): host or port outside `import_filtering_opts`, most likely.
    LocationRefused = "location-refused", true;
    /// Glance was asked to copy the image to a store of its own, and ended without the copy.
    GlanceCopyFailed = "glance-copy-failed", false;
    /// Only Glance can write the copy; it is asked for it after Mimeo's own copies.
    AfterOthers = "after-others", false;
    /// The location's URL does not answer now; it is not given to Glance until it does.
    LocationUnreachable = "location-unreachable", false;
    /// A location that Mimeo registered was gone at a later look: another writer removed or overwrote it.
    LocationLost = "location-lost", false;

    /// The location of a copy that is to go could not be taken out of the image.
    NotWithdrawn = "not-withdrawn", false;
    /// The store did not answer for a while, and the location stands behind others until it is put back in its place.
    Demoted = "demoted", false;
    /// A copy is to go, and its location is the only one that the image has: it stays.
    LastLocation = "last-location", false;

    /// The store has not answered its probe for a while: nothing is begun there until it does.
    StoreDown = "store-down", false;
    /// No connection to the store.
    StoreUnreachable = "store-unreachable", false;
    /// The store refused (401, 403, 405).
    StoreRefused = "store-refused", false;
    /// The store has no room, or the object is too large for it (413, 507).
    StoreFull = "store-full", false;
    /// The store answered with an error of its own (5xx, or an unexpected status).
    StoreError = "store-error", false;
    /// The store moved no byte for its `timeout`.
    StoreStalled = "store-stalled", false;
    /// The store cannot keep up, and as many slow copies run to it as may.
    StoreBusy = "store-busy", false;
    /// The object cannot be removed while others are built on it, or have it open (clones of an RBD image, say).
    StoreInUse = "store-in-use", false;
    /// The store, or Mimeo as a whole, starts copies at other hours only.
    OutsideHours = "outside-hours", false;
    /// The ledger has the copy under another name of the store, which the configuration has no longer.
    StoreRenamed = "store-renamed", true;
    /// The copy was made at another place than where the configuration now puts the store.
    StoreMoved = "store-moved", true;
    /// What the store gives back differs from what was sent, in size or content.
    ProofMismatch = "proof-mismatch", false;
    /// What the store should hold is not there.
    ObjectMissing = "object-missing", false;

    /// The image's bits cannot be read.
    SourceUnreadable = "source-unreadable", false;
    /// The source ended before, or went on after, the size that Glance tells.
    SourceSize = "source-size", false;
    /// The source's bits do not have the hash that Glance tells: the original is damaged.
    SourceMismatch = "source-mismatch", true;

    /// The ledger cannot be read or written.
    Ledger = "ledger", false;
    /// The broker cannot be reached, or refuses the queue.
    Events = "events", false;
    /// Stopped by Mimeo itself: shutting down, or the image changed.
    Cancelled = "cancelled", false;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_lead_back_to_their_reason() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_code(reason.code()), Some(*reason));
        }
    }

    #[test]
    fn every_reason_is_in_the_guide_with_the_same_verdict() {
        for reason in Reason::ALL {
            let verdict = if reason.is_permanent() { "yes " } else { "" };
            let row = format!("| `{}` | {verdict}|", reason.code());
            assert!(GUIDE.contains(&row), "docs/reasons.md has no row {row:?}");
            assert!(reason.cure().ends_with('.') && !reason.cure().contains(" | "), "{:?}", reason.cure());
        }
    }

    #[test]
    fn every_reason_says_more_than_its_code_and_those_of_stores_and_sources_what_to_do() {
        for reason in Reason::ALL {
            assert!(reason.cure().len() >= 60, "{}: {:?}", reason.code(), reason.cure());
        }
        for reason in [
            Reason::ImageServiceUnreachable,
            Reason::StoreUnreachable,
            Reason::StoreError,
            Reason::StoreStalled,
            Reason::SourceUnreadable,
            Reason::SourceSize,
        ] {
            assert!(reason.cure().len() >= 200, "{}: {:?}", reason.code(), reason.cure());
        }
    }

    #[test]
    fn the_chain_tells_each_cause_once() {
        let cause = Error::new(Reason::StoreError, "PUT failed").caused_by(std::io::Error::other("PUT failed"));
        let error = Error::new(Reason::StoreError, "http1: no copy").caused_by(cause);
        assert_eq!(error.to_string(), "http1: no copy");
        assert_eq!(error.chain(), "http1: no copy: PUT failed");
    }
}
