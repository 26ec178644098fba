//! The scan finds what events missed: often the images that changed lately, now and then all of them.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use mimeo_core::{Change, DirtyMark, Image, ImageId, ImageRow, Reason, Record, Result, Timestamp, plan::Sight};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    Engine, names,
    walk::{Records, Walk},
};

const BOOKMARK: &str = "scan";
/// Looked at twice, because Glance's times have whole seconds and a slow writer may come late with an early one.
const OVERLAP: Duration = Duration::from_secs(5);

pub(crate) async fn run(engine: Arc<Engine>, stop: CancellationToken) {
    let (mut full_at, mut failures) = (Instant::now(), 0_u32);
    let mut before = Before { saw_all: true, is_noted: false, missed: 0 };
    loop {
        let due = Instant::now() >= full_at;
        let scanned = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            scanned = scan(&engine, due, &mut before) => scanned,
        };
        let wait = match scanned {
            Ok(full) => {
                failures = 0;
                if full {
                    full_at = Instant::now() + engine.settings.full_scan_interval;
                }
                let now = engine.clock.now();
                engine.meter.beat("scan", now);
                engine.health.clear_trouble();
                engine.health.lock().last_scan = Some(now);
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

/// What the scans before this one saw.
struct Before {
    saw_all: bool,
    /// With which roles all was seen.
    is_noted: bool,
    /// How many looks had missed an image by then, that a scan has made good.
    missed: u64,
}

/// One scan, full if that is due, or if the token no longer sees what it saw at the last scan: a list that became
/// shorter brings no events. Or sees it again: what was made meanwhile had its event, and is older than the bookmark.
/// Answers whether it was full.
async fn scan(engine: &Engine, due: bool, before: &mut Before) -> Result<bool> {
    let sees_all = engine.registry.sees_all().await?;
    let missed = engine.missed.load(Ordering::SeqCst);
    let sees_again = sees_all && (!before.saw_all || missed > before.missed);
    let sees_less = !sees_all && (before.saw_all || hides_what_was_there(engine).await?);
    let full = due || sees_less || sees_again;
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
    mimeo_crash::point("scan-walked");
    before.is_noted = sees_all && (before.is_noted || is_noted(engine).await);
    before.saw_all = sees_all;
    if full && sees_all {
        before.missed = missed;
    }
    // A glance-api whose clock is ahead must not hide what the others do until then.
    if let Some(newest) = newest.map(|newest| newest.min(began)).filter(|newest| bookmark != Some(*newest)) {
        engine.ledger.commit(&[Change::Bookmark(BOOKMARK.into(), newest.to_string())]).await?;
    }
    Ok(full)
}

/// Notes with which roles all is seen. What comes of a scan does not hang on it: the next one tries again.
async fn is_noted(engine: &Engine) -> bool {
    names::note_roles(engine).await.unwrap_or_else(|error| {
        tracing::warn!(
            reason = error.reason.code(),
            error = error.chain(),
            "it is not noted with which roles Mimeo sees all images"
        );
        false
    })
}

/// Whether an image is hidden that its last look showed. Where no list shows that the token sees all, because no project has
/// an image of its own, that is the only sign that it sees less than it did.
async fn hides_what_was_there(engine: &Engine) -> Result<bool> {
    let mut walk = Records::all(engine.ledger.as_ref());
    while let Some(records) = walk.next().await? {
        let was_there = |row: &ImageRow| row.gone_at.is_none() && row.status.is_some() && row.trouble.is_none();
        if let Some(record) = records.iter().find(|record| was_there(&record.image)) {
            return Ok(engine.registry.look(&record.image.id).await?.is_none());
        }
    }
    Ok(false)
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
    let plan = engine.plan_for(record, &Sight::Present(Box::new(image.clone())), &BTreeSet::new());
    let is_news = |change: &Change| match change {
        Change::Image(row) => {
            let facts = |row: &ImageRow| {
                (row.wanted.clone(), row.rules.clone(), row.name.clone(), row.status.clone(), row.gone_at)
            };
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
    let waits = |record: &Record| {
        record.replicas.values().any(|replica| replica.failure.as_ref().is_some_and(|it| it.reason == reason))
    };
    mark_where(engine, waits, Duration::ZERO).await
}

/// Marks the images whose record is such, also where they have a turn now, with so much time between each two of them.
pub(crate) async fn mark_where(
    engine: &Engine,
    is_such: impl Fn(&Record) -> bool + Send + Sync,
    between: Duration,
) -> Result<()> {
    let mut due = engine.clock.now();
    let mark = |image: ImageId| {
        let mark = DirtyMark { image, due };
        due = due.saturating_add(between).unwrap_or(due);
        vec![Change::Dirty(mark)]
    };
    change_where(engine, is_such, mark).await?;
    Ok(())
}

/// As [`mark_where`], and what failed of them is tried again now. Gives how many they are.
pub(crate) async fn retry_where(engine: &Engine, is_such: impl Fn(&Record) -> bool + Send + Sync) -> Result<usize> {
    let now = engine.clock.now();
    let again = |image: ImageId| vec![Change::TryAt(image.clone(), now), Change::Dirty(DirtyMark { image, due: now })];
    change_where(engine, is_such, again).await
}

async fn change_where(
    engine: &Engine,
    is_such: impl Fn(&Record) -> bool + Send + Sync,
    mut change: impl FnMut(ImageId) -> Vec<Change> + Send,
) -> Result<usize> {
    let (mut walk, mut count) = (Records::all(engine.ledger.as_ref()), 0);
    while let Some(records) = walk.next().await? {
        let ids = records.iter().filter(|record| is_such(record)).map(|record| record.image.id.clone());
        let ids: Vec<ImageId> = ids.collect();
        let changes: Vec<Change> = ids.iter().cloned().flat_map(&mut change).collect();
        commit_marks(engine, &changes).await?;
        for id in &ids {
            engine.turns.poke(id);
        }
        count += ids.len();
    }
    Ok(count)
}

pub(crate) async fn mark(engine: &Engine, images: Vec<ImageId>) -> Result<()> {
    let due = engine.clock.now();
    let marks: Vec<Change> = images.into_iter().map(|image| Change::Dirty(DirtyMark { image, due })).collect();
    commit_marks(engine, &marks).await
}

async fn commit_marks(engine: &Engine, marks: &[Change]) -> Result<()> {
    if marks.is_empty() {
        return Ok(());
    }
    engine.ledger.commit(marks).await?;
    mimeo_crash::point("scan-marked");
    engine.wake.notify_one();
    Ok(())
}
