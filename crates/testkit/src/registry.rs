mod backstage;
mod source;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use mimeo_core::{
    Error, Image, ImageId, ImageStatus, Location, Reason, Result, Timestamp,
    ports::{Cursor, Page, Registry, Source, Undone},
};

use self::source::FakeSource;
use crate::{FakeStore, sample};

/// Images per page: few, so that a walk over a handful of them has to follow cursors.
const PAGE: usize = 3;

/// What a [`FakeRegistry`] does wrong, from [`FakeRegistry::inject`] until [`FakeRegistry::heal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegistryFault {
    LookFails(Reason),
    /// Everything answers 404 and every list is empty, as they are when Mimeo's user lost its role.
    SeesNothing,
    /// The next look answers 404, and then the role is back.
    BlindOnce,
    SeesAllFails(Reason),
    ListFails(Reason),
    PutBackFails(Reason),
    CopyFails(Reason),
    /// Glance refuses a copy-image that names this store, which it does not have.
    NoSuchBackend(&'static str),
    SourceFails(Reason),
    /// Ends after so many bytes of the image, without an error.
    SourceEndsAt(u64),
    /// Breaks with an error after so many bytes of the image.
    SourceBreaksAt(u64),
    /// Gives so many bytes of the image, then nothing more for ever.
    SourceStallsAt(u64),
    SourceReadsOther,
}

/// How one location PATCH goes.
#[derive(Debug)]
pub enum AddAnswer {
    /// As Glance does it: the record is written back as it was loaded **before** the hook ran, with the locations
    /// added. What the hook changed meanwhile is undone.
    Apply,
    /// Answered with an error; nothing is written.
    Refuse(Error),
    /// Answered with success; the locations are lost.
    Lose,
    /// The answer is lost; the locations are there.
    ApplyAndFail(Error),
}

type AddHook = Box<dyn FnMut(&FakeRegistry, &ImageId, &[Location]) -> AddAnswer + Send>;

/// An image service in memory. Clones share their images.
#[derive(Clone, Default)]
pub struct FakeRegistry(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Apart from the state, because a hook changes that.
    hook: Mutex<Option<AddHook>>,
}

struct State {
    images: BTreeMap<ImageId, Held>,
    faults: Vec<RegistryFault>,
    /// URLs that do not answer; all others do.
    dead_urls: BTreeSet<String>,
    sees_all: bool,
    ticks: i64,
    looks: usize,
    adds: Vec<(ImageId, Vec<Location>)>,
    arrangements: Vec<(ImageId, Vec<Location>, Vec<Location>)>,
    put_backs: Vec<(ImageId, Undone)>,
    /// What it was asked to copy, and to which stores of its own.
    copying: Vec<(ImageId, Vec<String>)>,
    /// Stores that it can write itself.
    reached: Vec<FakeStore>,
}

impl Default for State {
    fn default() -> Self {
        let (images, faults, dead_urls, adds, arrangements, put_backs, copying, reached) = Default::default();
        let (sees_all, ticks, looks) = (true, 0, 0);
        Self { images, faults, dead_urls, sees_all, ticks, looks, adds, arrangements, put_backs, copying, reached }
    }
}

struct Held {
    image: Image,
    bits: Bytes,
    opens: usize,
    read: u64,
}

impl FakeRegistry {
    /// Adds or replaces an image with its bits.
    pub fn insert(&self, image: Image, bits: Bytes) {
        self.lock().images.insert(image.id.clone(), Held { image, bits, opens: 0, read: 0 });
    }

    /// Changes an image as another user would: also moves its `updated_at`.
    pub fn change(&self, id: &ImageId, change: impl FnOnce(&mut Image)) {
        self.update(id, change).expect("an image to change");
    }

    pub fn remove(&self, id: &ImageId) {
        let removed = self.lock().images.remove(id);
        self.remove_bits(&removed.map(|held| held.image.locations).unwrap_or_default());
    }

    /// From now on the bits of a location at this store go when the location is taken out of an image, and when its image
    /// is deleted, whoever else names them; as Glance does it at every store that it can write.
    pub fn reaches(&self, store: &FakeStore) {
        self.lock().reached.push(store.clone());
    }

    fn remove_bits(&self, locations: &[Location]) {
        let reached = self.lock().reached.clone();
        for store in reached {
            let objects = locations.iter().filter_map(|location| store.object_at(&location.url));
            objects.for_each(|object| store.tamper(&object, None));
        }
    }

