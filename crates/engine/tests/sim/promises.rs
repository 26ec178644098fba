//! "What never happens" (DESIGN.md), a function for each promise, asked at every step.

use mimeo_core::{
    Change, ImageId, ImageRow, Location, ObjectState, ProofKind, Reason, Record, Replica, ReplicaState, bare,
    is_removed_with_its_bits,
    ports::{EventKind, ImageEvent, Store},
};
use std::{sync::atomic::Ordering, time::Duration};
use tokio::time::Instant;

use crate::{
    setup::{CONCURRENCY, MAX_IMAGES, PERIOD, PIECE, SECRET},
    witness::Place,
    world::{State, World},
};

/// What has just happened, or (of what the engine does to the world) is just about to.
pub(crate) enum Step<'a> {
    /// The engine is to write an object, anew or behind what is there.
    Opens {
        place: &'a Place,
        resumes: bool,
    },
    /// Something of the object is at the store now.
    Published {
        place: &'a Place,
    },
    Reads {
        place: &'a Place,
    },
    Deletes {
        place: &'a Place,
    },
    /// A piece was handed to the engine.
    Gives,
    Patches {
        image: &'a ImageId,
        locations: &'a [Location],
    },
    /// The locations become `keep`; `remove` are taken away.
    Arranges {
        image: &'a ImageId,
        keep: &'a [Location],
        remove: &'a [Location],
    },
    /// With the record of the image as it was, if its row is among the changes, or an object of it is doomed.
    Committed {
        changes: &'a [Change],
        before: Option<&'a Record>,
    },
    Settled {
        image: &'a ImageId,
    },
    /// An event, which the engine was given at the step `delivered`.
    Acknowledged {
        event: &'a ImageEvent,
        delivered: u64,
    },
    /// Something was said to people.
    Told {
        text: &'a str,
    },
    /// Time has passed, with this engine and these stores enabled since then.
    Passes {
        since: Instant,
        everywhere: &'a [usize],
    },
}

/// The number of the promise, and how it was broken. 0: what is not among the eleven.
#[derive(Debug, Clone)]
pub(crate) struct Broken {
    pub(crate) promise: usize,
    pub(crate) how: String,
}

