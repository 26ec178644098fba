//! Reconcile one image: look, plan, act, until there is nothing left to do now.
//!
//! Whatever woke it, the truth is read again first. One task at a time works on an image: the dispatcher sees to it.

use std::{collections::BTreeSet, sync::Arc};

use mimeo_core::{Change, DirtyMark, Error, Failure, ImageId, ImageRow, Reason, Result, Timestamp, plan::Sight};

use crate::{Engine, arrange, ask, copy, look::look, register, turn::Turn};

/// Looks at one image in a row; more means that something undoes the work as fast as it is done.
const ROUNDS: u32 = 8;

/// Works off one turn, and settles its mark in the ledger; an error says that the mark is still as it was.
#[tracing::instrument(name = "image", skip_all, fields(id = %turn.due.image))]
pub(crate) async fn run(engine: Arc<Engine>, turn: Turn) -> Result<()> {
    let id = &turn.due.image;
    let next = match rounds(&engine, &turn).await {
        Ok(next) => {
            let watched = engine.recent.looks_in(id).and_then(|wait| engine.clock.now().saturating_add(wait).ok());
            next.into_iter().chain(watched).min()
        }
        Err(error) => Some(trouble(&engine, id, &error).await),
    };
    let next = next.map(|due| DirtyMark { image: id.clone(), due });
    mimeo_crash::point("turn-done");
    engine.ledger.settle(&turn.due, next).await?;
    mimeo_crash::point("turn-settled");
    Ok(())
}

async fn rounds(engine: &Arc<Engine>, turn: &Turn) -> Result<Option<Timestamp>> {
    let id = &turn.due.image;
    for round in 0..ROUNDS {
        let look = look(engine, id, &BTreeSet::new()).await?;
        if let Sight::Present(_) = &look.sight {
            // What the first look finds is what the mark was for.
            let since = if round == 0 { turn.due.due } else { engine.clock.now() };
            engine.await_copies(&look.record, since);
        }
        if engine.settings.observe || !look.plan.has_work() {
            return Ok(look.plan.next_look);
        }
        if turn.stop.is_cancelled() {
            // What is left to do is for the next start.
            return Ok(Some(engine.clock.now()));
        }
        arrange::arrange(engine, &look).await?;
        let Sight::Present(image) = look.sight else { return Ok(look.plan.next_look) };
        if !look.plan.register.is_empty() {
            register::register(engine, &look.record, &look.plan.register).await?;
        }
        if !look.plan.ask.is_empty() {
            ask::ask(engine, &look.record, &look.plan.ask).await?;
        }
        copy::run(engine, turn, &image, &look.plan).await?;
    }
    tracing::warn!("the image keeps changing under Mimeo's hands; looking again later");
    Ok(Some(engine.settings.policy.backoff.next(engine.clock.now(), 3)))
}

/// Keeps why this look failed where `mimeo status` finds it, and says when the next one is.
async fn trouble(engine: &Engine, id: &ImageId, error: &Error) -> Timestamp {
    let now = engine.clock.now();
    if error.reason != Reason::Ledger {
        engine.health.trouble(error);
    }
    // Without the row as it is nothing is written: it would be overwritten.
    let row = engine.ledger.load(id).await.ok().map(|record| record.map_or(ImageRow::new(id.clone()), |it| it.image));
    let tries = row.as_ref().and_then(|row| row.trouble.as_ref()).map_or(1, |failure| failure.tries.saturating_add(1));
    let next = engine.settings.policy.backoff.next(now, tries);
    tracing::warn!(reason = error.reason.code(), error = error.chain(), tries, "could not work on this image");
    let failure = Failure { reason: error.reason, message: error.chain(), tries, next_try: Some(next) };
    if let Some(row) = row {
        // A ledger that is down cannot keep it; the log line above has it.
        let _ = engine.ledger.commit(&[Change::Image(ImageRow { trouble: Some(failure), ..row })]).await;
    }
    next
}
