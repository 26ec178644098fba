//! The registrar: puts proven copies into an image's `locations`, and believes nothing but a later read.
//!
//! It is the single writer of an image's locations, because it runs only within the image's one turn. A PATCH writes
//! the whole image back as Glance had loaded it, so its window is kept short: every URL is probed first, and only
//! those that answer are in it.

use std::time::Duration;

use futures::future::join_all;
use mimeo_core::{
    Change, Error, Image, ImageId, ImageStatus, Location, Reason, Record, Replica, ReplicaState, Result, StoreName,
    place, without_credentials,
};

use crate::{
    Engine,
    note::failed,
    prove,
    sabotage::{self, Bug},
};

/// A URL that needs longer than this to answer a HEAD would hold the PATCH open.
pub(crate) const PROBE_LIMIT: Duration = Duration::from_secs(2);

/// Registers the proven replicas of `stores`. Each one's outcome is in the ledger afterwards.
pub(crate) async fn register(engine: &Engine, record: &Record, stores: &[StoreName]) -> Result<()> {
    let id = &record.image.id;
    let answering = answering(engine, record, stores).await;
    if answering.is_empty() {
        return Ok(());
    }
    mimeo_crash::point("register-probed");
    // Probing took its time: the image is read again, as late as can be before the PATCH.
    let Some(before) = engine.registry.look(id).await? else { return Ok(()) };
    if before.status != ImageStatus::Active || before.importing {
        return Ok(());
    }
    // What was found since the ledger was read.
    let doubted = engine.doubts.of(id);
    let is_new =
        |(store, location): &(StoreName, Location)| !before.has_location(&location.url) && !doubted.contains(store);
    let locations = answering.into_iter().filter(is_new).collect();
    let outcomes = patch(engine, &before, locations, had_no_answer(record, stores)).await;
    mimeo_crash::point("locations-added");
    let Some(after) = engine.registry.look(id).await? else { return Ok(()) };
    mimeo_crash::point("locations-seen");
    settle(engine, &after, outcomes).await
}

/// The locations of those replicas whose URLs answer now. The others keep their reason.
async fn answering(engine: &Engine, record: &Record, stores: &[StoreName]) -> Vec<(StoreName, Location)> {
    let probes = stores.iter().filter_map(|store| {
        let replica = record.replicas.get(store)?;
        let (part, object) = (engine.stores.get(store)?, replica.object.as_ref()?);
        let (size, url) = (replica.size?, replica.url.as_ref()?);
        Some(async move {
            // As it is written now: a password in it may be another than when the object was made.
            let now = part.store.location(object);
            let answer = match place(&now) == place(url) {
                true if sabotage::is(Bug::NoProbeBeforeThePatch) => Ok(()),
                true => prove::probe(part, object, size, PROBE_LIMIT).await,
                false => Err(moved(store, url)),
            };
            (store, Location::ours(now, store).of_backend(part.backend.as_deref()), answer)
        })
    });
    let mut answering = Vec::new();
    for (store, location, answer) in join_all(probes).await {
        match answer {
            Ok(()) => answering.push((store.clone(), location)),
            Err(error) => failed(engine, &record.image.id, store, &error).await,
        }
    }
    answering
}

/// The configuration now says another place than the one where the object was proven.
fn moved(store: &StoreName, url: &str) -> Error {
    let message = format!(
        "{store}: the object is at {}, which is no longer where the configuration puts the store",
        without_credentials(url)
    );
    Error::new(Reason::LocationUnreachable, message)
}

type Outcome = (StoreName, Location, Result<()>);

/// Whether Glance did not answer the last PATCH for one of these: one URL may hang it, and then takes the others along.
fn had_no_answer(record: &Record, stores: &[StoreName]) -> bool {
    let failure = |store| record.replicas.get(store).and_then(|replica| replica.failure.as_ref());
    stores.iter().filter_map(failure).any(|failure| failure.reason == Reason::ImageServiceUnreachable)
}

