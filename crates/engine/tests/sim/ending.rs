//! Once faults have stopped every image must come into its wanted state, and nothing may be left over.

use std::time::Duration;

use mimeo_core::{
    Image, ImageFilter, ImageStatus, ObjectName, ObjectState, Reason, Replica, ReplicaState, StoreName, ports::Store,
};

use crate::{
    operators,
    promises::{Broken, Step},
    setup::Configuration,
    story::Story,
    tenants,
    witness::Place,
    world::World,
};

/// Longer than any wait of the engine's in fair weather: the sweeper lets an object rest for a quarter of an hour, and a
/// time that was noted while the clock was an hour ahead comes an hour later.
const PATIENCE: Duration = Duration::from_mins(100);
const GLIMPSE: Duration = Duration::from_secs(10);
/// Longer than any import.
const IMPORTED: Duration = Duration::from_mins(10);
/// What has come to rest stays so over a scan.
const REST: Duration = Duration::from_secs(70);

const IS_TO_GO: &str = "is to go and still there";
const IS_MARKED: &str = "is still marked";
const IN_THE_LEDGER: &str = "in the ledger";
const IS_LEFT: &str = "is left";
const IMPORTS: &str = "imports";

pub(crate) async fn comes_to_rest(story: &mut Story) -> Result<(), Broken> {
    operators::decide(story).await;
    let mut waited = Duration::ZERO;
    loop {
        story.pass(GLIMPSE).await;
        story.unbroken()?;
        waited += GLIMPSE;
        let Err(what) = is_at_rest(&story.world, &story.configuration) else { break };
        if waited > PATIENCE {
            return Err(Broken { promise: 0, how: format!("it never came to rest: {what}") });
        }
        if waited.as_secs().is_multiple_of(60) {
            help(story).await;
        }
        if waited == IMPORTED {
            tenants::import_again(&story.world);
        }
    }
    let patches = story.world.registry.adds().len();
    story.pass(REST).await;
    story.unbroken()?;
    let mut stays = is_at_rest(&story.world, &story.configuration);
    // What a location named may go once that is gone, by and by; and its image is looked at when it went.
    // What went bad goes when that was found out; an upload that ended late is copied by Glance after the others.
    let waits =
        |what: &String| [IS_TO_GO, IS_MARKED, IN_THE_LEDGER, IS_LEFT, IMPORTS].iter().any(|end| what.ends_with(end));
    while stays.as_ref().is_err_and(waits) && waited <= PATIENCE {
        story.pass(GLIMPSE).await;
        story.unbroken()?;
        waited += GLIMPSE;
        if waited.as_secs().is_multiple_of(60) {
            help(story).await;
        }
        stays = is_at_rest(&story.world, &story.configuration);
    }
    let is_quiet = story.world.registry.adds().len() == patches;
    stays
        .and(if is_quiet { Ok(()) } else { Err("locations are written".into()) })
        .map_err(|what| Broken { promise: 0, how: format!("it did not stay at rest: {what}") })
}

/// What waits for a person gets one: held deletions, and copies that failed for a reason that does not pass by itself.
async fn help(story: &mut Story) {
    let Some(serving) = &story.serving else { return };
    let engine = std::sync::Arc::clone(&serving.engine);
    let is_held = engine.overview().await.is_ok_and(|overview| overview.held_deletes > 0);
    if let Some(report) = engine.gc(None, 1000).await.ok().filter(|report| report.found > 0 || is_held) {
        story.world.tell(|| "confirm".into());
        story.world.lock().witness.confirm();
        let _ = engine.confirm_gc(report.as_of).await;
    }
    // A store refused to remove them.
    for entry in engine.gc(None, 1000).await.map(|report| report.entries).unwrap_or_default() {
        if entry.why.contains("mimeo replicate") {
            let _ = engine.replicate(&entry.image).await;
        }
    }
    for record in story.world.ledger.records() {
        // Glance has removed it with another image that named it: somebody has the copies read again.
        let is_missing = |replica: &Replica| {
            let at = story.world.stores.iter().position(|store| *store.name() == replica.store);
            let object = at.zip(replica.object.as_ref()).filter(|(at, _)| story.world.setup.stores[*at].reached);
            object.is_some_and(|(at, object)| !story.world.stores[at].holds(object))
        };
        let registered = record.replicas.values().filter(|replica| replica.state == ReplicaState::Registered);
        if registered.into_iter().any(is_missing) {
            let _ = engine.verify(&record.image.id).await;
        }
        let waits = |replica: &mimeo_core::Replica| replica.failure.as_ref().is_some_and(|it| it.next_try.is_none());
        if record.image.gone_at.is_none() && record.replicas.values().any(waits) {
            let _ = engine.replicate(&record.image.id).await;
        }
    }
    if let Ok(reports) = engine.list(&ImageFilter::default(), None, 100).await {
        story.world.step(&Step::Told { text: &format!("{reports:?}") });
    }
}

