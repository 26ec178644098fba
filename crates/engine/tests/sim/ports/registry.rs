//! The image service behind the weather, with a PATCH as Glance does it: it takes its time, and writes the whole record
//! back as it was loaded.

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use mimeo_core::{
    Error, Image, ImageId, Location, Reason, Result, Timestamp, Visibility,
    ports::{ByteStream, Cursor, EventKind, ImageEvent, Page, Registry, Source, Undone},
};

use super::{Hand, counted};
use crate::{
    promises::Step,
    setup::PIECE,
    weather::{Blindness, Fate, Lie, Mood, Part},
    world::{Life, State, World, failure},
};

pub(crate) struct SimRegistry(Arc<Life>);

impl SimRegistry {
    pub(crate) fn new(life: &Arc<Life>) -> Self {
        Self(Arc::clone(life))
    }

    fn world(&self) -> &Arc<World> {
        &self.0.world
    }

    async fn patch(&self, name: impl FnOnce() -> String + Send, id: &ImageId, what: What) -> Result<()> {
        let world = self.world();
        let patch = Patch { world: Arc::clone(world), id: id.clone(), what };
        let act = async {
            if !world.image(id).is_some_and(|image| sees(world, &image)) {
                return Err(not_visible(id));
            }
            if world.lock().weather.blind == Blindness::Locations {
                return Err(failure(Reason::LocationsForbidden));
            }
            match world.ghost(3000) {
                // The request goes on when its sender has long given up.
                Some(wait) if world.lock().weather.service.mood == Mood::Flaky => {
                    world.tell(|| format!("  it will be done in {wait:?}"));
                    world.later(wait, async move { drop(patch.apply().await) });
                    Err(failure(Reason::ImageServiceUnreachable))
                }
                _ => patch.apply().await,
            }
        };
        self.0.call(Part::Service, name, act).await
    }
}

/// Whether the token is shown the image.
fn sees(world: &World, image: &Image) -> bool {
    match world.lock().weather.blind {
        Blindness::None | Blindness::Locations => true,
        Blindness::Private => image.visibility == Visibility::Public,
        Blindness::All => false,
    }
}

/// The image as Glance answers it now; nothing if it is not shown.
fn answered(world: &World, image: Image) -> Option<Image> {
    if !sees(world, &image) {
        return None;
    }
    match world.lock().weather.blind {
        Blindness::Locations => Some(Image { locations: Vec::new(), locations_shown: false, ..image }),
        _ => Some(image),
    }
}

fn not_visible(id: &ImageId) -> Error {
    Error::new(Reason::ImageNotVisible, format!("no image {id}"))
}

#[async_trait]
impl Registry for SimRegistry {
    async fn look(&self, id: &ImageId) -> Result<Option<Image>> {
        let world = self.world();
        let act = async { Ok(world.registry.look(id).await?.and_then(|image| answered(world, image))) };
        let name = || format!("look at {id}");
        let found = self.0.call(Part::Service, name, act).await?;
        world.lock().witness.showed(id, found.as_ref());
        world.tell(|| format!("  {}", found.as_ref().map_or("404".into(), shown)));
        Ok(found)
    }

    async fn named(&self, name: &str) -> Result<Vec<Image>> {
        self.world().registry.named(name).await
    }

    async fn sees_all(&self) -> Result<bool> {
        let act = async { Ok(matches!(self.world().lock().weather.blind, Blindness::None | Blindness::Locations)) };
        self.0.call(Part::Service, || "sees all?".into(), act).await
    }

    async fn roles(&self) -> Result<Option<BTreeSet<String>>> {
        let act = async {
            let is_there = matches!(self.world().lock().weather.blind, Blindness::None | Blindness::Locations);
            Ok(Some(is_there.then(|| "admin".to_owned()).into_iter().collect()))
        };
        self.0.call(Part::Service, || "roles".into(), act).await
    }

    async fn changed_since(&self, since: Option<Timestamp>, cursor: Option<&Cursor>) -> Result<Page> {
        let world = self.world();
        let act = async {
            let mut page = world.registry.changed_since(since, cursor).await?;
            page.images = page.images.into_iter().filter_map(|image| answered(world, image)).collect();
            Ok(page)
        };
        self.0.call(Part::Service, || format!("list since {since:?} from {cursor:?}"), act).await
    }

