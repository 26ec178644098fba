//! The scan finds what events missed: often the images that changed lately, now and then all of them.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use mimeo_core::{
    Change, DirtyMark, Image, ImageId, ImageRow, Reason, Record, Result, Timestamp,
    plan::{self, Observation, Sight},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    Engine,
    walk::{Records, Walk},
};

const BOOKMARK: &str = "scan";
/// Looked at twice, because Glance's times have whole seconds and a slow writer may come late with an early one.
const OVERLAP: Duration = Duration::from_secs(5);

pub(crate) async fn run(engine: Arc<Engine>, stop: CancellationToken) {
    let (mut full_at, mut failures, mut saw_all) = (Instant::now(), 0_u32, true);
    loop {
        let due = Instant::now() >= full_at;
        let scanned = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            scanned = scan(&engine, due, &mut saw_all) => scanned,
        };
        let wait = match scanned {
            Ok(full) => {
                failures = 0;
                if full {
                    full_at = Instant::now() + engine.settings.full_scan_interval;
                }
                let mut seen = engine.health.lock();
                seen.last_scan = Some(engine.clock.now());
                engine.settings.scan_interval
            }
            Err(error) => {
                failures = failures.saturating_add(1);
                engine.health.trouble(&error);
                tracing::warn!(reason = error.reason.code(), error = error.chain(), failures, "the scan failed");
                engine.settings.policy.backoff.delay(failures).min(engine.settings.scan_interval)
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// One scan, full if that is due or if the token no longer sees what it saw at the last scan: a list that became
/// shorter brings no events. Answers whether it was full.
async fn scan(engine: &Engine, due: bool, saw_all: &mut bool) -> Result<bool> {
    let sees_all = engine.registry.sees_all().await?;
    let full = due || (*saw_all && !sees_all);
    let began = engine.clock.now();
    let bookmark = engine.ledger.bookmark(BOOKMARK).await?.and_then(|text| text.parse::<Timestamp>().ok());
    let since = bookmark.filter(|_| !full).map(|at| at.saturating_sub(OVERLAP).unwrap_or(at));
    let (mut newest, mut seen) = (bookmark, BTreeSet::new());
    let mut walk = Walk::new(engine.registry.as_ref(), since);
    while let Some(page) = walk.next().await? {
        newest = newest.max(page.iter().map(|image| image.updated_at).max());
        mark_unsettled(engine, &page).await?;
        if full {
            seen.extend(page.into_iter().map(|image| image.id));
        }
    }
    if full {
        mark_unseen(engine, &seen).await?;
    }
    *saw_all = sees_all;
    // A glance-api whose clock is ahead must not hide what the others do until then.
    if let Some(newest) = newest.map(|newest| newest.min(began)).filter(|newest| bookmark != Some(*newest)) {
        engine.ledger.commit(&[Change::Bookmark(BOOKMARK.into(), newest.to_string())]).await?;
    }
    Ok(full)
}

/// Marks those images of a page for which the planner would do or note anything.
async fn mark_unsettled(engine: &Engine, page: &[Image]) -> Result<()> {
    let mut unsettled = Vec::new();
    for image in page {
        let known = engine.ledger.load(&image.id).await?;
        if known.is_none_or(|record| !is_settled(engine, &record, image)) {
            unsettled.push(image.id.clone());
        }
    }
    mark(engine, unsettled).await
}

fn is_settled(engine: &Engine, record: &Record, image: &Image) -> bool {
    let sight = Sight::Present(Box::new(image.clone()));
    let running = BTreeSet::new();
    let now = engine.clock.now();
    let conditions = engine.conditions(now);
    let seen = Observation { now, record, sight: &sight, running: &running, conditions: &conditions };
    let plan = plan::plan(&engine.settings.policy, &seen);
    let is_news = |change: &Change| match change {
        Change::Image(row) => {
            let facts = |row: &ImageRow| (row.wanted.clone(), row.name.clone(), row.status.clone(), row.gone_at);
            facts(row) != facts(&record.image)
        }
        Change::Replica(_, after) => record.replicas.get(&after.store).is_none_or(|before| before.state != after.state),
        _ => true,
    };
    !plan.has_work() && !plan.changes.iter().any(is_news)
}

/// Marks the images that the ledger knows and the image service did not list. Whether they are gone is for the look
/// to find out.
async fn mark_unseen(engine: &Engine, seen: &BTreeSet<ImageId>) -> Result<()> {
    let mut walk = Records::all(engine.ledger.as_ref());
    while let Some(records) = walk.next().await? {
        let unseen = records.iter().filter(|record| record.image.gone_at.is_none());
        let unseen = unseen.map(|record| &record.image.id).filter(|id| !seen.contains(*id)).cloned();
        mark(engine, unseen.collect()).await?;
    }
    Ok(())
}

/// Marks the images of which a replica waits for this reason.
pub(crate) async fn mark_waiting(engine: &Engine, reason: Reason) -> Result<()> {
    let waits = |record: &&Record| {
        record.replicas.values().any(|replica| replica.failure.as_ref().is_some_and(|it| it.reason == reason))
    };
    let mut walk = Records::all(engine.ledger.as_ref());
    while let Some(records) = walk.next().await? {
        mark(engine, records.iter().filter(waits).map(|record| record.image.id.clone()).collect()).await?;
    }
    Ok(())
}

async fn mark(engine: &Engine, images: Vec<ImageId>) -> Result<()> {
    if images.is_empty() {
        return Ok(());
    }
    let due = engine.clock.now();
    let changes: Vec<Change> = images.into_iter().map(|image| Change::Dirty(DirtyMark { image, due })).collect();
    engine.ledger.commit(&changes).await?;
    engine.wake.notify_one();
    Ok(())
}