    /// The image as it is, whatever faults are on.
    pub fn image(&self, id: &ImageId) -> Option<Image> {
        self.lock().images.get(id).map(|held| held.image.clone())
    }

    /// From now on the URL does not answer, so that it is taken for no location.
    pub fn kill_url(&self, url: &str) {
        self.lock().dead_urls.insert(url.to_owned());
    }

    pub fn set_sees_all(&self, sees_all: bool) {
        self.lock().sees_all = sees_all;
    }

    pub fn inject(&self, fault: RegistryFault) {
        self.lock().faults.push(fault);
    }

    /// Ends all faults and takes the hook away.
    pub fn heal(&self) {
        self.lock().faults.clear();
        *self.0.hook.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Runs in the middle of every location PATCH, after the record was loaded and before it is written, with the
    /// locations that are added, or kept.
    pub fn on_add(&self, hook: impl FnMut(&FakeRegistry, &ImageId, &[Location]) -> AddAnswer + Send + 'static) {
        *self.0.hook.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(hook));
    }

    /// Every location PATCH that was sent, whatever came of it.
    pub fn adds(&self) -> Vec<(ImageId, Vec<Location>)> {
        self.lock().adds.clone()
    }

    /// Every PATCH that was to arrange locations: what was to be kept, and what to go.
    pub fn arrangements(&self) -> Vec<(ImageId, Vec<Location>, Vec<Location>)> {
        self.lock().arrangements.clone()
    }

    /// Every copy that it was asked for, and the stores.
    pub fn copies_asked(&self) -> Vec<(ImageId, Vec<String>)> {
        self.lock().copying.clone()
    }

    /// Ends the copying of the image: its stores hold it then, but for `failed`.
    pub fn end_copying(&self, id: &ImageId, failed: &[&str]) {
        let asked = self.copies_asked().into_iter().rfind(|(image, _)| image == id).map(|(_, backends)| backends);
        let done = asked.unwrap_or_default().into_iter().filter(|backend| !failed.contains(&backend.as_str()));
        self.change(id, |image| {
            image.importing = false;
            image.failed_backends = failed.iter().map(|backend| (*backend).to_owned()).collect();
            for backend in done {
                let metadata = BTreeMap::from([("store".to_owned(), backend.clone().into())]);
                image.locations.push(Location { url: format!("{backend}://{id}"), metadata });
                image.backends.insert(backend);
            }
        });
    }

    pub fn put_backs(&self) -> Vec<(ImageId, Undone)> {
        self.lock().put_backs.clone()
    }

    /// How often any image was looked at.
    pub fn looks(&self) -> usize {
        self.lock().looks
    }

    /// How often the image's bits were opened.
    pub fn opens(&self, id: &ImageId) -> usize {
        self.lock().images.get(id).map_or(0, |held| held.opens)
    }

    /// How many of the image's bytes were handed out, over all reads.
    pub fn bytes_read(&self, id: &ImageId) -> u64 {
        self.lock().images.get(id).map_or(0, |held| held.read)
    }