type Promise = fn(&World, &Step<'_>) -> Result<(), String>;

const PROMISES: [Promise; 11] = [
    only_proven_bytes_are_registered,
    nothing_that_is_named_or_the_last_is_deleted,
    the_ledger_knows_first,
    nobody_waits_for_the_slow,
    memory_is_bounded,
    registered_means_seen,
    no_secret_is_told,
    nothing_is_dropped,
    only_its_own_is_touched,
    absence_is_not_deletion,
    glances_record_is_not_made_worse,
];

pub(crate) fn check(world: &World, step: &Step<'_>) -> Option<Broken> {
    PROMISES.iter().enumerate().find_map(|(at, promise)| {
        let how = promise(world, step).err()?;
        Some(Broken { promise: at + 1, how })
    })
}

/// Promise 1: No location is registered by Mimeo whose bytes were not proven after they were closed.
fn only_proven_bytes_are_registered(world: &World, step: &Step<'_>) -> Result<(), String> {
    let Step::Patches { image, locations } = step else { return Ok(()) };
    for location in *locations {
        let place = world.object_at(&location.url).ok_or_else(|| format!("{} is no object", location.url))?;
        ensure(place.1.image() == **image, || format!("{} is another image's", place.1))?;
        let is_proven = world.lock().witness.is_proven(&place);
        ensure(is_proven, || format!("{} was never read back as the image", location.url))?;
    }
    Ok(())
}

/// Names that stand for so long were there when the sweeper read all images.
const LONG_NAMED: Duration = Duration::from_mins(1);

/// Promise 2: No bits are deleted that a location of any image still names; nor the last proven copy of an image that still
/// exists.
fn nothing_that_is_named_or_the_last_is_deleted(world: &World, step: &Step<'_>) -> Result<(), String> {
    if let Step::Arranges { keep, image, remove } = step {
        ensure(!keep.is_empty(), || format!("{image} is to lose its last location"))?;
        let with_bits = remove.iter().filter(|location| is_removed_with_its_bits(&location.url));
        let mut places = with_bits.filter_map(|location| world.object_at(&location.url));
        return places.try_for_each(|place| {
            let named = world.lock().witness.named_beside(&place, image);
            let is_new = named.is_none_or(|since| since.elapsed() < LONG_NAMED);
            ensure(is_new, || format!("{} is named by another image, and goes with its location", place.1))?;
            another_answers(world, &place)
        });
    }
    let Step::Deletes { place } = step else { return the_last_is_not_given_up(world, step) };
    let named = world.lock().witness.named_since(place);
    ensure(named.is_none_or(|since| since.elapsed() < LONG_NAMED), || format!("{} is named by an image", place.1))?;
    if is_gone(world, &place.1.image()) {
        return Ok(());
    }
    let record = world.ledger.record(&place.1.image());
    let proven = |replica: &&Replica| matches!(replica.state, ReplicaState::Proven | ReplicaState::Registered);
    let copies: Vec<Replica> = record.iter().flat_map(|it| it.replicas.values()).filter(proven).cloned().collect();
    let is_copy = copies.iter().any(|copy| is_of(world, copy, place));
    ensure(!is_copy || copies.len() > 1, || format!("{} is the last proven copy", place.1))?;
    another_answers(world, place)
}

/// Where bits that were proven go, another proven copy has been seen to answer.
fn another_answers(world: &World, place: &Place) -> Result<(), String> {
    let Some(record) = world.ledger.record(&place.1.image()) else { return Ok(()) };
    let proven = || record.replicas.values().filter(|replica| replica.is_proven());
    if is_gone(world, &place.1.image()) || !proven().any(|replica| is_of(world, replica, place)) {
        return Ok(());
    }
    let answers = |replica: &Replica| {
        let at = world.stores.iter().position(|store| *store.name() == replica.store);
        let other = at.zip(replica.object.clone()).filter(|other| other != place);
        let answered = other.and_then(|other| world.lock().witness.answered(&other));
        answered.is_some_and(|at| at.elapsed() < LONG_NAMED)
    };
    ensure(proven().any(answers), || format!("{} was proven, and goes while no other copy answers", place.1))
}

/// Nor is it handed to the sweeper, unless the store has shown that it is bad.
fn the_last_is_not_given_up(world: &World, step: &Step<'_>) -> Result<(), String> {
    let Step::Committed { changes, before: Some(before) } = step else { return Ok(()) };
    // One that nothing wanted, or that did not answer, may be a copy as any other by now.
    let is_proven = |replica: &&Replica| {
        replica.is_proven() && before.object_of(replica).is_some_and(|object| object.state == ObjectState::Kept)
    };
    let proven: Vec<&Replica> = before.replicas.values().filter(is_proven).collect();
    for change in *changes {
        let Change::Doom(store, object, _) = change else { continue };
        let Some(at) = world.stores.iter().position(|it| it.name() == store) else { continue };
        let is_last = proven.len() == 1 && proven[0].object.as_ref() == Some(object);
        let may_go = is_gone(world, &object.image()) || world.lock().witness.is_suspect(&(at, object.clone()));
        ensure(!is_last || may_go, || format!("{object} is the last proven copy, and is given up"))?;
    }
    Ok(())
}

fn is_of(world: &World, replica: &Replica, place: &Place) -> bool {
    replica.object.as_ref() == Some(&place.1) && replica.store.as_str() == world.store_name(place.0)
}

/// Promise 3: No byte is written at a store before the ledger says that it will be: nothing that Mimeo made is ever unknown to
/// it.
fn the_ledger_knows_first(world: &World, step: &Step<'_>) -> Result<(), String> {
    match step {
        Step::Opens { place, .. } => {
            ensure(world.is_known(place), || format!("{} is written, and the ledger does not know", place.1))
        }
        Step::Published { place } => {
            let is_there = world.stores[place.0].holds(&place.1);
            let is_known = !is_there || world.is_known(place) || world.lock().witness.forgotten.contains(place);
            ensure(is_known, || format!("{} is there, and the ledger does not know", place.1))
        }
        Step::Committed { changes, .. } => changes.iter().try_for_each(|change| {
            let Change::ObjectGone(store, object) = change else { return Ok(()) };
            let at = world.stores.iter().position(|it| it.name() == store);
            let is_there = at.is_some_and(|at| world.stores[at].holds(object));
            ensure(!is_there, || format!("{object} is forgotten, and still there"))
        }),
        _ => Ok(()),
    }
}

/// Every wait that the engine may impose on an image whose own store and services are well is shorter.
pub(crate) const SOON: Duration = Duration::from_secs(200);

/// Promise 4: A slow, dead or lying store delays no other store and no other image: where a store, the image service and the
/// ledger have been well for long, every image is there.
fn nobody_waits_for_the_slow(world: &World, step: &Step<'_>) -> Result<(), String> {
    let Step::Passes { since, everywhere } = step else { return Ok(()) };
    for at in *everywhere {
        let calm = world.lock().weather.calm_since(*at);
        if since.elapsed() < SOON || calm.is_none_or(|calm| calm.elapsed() < SOON) {
            continue;
        }
        for image in world.settled_images(SOON) {
            let record = world.ledger.record(&image.id);
            let replica = record.as_ref().and_then(|it| it.replicas.get(world.stores[*at].name()));
            // An image that was twice read with other bits waits for long, for its own sake.
            let is_hopeless = replica
                .and_then(|it| it.failure.as_ref())
                .is_some_and(|it| it.next_try.is_none() || it.reason == Reason::SourceMismatch);
            // And is not there at once when its time has come.
            let is_hopeless = world.lock().witness.is_hopeless(&(*at, image.id.clone()), is_hopeless, SOON);
            let mut places = image.locations.iter().filter_map(|location| world.object_at(&location.url));
            let is_there = places.any(|place| place.0 == *at && place.1.image() == image.id);
            let went_bad =
                world.lock().witness.went_bad(*at, &image.id).is_some_and(|at| at.elapsed() < PERIOD + 2 * SOON);
            ensure(is_there || is_hopeless || went_bad, || {
                format!("{} waits for its copy at {}", image.id, world.store_name(*at))
            })?;
        }
    }
    Ok(())
}

/// Promise 5: Memory is bounded by configuration, whatever the sizes and counts. (That nothing is staged on disk cannot be seen
/// here: the engine has no port through which it could.)
fn memory_is_bounded(world: &World, step: &Step<'_>) -> Result<(), String> {
    let Step::Gives = step else { return Ok(()) };
    let held = world.held.load(Ordering::SeqCst);
    // Beside the windows: a piece in the hands of each reader, and of each sink.
    let hands = world.open.load(Ordering::SeqCst) + CONCURRENCY;
    let most = world.setup.memory + hands * PIECE;
    ensure(held <= most, || format!("{held} bytes are held; {most} may be"))
}

/// Promise 6: A status never lies: *registered* means proven, registered **and** seen in a later read of the image.
fn registered_means_seen(world: &World, step: &Step<'_>) -> Result<(), String> {
    if let Step::Passes { since, everywhere } = step {
        return what_went_bad_is_found(world, *since, everywhere);
    }
    let Step::Committed { changes, before } = step else { return Ok(()) };
    for change in *changes {
        match change {
            Change::Replica(id, replica) if replica.state == ReplicaState::Registered => {
                // One that was merely read again: whether it is registered is for the next look to say, which may be under way.
                let old = before.and_then(|before| before.replicas.get(&replica.store));
                let was = old.is_some_and(|old| (old.state, &old.url) == (replica.state, &replica.url));
                if !was {
                    is_seen(world, id, replica)?;
                }
            }
            Change::Image(row) if before.is_none_or(|before| before.image.observed_at != row.observed_at) => {
                let record = world.ledger.record(&row.id);
                let replicas = record.iter().flat_map(|record| record.replicas.values());
                for replica in replicas.filter(|replica| replica.state == ReplicaState::Registered) {
                    is_seen(world, &row.id, replica)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// A copy that went bad is not called registered for longer than a period, where nothing hindered anybody from reading it.
fn what_went_bad_is_found(world: &World, since: Instant, everywhere: &[usize]) -> Result<(), String> {
    let long = PERIOD + SOON;
    let is_old = |at: Instant| at.elapsed() >= long;
    if !is_old(since) || world.setup.jumps {
        return Ok(());
    }
    let settled = world.settled_images(long);
    let spoiled: Vec<Place> = {
        let state = world.lock();
        let old = state.witness.spoiled.iter().filter(|(_, at)| is_old(**at)).map(|(place, _)| place.clone());
        old.filter(|(at, _)| everywhere.contains(at) && state.weather.calm_since(*at).is_some_and(is_old)).collect()
    };
    spoiled.iter().filter(|place| settled.iter().any(|image| image.id == place.1.image())).try_for_each(|place| {
        let record = world.ledger.record(&place.1.image());
        let replica = record.as_ref().and_then(|it| it.replicas.values().find(|replica| is_of(world, replica, place)));
        let is_believed = replica.is_some_and(|replica| replica.state == ReplicaState::Registered);
        ensure(!is_believed, || format!("{} went bad long ago, and is called registered", place.1))
    })
}

/// The last looks but one are asked too: the sweeper may have looked in between.
fn is_seen(world: &World, id: &ImageId, replica: &Replica) -> Result<(), String> {
    let state = world.lock();
    let mut looks = state.witness.looks(id).take(2);
    let name = || format!("{id} at {} is called registered", replica.store);
    match replica.proof.map(|proof| proof.kind) {
        None => Err(format!("{}, and was not proven", name())),
        Some(ProofKind::Glance) => {
            ensure(looks.any(|look| !look.backends.is_empty()), || format!("{}; Glance does not show it", name()))
        }
        Some(ProofKind::Readback) => {
            let url = replica.url.as_deref().unwrap_or_default();
            let shows = looks.any(|look| look.urls.iter().any(|shown| shown == url || *shown == bare(url)));
            ensure(shows, || format!("{}; no look showed it", name()))
        }
    }
}

/// Promise 7: No secret reaches a log, an API answer or a status. (`Debug`, and what adapters say of their own secrets, cannot be
/// seen here; their tests look at it.)
fn no_secret_is_told(_: &World, step: &Step<'_>) -> Result<(), String> {
    let Step::Told { text } = step else { return Ok(()) };
    ensure(!text.contains(SECRET), || format!("a password is told: {text}"))
}

/// Promise 8: Nothing is dropped: a full queue pushes back into the ledger, a failure keeps its reason and its next try.
fn nothing_is_dropped(world: &World, step: &Step<'_>) -> Result<(), String> {
    match step {
        Step::Acknowledged { event, delivered } => {
            let marked = world.lock().witness.marked.get(&event.image).copied();
            ensure(marked >= Some(*delivered), || format!("an event of {} is in no ledger", event.image))?;
            let was_deleted = event.kind == EventKind::Deleted && world.image(&event.image).is_none();
            let record = world.ledger.record(&event.image);
            let is_noted = record.is_none_or(|it| it.image.delete_seen.is_some() || it.image.gone_at.is_some());
            ensure(!was_deleted || is_noted, || format!("the end of {} is not noted", event.image))
        }
        Step::Committed { changes, .. } => changes.iter().try_for_each(|change| {
            let Change::Replica(id, replica) = change else { return Ok(()) };
            let has_reason = replica.state != ReplicaState::Failed || replica.failure.is_some();
            ensure(has_reason, || format!("{id} at {} failed for no reason", replica.store))?;
            let is_failed = replica.state == ReplicaState::Failed;
            let hopeless = replica.failure.as_ref().filter(|failure| is_failed && failure.next_try.is_none());
            let may_be = hopeless.is_none_or(|failure| HOPELESS.contains(&failure.reason));
            ensure(may_be, || format!("{id} at {} is never tried again", replica.store))
        }),
        Step::Settled { image } if world.ledger.mark(image).is_none() => {
            let Some(record) = world.ledger.record(image) else { return Ok(()) };
            let is_well = record.image.trouble.is_none() && record.image.gone_at.is_none();
            let is_active = world.lock().witness.looks(image).next().is_some_and(|look| look.active);
            ensure(!is_well || !is_active || has_no_work(&record), || format!("{image} is forgotten half-done"))
        }
        _ => Ok(()),
    }
}

/// What does not pass by itself.
const HOPELESS: [Reason; 4] =
    [Reason::EmptyImage, Reason::SourceMismatch, Reason::ImageDeactivated, Reason::ImageDeleted];

/// What is not registered waits for a person, not for its next try.
fn has_no_work(record: &Record) -> bool {
    let rests = |replica: &Replica| {
        let waits_for_somebody = replica.failure.as_ref().is_some_and(|failure| failure.next_try.is_none());
        replica.state == ReplicaState::Registered || waits_for_somebody
    };
    record.image.wanted.iter().all(|store| record.replicas.get(store).is_some_and(rests))
}

/// Promise 9: A location's URL or metadata is never authority: Mimeo reads, overwrites and deletes only objects whose names it made
/// itself, for that very image.
fn only_its_own_is_touched(world: &World, step: &Step<'_>) -> Result<(), String> {
    match step {
        Step::Opens { place, resumes: false } => {
            let store = &world.stores[place.0];
            // What was closed without anybody's knowledge is given the same bytes again.
            let is_open = store.reopens() && world.state_of(place) == Some(ObjectState::Open);
            let is_new = store.bits(&place.1).is_none() || is_open;
            ensure(is_new, || format!("{} was closed, and is overwritten", place.1))
        }
        Step::Arranges { image, remove, keep } => remove.iter().try_for_each(|location| {
            if keep.contains(location) {
                // It stood twice.
                return Ok(());
            }
            let place = world.object_at(&location.url).filter(|place| place.1.image() == **image);
            let is_own = place.is_some_and(|place| world.state_of(&place).is_some_and(ObjectState::is_to_go));
            ensure(is_own, || format!("{} is taken from {image}, and is no doomed object of Mimeo's", location.url))
        }),
        // What was removed a moment ago may still be asked for: that touches nothing.
        Step::Reads { place } if world.stores[place.0].bits(&place.1).is_none() => Ok(()),
        Step::Opens { place, .. } | Step::Reads { place } | Step::Deletes { place } => {
            ensure(world.is_known(place), || format!("{} is touched, and is not Mimeo's", place.1))
        }
        Step::Committed { changes, .. } => changes.iter().try_for_each(|change| {
            let Change::Replica(image, Replica { object: Some(object), .. }) = change else { return Ok(()) };
            ensure(object.image() == *image, || format!("{object} is taken for a copy of {image}"))
        }),
        _ => Ok(()),
    }
}

/// Removals within this time are one mass.
const AT_ONCE: Duration = Duration::from_hours(1);

/// Promise 10: Absence is not deletion: bits go only after the image's end, and never many at once without an operator.
fn absence_is_not_deletion(world: &World, step: &Step<'_>) -> Result<(), String> {
    match step {
        Step::Committed { changes, before } => changes.iter().try_for_each(|change| {
            let Change::Image(ImageRow { id, gone_at: Some(_), .. }) = change else { return Ok(()) };
            // Where no store has anything of it, nothing hangs on that.
            let is_new = before.is_some_and(|before| before.image.gone_at.is_none() && !before.objects.is_empty());
            ensure(!is_new || is_gone(world, id), || format!("{id} is called gone, and is there"))
        }),
        Step::Deletes { place } => {
            let image = place.1.image();
            if world.state_of(place) != Some(ObjectState::Kept) {
                return Ok(());
            }
            ensure(is_gone(world, &image), || format!("{} goes, and its image is there", place.1))?;
            let witness = &mut world.lock().witness;
            let (is_confirmed, removals) = (witness.confirmed, &mut witness.removals);
            removals.retain(|_, at| at.elapsed() < AT_ONCE);
            removals.entry(image).or_insert_with(Instant::now);
            let images = removals.len() as u64;
            ensure(is_confirmed || images <= MAX_IMAGES, || format!("{images} images' copies go at once"))
        }
        _ => Ok(()),
    }
}

/// Between the probe and the PATCH is a look, no more.
const JUST_NOW: Duration = Duration::from_secs(20);

/// Promise 11: Glance's record is never made worse: no PATCH during an import, none with a URL that is not answering now; what a
/// PATCH of ours undid of others' changes is put back.
fn glances_record_is_not_made_worse(world: &World, step: &Step<'_>) -> Result<(), String> {
    let (image, locations) = match step {
        Step::Patches { image, locations } => (image, *locations),
        // What is there already may not answer: that is why it is put behind the others.
        Step::Arranges { image, .. } => (image, &[][..]),
        _ => return what_was_undone_is_put_back(world, step),
    };
    let state = world.lock();
    let look = state.witness.looks(image).next().ok_or("a PATCH of an image that was not looked at")?;
    ensure(look.active && !look.importing, || format!("a PATCH of {image}, which imports or is not active"))?;
    for location in locations {
        let Some(place) = world.object_at(&location.url) else { continue };
        let answers = state.witness.answered(&place).is_some_and(|at| at.elapsed() < JUST_NOW);
        ensure(answers, || format!("a PATCH with {}, which was not seen to answer", location.url))?;
    }
    Ok(())
}

/// An undone change is put back within this time, when nothing else is wrong.
const PUT_BACK: Duration = Duration::from_secs(15);

fn what_was_undone_is_put_back(world: &World, step: &Step<'_>) -> Result<(), String> {
    let Step::Passes { since, .. } = step else { return Ok(()) };
    let mut state = world.lock();
    let State { watched, weather, .. } = &mut *state;
    let mut result = Ok(());
    watched.retain(|watched| {
        let is_late = watched.since.elapsed() >= PUT_BACK;
        let is_fair = *since <= watched.since && weather.was_well(watched.since);
        let is_undone = world.image(&watched.image).is_some_and(|image| !watched.is.holds(&image));
        if is_late && is_fair && is_undone {
            result = Err(format!("{} was made {:?}, and is not any more", watched.image, watched.is));
        }
        !is_late && is_fair
    });
    result
}

fn is_gone(world: &World, id: &ImageId) -> bool {
    world.lock().truths.get(id).is_some_and(|truth| truth.gone)
}

fn ensure(holds: bool, how: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(how()) }
}
