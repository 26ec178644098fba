//! What people are told: reports made from the ledger and from what runs now. A report never claims more than was
//! observed.

use mimeo_core::{
    Error, Failure, HistoryLine, ImageId, ImageState, ProofKind, Reason, Record, Replica, ReplicaState, StoreName,
    Timestamp, plan, ports::EventsState, without_credentials,
};
use serde::{Deserialize, Serialize};

use crate::{breaker::Answers, progress::Progress};

/// One image, as `mimeo status IMAGE` tells it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageReport {
    pub id: ImageId,
    pub name: Option<String>,
    pub state: ImageState,
    /// Bytes, where Glance tells.
    pub size: Option<u64>,
    /// Glance's id of the project that it belongs to.
    pub owner: Option<String>,
    /// The names of the rules that match it.
    pub rules: Vec<String>,
    /// What stands in the way of the image as a whole.
    pub reason: Option<ReasonReport>,
    /// When Glance was last asked about it.
    pub observed_at: Option<Timestamp>,
    pub replicas: Vec<ReplicaReport>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReplicaReport {
    pub store: StoreName,
    pub state: ReplicaState,
    /// Whether a rule wants it now.
    pub wanted: bool,
    pub location: Option<String>,
    pub proof: Option<ProofKind>,
    pub proven_at: Option<Timestamp>,
    /// When a look at the image last showed the location.
    pub seen_at: Option<Timestamp>,
    pub reason: Option<ReasonReport>,
    pub next_try: Option<Timestamp>,
    /// While it is copied or read back.
    pub progress: Option<Progress>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReasonReport {
    pub code: String,
    pub message: String,
    /// Waiting alone cannot cure it.
    pub permanent: bool,
}

impl From<&Failure> for ReasonReport {
    fn from(failure: &Failure) -> Self {
        Self {
            code: failure.reason.code().into(),
            message: failure.message.clone(),
            permanent: failure.reason.is_permanent(),
        }
    }
}

impl From<&Error> for ReasonReport {
    fn from(error: &Error) -> Self {
        Self { code: error.reason.code().into(), message: error.chain(), permanent: error.reason.is_permanent() }
    }
}

/// One line of what became of an image (`mimeo status IMAGE --history`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryReport {
    pub at: Timestamp,
    /// When it was so first; earlier than `at` for what came again.
    pub since: Timestamp,
    /// How often it came in a row.
    pub times: u32,
    /// `None`: of the image itself.
    pub store: Option<StoreName>,
    pub state: String,
    /// A reason's code.
    pub reason: Option<String>,
    pub message: Option<String>,
}

impl HistoryReport {
    /// Not what went its usual way, nor what only has to wait.
    pub fn is_a_failure(&self) -> bool {
        self.reason.as_deref().and_then(Reason::from_code).is_some_and(Reason::is_a_failure)
    }
}

impl From<HistoryLine> for HistoryReport {
    fn from(HistoryLine { at, since, times, what }: HistoryLine) -> Self {
        let reason = what.reason.map(|reason| reason.code().to_owned());
        Self { at, since, times, store: what.store, state: what.state, reason, message: what.message }
    }
}

impl ImageReport {
    /// `progress` answers for what runs at this moment.
    pub(crate) fn new(record: &Record, progress: impl Fn(&StoreName) -> Option<Progress>) -> Self {
        let unwanted = record.replicas.keys().filter(|store| !record.image.wanted.contains(store));
        let stores = record.image.wanted.iter().chain(unwanted);
        let report = |store: &StoreName| {
            let fresh = Replica::wanted(store.clone());
            let replica = record.replicas.get(store).unwrap_or(&fresh);
            ReplicaReport::new(record, replica, progress(store))
        };
        Self {
            id: record.image.id.clone(),
            name: record.image.name.clone(),
            state: plan::state(record),
            size: record.image.size,
            owner: record.image.owner.clone(),
            rules: record.image.rules.clone(),
            reason: record.image.trouble.as_ref().map(ReasonReport::from),
            observed_at: record.image.observed_at,
            replicas: stores.map(report).collect(),
        }
    }

    pub fn is_registered(&self) -> bool {
        self.state == ImageState::Registered
    }

