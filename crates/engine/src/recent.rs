//! What others changed while a PATCH of ours was under way, and lost by it.
//!
//! Glance's PATCH writes the whole image back as it was loaded, so a change that another made meanwhile is undone
//! without a word to anyone, and a read afterwards does not show it. The other's `image.update` event does: a value in
//! it that differs from before the PATCH, and that is gone after it, was undone.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use mimeo_core::{Image, ImageId, ImageStatus, Reason, Result, Snapshot, Timestamp, Visibility, ports::Undone};
use tokio::time::Instant;

/// An event is expected within this time after its change.
const MEMORY: Duration = Duration::from_secs(30);
/// Glance may go on so long with a PATCH whose answer nobody waits for any more: one of its URLs hangs, and then answers.
const UNANSWERED: Duration = Duration::from_mins(2);
/// An image of which there may be more to find is looked at so often: at first, and after `MEMORY`.
const WATCHED_EVERY: Duration = Duration::from_secs(5);
const WATCHED_LATER: Duration = Duration::from_secs(20);
/// An event on its way while the PATCH ends.
const LATE: Duration = Duration::from_secs(2);

pub(crate) struct Recent {
    /// When this process began.
    began: Instant,
    /// In the time after that in which a PATCH from before it may be finished.
    looked_at: Mutex<BTreeSet<ImageId>>,
    stories: Mutex<BTreeMap<ImageId, Story>>,
    patches: AtomicU64,
}

#[derive(Default)]
struct Story {
    patches: Vec<Patch>,
    events: Vec<(Instant, Snapshot)>,
}

struct Patch {
    number: u64,
    began: Instant,
    /// What came until then was told already.
    told: Option<Instant>,
    ended: Option<Instant>,
    /// From then on no answer was waited for.
    given_up: Option<Instant>,
    /// Glance says that it wrote the image: then one of the events is our own.
    is_written: bool,
    /// Nobody knows whether it was ever sent, nor what the image was then.
    is_inherited: bool,
    before: Snapshot,
    outlived: Outlived,
    /// There is more to find once its events have come.
    waits: bool,
    /// What was put back meanwhile: an event that brings it may be our own.
    put_back: Undone,
}

/// Of which another's change was seen to stand after the PATCH.
#[derive(Default)]
struct Outlived {
    visibility: bool,
    protected: bool,
    status: bool,
}

/// A PATCH under way.
pub(crate) struct Open {
    image: ImageId,
    number: u64,
}

/// What is to be put back, and what can only be told.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Findings {
    pub(crate) undone: Undone,
    pub(crate) reports: Vec<String>,
    /// There is more to find once its events have come.
    waits: bool,
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            looked_at: Mutex::default(),
            stories: Mutex::default(),
            patches: AtomicU64::default(),
        }
    }
}

impl Recent {
    /// At this process's first look a copy of the image waits to be registered (or to be withdrawn): the process before this
    /// one may have sent a PATCH for it, which Glance is still at work on.
    pub(crate) fn inherit(&self, image: &Image, waits: bool) {
        let (mut looked_at, is_late) = (lock(&self.looked_at), self.began.elapsed() >= MEMORY);
        if is_late {
            looked_at.clear();
        } else if looked_at.insert(image.id.clone()) && waits {
            let patch = Patch { is_inherited: true, began: self.began, ..Patch::new(self.number(), image) };
            self.lock().entry(image.id.clone()).or_default().patches.push(patch);
        }
    }

    pub(crate) fn open(&self, before: &Image) -> Open {
        let (image, number) = (before.id.clone(), self.number());
        let patch = Patch::new(number, before);
        self.lock().entry(image.clone()).or_default().patches.push(patch);
        Open { image, number }
    }

    /// What was undone has been put back. From then on it is its owner's: in doubt it is told, and not put back again. But
    /// of several that had no answer each PATCH may undo it, so one of them is made out to have done it.
    pub(crate) fn has_put_back(&self, image: &ImageId, undone: &Undone) {
        let mut is_made_out = false;
        for patch in self.lock().get_mut(image).into_iter().flat_map(|story| &mut story.patches) {
            let is_unanswered = patch.ended.is_none() && !patch.is_inherited;
            if is_unanswered && is_made_out {
                // What was told of it is what it may do yet.
                patch.told = None;
                continue;
            }
            let before = patch.put_back.clone();
            join(&mut patch.put_back, undone);
            is_made_out |= is_unanswered && patch.put_back != before;
        }
    }

