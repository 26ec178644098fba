//! What the simulation saw with its own eyes, against which the engine's word is held.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use mimeo_core::{Image, ImageId, ImageStatus, ObjectName};
use tokio::time::Instant;

/// An object at a store.
pub(crate) type Place = (usize, ObjectName);

#[derive(Default)]
pub(crate) struct Witness {
    /// Closed objects that were read back as the image's very bytes since.
    proven: BTreeSet<Place>,
    /// Objects that somebody writes.
    pub(crate) writing: Vec<Place>,
    /// Of the proven, those of which a store has told something else, and the engine has noted nothing of it yet.
    unnoted: BTreeSet<Place>,
    /// Objects of which a store has told something else than what the image is.
    suspects: BTreeSet<Place>,
    /// When a probe last gave the right size.
    answered: BTreeMap<Place, Instant>,
    /// Objects that images' locations name, and since when each does.
    named: BTreeMap<(Place, ImageId), Instant>,
    /// What the engine was last shown of each image, the newest first.
    looks: BTreeMap<ImageId, VecDeque<Sight>>,
    /// When each image was last marked in the ledger, by the number of the step.
    pub(crate) marked: BTreeMap<ImageId, u64>,
    /// When images' copies began to be removed without an operator's word.
    pub(crate) removals: BTreeMap<ImageId, Instant>,
    /// An operator has let what is to go through.
    pub(crate) confirmed: bool,
    /// The images on which a PATCH is under way.
    pub(crate) windows: Vec<ImageId>,
    /// Those on which only an engine that died had one under way, and that none has looked at since.
    pub(crate) orphaned: Vec<ImageId>,
    /// Objects that somebody else put there, under names like Mimeo's.
    pub(crate) planted: BTreeSet<Place>,
    /// Objects of which the bits went bad, or away, behind everybody's back, and since when.
    pub(crate) spoiled: BTreeMap<Place, Instant>,
    /// Objects that Glance removed with a location that named them, and when.
    pub(crate) taken_away: BTreeMap<Place, Instant>,
    /// When copies were last seen to wait for their images' own sake.
    hopeless: BTreeMap<(usize, ImageId), Instant>,
    /// What was there when the ledger was lost, and a store that cannot be listed does not tell of.
    pub(crate) forgotten: BTreeSet<Place>,
}

/// What one look showed; nothing where it found no image.
#[derive(Default)]
pub(crate) struct Sight {
    pub(crate) active: bool,
    pub(crate) importing: bool,
    pub(crate) urls: Vec<String>,
    pub(crate) backends: BTreeSet<String>,
}

/// As long as the engine may wait, before a PATCH, for the slowest of its probes, and then look.
const PROBE_LIMIT: Duration = Duration::from_secs(3);

impl Witness {
    /// Whether the copy waits for its image's own sake, or did so a while ago.
    pub(crate) fn is_hopeless(&mut self, copy: &(usize, ImageId), is_now: bool, a_while: Duration) -> bool {
        if is_now {
            self.hopeless.insert(copy.clone(), Instant::now());
        }
        self.hopeless.get(copy).is_some_and(|at| at.elapsed() < a_while)
    }

    pub(crate) fn written(&mut self, place: &Place) {
        self.proven.remove(place);
        self.unnoted.remove(place);
        self.answered.remove(place);
    }

    pub(crate) fn read_back(&mut self, place: &Place, is_right: bool) {
        if is_right {
            self.proven.insert(place.clone());
        } else {
            if self.proven.remove(place) {
                self.unnoted.insert(place.clone());
            }
            self.suspects.insert(place.clone());
        }
    }

    /// Nobody writes it any more.
    pub(crate) fn left(&mut self, place: &Place) {
        let at = self.writing.iter().position(|written| written == place);
        at.map(|at| self.writing.swap_remove(at));
    }

    /// The engine has noted what became of the copy.
    pub(crate) fn noted(&mut self, place: &Place) {
        self.unnoted.remove(place);
    }

    /// What the engine read last, and could not note any more, nobody knows.
    pub(crate) fn dies(&mut self) {
        self.proven.append(&mut self.unnoted);
        self.orphaned.clone_from(&self.windows);
    }

    /// When a copy of the image at this store last went bad, or away, by itself.
    pub(crate) fn went_bad(&self, at: usize, image: &ImageId) -> Option<Instant> {
        let its = self
            .spoiled
            .iter()
            .chain(&self.taken_away)
            .filter(|((store, object), _)| *store == at && object.image() == *image);
        its.map(|(_, at)| *at).max()
    }

    /// The store has said that it is not there.
    pub(crate) fn missed(&mut self, place: &Place) {
        self.suspects.insert(place.clone());
    }

    pub(crate) fn is_suspect(&self, place: &Place) -> bool {
        self.suspects.contains(place)
    }

    pub(crate) fn is_proven(&self, place: &Place) -> bool {
        self.proven.contains(place)
    }

    /// True: it has the right size. False: another, or none. `None`: no answer.
    pub(crate) fn probed(&mut self, place: &Place, is_right: Option<bool>) {
        match is_right {
            Some(true) => drop(self.answered.insert(place.clone(), Instant::now())),
            // Who asked a moment before, and was answered, cannot know of it: a PATCH waits for the slowest of its probes.
            None if self.answered(place).is_some_and(|at| at.elapsed() <= PROBE_LIMIT) => {}
            _ => drop(self.answered.remove(place)),
        }
        if is_right == Some(false) {
            self.suspects.insert(place.clone());
        }
    }

    pub(crate) fn answered(&self, place: &Place) -> Option<Instant> {
        self.answered.get(place).copied()
    }

    /// The ledger knows nothing of these any more, nor of what was removed lately.
    pub(crate) fn loses_ledger(&mut self, forgotten: Vec<Place>) {
        self.forgotten.extend(forgotten);
        self.removals.clear();
    }

    /// An operator lets through what is to go.
    pub(crate) fn confirm(&mut self) {
        self.removals.clear();
        self.confirmed = true;
    }

    /// These are the objects that are named now, and by which images.
    pub(crate) fn named(&mut self, now: Vec<(Place, ImageId)>) {
        let before = std::mem::take(&mut self.named);
        let since = |name: &(Place, ImageId)| before.get(name).copied().unwrap_or_else(Instant::now);
        self.named = now.into_iter().map(|name| (name.clone(), since(&name))).collect();
    }

    pub(crate) fn named_since(&self, place: &Place) -> Option<Instant> {
        self.named.iter().filter(|((named, _), _)| named == place).map(|(_, since)| *since).min()
    }

    /// By another image than this one.
    pub(crate) fn named_beside(&self, place: &Place, image: &ImageId) -> Option<Instant> {
        let others = self.named.iter().filter(|((named, by), _)| named == place && by != image);
        others.map(|(_, since)| *since).min()
    }

    pub(crate) fn showed(&mut self, id: &ImageId, image: Option<&Image>) {
        self.orphaned.retain(|orphaned| orphaned != id);
        let sight = image.map_or_else(Sight::default, |image| Sight {
            active: image.status == ImageStatus::Active,
            importing: image.importing,
            urls: image.locations.iter().map(|location| location.url.clone()).collect(),
            backends: image.backends.clone(),
        });
        let looks = self.looks.entry(id.clone()).or_default();
        looks.push_front(sight);
        looks.truncate(3);
    }

    /// The last looks at the image, the newest first.
    pub(crate) fn looks(&self, id: &ImageId) -> impl Iterator<Item = &Sight> {
        self.looks.get(id).into_iter().flatten()
    }
}