/// What is not as it should be, if anything is not.
fn is_at_rest(world: &World, configuration: &Configuration) -> Result<(), String> {
    let images: Vec<Image> = world.lock().truths.keys().filter_map(|id| world.image(id)).collect();
    images.iter().try_for_each(|image| is_where_wanted(world, configuration, image))?;
    for record in world.ledger.records().iter().filter(|record| record.image.gone_at.is_none()) {
        // It waits for the grace period, or for somebody who lets many go. What else it may wait for is a person's to change,
        // as it is to activate an image whose locations Glance does not let anybody change.
        let is_going = |replica: &&Replica| {
            let reason = replica.failure.as_ref().map(|failure| failure.reason);
            let is_borne = replica.object.as_ref().is_some_and(|object| is_borne(world, object));
            replica.state == ReplicaState::Retiring && reason == Some(Reason::NotWanted) && !is_borne
        };
        let is_enabled = |store: &StoreName| configuration.enabled.iter().any(|at| world.stores[*at].name() == store);
        let is_active = world.image(&record.image.id).is_some_and(|image| image.status == ImageStatus::Active);
        // It has no other place.
        let has_place = world.image(&record.image.id).is_some_and(|image| !configuration.wanted(&image).0.is_empty());
        if let Some(going) =
            record.replicas.values().find(|it| is_active && has_place && is_going(it) && is_enabled(&it.store))
        {
            return Err(format!("{} at {} {IS_TO_GO}", record.image.id, going.store));
        }
    }
    for at in &configuration.enabled {
        for object in world.stores[*at].everything() {
            is_of_use(world, configuration, &(*at, object))?;
        }
    }
    for record in world.ledger.records() {
        let id = &record.image.id;
        let is_here =
            |store: &mimeo_core::StoreName| configuration.enabled.iter().any(|at| world.stores[*at].name() == store);
        // Where every store is drained the last good copy stays.
        let has_place = |id: &mimeo_core::ImageId| {
            let image = world.image(id).filter(|_| !configuration.drained.is_empty());
            image.is_none_or(|image| !configuration.wanted(&image).0.is_empty())
        };
        let may_stay = |object: &mimeo_core::Object| {
            let at = world.stores.iter().position(|store| *store.name() == object.store).unwrap();
            let place = (at, object.name.clone());
            let is_anothers = object.state == ObjectState::Found && world.lock().witness.planted.contains(&place);
            !is_here(&object.store)
                || !has_place(id)
                || is_anothers
                || is_named(world, &place)
                || is_borne(world, &object.name)
                || is_the_last_here(world, configuration, &place)
        };
        let left = record.objects.iter().find(|it| it.state != ObjectState::Kept && !may_stay(it));
        if let Some(object) = left {
            return Err(format!("{} is {:?} {IN_THE_LEDGER}", object.name, object.state));
        }
        let is_gone = world.image(id).is_none();
        if is_gone && !record.objects.iter().any(may_stay) {
            return Err(format!("{id} is gone, and still {IN_THE_LEDGER}"));
        }
    }
    Ok(())
}

