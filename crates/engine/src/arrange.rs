//! The registrar's other half: takes locations out of an image and puts them in order, and believes nothing but a later read.
//!
//! As the adding of locations it runs only within the image's one turn, never while Glance imports, and with the window of
//! its PATCH noted.

use mimeo_core::{
    Change, Error, Failure, Image, ImageId, ImageRow, ImageStatus, Location, Reason, Result, plan::Sight,
    without_credentials,
};

use crate::{
    Engine,
    look::Look,
    withheld::{Stay, withheld},
};

/// Takes out of the image the locations that are to be withdrawn, all but the last that it has and those that have to stay,
/// leaves one of each that stands twice, and puts the others in the order that they should have. A failure is kept in the
/// ledger, with the next try. An error: nothing more may be sent to Glance for this image now.
pub(crate) async fn arrange(engine: &Engine, Look { sight, plan, .. }: &Look) -> Result<()> {
    let Sight::Present(image) = sight else { return Ok(()) };
    if !plan.has_locations_to_arrange() {
        return Ok(());
    }
    let withheld = withheld(engine, image, &plan.withdraw).await?;
    let _turn = engine.arranged.acquire().await;
    // As late as can be before the PATCH.
    let Some(before) = engine.registry.look(&image.id).await? else { return Ok(()) };
    let doubles: Vec<usize> = before.doubles().filter(|_| plan.doubled).collect();
    let goes = |url: &String| plan.withdraw.contains(url) && !withheld.contains_key(url);
    let (mut remove, mut keep) = (Vec::new(), Vec::new());
    for (at, location) in before.locations.iter().cloned().enumerate() {
        let list = if goes(&location.url) || doubles.contains(&at) { &mut remove } else { &mut keep };
        list.push(location);
    }
    let order = plan.order.as_deref().unwrap_or_default();
    let place = |url: &String| order.iter().position(|it| it == url).unwrap_or(order.len());
    // Stable: one that has come meanwhile is the last, but for those that should not be there.
    let is_last_choice = |url: &String| withheld.get(url).is_some_and(|stay| !stay.is_last_copy);
    keep.sort_by_key(|location| (is_last_choice(&location.url), place(&location.url)));
    let mut failures: Vec<String> = withheld.iter().map(|(url, stay)| stays(url, stay)).collect();
    if keep != before.locations && !keep.is_empty() {
        let failure = change(engine, &before, &keep, &remove).await?;
        failures.extend(failure.filter(|_| !remove.is_empty()));
    }
    match failures.is_empty() {
        true => Ok(()),
        false => note(engine, &image.id, failures.join("; ")).await,
    }
}

fn stays(url: &str, Stay { why, is_last_copy }: &Stay) -> String {
    let url = without_credentials(url);
    match is_last_copy {
        true => format!("{url} stays among the image's locations: {why}"),
        false => {
            format!("{url} stays among the image's locations, as the last: Glance removes the bits with it, and {why}")
        }
    }
}

/// Makes of the locations those to be kept, in this order. Gives why that failed.
async fn change(engine: &Engine, before: &Image, keep: &[Location], remove: &[Location]) -> Result<Option<String>> {
    let outcome = match patch(engine, before, keep, remove).await {
        Ok(after) => still_there(after.as_ref(), keep, remove),
        // Glance may still be at work on it: a second request beside it would be a second writer.
        Err(error) if error.reason == Reason::ImageServiceUnreachable => return Err(error),
        Err(error) => Err(error),
    };
    let urls: Vec<String> = remove.iter().map(|location| without_credentials(&location.url)).collect();
    match outcome {
        Ok(()) => {
            for (url, location) in urls.iter().zip(remove) {
                if keep.contains(location) {
                    tracing::info!(url, "stood twice among the locations, and stands once");
                } else {
                    tracing::info!(url, "withdrawn");
                }
            }
            if urls.is_empty() {
                tracing::info!("the locations were put in another order");
            }
            Ok(None)
        }
        Err(error) if remove.is_empty() => {
            // The replica keeps when it is tried again.
            tracing::warn!(reason = error.reason.code(), error = error.chain(), "the locations stay in their order");
            Ok(None)
        }
        Err(error) => {
            Ok(Some(format!("could not take {} out of the image's locations: {}", urls.join(", "), error.chain())))
        }
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
    engine.recent.close(&window, &outcome);
    mimeo_crash::point("locations-arranged");
    outcome?;
    engine.registry.look(&before.id).await
}

fn still_there(after: Option<&Image>, kept: &[Location], removed: &[Location]) -> Result<()> {
    let times = |locations: &[Location], url: &str| locations.iter().filter(|location| location.url == url).count();
    let is_there = |location: &&Location| {
        let url = &location.url;
        after.is_some_and(|after| times(&after.locations, url) > times(kept, url))
    };
    match removed.iter().find(is_there) {
        None => Ok(()),
        Some(location) => {
            let url = without_credentials(&location.url);
            let message = format!("Glance took {url} out and shows it again: another writer wrote the image just then");
            Err(Error::new(Reason::Conflict, message))
        }
    }
}

/// Keeps why locations are still there. What was tried before counts.
async fn note(engine: &Engine, id: &ImageId, message: String) -> Result<()> {
    let record = engine.ledger.load(id).await?;
    let row = record.map_or_else(|| ImageRow::new(id.clone()), |record| record.image);
    let before = row.trouble.as_ref().filter(|before| before.reason == Reason::NotWithdrawn);
    let tries = before.map_or(0, |before| before.tries).saturating_add(1);
    let next_try = engine.settings.policy.backoff.next(engine.clock.now(), tries);
    tracing::warn!(reason = Reason::NotWithdrawn.code(), tries, message);
    let failure = Failure { reason: Reason::NotWithdrawn, message, tries, next_try: Some(next_try) };
    engine.ledger.commit(&[Change::Image(ImageRow { trouble: Some(failure), ..row })]).await
}
