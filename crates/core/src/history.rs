//! The history of one image: what became of it and of each of its copies, in lines that a person reads.
//!
//! It is derived from the changes that a ledger commits, in the same transaction. Every ledger does it by these rules.

use crate::{Failure, ImageRow, Reason, Replica, ReplicaState, StoreName, Timestamp};

/// So many lines of one image are kept, the newest.
pub const HISTORY_LINES: usize = 200;

/// For so long the history of an image is kept, at least, after the ledger has forgotten the image.
pub const HISTORY_KEPT: std::time::Duration = std::time::Duration::from_hours(30 * 24);

/// The state of an image's last line: nothing of it is left anywhere.
pub const FORGOTTEN: &str = "forgotten";

/// One line. A failure that comes again and again is one line, with the first and the last time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryLine {
    /// When it was written down last, by the ledger's own clock.
    pub at: Timestamp,
    /// When it was so first; earlier than `at` for what came again.
    pub since: Timestamp,
    /// How often it came in a row.
    pub times: u32,
    pub what: HistoryState,
}

/// What a line says; the same again makes no new one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryState {
    /// `None`: of the image itself.
    pub store: Option<StoreName>,
    /// A replica's state, or Glance's status of the image; `deleted`, [`FORGOTTEN`].
    pub state: String,
    pub reason: Option<Reason>,
    pub message: Option<String>,
}

/// What a new state makes of the newest lines of its subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HistoryStep {
    Nothing,
    /// The `replaces` newest lines of the subject go, and this one comes at the end.
    Add {
        line: HistoryLine,
        replaces: usize,
    },
}

impl HistoryState {
    /// What the image's row says. The stores that are wanted count: why a copy came or went is often there.
    pub fn of_image(row: &ImageRow) -> Self {
        let state = match row.gone_at {
            Some(_) => "deleted".to_owned(),
            None => row.status.clone().unwrap_or_else(|| "unknown".into()),
        };
        let wanted = || match row.wanted.as_slice() {
            [] => "wanted nowhere".to_owned(),
            stores => format!("wanted at {}", stores.iter().map(StoreName::as_str).collect::<Vec<_>>().join(", ")),
        };
        let (reason, said) = told(row.trouble.as_ref());
        let is_known = row.gone_at.is_none() && row.status.is_some();
        Self { store: None, state, reason, message: said.or_else(|| is_known.then(wanted)) }
    }

    pub fn of_replica(replica: &Replica) -> Self {
        // What failed before is no reason for what is tried now.
        let is_anew = matches!(replica.state, ReplicaState::Copying);
        let (reason, message) = told(replica.failure.as_ref().filter(|_| !is_anew));
        Self { store: Some(replica.store.clone()), state: replica.state.to_string(), reason, message }
    }

    pub fn forgotten() -> Self {
        let message = Some("nothing of it is left anywhere".into());
        Self { store: None, state: FORGOTTEN.into(), reason: None, message }
    }

    /// Whether both are the same line. The words of a failure differ from time to time, its reason does not.
    fn is(&self, other: &Self) -> bool {
        let is_the_words = self.reason.is_some() || self.message == other.message;
        self.store == other.store && self.state == other.state && self.reason == other.reason && is_the_words
    }
}

/// `newest` are the subject's last lines, the newest first; two are enough. `tries` is how often it failed in a row.
pub fn follow(newest: &[HistoryLine], what: &HistoryState, tries: u32, now: Timestamp) -> HistoryStep {
    let times = if what.reason.is_some() { tries.max(1) } else { 1 };
    let add = |since, replaces| HistoryStep::Add {
        line: HistoryLine { at: now, since, times, what: what.clone() },
        replaces,
    };
    match newest {
        [last, ..] if last.what.is(what) && last.times == times => HistoryStep::Nothing,
        [last, ..] if last.what.is(what) => add(last.since, 1),
        // Tried again, and failed as before.
        [attempt, before, ..]
            if is_a_try(attempt) && what.reason.is_some() && before.what.is(what) && before.times < times =>
        {
            add(before.since, 2)
        }
        _ => add(now, 0),
    }
}