fn is_where_wanted(world: &World, configuration: &Configuration, image: &Image) -> Result<(), String> {
    if image.importing {
        return Err(format!("{} {IMPORTS}", image.id));
    }
    if image.status != ImageStatus::Active || image.size == Some(0) {
        return Ok(());
    }
    if image.doubles().next().is_some() {
        return Err(format!("{} has a location twice", image.id));
    }
    let (wanted, copies) = configuration.wanted(image);
    if wanted.is_empty() && !configuration.drained.is_empty() {
        // It has no other place.
        return Ok(());
    }
    let bad: Vec<&StoreName> =
        wanted.iter().filter(|at| !has_good_copy(world, image, **at)).map(|at| world.stores[*at].name()).collect();
    let (good, least) = (wanted.len() - bad.len(), copies.map_or(wanted.len(), |copies| copies.min(wanted.len())));
    if good < least {
        return Err(format!("{} has {good} good copies of {least}; not at {bad:?}", image.id));
    }
    if configuration.wants_glance() && !image.backends.contains(crate::setup::BACKEND) {
        return Err(format!("{} is not in Glance's own store", image.id));
    }
    match world.ledger.mark(&image.id) {
        // It is looked at now and then whether the others name it still.
        Some(_) if has_to_share(world, image) => Ok(()),
        // Its copies are read again at their time.
        Some(_) if world.setup.scrubs => Ok(()),
        Some(mark) => Err(format!("{} was to be looked at {}, and {IS_MARKED}", image.id, mark.due)),
        None => Ok(()),
    }
}

fn has_good_copy(world: &World, image: &Image, at: usize) -> bool {
    let Some(record) = world.ledger.record(&image.id) else { return false };
    let Some(replica) = record.replicas.get(world.stores[at].name()) else { return false };
    let Some(object) = &replica.object else { return false };
    let is_right = world.lock().truths.get(&image.id).map(|truth| truth.bits.clone()) == world.stores[at].seen(object);
    let is_shown = image.has_location(&world.store_location(at, object));
    replica.state == ReplicaState::Registered && is_right && is_shown
}

/// A location that is to go stays because Glance would remove bits with it that another image names.
fn has_to_share(world: &World, image: &Image) -> bool {
    let Some(record) = world.ledger.record(&image.id) else { return false };
    let is_told = record.image.trouble.is_some_and(|trouble| trouble.reason == Reason::NotWithdrawn);
    is_told && record.objects.iter().any(|object| object.state.is_to_go() && is_borne(world, &object.name))
}

/// Nothing is at a store that the ledger does not want there.
fn is_of_use(world: &World, configuration: &Configuration, place: &Place) -> Result<(), String> {
    let is_anothers = world.lock().witness.planted.contains(place);
    let is_forgotten = world.lock().witness.forgotten.contains(place) && !world.setup.stores[place.0].listable;
    if is_anothers || is_forgotten || is_named(world, place) {
        return Ok(());
    }
    // Where every store is drained the last good copy stays.
    let image = world.image(&place.1.image());
    if !configuration.drained.is_empty() && image.is_some_and(|image| configuration.wanted(&image).0.is_empty()) {
        return Ok(());
    }
    let is_kept = world.state_of(place) == Some(ObjectState::Kept) && world.image(&place.1.image()).is_some();
    match is_kept {
        true => Ok(()),
        false if is_the_last_here(world, configuration, place) => Ok(()),
        false => Err(format!("{} at {} {IS_LEFT}", place.1, world.store_name(place.0))),
    }
}

/// The image's other copies are at stores that are not enabled: nobody can ask whether they are there.
fn is_the_last_here(world: &World, configuration: &Configuration, place: &Place) -> bool {
    let image = world.image(&place.1.image()).filter(|_| world.state_of(place).is_some_and(ObjectState::is_to_go));
    let Some(image) = image else { return false };
    let mut others = configuration.enabled.iter().filter(|at| **at != place.0);
    !others.any(|at| has_good_copy(world, &image, *at))
}

/// What bears a name that any location bears stays, wherever that leads.
fn is_borne(world: &World, name: &ObjectName) -> bool {
    let images: Vec<Image> = world.lock().truths.keys().filter_map(|id| world.image(id)).collect();
    images.iter().flat_map(|image| &image.locations).any(|location| location.url.contains(name.as_str()))
}

/// What any image names stays.
fn is_named(world: &World, place: &Place) -> bool {
    world.lock().witness.named_since(place).is_some()
}
