//! A line per change of state, where nobody draws bars.

use std::collections::HashMap;

use mimeo_core::{ReplicaState, StoreName};
use mimeo_engine::{Phase, Progress, status::ReplicaReport};

use crate::cli::visible;

/// What was told last: a message that differs in an object's name only is not worth another line.
#[derive(Default)]
pub(super) struct Lines(HashMap<StoreName, Told>);

type Told = (String, Option<String>);

impl Lines {
    /// Tells `write` what changed at this store since the last call.
    pub(super) fn show(&mut self, replica: &ReplicaReport, write: impl FnOnce(&str)) {
        let told = (state(replica), replica.reason.as_ref().map(|reason| reason.code.clone()));
        if self.0.get(&replica.store) != Some(&told) {
            write(&line(replica));
            self.0.insert(replica.store.clone(), told);
        }
    }
}

/// `http1 copying`, `http1 registered http://…`, `http2 failed store-full: no room`.
fn line(replica: &ReplicaReport) -> String {
    let more = match (replica.state, &replica.reason) {
        (ReplicaState::Registered, _) => replica.location.clone(),
        (_, reason) => reason.as_ref().map(|reason| format!("{}: {}", reason.code, reason.message)),
    };
    let parts = [Some(replica.store.to_string()), Some(state(replica)), more];
    visible(&parts.into_iter().flatten().collect::<Vec<_>>().join(" "))
}

fn state(replica: &ReplicaReport) -> String {
    match (replica.state, replica.progress) {
        (ReplicaState::Registered, _) | (_, None) => replica.state.to_string(),
        (_, Some(Progress { phase: Phase::Copying, .. })) => "copying".to_owned(),
        (_, Some(Progress { phase: Phase::Proving, .. })) => "proving".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_told_once() {
        let mut replica = ReplicaReport {
            store: "http1".parse().unwrap(),
            state: ReplicaState::Copying,
            wanted: true,
            location: Some("http://h/x".into()),
            proof: None,
            proven_at: None,
            seen_at: None,
            reason: None,
            next_try: None,
            progress: None,
        };
        let (mut lines, mut told) = (Lines::default(), Vec::new());
        lines.show(&replica, |line| told.push(line.to_owned()));
        replica.progress = Some(Progress { phase: Phase::Copying, bytes: 1, total: None });
        lines.show(&replica, |line| told.push(line.to_owned()));
        replica.progress = Some(Progress { phase: Phase::Proving, bytes: 1, total: None });
        lines.show(&replica, |line| told.push(line.to_owned()));
        replica.state = ReplicaState::Registered;
        lines.show(&replica, |line| told.push(line.to_owned()));
        assert_eq!(told, ["http1 copying", "http1 proving", "http1 registered http://h/x"]);
    }
}
