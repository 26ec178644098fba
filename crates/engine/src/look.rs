//! A look at one image: what the image service and the ledger say, and the plan that follows.

use std::{collections::BTreeSet, sync::atomic::Ordering};

use mimeo_core::{
    Change, Failure, ImageId, Reason, Record, Replica, ReplicaState, Result, StoreName,
    plan::{Plan, Sight},
};

use crate::{
    Engine, guard, note,
    sabotage::{self, Bug},
};

/// What one look gave. The plan's changes are in the ledger already.
pub(crate) struct Look {
    pub(crate) record: Record,
    pub(crate) sight: Sight,
    pub(crate) plan: Plan,
}

/// Reads the image and the ledger, plans, and commits what the plan says of the image.
pub(crate) async fn look(engine: &Engine, id: &ImageId, running: &BTreeSet<StoreName>) -> Result<Look> {
    note::doubts(engine, id).await?;
    let record = engine.ledger.load(id).await?.unwrap_or_else(|| Record::new(id.clone()));
    let sight = observe(engine, &record).await?;
    if let Sight::Present(image) = &sight {
        engine.recent.inherit(image, !engine.settings.observe && awaits_a_patch(&record));
        engine.put_back_undone(image).await;
    }
    let concluding = engine.concluding.read().await;
    let mut plan = engine.plan_for(&record, &sight, running);
    let forgets = plan.changes.iter().any(|change| matches!(change, Change::Forget(_)));
    let has_gone = forgets && guard::has_gone(&record, guard::confirmed(engine).await?);
    if !plan.retired.is_empty() || has_gone {
        plan.changes.push(engine.guard.note(engine.clock.now()));
    }
    mimeo_crash::point("look-planned");
    engine.ledger.commit(&plan.changes).await?;
    drop(concluding);
    mimeo_crash::point("look-noted");
    // What was just committed is part of what comes next: a replica that the plan moved on, say.
    let before = record;
    let record = engine.ledger.load(id).await?.unwrap_or_else(|| before.clone());
    engine.scrubs.wait(&record, &plan.verify_later);
    take_note(engine, &before, &record);
    engine.asked.seen(&record, matches!(&sight, Sight::Present(image) if image.importing));
    Ok(Look { record, sight, plan })
}

/// Whether the process before this one may have had the image's locations changed: some are to be added, taken out, or put
/// in another place.
fn awaits_a_patch(record: &Record) -> bool {
    let is_moved = |failure: &Failure| matches!(failure.reason, Reason::StoreDown | Reason::Demoted);
    let is_on_its_way =
        |replica: &Replica| replica.state == ReplicaState::Proven || replica.failure.as_ref().is_some_and(is_moved);
    record.replicas.values().any(is_on_its_way) || record.objects.iter().any(|object| object.state.is_to_go())
}

/// Copies that were seen may be asked for by their stores' probers; what was lost is told, once for each time.
fn take_note(engine: &Engine, before: &Record, after: &Record) {
    // Of a store that was moved it says nothing that what was at the former place is not at this one.
    let elsewhere = engine.elsewhere(after);
    for replica in after.replicas.values() {
        let is_here = !elsewhere.contains(&replica.store);
        // Of a store that did not answer before a restart there may be none but suspects to ask for.
        let is_live = matches!(replica.state, ReplicaState::Registered | ReplicaState::Suspect);
        if let Some(object) = replica.object.as_ref().filter(|_| is_live && is_here) {
            engine.breakers.saw(&replica.store, object);
        }
        let losses = |record: &Record| {
            let failure = record.replicas.get(&replica.store).and_then(|replica| replica.failure.as_ref());
            failure.filter(|failure| failure.reason == Reason::LocationLost).map_or(0, |failure| failure.tries)
        };
        let (store, losses, known) = (&replica.store, losses(after), losses(before));
        if losses > known && losses == 1 {
            tracing::info!(%store, "a location was removed by another writer; it is registered again");
        } else if losses > known {
            tracing::warn!(%store, losses, "another writer keeps removing this location; it is registered again later");
        }
    }
    let stays = |record: &Record| {
        record
            .image
            .trouble
            .as_ref()
            .filter(|trouble| trouble.reason == Reason::LastLocation)
            .map(|it| it.message.clone())
    };
    if let Some(message) = stays(after).filter(|_| stays(before).is_none()) {
        tracing::error!(message);
    }
}

/// Absence is not deletion (promise 10): a 404 counts only with a delete event, or between two moments at which the
/// token is shown to see every project's private images. One moment would not do: a role that comes back between the
/// 404 and the question would make every image look deleted.
async fn observe(engine: &Engine, record: &Record) -> Result<Sight> {
    let (id, registry) = (&record.image.id, &engine.registry);
    let found = registry.look(id).await?;
    engine.health.clear_trouble();
    if let Some(image) = found {
        return Ok(Sight::Present(Box::new(image)));
    }
    let known = !record.objects.is_empty();
    let concluded = record.image.gone_at.is_some() || record.image.delete_seen.is_some();
    if concluded || sabotage::is(Bug::AbsenceIsDeletion) {
        return Ok(Sight::Gone);
    }
    let sight = if registry.sees_all().await? {
        match registry.look(id).await? {
            Some(image) => Sight::Present(Box::new(image)),
            None if registry.sees_all().await? => Sight::Gone,
            None => Sight::NotVisible,
        }
    } else {
        Sight::NotVisible
    };
    if !known && matches!(sight, Sight::NotVisible) {
        // There is nothing to lose; but it is to be found again, and until then it may name what others lose.
        engine.missed.fetch_add(1, Ordering::SeqCst);
    }
    Ok(sight)
}
