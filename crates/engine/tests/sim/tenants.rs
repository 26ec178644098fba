//! What people and other programs do to the images.

use std::{collections::BTreeMap, sync::Arc};

use mimeo_core::{
    ContentHash, HashAlgorithm, Image, ImageId, ImageStatus, Location, ObjectName, Visibility,
    is_removed_with_its_bits,
    ports::{EventKind, ImageEvent},
};
use mimeo_testkit::sample;
use sha2::{Digest, Sha512};
use tokio::time::Instant;

use crate::{
    dice::Dice,
    ports::registry::changed,
    story::image_id,
    world::{Stricter, Truth, Watched, World},
};

/// Images there may be at most.
pub(crate) const MOST: usize = 8;

/// Somebody does something.
pub(crate) fn act(world: &Arc<World>) {
    let (what, living) = {
        let mut state = world.lock();
        let living: Vec<ImageId> = state.truths.iter().filter(|(_, it)| !it.gone).map(|(id, _)| id.clone()).collect();
        (state.dice.of(0..100), living)
    };
    let count = world.lock().truths.len();
    if living.is_empty() || (what < 40 && count < MOST) {
        return create(world);
    }
    let id = roll(world, |dice| living[dice.below(living.len())].clone());
    // What a PATCH undoes for others is done while it is under way.
    let patched = world.lock().witness.windows.first().cloned().filter(|id| living.contains(id));
    if let Some(patched) = patched.filter(|_| what % 2 == 0) {
        return match what % 8 {
            0 => activate_or_not(world, &patched),
            2 => protect_or_not(world, &patched),
            _ => open_or_close(world, &patched),
        };
    }
    match what {
        0..47 => upload(world, &id),
        47..51 => rename(world, &id),
        51..54 => protect_or_not(world, &id),
        54..62 => open_or_close(world, &id),
        62..68 => activate_or_not(world, &id),
        68..72 => hide_or_show(world, &id),
        72..84 => delete(world, &id),
        84..88 => living.iter().for_each(|id| delete(world, id)),
        88..95 => write_locations(world, &id, &living),
        _ => import(world, &id),
    }
}

fn roll<T>(world: &World, roll: impl FnOnce(&mut Dice) -> T) -> T {
    roll(&mut world.lock().dice)
}

/// From now on the engine has something to do for the image.
pub(crate) fn touch(world: &World, id: &ImageId) {
    if let Some(truth) = world.lock().truths.get_mut(id) {
        truth.changed = Instant::now();
    }
}

/// As another user changes it; the event tells of it.
fn change(world: &Arc<World>, id: &ImageId, what: &str, how: impl FnOnce(&mut Image)) {
    change_openly(world, id, what, how);
}

/// True: the engine hears of it at once.
fn change_openly(world: &Arc<World>, id: &ImageId, what: &str, how: impl FnOnce(&mut Image)) -> bool {
    world.tell(|| format!("{what} {id}"));
    world.registry.change(id, |image| {
        how(image);
        // Glance derives from the locations which of its own stores have the image.
        let held = |backend: &String| image.locations.iter().any(|it| it.backend() == Some(backend.as_str()));
        image.backends = std::mem::take(&mut image.backends).into_iter().filter(held).collect();
    });
    touch(world, id);
    changed(world, id)
}

/// A PATCH that Glance had loaded while it imported has brought the mark of the import back: somebody imports again.
pub(crate) fn import_again(world: &Arc<World>) {
    let images: Vec<ImageId> = world.lock().truths.keys().cloned().collect();
    for id in images.iter().filter(|id| world.image(id).is_some_and(|image| image.importing)) {
        change(world, id, "another import ended of", |image| image.importing = false);
    }
}

/// Almost as many images as there may be.
pub(crate) fn crowd(world: &Arc<World>) {
    (1..MOST).for_each(|_| create(world));
}