    async fn add_locations(&self, id: &ImageId, locations: &[Location]) -> Result<()> {
        let world = self.world();
        let name = || format!("PATCH {id}: add {:?}", urls(locations));
        world.step(&Step::Patches { image: id, locations });
        self.patch(name, id, What::Add(locations.to_vec())).await
    }

    async fn arrange_locations(&self, id: &ImageId, keep: &[Location], remove: &[Location]) -> Result<()> {
        self.world().step(&Step::Arranges { image: id, keep, remove });
        let name = || format!("PATCH {id}: keep {:?}, remove {:?}", urls(keep), urls(remove));
        self.patch(name, id, What::Arrange(keep.to_vec(), remove.to_vec())).await
    }

    async fn put_back(&self, id: &ImageId, undone: &Undone) -> Result<()> {
        let world = self.world();
        let act = async {
            world.registry.put_back(id, undone).await?;
            changed(world, id);
            Ok(())
        };
        self.0.call(Part::Service, || format!("put back {undone:?} of {id}"), act).await
    }

    async fn copy_to(&self, id: &ImageId, backends: &[String]) -> Result<()> {
        let world = self.world();
        let act = async {
            world.registry.copy_to(id, backends).await?;
            changed(world, id);
            world.tell(|| "  Glance copies".into());
            let (later, id) = (Arc::clone(world), id.clone());
            let (wait, fails) = {
                let dice = &mut world.lock().dice;
                (dice.millis(100..9000), dice.falls(2000))
            };
            world.later(wait, async move { end_copying(&later, &id, fails) });
            Ok(())
        };
        self.0.call(Part::Service, || format!("copy {id} to {backends:?}"), act).await
    }

    fn source(&self, id: &ImageId) -> Arc<dyn Source> {
        Arc::new(SimSource { life: Arc::clone(&self.0), id: id.clone() })
    }
}

/// One PATCH of locations.
struct Patch {
    world: Arc<World>,
    id: ImageId,
    what: What,
}

enum What {
    Add(Vec<Location>),
    /// What is kept, and what is removed.
    Arrange(Vec<Location>, Vec<Location>),
}

impl Patch {
    async fn apply(self) -> Result<()> {
        let Self { world, id, what } = self;
        let loaded = world.image(&id).ok_or_else(|| not_visible(&id))?;
        let window = {
            let State { dice, .. } = &mut *world.lock();
            dice.falls(world.setup.temper.patch_windows).then(|| dice.millis(1..2500))
        };
        if let Some(window) = window {
            world.lock().witness.windows.push(id.clone());
            tokio::time::sleep(window).await;
        }
        let (is_flaky, is_lost) = {
            let state = &mut *world.lock();
            (state.weather.service.mood == Mood::Flaky, state.dice.falls(2000))
        };
        if is_flaky && is_lost {
            // Another writer came in between: Glance says yes, and keeps what that one wrote.
            world.tell(|| "  and another's PATCH overwrites it".into());
            world.lock().witness.windows.retain(|open| *open != id);
            return Ok(());
        }
        let now = world.image(&id).map(|image| image.status);
        if window.is_some() && now.is_some() {
            // It is what Glance has loaded that has to be active.
            world.registry.change(&id, |image| image.status = loaded.status);
        }
        let (added, locations) = match what {
            What::Add(locations) if meets_another(&world, &loaded, &locations) => {
                world.tell(|| "  and another has added the same".into());
                let now = world.image(&id).into_iter().flat_map(|image| image.locations);
                (Ok(()), now.chain(locations).collect())
            }
            What::Add(locations) => {
                let all = loaded.locations.iter().chain(&locations).cloned().collect();
                (world.registry.add_locations(&id, &locations).await, all)
            }
            What::Arrange(keep, remove) => (world.registry.arrange_locations(&id, &keep, &remove).await, keep),
        };
        if window.is_some() && world.image(&id).is_some() {
            world.registry.change(&id, |image| match (&added, now) {
                (Ok(()), _) => *image = Image { locations, ..loaded },
                (Err(_), now) => image.status = now.unwrap_or(image.status),
            });
        }
        if window.is_some() {
            world.lock().witness.windows.retain(|open| *open != id);
        }
        world.tell(|| format!("  patched {id}: {:?}", world.image(&id).map(|image| shown(&image))));
        changed(&world, &id);
        added
    }
}