    fn update(&self, id: &ImageId, change: impl FnOnce(&mut Image)) -> Result<()> {
        let mut state = self.lock();
        let now = sample::time(state.tick());
        let image = &mut state.images.get_mut(id).ok_or_else(|| not_visible(id))?.image;
        change(image);
        image.updated_at = now;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fails(&self, pick: impl Fn(RegistryFault) -> Option<Reason>) -> Result<()> {
        match self.fault(pick) {
            Some(reason) => Err(Error::new(reason, "the image service failed, as told to")),
            None => Ok(()),
        }
    }

    fn is_blind(&self) -> bool {
        self.lock().faults.contains(&RegistryFault::SeesNothing)
    }

    fn fault<T>(&self, pick: impl Fn(RegistryFault) -> Option<T>) -> Option<T> {
        self.lock().faults.iter().copied().find_map(pick)
    }

    fn answer(&self, id: &ImageId, locations: &[Location]) -> AddAnswer {
        let mut hook = self.0.hook.lock().unwrap_or_else(PoisonError::into_inner);
        hook.as_mut().map_or(AddAnswer::Apply, |hook| hook(self, id, locations))
    }

    /// As [`AddAnswer::Apply`] says it: the image as it was loaded, but for its locations.
    fn write_back(&self, loaded: Image, locations: Vec<Location>) -> Result<()> {
        self.update(&loaded.id.clone(), |image| *image = Image { locations, ..loaded })
    }

    /// Why Glance would not arrange these locations of the image as it was loaded.
    fn misfit(loaded: &Image, keep: &[Location], remove: &[Location]) -> Option<Error> {
        let urls = |locations: &mut dyn Iterator<Item = &Location>| {
            let mut urls: Vec<String> = locations.map(|location| location.url.clone()).collect();
            urls.sort_unstable();
            urls
        };
        if keep.is_empty() {
            return Some(Error::new(Reason::LastLocation, "the last location cannot be removed"));
        }
        let is_so = urls(&mut keep.iter().chain(remove)) == urls(&mut loaded.locations.iter());
        let fits = is_so && loaded.status == ImageStatus::Active;
        (!fits).then(|| Error::new(Reason::Conflict, "the image has other locations, or is not active"))
    }

    /// Ends a location PATCH.
    fn patch(&self, loaded: Image, answer: AddAnswer, refusal: Option<Error>, locations: Vec<Location>) -> Result<()> {
        match (answer, refusal) {
            (AddAnswer::Refuse(error), _) | (AddAnswer::Apply, Some(error)) => Err(error),
            (AddAnswer::Lose, _) => Ok(()),
            (AddAnswer::ApplyAndFail(error), _) => self.write_back(loaded, locations).and(Err(error)),
            (AddAnswer::Apply, None) => self.write_back(loaded, locations),
        }
    }

    /// Why Glance would not take the locations for the image as it was loaded.
    fn refusal(&self, loaded: &Image, locations: &[Location]) -> Option<Error> {
        if !matches!(loaded.status, ImageStatus::Active | ImageStatus::Queued) {
            return Some(Error::new(Reason::Conflict, format!("image {} is {}", loaded.id, loaded.status)));
        }
        let state = self.lock();
        if locations.iter().any(|location| state.dead_urls.contains(&location.url)) {
            return Some(Error::new(Reason::LocationRefused, "a URL does not answer"));
        }
        // As in Glance: the same URL with other metadata is taken, and stands twice.
        let again = locations.iter().any(|location| loaded.locations.contains(location));
        again.then(|| Error::new(Reason::LocationRefused, "a location is registered already"))
    }
}

impl State {
    fn tick(&mut self) -> i64 {
        self.ticks += 1;
        self.ticks
    }

    /// The images in the order of a walk: as in Glance hidden images have a list of their own, after the shown ones.
    fn walk(&self, since: Option<Timestamp>) -> BTreeMap<Place, &Image> {
        let images = self.images.values().map(|held| &held.image);
        let images = images.filter(|image| since.is_none_or(|since| image.updated_at >= since));
        images.map(|image| ((image.hidden, image.created_at, image.id.clone()), image)).collect()
    }

    /// The place of a cursor, which stays in the list in which it was made even if its image went to the other.
    fn place(&self, Cursor(cursor): &Cursor) -> Result<Place> {
        let (hidden, id) = cursor.split_once(' ').expect("a cursor of this registry");
        let marker = self.images.values().find(|held| held.image.id.as_str() == id);
        let gone = || Error::new(Reason::Conflict, "the image that marked the page is gone");
        let marker = &marker.ok_or_else(gone)?.image;
        Ok((hidden == "hidden", marker.created_at, marker.id.clone()))
    }
}

type Place = (bool, Timestamp, ImageId);

fn cursor_at((hidden, _, id): &Place) -> Cursor {
    Cursor(format!("{} {id}", if *hidden { "hidden" } else { "shown" }))
}

fn not_visible(id: &ImageId) -> Error {
    Error::new(Reason::ImageNotVisible, format!("no image {id}"))
}

#[async_trait]
impl Registry for FakeRegistry {
    async fn look(&self, id: &ImageId) -> Result<Option<Image>> {
        self.lock().looks += 1;
        self.fails(|fault| match fault {
            RegistryFault::LookFails(reason) => Some(reason),
            _ => None,
        })?;
        let mut state = self.lock();
        let faults = state.faults.len();
        state.faults.retain(|fault| *fault != RegistryFault::BlindOnce);
        let blind = state.faults.len() < faults || state.faults.contains(&RegistryFault::SeesNothing);
        drop(state);
        Ok(self.image(id).filter(|_| !blind))
    }

    async fn named(&self, name: &str) -> Result<Vec<Image>> {
        let state = self.lock();
        let shown = state.images.values().map(|held| &held.image);
        let shown = shown.filter(|_| !state.faults.contains(&RegistryFault::SeesNothing));
        Ok(shown.filter(|image| image.name.as_deref() == Some(name)).cloned().collect())
    }