fn create(world: &Arc<World>) {
    let number = u32::try_from(world.lock().truths.len()).unwrap() + 1;
    let (size, is_public, is_queued) = roll(world, |dice| {
        let size = dice.pick(&[0, 1, 700, 1500, 3000, 3000, 7000, 16_000]);
        (size, dice.falls(6000), dice.falls(2000))
    });
    let id = image_id(number);
    let visibility = if is_public { Visibility::Public } else { Visibility::Private };
    let status = if is_queued { ImageStatus::Queued } else { ImageStatus::Active };
    let image = Image { visibility, status, ..sample::image(number, size) };
    fill(world, image, size);
    world.tell(|| format!("create {id}, {size} bytes, {status} {visibility}"));
    changed(world, &id);
}

/// Puts the image there, with bits if it has any yet.
fn fill(world: &World, mut image: Image, size: u64) {
    let (bits, is_hashed) = roll(world, |dice| (dice.bytes(size), dice.falls(9000)));
    let (mut size, mut hash) = (Some(size), None);
    let value = || Sha512::digest(&bits).iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    match image.status {
        ImageStatus::Active if is_hashed => {
            hash = Some(ContentHash { algorithm: HashAlgorithm::Sha512, value: value() });
        }
        ImageStatus::Active => {}
        _ => size = None,
    }
    (image.size, image.hash) = (size, hash);
    let truth = Truth { bits: bits.clone().into(), changed: Instant::now(), gone: false };
    world.lock().truths.insert(image.id.clone(), truth);
    let id = image.id.clone();
    world.registry.insert(image, bits.into());
    // Glance's time of the change is now.
    world.registry.change(&id, |_| {});
}

/// The bits of a queued image come; or the upload breaks off, and it waits for another.
fn upload(world: &Arc<World>, id: &ImageId) {
    let Some(image) = world.image(id).filter(|image| image.size.is_none()) else { return };
    let (size, to) = roll(world, |dice| {
        let to = [ImageStatus::Saving, ImageStatus::Queued, ImageStatus::Active, ImageStatus::Active];
        (dice.of(1..5000), dice.pick(&to))
    });
    world.tell(|| format!("upload of {id}: {to}"));
    fill(world, Image { status: to, ..image }, size);
    changed(world, id);
}

fn rename(world: &Arc<World>, id: &ImageId) {
    let name = roll(world, |dice| format!("name-{}", dice.of(0..100)));
    change(world, id, "rename", |image| image.name = Some(name));
}

fn open_or_close(world: &Arc<World>, id: &ImageId) {
    restrict(world, id, "change the visibility of", Stricter::Private, |image| {
        image.visibility = match image.visibility {
            Visibility::Public => Visibility::Private,
            _ => Visibility::Public,
        };
    });
}

fn activate_or_not(world: &Arc<World>, id: &ImageId) {
    restrict(world, id, "deactivate or reactivate", Stricter::Deactivated, |image| {
        image.status = match image.status {
            ImageStatus::Active => ImageStatus::Deactivated,
            ImageStatus::Deactivated => ImageStatus::Active,
            other => other,
        };
    });
}

fn protect_or_not(world: &Arc<World>, id: &ImageId) {
    restrict(world, id, "change the protection of", Stricter::Protected, |image| image.protected = !image.protected);
}

/// Or the contrary.
fn restrict(world: &Arc<World>, id: &ImageId, what: &str, is: Stricter, how: impl FnOnce(&mut Image)) {
    let is_heard = change_openly(world, id, what, how);
    let holds = world.image(id).is_some_and(|image| is.holds(&image));
    let mut state = world.lock();
    state.watched.retain(|watched| watched.image != *id || watched.is != is);
    let witness = &state.witness;
    if is_heard && holds && witness.windows.contains(id) && !witness.orphaned.contains(id) {
        state.watched.push(Watched { image: id.clone(), since: Instant::now(), is });
    }
}