    /// Whether what is missing cannot come by itself: everything wanted that is not registered has a permanent
    /// reason.
    pub fn is_stuck(&self) -> bool {
        let mut missing = self
            .replicas
            .iter()
            .filter(|replica| replica.wanted && replica.state != ReplicaState::Registered)
            .peekable();
        missing.peek().is_some()
            && missing.all(|replica| replica.reason.as_ref().is_some_and(|reason| reason.permanent))
    }
}

impl ReplicaReport {
    fn new(record: &Record, replica: &Replica, progress: Option<Progress>) -> Self {
        // The sweeper has done its work; the replica itself stays in the ledger for as long as there is another.
        let was_removed = replica.object.is_some() && record.object_of(replica).is_none();
        let is_gone = replica.state == ReplicaState::Retiring && was_removed;
        let gone = Replica { state: ReplicaState::Gone, ..Replica::wanted(replica.store.clone()) };
        let replica = if is_gone { &gone } else { replica };
        // What holds up the image holds up each of its replicas that is not there yet.
        let is_open = !matches!(replica.state, ReplicaState::Registered | ReplicaState::Gone);
        let trouble = record.image.trouble.as_ref().filter(|_| is_open);
        let failure = replica.failure.as_ref().or(trouble);
        Self {
            store: replica.store.clone(),
            state: replica.state,
            wanted: record.image.wanted.contains(&replica.store),
            location: replica.url.as_deref().map(without_credentials),
            proof: replica.proof.map(|proof| proof.kind),
            proven_at: replica.proof.map(|proof| proof.at),
            seen_at: replica.seen_at,
            reason: failure.map(ReasonReport::from),
            next_try: failure.filter(|failure| !is_past(replica, failure)).and_then(|failure| failure.next_try),
            progress,
        }
    }
}

/// What `mimeo verify` asked for: proofs from before this time do not count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    pub asked_at: Timestamp,
}

/// One store, as `mimeo stores` tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreReport {
    pub name: StoreName,
    /// False: the ledger knows it, the configuration does not name it among its enabled stores.
    pub enabled: bool,
    /// Since when it is drained, if it is.
    pub draining: Option<Timestamp>,
    /// Objects that the ledger has there; 0: it may be switched off.
    pub objects: u64,
    /// What an operator should know of it, and do.
    pub note: Option<String>,
    pub health: StoreHealth,
    /// Since when it is so.
    pub since: Option<Timestamp>,
    /// What the newest probe met, if it had no answer; or the newest copy, where there is none to ask for.
    pub error: Option<String>,
    /// Of the registered copies, the one whose proof is the oldest.
    pub oldest_proof: Option<Timestamp>,
    /// When a copy to it last succeeded, since `serve` started.
    pub last_success: Option<Timestamp>,
    /// The newest failure, if nothing has succeeded since.
    pub failure: Option<ReasonReport>,
    pub replicas: u64,
    pub registered: u64,
    pub failed: u64,
}

/// Nothing is tried again for a location that was lost and is back.
fn is_past(replica: &Replica, failure: &Failure) -> bool {
    replica.state == ReplicaState::Registered && failure.reason == Reason::LocationLost
}

/// Whether a store answers its prober, or, where that has nothing to ask for, those who try to copy to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreHealth {
    Up,
    Down,
    /// It was not asked yet, or there is no registered copy yet to ask for and none failed for want of an answer.
    Unknown,
}

impl From<Answers> for StoreHealth {
    fn from(answers: Answers) -> Self {
        match answers {
            Answers::Yes => Self::Up,
            Answers::No => Self::Down,
            Answers::Unknown => Self::Unknown,
        }
    }
}

/// How far the draining of a store has come (`mimeo drain STORE`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainReport {
    pub store: StoreName,
    /// Since when it is drained; null: it is not.
    pub since: Option<Timestamp>,
    /// Images of which there is something at the store. None: it is empty, and may be switched off.
    pub left: Vec<DrainEntry>,
}

/// An image of which there is something at a store that is drained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainEntry {
    pub image: ImageId,
    pub name: Option<String>,
    /// Why it is still there.
    pub reason: ReasonReport,
}

/// What came of a renaming (`mimeo stores rename`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenameReport {
    /// Images whose copy is the new store's now.
    pub followed: u64,
    /// Images that are at work now: the command is to be given again for them.
    pub busy: u64,
    /// Images that have a copy under both names, and keep both.
    pub both: u64,
}

