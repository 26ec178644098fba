//! The history of each image, written beside the changes that it comes from, by core's rules.

use std::cmp::Reverse;

use mimeo_core::{
    HISTORY_KEPT, HISTORY_LINES, HistoryLine, HistoryState, HistoryStep, ImageId, ImageRow, Reason, Replica, Result,
    Told, follow,
};
use serde::Deserialize;
use sqlx::{FromRow, SqliteConnection, SqlitePool};

use super::{
    changes::run,
    rows::{self, milliseconds, text, timestamp, unreadable},
    unavailable,
};

pub(super) async fn note_image(transaction: &mut SqliteConnection, row: &ImageRow) -> Result<()> {
    let tries = row.trouble.as_ref().map_or(0, |trouble| trouble.tries);
    note(transaction, &row.id, &HistoryState::of_image(row), tries).await
}

pub(super) async fn note_replica(transaction: &mut SqliteConnection, id: &ImageId, replica: &Replica) -> Result<()> {
    let tries = replica.failure.as_ref().map_or(0, |failure| failure.tries);
    note(transaction, id, &HistoryState::of_replica(replica), tries).await
}

/// The image's last line; the histories of those that were forgotten long ago go.
pub(super) async fn note_forgotten(transaction: &mut SqliteConnection, id: &ImageId) -> Result<()> {
    note(transaction, id, &HistoryState::forgotten(), 0).await?;
    let forget = sqlx::query(
        "DELETE FROM history WHERE image IN
             (SELECT image FROM history WHERE state = 'forgotten' GROUP BY image
              HAVING max(at) < CAST(unixepoch('subsec') * 1000 AS INTEGER) - ?1)
         AND image NOT IN (SELECT id FROM images)",
    );
    run(transaction, forget.bind(i64::try_from(HISTORY_KEPT.as_millis()).unwrap_or(i64::MAX))).await
}

pub(super) async fn lines(readers: &SqlitePool, id: &ImageId) -> Result<Vec<HistoryLine>> {
    let rows: Vec<LineColumns> = sqlx::query_as("SELECT * FROM history WHERE image = ?1 ORDER BY number")
        .bind(id.as_str())
        .fetch_all(readers)
        .await
        .map_err(unavailable)?;
    rows.into_iter().map(|row| row.parse().map(|(_, line)| line)).collect()
}

/// Lines of all images, in the order in which they were written.
pub(super) async fn told(readers: &SqlitePool, after: u64, limit: usize) -> Result<Vec<Told>> {
    let rows: Vec<ToldColumns> = sqlx::query_as("SELECT * FROM history WHERE told > ?1 ORDER BY told LIMIT ?2")
        .bind(i64::try_from(after).unwrap_or(i64::MAX))
        .bind(rows::limit(limit))
        .fetch_all(readers)
        .await
        .map_err(unavailable)?;
    rows.into_iter().map(ToldColumns::parse).collect()
}

pub(super) async fn last_told(readers: &SqlitePool) -> Result<u64> {
    let last: i64 = sqlx::query_scalar("SELECT value FROM counters WHERE name = 'told'")
        .fetch_one(readers)
        .await
        .map_err(unavailable)?;
    Ok(last.unsigned_abs())
}

/// By the database's own clock.
async fn note(transaction: &mut SqliteConnection, id: &ImageId, what: &HistoryState, tries: u32) -> Result<()> {
    let (now, newest): (i64, String) = sqlx::query_as(
        "SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER), json_group_array(json_object('number', number, 'at', at,
             'since', since, 'times', times, 'store', store, 'state', state, 'reason', reason, 'message', message))
         FROM (SELECT * FROM history WHERE image = ?1 AND store IS ?2 ORDER BY number DESC LIMIT 2)",
    )
    .bind(id.as_str())
    .bind(what.store.as_ref().map(mimeo_core::StoreName::as_str))
    .fetch_one(&mut *transaction)
    .await
    .map_err(unavailable)?;
    let mut newest = rows::json::<Vec<LineColumns>>(&newest)?;
    newest.sort_by_key(|line| Reverse(line.number));
    let newest = newest.into_iter().map(LineColumns::parse).collect::<Result<Vec<_>>>()?;
    let lines: Vec<HistoryLine> = newest.iter().map(|(_, line)| line.clone()).collect();
    let HistoryStep::Add { line, replaces } = follow(&lines, what, tries, timestamp(now)?) else { return Ok(()) };
    for (number, _) in &newest[..replaces] {
        let replaced = sqlx::query("DELETE FROM history WHERE image = ?1 AND number = ?2");
        run(transaction, replaced.bind(id.as_str()).bind(number)).await?;
    }
    add(transaction, id, &line).await
}

/// In one text, as in [`changes`](super::changes). What are too many lines by now go.
async fn add(transaction: &mut SqliteConnection, id: &ImageId, line: &HistoryLine) -> Result<()> {
    let add = sqlx::query(
        "UPDATE counters SET value = value + 1 WHERE name = 'told';
         INSERT INTO history (image, number, at, since, times, store, state, reason, message, told)
         VALUES (?1, (SELECT coalesce(max(number), 0) + 1 FROM history WHERE image = ?1), ?3, ?4, ?5, ?6, ?7, ?8, ?9,
             (SELECT value FROM counters WHERE name = 'told'));
         DELETE FROM history WHERE image = ?1 AND number <=
             (SELECT number FROM history WHERE image = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2)",
    );
    let bound = add
        .bind(id.as_str())
        .bind(i64::try_from(HISTORY_LINES).unwrap_or(i64::MAX))
        .bind(milliseconds(line.at))
        .bind(milliseconds(line.since))
        .bind(i64::from(line.times))
        .bind(line.what.store.as_ref().map(mimeo_core::StoreName::as_str))
        .bind(line.what.state.as_str())
        .bind(line.what.reason.map(Reason::code))
        .bind(line.what.message.as_deref());
    run(transaction, bound).await
}

#[derive(FromRow)]
struct ToldColumns {
    told: i64,
    image: String,
    #[sqlx(flatten)]
    line: LineColumns,
}

impl ToldColumns {
    fn parse(self) -> Result<Told> {
        let (_, line) = self.line.parse()?;
        Ok(Told { number: self.told.unsigned_abs(), image: text(&self.image)?, line })
    }
}

#[derive(FromRow, Deserialize)]
struct LineColumns {
    number: i64,
    at: i64,
    since: i64,
    times: i64,
    store: Option<String>,
    state: String,
    reason: Option<String>,
    message: Option<String>,
}

impl LineColumns {
    fn parse(self) -> Result<(i64, HistoryLine)> {
        let reason = |code: &str| Reason::from_code(code).ok_or_else(|| unreadable(code));
        let what = HistoryState {
            store: self.store.as_deref().map(text).transpose()?,
            state: self.state,
            reason: self.reason.as_deref().map(reason).transpose()?,
            message: self.message,
        };
        let times = u32::try_from(self.times).map_err(|cause| unreadable(self.times).caused_by(cause))?;
        let (at, since) = (timestamp(self.at)?, timestamp(self.since)?);
        Ok((self.number, HistoryLine { at, since, times, what }))
    }
}
