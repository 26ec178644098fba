//! A look at one image: what the image service and the ledger say, and the plan that follows.

use std::collections::BTreeSet;

use mimeo_core::{
    ImageId, Record, Result, StoreName,
    plan::{self, Observation, Plan, Sight},
};

use crate::Engine;

/// What one look gave. The plan's changes are in the ledger already.
pub(crate) struct Look {
    pub(crate) record: Record,
    pub(crate) sight: Sight,
    pub(crate) plan: Plan,
}

/// Reads the image and the ledger, plans, and commits what the plan says of the image.
pub(crate) async fn look(engine: &Engine, id: &ImageId, running: &BTreeSet<StoreName>) -> Result<Look> {
    let record = engine.ledger.load(id).await?.unwrap_or_else(|| Record::new(id.clone()));
    let sight = observe(engine, &record).await?;
    if let Sight::Present(image) = &sight {
        engine.put_back_undone(image).await;
    }
    let now = engine.clock.now();
    let conditions = engine.conditions(now);
    let seen = Observation { now, record: &record, sight: &sight, running, conditions: &conditions };
    let plan = plan::plan(&engine.settings.policy, &seen);
    mimeo_crash::point("look-planned");
    engine.ledger.commit(&plan.changes).await?;
    mimeo_crash::point("look-noted");
    // What was just committed is part of what comes next: a replica that the plan moved on, say.
    let record = engine.ledger.load(id).await?.unwrap_or(record);
    engine.asked.seen(&record, matches!(&sight, Sight::Present(image) if image.importing));
    Ok(Look { record, sight, plan })
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
    if !known || concluded {
        return Ok(Sight::Gone);
    }
    if !registry.sees_all().await? {
        return Ok(Sight::NotVisible);
    }
    Ok(match registry.look(id).await? {
        Some(image) => Sight::Present(Box::new(image)),
        None if registry.sees_all().await? => Sight::Gone,
        None => Sight::NotVisible,
    })
}