    /// The PATCH was answered, or given up. One that was refused has undone nothing; without an answer Glance may still
    /// finish it.
    pub(crate) fn close(&self, open: &Open, outcome: &Result<()>) {
        let mut stories = self.lock();
        let Some(patches) = stories.get_mut(&open.image).map(|story| &mut story.patches) else { return };
        let Some(at) = patches.iter().position(|patch| patch.number == open.number) else { return };
        match outcome.as_ref().map_err(|error| (error.reason, error.is_unsent())) {
            Ok(()) => (patches[at].ended, patches[at].is_written) = (Some(Instant::now()), true),
            Err((Reason::ImageServiceUnreachable, false)) => patches[at].given_up = Some(Instant::now()),
            Err((Reason::ImageServiceError, false)) => patches[at].ended = Some(Instant::now()),
            Err(_) => drop(patches.remove(at)),
        }
    }

    /// In what time to look again, as there may be something to find though no event comes: where Glance may still finish a
    /// PATCH that nobody waits for, or an event is awaited.
    pub(crate) fn looks_in(&self, image: &ImageId) -> Option<Duration> {
        self.lock().get(image)?.patches.iter().filter_map(Patch::looks_in).min()
    }

    /// Remembers an event's snapshot for as long as a PATCH near it may matter.
    pub(crate) fn note(&self, image: &ImageId, mut snapshot: Snapshot) {
        snapshot.tags.sort_unstable();
        let mut stories = self.lock();
        stories.retain(|_, story| story.is_fresh());
        stories.entry(image.clone()).or_default().events.push((Instant::now(), snapshot));
    }

    /// Compares the image as it is now with the events around each PATCH of ours. What is found is told once.
    pub(crate) fn findings(&self, now: &Image) -> Findings {
        let mut stories = self.lock();
        let Some(story) = stories.get_mut(&now.id) else { return Findings::default() };
        // Each PATCH is remembered as long as events of its time may come: it may have undone more than is known yet.
        story.findings(&now.snapshot())
    }