fn is_a_try(line: &HistoryLine) -> bool {
    line.what.reason.is_none() && line.what.state == ReplicaState::Copying.to_string()
}

fn told(failure: Option<&Failure>) -> (Option<Reason>, Option<String>) {
    (failure.map(|failure| failure.reason), failure.map(|failure| failure.message.clone()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn replica(state: ReplicaState, tries: u32) -> Replica {
        let failure = (tries > 0).then(|| Failure {
            reason: Reason::StoreUnreachable,
            message: format!("no answer ({tries})"),
            tries,
            next_try: None,
        });
        Replica { state, failure, ..Replica::wanted("http1".parse().unwrap()) }
    }

    /// The lines that these states leave, a second apart.
    fn lines(states: &[(ReplicaState, u32)]) -> Vec<HistoryLine> {
        let mut lines: Vec<HistoryLine> = Vec::new();
        for (second, (state, tries)) in (0..).zip(states) {
            let newest: Vec<_> = lines.iter().rev().take(2).cloned().collect();
            let what = HistoryState::of_replica(&replica(*state, *tries));
            if let HistoryStep::Add { line, replaces } = follow(&newest, &what, *tries, at(second)) {
                lines.truncate(lines.len() - replaces);
                lines.push(line);
            }
        }
        lines
    }

    #[test]
    fn a_life_without_failures_is_a_line_for_each_state() {
        use ReplicaState::{Copying, Proven, Registered, Stored};
        let lines = lines(&[(Copying, 0), (Stored, 0), (Stored, 0), (Proven, 0), (Registered, 0), (Registered, 0)]);
        let said: Vec<_> = lines.iter().map(|line| (line.what.state.as_str(), line.at.as_second())).collect();
        assert_eq!(said, [("copying", 0), ("stored", 1), ("proven", 3), ("registered", 4)]);
    }

    #[test]
    fn a_failure_that_comes_again_is_one_line_with_its_first_and_its_last_time() {
        use ReplicaState::{Copying, Failed, Stored};
        let states = [
            (Copying, 0),
            (Failed, 1),
            (Copying, 1),
            (Failed, 2),
            (Copying, 2),
            (Failed, 3),
            (Copying, 3),
            (Stored, 3),
        ];
        let lines = lines(&states);
        let said: Vec<_> = lines.iter().map(|line| (line.what.state.as_str(), line.times)).collect();
        assert_eq!(said, [("copying", 1), ("failed", 3), ("copying", 1), ("stored", 3)]);
        assert_eq!((lines[1].since, lines[1].at), (at(1), at(5)));
        assert_eq!(lines[1].what.message.as_deref(), Some("no answer (3)"), "the newest words");
    }

    #[test]
    fn a_failure_after_a_success_is_a_new_line() {
        use ReplicaState::{Copying, Failed, Registered};
        let lines = lines(&[(Failed, 1), (Registered, 0), (Copying, 0), (Failed, 1)]);
        assert_eq!(lines.len(), 4);
    }

    #[test]
    fn an_image_has_a_line_for_each_status_and_for_other_rules() {
        let row = ImageRow { status: Some("active".into()), ..ImageRow::new(crate::ImageId::nil()) };
        let wanted = ImageRow { wanted: vec!["a".parse().unwrap(), "b".parse().unwrap()], ..row.clone() };
        let gone = ImageRow { gone_at: Some(at(1)), ..wanted.clone() };
        let said = |row: &ImageRow| {
            let what = HistoryState::of_image(row);
            (what.state, what.message.unwrap_or_default())
        };
        assert_eq!(said(&row), ("active".into(), "wanted nowhere".into()));
        assert_eq!(said(&wanted), ("active".into(), "wanted at a, b".into()));
        assert_eq!(said(&gone), ("deleted".into(), String::new()));
        assert!(!HistoryState::of_image(&row).is(&HistoryState::of_image(&wanted)));
    }
}