    async fn sees_all(&self) -> Result<bool> {
        self.fails(|fault| match fault {
            RegistryFault::SeesAllFails(reason) => Some(reason),
            _ => None,
        })?;
        Ok(self.lock().sees_all)
    }

    async fn roles(&self) -> Result<Option<BTreeSet<String>>> {
        let is_lost = self.lock().faults.contains(&RegistryFault::SeesNothing);
        Ok(Some(if is_lost { BTreeSet::new() } else { BTreeSet::from(["admin".into()]) }))
    }

    async fn changed_since(&self, since: Option<Timestamp>, cursor: Option<&Cursor>) -> Result<Page> {
        self.fails(|fault| match fault {
            RegistryFault::ListFails(reason) => Some(reason),
            _ => None,
        })?;
        if self.is_blind() {
            return Ok(Page { images: Vec::new(), next: None });
        }
        let state = self.lock();
        let after = cursor.map(|cursor| state.place(cursor)).transpose()?;
        let mut images = state.walk(since);
        images.retain(|place, _| after.as_ref().is_none_or(|after| place > after));
        let more = images.len() > PAGE;
        let next = images.keys().nth(PAGE - 1).filter(|_| more).map(cursor_at);
        let page = images.into_values().take(PAGE).cloned().collect();
        Ok(Page { images: page, next })
    }

    async fn add_locations(&self, id: &ImageId, locations: &[Location]) -> Result<()> {
        self.lock().adds.push((id.clone(), locations.to_vec()));
        let loaded = self.image(id).filter(|_| !self.is_blind()).ok_or_else(|| not_visible(id))?;
        let all = loaded.locations.iter().chain(locations).cloned().collect();
        let answer = self.answer(id, locations);
        let refusal = self.refusal(&loaded, locations);
        self.patch(loaded, answer, refusal, all)
    }

    async fn arrange_locations(&self, id: &ImageId, keep: &[Location], remove: &[Location]) -> Result<()> {
        self.lock().arrangements.push((id.clone(), keep.to_vec(), remove.to_vec()));
        let loaded = self.image(id).filter(|_| !self.is_blind()).ok_or_else(|| not_visible(id))?;
        let answer = self.answer(id, keep);
        let refusal = Self::misfit(&loaded, keep, remove);
        // Glance removes them before it writes the image.
        if refusal.is_none() && matches!(answer, AddAnswer::Apply | AddAnswer::ApplyAndFail(_)) {
            self.remove_bits(remove);
        }
        self.patch(loaded, answer, refusal, keep.to_vec())
    }

    /// The image then imports until [`FakeRegistry::end_copying`].
    async fn copy_to(&self, id: &ImageId, backends: &[String]) -> Result<()> {
        self.fails(|fault| match fault {
            RegistryFault::CopyFails(reason) => Some(reason),
            RegistryFault::NoSuchBackend(name) if backends.iter().any(|backend| backend == name) => {
                Some(Reason::GlanceCopyFailed)
            }
            _ => None,
        })?;
        let image = self.image(id).filter(|_| !self.is_blind()).ok_or_else(|| not_visible(id))?;
        if image.importing {
            return Err(Error::new(Reason::Conflict, "an import is in progress"));
        }
        if backends.iter().any(|backend| image.backends.contains(backend)) {
            return Err(Error::new(Reason::GlanceCopyFailed, "the image is already in one of these stores"));
        }
        self.lock().copying.push((id.clone(), backends.to_vec()));
        self.update(id, |image| image.importing = true)
    }

    async fn put_back(&self, id: &ImageId, undone: &Undone) -> Result<()> {
        self.fails(|fault| match fault {
            RegistryFault::PutBackFails(reason) => Some(reason),
            _ => None,
        })?;
        if self.is_blind() {
            return Err(not_visible(id));
        }
        self.lock().put_backs.push((id.clone(), undone.clone()));
        self.update(id, |image| {
            image.visibility = undone.visibility.unwrap_or(image.visibility);
            image.protected = undone.protected.unwrap_or(image.protected);
            image.status = match undone.deactivated {
                Some(true) => ImageStatus::Deactivated,
                Some(false) => ImageStatus::Active,
                None => image.status,
            };
        })
    }

    fn source(&self, id: &ImageId) -> Arc<dyn Source> {
        Arc::new(FakeSource { registry: self.clone(), id: id.clone() })
    }
}
