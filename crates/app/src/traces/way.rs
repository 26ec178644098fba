//! Which lines of a history belong to the image's last way to its copies.

use mimeo_core::{StoreName, Timestamp};
use mimeo_engine::status::HistoryReport;

use super::is_registered;

/// From what set the copies in motion to the last one that was registered.
#[derive(Debug, PartialEq)]
pub(super) struct Way<'a> {
    pub begin: Timestamp,
    pub end: Timestamp,
    /// What was told of the image itself on its way.
    pub image: Vec<&'a HistoryReport>,
    pub copies: Vec<CopyWay<'a>>,
}

/// One copy's states, until it was registered.
#[derive(Debug, PartialEq)]
pub(super) struct CopyWay<'a> {
    pub store: &'a StoreName,
    /// At least one.
    pub states: Vec<&'a HistoryReport>,
    pub end: Timestamp,
}

impl CopyWay<'_> {
    pub(super) fn begin(&self) -> Timestamp {
        self.states.first().map_or(self.end, |line| line.since)
    }
}

/// The ways of copies that were under way at the same time are one. `None`: no copy was on its way.
pub(super) fn way(history: &[HistoryReport]) -> Option<Way<'_>> {
    let mut stores: Vec<&StoreName> = Vec::new();
    for store in history.iter().filter_map(|line| line.store.as_ref()) {
        if !stores.contains(&store) {
            stores.push(store);
        }
    }
    let mut ways: Vec<CopyWay<'_>> = stores.into_iter().filter_map(|store| copy_way(history, store)).collect();
    // The last to end is the first that counts; before it, each that ended after the others had begun.
    ways.sort_by_key(|way| way.end);
    let end = ways.last()?.end;
    let (mut begin, mut copies) = (end, Vec::new());
    while let Some(way) = ways.pop_if(|way| way.end >= begin) {
        begin = begin.min(way.begin());
        copies.push(way);
    }
    copies.reverse();
    // What was told of the image last, before that, set them in motion, if no copy arrived since.
    let first = history.iter().position(|line| line.store.is_some() && line.since >= begin)?;
    let cause = history[..first].iter().rposition(|line| line.store.is_none() || is_registered(line));
    let cause = cause.filter(|at| history[*at].store.is_none());
    let begin = cause.map_or(begin, |at| history[at].since.min(begin));
    let of_image = |line: &&HistoryReport| line.store.is_none() && line.since >= begin && line.since <= end;
    let image = history[cause.unwrap_or(first)..].iter().filter(of_image).collect();
    Some(Way { begin, end, image, copies })
}

/// What became of the copy between the last two times that it was registered.
fn copy_way<'a>(history: &'a [HistoryReport], store: &'a StoreName) -> Option<CopyWay<'a>> {
    let lines: Vec<&HistoryReport> = history.iter().filter(|line| line.store.as_ref() == Some(store)).collect();
    let last = lines.iter().rposition(|line| is_registered(line))?;
    let before = lines[..last].iter().rposition(|line| is_registered(line)).map_or(0, |at| at + 1);
    let states = lines[before..last].to_vec();
    (!states.is_empty()).then(|| CopyWay { store, states, end: lines[last].since })
}
