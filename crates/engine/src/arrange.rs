//! The registrar's other half: takes locations out of an image and puts them in order, and believes nothing but a later read.
//!
//! As the adding of locations it runs only within the image's one turn, never while Glance imports, and with the window of
//! its PATCH noted.

use mimeo_core::{
    Change, Error, Failure, Image, ImageId, ImageRow, ImageStatus, Location, Reason, Result, plan::Plan,
    without_credentials,
};

use crate::Engine;

/// Takes out of the image the locations that are to be withdrawn, all but the last that it has, and puts the others in the
/// order that they should have. A failure is kept in the ledger, with the next try. An error: nothing more may be sent to
/// Glance for this image now.
pub(crate) async fn arrange(engine: &Engine, id: &ImageId, plan: &Plan) -> Result<()> {
    if plan.withdraw.is_empty() && plan.order.is_none() {
        return Ok(());
    }
    let _turn = engine.arranged.acquire().await;
    // As late as can be before the PATCH.
    let Some(before) = engine.registry.look(id).await? else { return Ok(()) };
    let (remove, mut keep): (Vec<_>, Vec<_>) =
        before.locations.iter().cloned().partition(|location| plan.withdraw.contains(&location.url));
    let order = plan.order.as_deref().unwrap_or_default();
    // Stable: one that has come meanwhile is the last.
    keep.sort_by_key(|location| order.iter().position(|url| *url == location.url).unwrap_or(order.len()));
    let is_so = remove.is_empty() && keep == before.locations;
    if is_so || keep.is_empty() {
        return Ok(());
    }
    let outcome = match patch(engine, &before, &keep, &remove).await {
        Ok(after) => still_there(after.as_ref(), &remove),
        // Glance may still be at work on it: a second request beside it would be a second writer.
        Err(error) if error.reason == Reason::ImageServiceUnreachable => return Err(error),
        Err(error) => Err(error),
    };
    match outcome {
        Ok(()) => {
            for location in &remove {
                tracing::info!(url = without_credentials(&location.url), "withdrawn");
            }
            if plan.order.is_some() {
                tracing::info!("the locations were put in another order");
            }
            Ok(())
        }
        Err(error) if remove.is_empty() => {
            // The replica keeps when it is tried again.
            tracing::warn!(reason = error.reason.code(), error = error.chain(), "the locations stay in their order");
            Ok(())
        }
        Err(error) => note(engine, id, &remove, &error).await,
    }
}

/// The PATCH, with its window noted, and the image as a later read shows it.
async fn patch(engine: &Engine, before: &Image, keep: &[Location], remove: &[Location]) -> Result<Option<Image>> {
    if before.status != ImageStatus::Active || before.importing {
        let message = format!("the image is {}, or Glance imports it: its locations are left alone", before.status);
        return Err(Error::new(Reason::Conflict, message));
    }
    let window = engine.recent.open(before);
    let outcome = engine.registry.arrange_locations(&before.id, keep, remove).await;
    if !matches!(&outcome, Err(error) if error.reason == Reason::ImageServiceUnreachable) {
        engine.recent.close(&window);
    }
    outcome?;
    engine.registry.look(&before.id).await
}

fn still_there(after: Option<&Image>, removed: &[Location]) -> Result<()> {
    let is_there = |location: &&Location| after.is_some_and(|after| after.has_location(&location.url));
    match removed.iter().find(is_there) {
        None => Ok(()),
        Some(location) => {
            let url = without_credentials(&location.url);
            let message = format!("Glance took {url} out and shows it again: another writer wrote the image just then");
            Err(Error::new(Reason::Conflict, message))
        }
    }
}

/// Keeps why the locations are still there. What was tried before counts.
async fn note(engine: &Engine, id: &ImageId, remove: &[Location], error: &Error) -> Result<()> {
    let record = engine.ledger.load(id).await?;
    let row = record.map_or_else(|| ImageRow::new(id.clone()), |record| record.image);
    let before = row.trouble.as_ref().filter(|before| before.reason == Reason::NotWithdrawn);
    let tries = before.map_or(0, |before| before.tries).saturating_add(1);
    let next_try = engine.settings.policy.backoff.next(engine.clock.now(), tries);
    let urls: Vec<String> = remove.iter().map(|location| without_credentials(&location.url)).collect();
    let message = format!("could not take {} out of the image's locations: {}", urls.join(", "), error.chain());
    tracing::warn!(reason = error.reason.code(), tries, message);
    let failure = Failure { reason: Reason::NotWithdrawn, message, tries, next_try: Some(next_try) };
    engine.ledger.commit(&[Change::Image(ImageRow { trouble: Some(failure), ..row })]).await
}
