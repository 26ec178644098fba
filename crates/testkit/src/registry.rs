use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use mimeo_core::{
    Error, Image, ImageId, ImageStatus, Location, Reason, Result, Timestamp,
    ports::{ByteStream, Cursor, Page, Registry, Source, Undone},
};

use crate::{sample, store::chunks};

/// What a [`FakeRegistry`] does wrong, from [`FakeRegistry::inject`] until [`FakeRegistry::heal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegistryFault {
    LookFails(Reason),
    /// Every look answers 404 and every list is empty, as they are when Mimeo's user lost its role.
    SeesNothing,
    /// The next look answers 404, and then the role is back.
    BlindOnce,
    SeesAllFails(Reason),
    ListFails(Reason),
    PutBackFails(Reason),
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
    sees_all: bool,
    ticks: i64,
    looks: usize,
    adds: Vec<(ImageId, Vec<Location>)>,
    put_backs: Vec<(ImageId, Undone)>,
}

impl Default for State {
    fn default() -> Self {
        let (images, faults, adds, put_backs) = Default::default();
        Self { images, faults, sees_all: true, ticks: 0, looks: 0, adds, put_backs }
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
        let mut state = self.lock();
        state.ticks += 1;
        let now = sample::time(state.ticks);
        let image = &mut state.images.get_mut(id).expect("an image to change").image;
        change(image);
        image.updated_at = now;
    }

    pub fn remove(&self, id: &ImageId) {
        self.lock().images.remove(id);
    }

    /// The image as it is, whatever faults are on.
    pub fn image(&self, id: &ImageId) -> Option<Image> {
        self.lock().images.get(id).map(|held| held.image.clone())
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

    /// Runs in the middle of every location PATCH, after the record was loaded and before it is written.
    pub fn on_add(&self, hook: impl FnMut(&FakeRegistry, &ImageId, &[Location]) -> AddAnswer + Send + 'static) {
        *self.0.hook.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(hook));
    }