/// What a move began (`mimeo stores move`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveReport {
    /// Copies that are proven at the new place now.
    pub copies: u64,
}

/// `serve` at a glance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Overview {
    pub version: String,
    pub observe: bool,
    pub images: u64,
    /// How many images are in which state.
    pub states: std::collections::BTreeMap<ImageState, u64>,
    pub events: Option<EventsReport>,
    pub last_scan: Option<Timestamp>,
    /// Why the ledger takes nothing, the last look at the image service failed, or images cannot be seen, if so.
    pub trouble: Option<ReasonReport>,
    /// Stores that do not answer.
    pub stores_down: Vec<StoreName>,
    /// Images of which another writer keeps removing a location of Mimeo's.
    pub contested: u64,
    /// Deletions that wait for `mimeo gc --confirm`.
    pub held_deletes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsReport {
    pub connected: bool,
    pub received: u64,
    pub bad: u64,
    pub last_error: Option<String>,
}

impl From<EventsState> for EventsReport {
    fn from(state: EventsState) -> Self {
        let EventsState { connected, received, bad, last_error } = state;
        Self { connected, received, bad, last_error }
    }
}

/// What the sweeper would remove, or what it holds back (`mimeo gc`): a page of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcReport {
    /// True: more deletions than the guard lets through; they wait for `--confirm`.
    pub held: bool,
    /// Objects on this page that no record knew when their store was listed; they wait for `--confirm` too.
    pub found: u64,
    /// When the list was made: to confirm it is to confirm what was to go by then.
    pub as_of: Timestamp,
    pub entries: Vec<GcEntry>,
    /// The image behind which the next page begins. Answers say it as a path.
    #[serde(skip)]
    pub next: Option<ImageId>,
}

impl GcReport {
    /// With the page behind it. The whole is as old as its beginning.
    #[must_use]
    pub fn and(mut self, page: Self) -> Self {
        self.entries.extend(page.entries);
        Self { held: self.held || page.held, found: self.found + page.found, next: page.next, ..self }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcEntry {
    pub image: ImageId,
    pub name: Option<String>,
    pub store: StoreName,
    pub object: String,
    /// When it may be removed.
    pub due: Timestamp,
    /// True: not before `--confirm`.
    pub held: bool,
    pub why: String,
}

/// What would be done about one replica (`mimeo plan`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedAction {
    pub image: ImageId,
    pub name: Option<String>,
    /// `None`: the image is to be nowhere.
    pub store: Option<StoreName>,
    /// `copy`, `ask`, `prove`, `register`, `wait` or `none`.
    pub action: String,
    pub why: String,
}

/// The rules, and what each says of the cloud's images (`mimeo rules`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulesReport {
    /// Images that they were asked about.
    pub images: u64,
    /// False: there are more images than are looked at for this.
    pub complete: bool,
    /// None at all: every image goes to every enabled store.
    pub rules: Vec<RuleReport>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleReport {
    pub name: String,
    /// A CEL expression; null matches every image.
    pub when: Option<String>,
    pub stores: Vec<StoreName>,
    /// Any so many of the stores; null: all of them.
    pub copies: Option<usize>,
    /// Images that match.
    pub matches: u64,
    /// Images for which the expression cannot be answered, which is as if they did not match.
    pub fails: u64,
    /// Why not, of one of those.
    pub failure: Option<String>,
}

/// What a rule would do, if it stood beside the others (`POST /v1/rules/try`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialReport {
    /// Images that it was asked about.
    pub images: u64,
    /// False: there are more images than are looked at for this.
    pub complete: bool,
    pub matches: u64,
    pub fails: u64,
    pub failure: Option<String>,
    /// The first of the images that match.
    pub matching: Vec<TrialEntry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialEntry {
    pub image: ImageId,
    pub name: Option<String>,
    /// Where the rule would have it.
    pub stores: Vec<StoreName>,
    /// Those of them where no rule wants it now.
    pub new: Vec<StoreName>,
}

/// A line of an image's history, as it is told to those who listen (`GET /v1/events`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeReport {
    pub image: ImageId,
    /// The image's own state by now; null: it was forgotten.
    pub image_state: Option<ImageState>,
    #[serde(flatten)]
    pub line: HistoryReport,
}