    fn number(&self) -> u64 {
        self.patches.fetch_add(1, Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ImageId, Story>> {
        lock(&self.stories)
    }
}

fn lock<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Story {
    fn is_fresh(&self) -> bool {
        let newest_event = self.events.last().map(|(at, _)| *at);
        let newest_patch = self.patches.last().map(|patch| patch.began);
        newest_event.max(newest_patch).is_some_and(|at| at.elapsed() < MEMORY) || self.oldest_open().is_some()
    }

    /// When the first of those requests began of which there may be more to find.
    fn oldest_open(&self) -> Option<Instant> {
        self.patches.iter().filter(|patch| patch.is_open_for_events()).map(|patch| patch.began).min()
    }

    fn findings(&mut self, now: &Snapshot) -> Findings {
        let oldest = self.oldest_open();
        self.events.retain(|(at, _)| at.elapsed() < MEMORY || oldest.is_some_and(|began| *at >= began));
        let mut findings = Findings::default();
        let unanswered: Vec<u64> =
            self.patches.iter().filter(|patch| patch.ended.is_none()).map(|patch| patch.number).collect();
        for patch in &mut self.patches {
            let mut found = Findings::default();
            let is_alone = unanswered.iter().all(|number| *number == patch.number);
            found.merge(patch, &self.events, is_alone, now);
            patch.waits = mem::take(&mut found.waits);
            if found != Findings::default() && !patch.waits {
                patch.told = Some(Instant::now());
            }
            findings.add(found);
        }
        // Where every event must have come there is nothing left to find.
        self.patches.retain(Patch::is_open_for_events);
        self.patches.iter_mut().for_each(|patch| patch.outlived_by(now));
        findings
    }
}

impl Patch {
    fn new(number: u64, before: &Image) -> Self {
        let (began, before) = (Instant::now(), before.snapshot());
        Self {
            number,
            began,
            told: None,
            ended: None,
            given_up: None,
            is_written: false,
            is_inherited: false,
            before,
            outlived: Outlived::default(),
            waits: false,
            put_back: Undone::default(),
        }
    }

    fn is_open_for_events(&self) -> bool {
        match self.ended {
            Some(ended) => ended.elapsed() < LATE,
            None if self.is_inherited => self.began.elapsed() < MEMORY,
            // Under way, or without an answer: Glance may still finish it.
            None => self.given_up.unwrap_or(self.began + MEMORY).elapsed() < UNANSWERED,
        }
    }

    fn looks_in(&self) -> Option<Duration> {
        let is_awaited = self.waits && self.ended.is_some_and(|ended| ended.elapsed() < MEMORY);
        let may_end = self.ended.is_none() && self.is_open_for_events();
        let is_fresh = self.given_up.unwrap_or(self.began).elapsed() < MEMORY;
        (is_awaited || may_end).then_some(if is_fresh { WATCHED_EVERY } else { WATCHED_LATER })
    }

    /// A change of another's that has outlived the PATCH was not undone by it, whoever takes it back later.
    fn outlived_by(&mut self, now: &Snapshot) {
        if self.ended.is_some() {
            self.outlived.visibility |= self.before.visibility != now.visibility;
            self.outlived.protected |= self.before.protected != now.protected;
            self.outlived.status |= self.before.status != now.status;
        }
    }

    /// The last value that an event brought while this PATCH ran and that the image no longer has; and whether other
    /// writers' events, or requests without an answer, leave a doubt that it was undone by accident.
    fn lost<T: PartialEq>(
        &self,
        events: &[(Instant, Snapshot)],
        is_alone: bool,
        now: &Snapshot,
        of: impl Fn(&Snapshot) -> T,
    ) -> Option<(T, Evidence)> {
        let before = of(if self.is_inherited { now } else { &self.before });
        let until = self.ended.unwrap_or_else(Instant::now);
        let meanwhile: Vec<(Instant, Timestamp, T)> = events
            .iter()
            .filter(|(at, _)| *at >= self.began && Some(*at) > self.told)
            // One from before was on its way for long: its sender's change is in `before` already.
            .filter(|(_, event)| self.is_inherited || event.updated_at >= self.before.updated_at)
            .map(|(at, event)| (*at, event.updated_at, of(event)))
            .collect();
        let last = meanwhile.iter().rposition(|(at, _, value)| *at <= until + LATE && *value != before)?;
        if of(now) != before {
            return None;
        }
        // A backlog of events is older than any PATCH that Glance may be at work on.
        let (saved, written) = (meanwhile[last].1, meanwhile.get(last + 1).map_or(now.updated_at, |(_, at, _)| *at));
        if self.is_inherited && written > saved.saturating_add(MEMORY).unwrap_or(Timestamp::MAX) {
            return None;
        }
        // One event after it is our own PATCH's, unless the image was written again after that event.
        let is_anothers = |(_, updated_at, _): &(Instant, Timestamp, T)| *updated_at < now.updated_at;
        let is_taken_back = meanwhile.get(last + 1).is_some_and(is_anothers) || {
            // Events may overtake each other.
            let (earlier, saved) = (&meanwhile[..last], meanwhile[last].1);
            earlier.iter().any(|(_, updated_at, value)| *value == before && *updated_at >= saved)
        };
        let is_late = meanwhile[last].0 > until;
        // Another PATCH of ours, without an answer, may have written back by now whatever it had loaded.
        let is_sure = is_alone && !self.is_inherited && !is_late && !is_taken_back;
        let evidence = match meanwhile.len() - last {
            count if self.is_inherited && count > 1 => Evidence::Explained,
            _ if self.is_written && self.is_open_for_events() => Evidence::Early,
            2 if self.is_written && is_sure => Evidence::Sure,
            _ => Evidence::Doubtful,
        };
        meanwhile.into_iter().nth(last).map(|(_, _, value)| (value, evidence))
    }
}

/// What speaks for it that a value was undone by accident.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Evidence {
    /// Our own PATCH's event is the only one behind it.
    Sure,
    /// It may also have been changed back on purpose.
    Doubtful,
    /// An event tells of that, and nobody knows of a PATCH.
    Explained,
    /// Events are on their way: our own PATCH's at least, perhaps that of whoever changed it back.
    Early,
}

impl Evidence {
    /// In doubt the stricter value wins, at once. What else is put back, or told, is to be more than a guess.
    fn is_enough(self, is_stricter: bool) -> bool {
        is_stricter || matches!(self, Self::Sure | Self::Doubtful)
    }
}

impl Findings {
    fn heeds(&mut self, evidence: Evidence, is_stricter: bool) -> bool {
        let heeds = evidence.is_enough(is_stricter);
        self.waits |= !heeds && evidence == Evidence::Early;
        heeds
    }