fn hide_or_show(world: &Arc<World>, id: &ImageId) {
    change(world, id, "hide or show", |image| image.hidden = !image.hidden);
}

fn delete(world: &Arc<World>, id: &ImageId) {
    world.tell(|| format!("delete {id}"));
    for Location { url, .. } in world.image(id).into_iter().flat_map(|image| image.locations) {
        taken_away(world, &url);
    }
    world.registry.remove(id);
    if let Some(truth) = world.lock().truths.get_mut(id) {
        truth.gone = true;
    }
    world.locations_changed();
    world.notify(ImageEvent { image: id.clone(), kind: EventKind::Deleted, snapshot: None });
}

/// Glance removes the bits of some stores with their location, whoever else names them.
fn taken_away(world: &World, url: &str) {
    let place = world.object_at(url).filter(|_| is_removed_with_its_bits(url));
    world.lock().witness.taken_away.extend(place.map(|place| (place, Instant::now())));
}

/// Another program, or a tenant, writes the image's locations.
fn write_locations(world: &Arc<World>, id: &ImageId, living: &[ImageId]) {
    let Some(image) = world.image(id).filter(|image| image.status == ImageStatus::Active) else { return };
    let (what, other) = roll(world, |dice| (dice.of(0..6), living[dice.below(living.len())].clone()));
    let elsewhere = |url: &str| Location { url: url.into(), metadata: BTreeMap::new() };
    let add = |location: Location| {
        if !image.has_location(&location.url) {
            change(world, id, &format!("add {} to", location.url), |image| image.locations.push(location));
        }
    };
    match what {
        0 => add(elsewhere("http://elsewhere.example/bits")),
        1 => change(world, id, "reorder the locations of", |image| image.locations.reverse()),
        2 if image.locations.len() > 1 => {
            let at = roll(world, |dice| dice.below(image.locations.len()));
            change(world, id, "remove a location of", |image| drop(image.locations.remove(at)));
            // As Glance does it.
            let url = &image.locations[at].url;
            if let Some((store, object)) = world.object_at(url).filter(|_| is_removed_with_its_bits(url)) {
                world.stores[store].tamper(&object, None);
            }
            taken_away(world, url);
        }
        2 => {}
        // The URL of another image's copy, or of something that looks like one.
        _ => match world.image(&other).and_then(|other| other.locations.into_iter().next()) {
            Some(location) if other != *id => {
                add(elsewhere(&location.url));
                if roll(world, |dice| dice.falls(4000)) {
                    delete(world, &other);
                }
            }
            _ => plant(world, id, add),
        },
    }
}

/// Somebody's own object, named as Mimeo names its own. Its bits are not what a store that lies makes of the right ones.
fn plant(world: &Arc<World>, id: &ImageId, add: impl FnOnce(Location)) {
    let object = ObjectName::new(id, 7);
    let at = roll(world, |dice| dice.below(world.stores.len()));
    let bits = world.lock().truths.get(id).map(|truth| truth.bits.iter().map(|byte| byte ^ 0x55).collect());
    world.stores[at].tamper(&object, bits);
    world.lock().witness.planted.insert((at, object.clone()));
    add(Location { url: world.store_location(at, &object), metadata: BTreeMap::new() });
}

/// Glance imports the image by itself: it holds its record for all that time, and writes it back at the end.
fn import(world: &Arc<World>, id: &ImageId) {
    let Some(loaded) = world.image(id).filter(|image| image.status == ImageStatus::Active && !image.importing) else {
        return;
    };
    change(world, id, "Glance imports", |image| image.importing = true);
    let (later, id, wait) = (Arc::clone(world), id.clone(), roll(world, |dice| dice.millis(50..20_000)));
    world.later(wait, async move {
        if later.image(&id).is_some_and(|image| image.importing) {
            change(&later, &id, "the import ended of", |image| {
                (image.importing, image.locations) = (false, loaded.locations);
            });
        }
    });
}