/// Two writers add the same at the same moment, and Glance keeps what both have added.
fn meets_another(world: &World, loaded: &Image, locations: &[Location]) -> bool {
    let is_new = |location: &Location| !loaded.locations.contains(location);
    let now = world.image(&loaded.id);
    let is_met = now.is_some_and(|now| locations.iter().any(|it| is_new(it) && now.locations.contains(it)));
    is_met && world.lock().dice.falls(5000)
}

/// An `image.update` of what is so now, whoever made it so. True: the engine hears of it at once.
pub(crate) fn changed(world: &Arc<World>, id: &ImageId) -> bool {
    world.locations_changed();
    let snapshot = world.image(id).map(|image| image.snapshot());
    world.notify(ImageEvent { image: id.clone(), kind: EventKind::Changed, snapshot })
}

/// Glance has copied the image to its own store, or could not.
fn end_copying(world: &Arc<World>, id: &ImageId, fails: bool) {
    let is_copying = world.image(id).is_some_and(|image| image.importing);
    if is_copying {
        world.registry.end_copying(id, if fails { &[crate::setup::BACKEND] } else { &[] });
        changed(world, id);
    }
}

fn urls(locations: &[Location]) -> Vec<&str> {
    locations.iter().map(|location| location.url.as_str()).collect()
}

/// For the trace.
pub(crate) fn shown(image: &Image) -> String {
    let (status, visibility, importing) = (image.status, image.visibility, image.importing);
    format!("{status} {visibility} importing {importing} hidden {} {:?}", image.hidden, urls(&image.locations))
}

struct SimSource {
    life: Arc<Life>,
    id: ImageId,
}

#[async_trait]
impl Source for SimSource {
    async fn open(&self, offset: u64) -> Result<ByteStream> {
        let world = &self.life.world;
        let act = async {
            let image = world.image(&self.id).filter(|image| sees(world, image));
            let image = image.ok_or_else(|| not_visible(&self.id))?;
            let chunks: Vec<Result<Bytes>> = world.registry.source(&self.id).open(offset).await?.collect().await;
            let mut bytes = chunks.into_iter().collect::<Result<Vec<_>>>()?.concat();
            // Of an image without a hash nobody could tell.
            match world.lock().weather.service.mood {
                Mood::Lying(Lie::Truncates) => bytes.truncate(bytes.len() / 2),
                Mood::Lying(_) if image.hash.is_some() => bytes.iter_mut().for_each(|byte| *byte = !*byte),
                _ => {}
            }
            Ok(bytes)
        };
        let bytes = self.life.call(Part::Service, || format!("read {} from {offset}", self.id), act).await?;
        let given = (Arc::clone(&self.life), bytes, 0, Hand::new(&world.open));
        Ok(stream::unfold(given, |(life, bytes, at, hand)| give(life, bytes, at, hand)).boxed())
    }
}

type Rest = (Arc<Life>, Vec<u8>, usize, Hand);

async fn give(life: Arc<Life>, bytes: Vec<u8>, at: usize, hand: Hand) -> Option<(Result<Bytes>, Rest)> {
    if at >= bytes.len() {
        return None;
    }
    match life.begin(Part::Service).await {
        Fate::Fails(reason) | Fate::LosesAnswer(reason) => {
            return Some((Err(failure(reason)), (life, bytes, at, hand)));
        }
        Fate::DiesBefore | Fate::DiesAfter => life.die().await,
        Fate::Goes => {}
    }
    let end = bytes.len().min(at + PIECE);
    let piece = counted(&bytes[at..end], &life.world.held);
    life.world.step(&Step::Gives);
    Some((Ok(piece), (life, bytes, end, hand)))
}