    fn add(&mut self, more: Self) {
        join(&mut self.undone, &more.undone);
        // Several PATCHes of one time tell the same.
        self.reports.extend(more.reports);
        self.reports.sort_unstable();
        self.reports.dedup();
    }

    /// In doubt the stricter value wins: an image that its owner made private must not become public again because of
    /// Mimeo, while one that stays private for too long can be opened by a word.
    fn merge(&mut self, patch: &Patch, events: &[(Instant, Snapshot)], is_alone: bool, now: &Snapshot) {
        if let Some((visibility, evidence)) = patch.lost(events, is_alone, now, |event| event.visibility)
            && let is_stricter = openness(visibility) < openness(now.visibility)
            && !patch.outlived.visibility
            && self.heeds(evidence, is_stricter)
        {
            let is_first = patch.put_back.visibility != Some(visibility);
            match is_first && (is_stricter || evidence == Evidence::Sure) {
                true => self.undone.visibility = Some(visibility),
                false => self.reports.push(format!("visibility={visibility}")),
            }
        }
        if let Some((protected, evidence)) = patch.lost(events, is_alone, now, |event| event.protected)
            && !patch.outlived.protected
            && self.heeds(evidence, protected)
        {
            let is_first = patch.put_back.protected != Some(protected);
            match is_first && (protected || evidence == Evidence::Sure) {
                true => self.undone.protected = Some(protected),
                false => self.reports.push(format!("protected={protected}")),
            }
        }
        let is_first = patch.put_back.deactivated != Some(true);
        match patch.lost(events, is_alone, now, |event| event.status).filter(|_| !patch.outlived.status) {
            Some((ImageStatus::Deactivated, _)) if is_first => self.undone.deactivated = Some(true),
            // All others are Glance's own way from the upload on, of which an event may come late.
            Some((status @ (ImageStatus::Active | ImageStatus::Deactivated), evidence))
                if self.heeds(evidence, status == ImageStatus::Deactivated) =>
            {
                self.reports.push(format!("status={status}"));
            }
            _ => {}
        }
        if let Some((name, evidence)) = patch.lost(events, is_alone, now, |event| event.name.clone())
            && evidence != Evidence::Explained
        {
            self.reports.push(format!("name={:?}", name.unwrap_or_default()));
        }
        if let Some((tags, evidence)) = patch.lost(events, is_alone, now, |event| event.tags.clone())
            && evidence != Evidence::Explained
        {
            self.reports.push(format!("tags={tags:?}"));
        }
        if let Some((properties, evidence)) = patch.lost(events, is_alone, now, |event| event.properties.clone())
            && evidence != Evidence::Explained
        {
            let changed = properties.iter().filter(|(key, value)| now.properties.get(*key) != Some(*value));
            let removed = now.properties.keys().filter(|key| !properties.contains_key(*key));
            let keys: Vec<&String> = changed.map(|(key, _)| key).chain(removed).collect();
            self.reports.push(format!("the properties {keys:?}"));
        }
    }
}

/// The later word counts.
fn join(all: &mut Undone, more: &Undone) {
    let &Undone { visibility, protected, deactivated } = more;
    all.visibility = visibility.or(all.visibility);
    all.protected = protected.or(all.protected);
    all.deactivated = deactivated.or(all.deactivated);
}

/// How many may see an image: the less the stricter.
fn openness(visibility: Visibility) -> u8 {
    match visibility {
        Visibility::Private => 0,
        Visibility::Shared => 1,
        Visibility::Community => 2,
        Visibility::Public => 3,
    }
}

/// For the log: what is put back.
pub(crate) fn describe(undone: &Undone) -> String {
    let visibility = undone.visibility.map(|visibility: Visibility| format!("visibility={visibility}"));
    let protected = undone.protected.map(|protected| format!("protected={protected}"));
    let status = undone.deactivated.map(|yes| if yes { "deactivated".to_owned() } else { "reactivated".to_owned() });
    [visibility, protected, status].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