/// One PATCH for all; if Glance refuses that, one for each, so that a bad one does not keep out the others. After one
/// without an answer the next turn begins with one for each: until then Glance may still be at work on it, and two
/// requests at once would be two writers.
async fn patch(
    engine: &Engine,
    before: &Image,
    locations: Vec<(StoreName, Location)>,
    mut one_by_one: bool,
) -> Vec<Outcome> {
    let all: Vec<Location> = locations.iter().map(|(_, location)| location.clone()).collect();
    let mut together = Ok(());
    if !one_by_one && !all.is_empty() {
        together = add(engine, before, &all).await;
        if let Err(error) = &together
            && all.len() > 1
            && blames_one(error)
        {
            tracing::info!(error = error.chain(), "Glance refused the locations together; trying them one by one");
            one_by_one = true;
        }
    }
    let mut outcomes = Vec::new();
    for (store, location) in locations {
        if one_by_one && engine.doubts.of(&before.id).contains(&store) {
            continue;
        }
        let outcome = match one_by_one {
            true => add_alone(engine, before, &location).await,
            false => together.as_ref().copied().map_err(|error| Error::new(error.reason, error.chain())),
        };
        outcomes.push((store, location, outcome));
    }
    outcomes
}

fn blames_one(error: &Error) -> bool {
    matches!(error.reason, Reason::LocationRefused | Reason::LocationQuota | Reason::ImageServiceError)
}

/// Unless the image has it by now: an answer that was lost may have been a yes, and Glance would take the same URL
/// twice.
async fn add_alone(engine: &Engine, before: &Image, location: &Location) -> Result<()> {
    match engine.registry.look(&before.id).await? {
        Some(now) if now.has_location(&location.url) => Ok(()),
        Some(now) if now.status == ImageStatus::Active && !now.importing => {
            add(engine, &now, std::slice::from_ref(location)).await
        }
        // Those before it took their time.
        _ => Err(Error::new(
            Reason::Conflict,
            "the image is no longer active, or Glance imports it: it is looked at again",
        )),
    }
}

/// The PATCH itself, with its window noted, so that what it undid for others can be found and put back.
async fn add(engine: &Engine, before: &Image, locations: &[Location]) -> Result<()> {
    let window = engine.recent.open(before);
    let outcome = engine.registry.add_locations(&before.id, locations).await;
    engine.recent.close(&window, &outcome);
    outcome
}

/// Only a later read of the image says what is registered. All that is becomes so in one commit.
async fn settle(engine: &Engine, after: &Image, outcomes: Vec<Outcome>) -> Result<()> {
    let is_believed = |outcome: &Result<()>| sabotage::is(Bug::AnswerIsBelieved) && outcome.is_ok();
    let (shown, missing): (Vec<Outcome>, Vec<Outcome>) = outcomes
        .into_iter()
        .partition(|(_, location, outcome)| after.has_location(&location.url) || is_believed(outcome));
    note(engine, &after.id, shown).await?;
    for (store, _, outcome) in missing {
        let error = outcome.err().unwrap_or_else(|| {
            let message = "Glance took the location and lost it again: another writer wrote the image at the same \
                           moment; it is registered again";
            Error::new(Reason::LocationLost, message)
        });
        failed(engine, &after.id, &store, &error).await;
    }
    Ok(())
}

async fn note(engine: &Engine, id: &ImageId, shown: Vec<Outcome>) -> Result<()> {
    if shown.is_empty() {
        return Ok(());
    }
    let mut replicas = engine.ledger.load(id).await?.map(|record| record.replicas).unwrap_or_default();
    let now = engine.clock.now();
    let registered = shown.into_iter().map(|(store, location, _)| {
        let url = match sabotage::is(Bug::PasswordIsLogged) {
            true => location.url.clone(),
            false => without_credentials(&location.url),
        };
        tracing::info!(%store, url, "registered");
        let replica = replicas.remove(&store).unwrap_or_else(|| Replica::wanted(store));
        let replica = Replica {
            state: ReplicaState::Registered,
            url: Some(location.url),
            seen_at: Some(now),
            // How often it was lost counts until it has stayed for a while.
            failure: replica.failure.filter(|failure| failure.reason == Reason::LocationLost),
            ..replica
        };
        Change::Replica(id.clone(), replica)
    });
    engine.ledger.commit(&registered.collect::<Vec<_>>()).await?;
    mimeo_crash::point("location-noted");
    Ok(())
}