    /// Every location PATCH that was sent, whatever came of it.
    pub fn adds(&self) -> Vec<(ImageId, Vec<Location>)> {
        self.lock().adds.clone()
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

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fails(&self, pick: impl Fn(RegistryFault) -> Option<Reason>) -> Result<()> {
        match self.fault(pick) {
            Some(reason) => Err(Error::new(reason, "the image service failed, as told to")),
            None => Ok(()),
        }
    }

    fn fault<T>(&self, pick: impl Fn(RegistryFault) -> Option<T>) -> Option<T> {
        self.lock().faults.iter().copied().find_map(pick)
    }

    fn answer(&self, id: &ImageId, locations: &[Location]) -> AddAnswer {
        let mut hook = self.0.hook.lock().unwrap_or_else(PoisonError::into_inner);
        hook.as_mut().map_or(AddAnswer::Apply, |hook| hook(self, id, locations))
    }

    fn write_back(&self, mut loaded: Image, locations: &[Location]) {
        loaded.locations.extend_from_slice(locations);
        self.change(&loaded.id.clone(), |image| *image = loaded);
    }
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

    async fn sees_all(&self) -> Result<bool> {
        self.fails(|fault| match fault {
            RegistryFault::SeesAllFails(reason) => Some(reason),
            _ => None,
        })?;
        Ok(self.lock().sees_all)
    }

    async fn changed_since(&self, since: Option<Timestamp>, cursor: Option<&Cursor>) -> Result<Page> {
        const PAGE: usize = 100;
        self.fails(|fault| match fault {
            RegistryFault::ListFails(reason) => Some(reason),
            _ => None,
        })?;
        if self.lock().faults.contains(&RegistryFault::SeesNothing) {
            return Ok(Page { images: Vec::new(), next: None });
        }
        let state = self.lock();
        let mut images: Vec<Image> = state.images.values().map(|held| held.image.clone()).collect();
        images.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        let mut images = images.into_iter().filter(|image| since.is_none_or(|since| image.updated_at >= since));
        if let Some(Cursor(marker)) = cursor
            && !images.by_ref().any(|image| image.id.as_str() == marker)
        {
            return Err(Error::new(Reason::Conflict, "the image that marked the page is gone"));
        }
        let page: Vec<Image> = images.by_ref().take(PAGE).collect();
        let last = page.last().filter(|_| images.next().is_some());
        let next = last.map(|image| Cursor(image.id.to_string()));
        Ok(Page { images: page, next })
    }

    async fn add_locations(&self, id: &ImageId, locations: &[Location]) -> Result<()> {
        self.lock().adds.push((id.clone(), locations.to_vec()));
        let Some(loaded) = self.image(id) else {
            return Err(Error::new(Reason::ImageNotVisible, format!("no image {id}")));
        };
        match self.answer(id, locations) {
            AddAnswer::Refuse(error) => return Err(error),
            AddAnswer::Lose => return Ok(()),
            AddAnswer::ApplyAndFail(error) => {
                self.write_back(loaded, locations);
                return Err(error);
            }
            AddAnswer::Apply => {}
        }
        if !matches!(loaded.status, ImageStatus::Active | ImageStatus::Queued) {
            return Err(Error::new(Reason::Conflict, format!("image {id} is {}", loaded.status)));
        }
        if locations.iter().any(|location| loaded.has_location(&location.url)) {
            return Err(Error::new(Reason::LocationRefused, "a URL is registered already"));
        }
        self.write_back(loaded, locations);
        Ok(())
    }

    async fn put_back(&self, id: &ImageId, undone: &Undone) -> Result<()> {
        self.fails(|fault| match fault {
            RegistryFault::PutBackFails(reason) => Some(reason),
            _ => None,
        })?;
        self.lock().put_backs.push((id.clone(), undone.clone()));
        self.change(id, |image| {
            image.visibility = undone.visibility.unwrap_or(image.visibility);
            image.protected = undone.protected.unwrap_or(image.protected);
            image.status = match undone.deactivated {
                Some(true) => ImageStatus::Deactivated,
                Some(false) => ImageStatus::Active,
                None => image.status,
            };
        });
        Ok(())
    }

    fn source(&self, id: &ImageId) -> Arc<dyn Source> {
        Arc::new(FakeSource { registry: self.clone(), id: id.clone() })
    }
}

struct FakeSource {
    registry: FakeRegistry,
    id: ImageId,
}

impl FakeSource {
    /// The bits from `offset` on, up to where a fault ends them.
    fn rest(&self, offset: u64) -> Result<Bytes> {
        let end = self.registry.fault(|fault| match fault {
            RegistryFault::SourceEndsAt(at) | RegistryFault::SourceBreaksAt(at) | RegistryFault::SourceStallsAt(at) => {
                Some(at)
            }
            _ => None,
        });
        let other = self.registry.fault(|fault| (fault == RegistryFault::SourceReadsOther).then_some(())).is_some();
        let mut state = self.registry.lock();
        let missing = || Error::new(Reason::SourceUnreadable, format!("image {} has no bits", self.id));
        let held = state.images.get_mut(&self.id).ok_or_else(missing)?;
        held.opens += 1;
        let length = held.bits.len();
        let at = |offset: u64| usize::try_from(offset).map_or(length, |offset| offset.min(length));
        let end = end.map_or(length, at);
        let bits = held.bits.slice(at(offset).min(end)..end);
        Ok(if other { bits.iter().map(|byte| !byte).collect() } else { bits })
    }
}

#[async_trait]
impl Source for FakeSource {
    async fn open(&self, offset: u64) -> Result<ByteStream> {
        self.registry.fails(|fault| match fault {
            RegistryFault::SourceFails(reason) => Some(reason),
            _ => None,
        })?;
        let breaks = self.registry.fault(|fault| matches!(fault, RegistryFault::SourceBreaksAt(_)).then_some(()));
        let stalls = self.registry.fault(|fault| matches!(fault, RegistryFault::SourceStallsAt(_)).then_some(()));
        let (registry, id) = (self.registry.clone(), self.id.clone());
        let bits = stream::iter(chunks(&self.rest(offset)?)).map(move |chunk| {
            if let Some(held) = registry.lock().images.get_mut(&id) {
                held.read += chunk.len() as u64;
            }
            Ok(chunk)
        });
        let broken = breaks.map(|()| Err(Error::new(Reason::SourceUnreadable, "the source broke, as told to")));
        let ending = stream::iter(broken);
        Ok(match stalls {
            Some(()) => bits.chain(stream::pending()).boxed(),
            None => bits.chain(ending).boxed(),
        })
    }
}
