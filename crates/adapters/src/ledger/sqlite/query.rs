//! Pages and numbers, from columns and tables that commits keep for them.

use std::collections::{BTreeMap, BTreeSet};

use mimeo_core::{
    Backlog, CONTESTED, Change, Failure, ImageFilter, ImageId, ImageState, Place, Reason, ReplicaState, Result, Tally,
    Timestamp,
};
use sqlx::{QueryBuilder, Sqlite, SqliteConnection, SqlitePool};

use super::{
    changes::run,
    rows::{self, milliseconds, text, timestamp, word},
    unavailable,
};

/// Images whose state is derived in one transaction, of a ledger from before it was kept.
const BATCH: i64 = 1000;

/// The ids of a page.
pub(super) async fn ids(
    snapshot: &mut SqliteConnection,
    filter: &ImageFilter,
    after: Option<&ImageId>,
    limit: usize,
) -> Result<Vec<ImageId>> {
    let (None, Some(state)) = (&filter.store, filter.replica) else {
        return ids_of(snapshot, filter, after, limit).await;
    };
    // In this state anywhere: the index begins with the store.
    let stores: Vec<String> = sqlx::query_scalar("SELECT store FROM tally WHERE state = ?1 AND replicas > 0")
        .bind(state.to_string())
        .fetch_all(&mut *snapshot)
        .await
        .map_err(unavailable)?;
    let mut found = BTreeSet::new();
    for store in stores {
        let filter = ImageFilter { store: Some(text(&store)?), ..filter.clone() };
        found.extend(ids_of(snapshot, &filter, after, limit).await?);
    }
    Ok(found.into_iter().take(limit).collect())
}

async fn ids_of(
    snapshot: &mut SqliteConnection,
    filter: &ImageFilter,
    after: Option<&ImageId>,
    limit: usize,
) -> Result<Vec<ImageId>> {
    let (mut query, id) = select(filter);
    query.push(id).push(" > ").push_bind(after.map_or("", ImageId::as_str));
    if let Some(state) = filter.state {
        query.push(" AND i.state = ").push_bind(state.to_string());
    }
    if let Some(owner) = &filter.owner {
        query.push(" AND i.owner = ").push_bind(owner);
    }
    if let Some(rule) = &filter.rule {
        // As it stands in the list: with its quotation marks, so that no part of a name is taken for it.
        let written = serde_json::Value::from(rule.as_str()).to_string();
        query.push(" AND instr(i.rules, ").push_bind(written).push(") > 0");
    }
    if let Some(wanted) = filter.text.as_ref().map(|text| text.to_ascii_lowercase()) {
        query.push(" AND (instr(lower(i.name), ").push_bind(wanted.clone());
        query.push(") > 0 OR substr(i.id, 1, length(").push_bind(wanted.clone());
        query.push(")) = ").push_bind(wanted).push(")");
    }
    query.push(" ORDER BY ").push(id).push(" LIMIT ").push_bind(rows::limit(limit));
    let found: Vec<String> = query.build_query_scalar().fetch_all(snapshot).await.map_err(unavailable)?;
    rows::ids(&found)
}

/// What to select from, and which column has the images' ids in order.
fn select(filter: &ImageFilter) -> (QueryBuilder<Sqlite>, &'static str) {
    let mut query = QueryBuilder::new("SELECT i.id FROM ");
    match (&filter.store, filter.replica) {
        // From the few that there may be.
        (Some(store), Some(state)) => {
            query
                .push("replicas r CROSS JOIN images i ON i.id = r.image WHERE r.store = ")
                .push_bind(store.to_string());
            query.push(" AND r.state = ").push_bind(state.to_string()).push(" AND ");
            return (query, "r.image");
        }
        (Some(store), None) => {
            query.push("images i WHERE EXISTS (SELECT 1 FROM replicas r WHERE r.image = i.id AND r.store = ");
            query.push_bind(store.to_string()).push(") AND ");
        }
        (None, _) => {
            query.push("images i WHERE ");
        }
    }
    (query, "i.id")
}

pub(super) async fn tally(readers: &SqlitePool) -> Result<Tally> {
    let mut snapshot = readers.begin().await.map_err(unavailable)?;
    let states: Vec<(String, i64)> = sqlx::query_as("SELECT state, count(*) FROM images GROUP BY state")
        .fetch_all(&mut *snapshot)
        .await
        .map_err(unavailable)?;
    let replicas: Vec<(String, String, i64)> = sqlx::query_as("SELECT * FROM tally WHERE replicas > 0")
        .fetch_all(&mut *snapshot)
        .await
        .map_err(unavailable)?;
    let mut tally = Tally::default();
    for (state, count) in states {
        tally.images.insert(word::<ImageState>(&state)?, count.unsigned_abs());
    }
    for (store, state, count) in replicas {
        let of_store = tally.replicas.entry(text(&store)?).or_default();
        of_store.insert(word::<ReplicaState>(&state)?, count.unsigned_abs());
    }
    for store in tally.replicas.keys() {
        let oldest: Option<i64> =
            sqlx::query_scalar("SELECT min(proof_at) FROM replicas WHERE store = ?1 AND state = 'registered'")
                .bind(store.as_str())
                .fetch_one(&mut *snapshot)
                .await
                .map_err(unavailable)?;
        if let Some(oldest) = oldest {
            tally.oldest_proofs.insert(store.clone(), timestamp(oldest)?);
        }
    }
    tally.contested = contested(&mut snapshot).await?;
    tally.hidden = hidden(&mut snapshot).await?;
    Ok(tally)
}

pub(super) async fn places(readers: &SqlitePool) -> Result<Vec<Place>> {
    let rows: Vec<(String, i64, i64, String, String)> =
        sqlx::query_as("SELECT store, objects, doomed, name, url FROM places WHERE objects > 0 ORDER BY store, root")
            .fetch_all(readers)
            .await
            .map_err(unavailable)?;
    let place = |(store, objects, doomed, name, url): (String, i64, i64, String, String)| {
        let (objects, doomed) = (objects.unsigned_abs(), doomed.unsigned_abs());
        Ok(Place { store: text(&store)?, objects, doomed, name: text(&name)?, url })
    };
    rows.into_iter().map(place).collect()
}

async fn contested(snapshot: &mut SqliteConnection) -> Result<u64> {
    let images: i64 = sqlx::query_scalar(
        "SELECT count(DISTINCT image) FROM replicas WHERE failure_reason = 'location-lost' AND failure_tries >= ?1",
    )
    .bind(i64::from(CONTESTED))
    .fetch_one(snapshot)
    .await
    .map_err(unavailable)?;
    Ok(images.unsigned_abs())
}

async fn hidden(snapshot: &mut SqliteConnection) -> Result<Option<Failure>> {
    let id: Option<String> =
        sqlx::query_scalar("SELECT id FROM images WHERE failure_reason = 'image-not-visible' ORDER BY id LIMIT 1")
            .fetch_optional(&mut *snapshot)
            .await
            .map_err(unavailable)?;
    let Some(id) = id else { return Ok(None) };
    let record = rows::records(snapshot, &[text(&id)?]).await?.pop();
    Ok(record.and_then(|record| record.image.trouble).filter(|trouble| trouble.reason == Reason::ImageNotVisible))
}

pub(super) async fn backlog(readers: &SqlitePool, now: Timestamp) -> Result<Backlog> {
    let mut snapshot = readers.begin().await.map_err(unavailable)?;
    let (due, later, oldest): (i64, i64, Option<i64>) = sqlx::query_as(
        "SELECT count(*) FILTER (WHERE due <= ?1), count(*) FILTER (WHERE due > ?1), min(due) FILTER (WHERE due <= ?1)
         FROM dirty",
    )
    .bind(milliseconds(now))
    .fetch_one(&mut *snapshot)
    .await
    .map_err(unavailable)?;
    let since: Option<i64> = sqlx::query_scalar(
        "SELECT min(h.since) FROM images i JOIN replicas r ON r.image = i.id
             JOIN history h ON h.image = r.image AND h.store = r.store
         WHERE i.state IN ('pending', 'replicating', 'degraded', 'failed') AND r.state <> 'registered'
             AND (r.failure_reason IS NULL OR r.failure_next_try IS NOT NULL)
             AND r.failure_reason IS NOT 'outside-hours'
             AND EXISTS (SELECT 1 FROM json_each(i.wanted) WHERE value = r.store)
             AND h.number > coalesce((SELECT max(b.number) FROM history b
                 WHERE b.image = r.image AND b.store = r.store
                     AND (b.state = 'registered' OR b.reason = 'outside-hours')), 0)",
    )
    .fetch_one(&mut *snapshot)
    .await
    .map_err(unavailable)?;
    Ok(Backlog {
        due: due.unsigned_abs(),
        oldest_due: oldest.map(timestamp).transpose()?,
        later: later.unsigned_abs(),
        unregistered_since: since.map(timestamp).transpose()?,
    })
}

/// Derives the states of the images that the changes were about, by core's rule.
pub(super) async fn keep_states(transaction: &mut SqliteConnection, changes: &[Change]) -> Result<()> {
    let image = |change: &Change| match change {
        Change::Image(row) => Some(row.id.clone()),
        Change::Replica(id, _) | Change::ReplicaGone(id, _) => Some(id.clone()),
        _ => None,
    };
    for id in changes.iter().filter_map(image).collect::<BTreeSet<ImageId>>() {
        keep_state(transaction, &id).await?;
    }
    Ok(())
}

async fn keep_state(transaction: &mut SqliteConnection, id: &ImageId) -> Result<()> {
    let found: Option<(Option<String>, bool, String, String)> = sqlx::query_as(
        "SELECT state, gone_at IS NOT NULL, wanted,
             (SELECT json_group_object(store, state) FROM replicas WHERE image = id)
         FROM images WHERE id = ?1",
    )
    .bind(id.as_str())
    .fetch_optional(&mut *transaction)
    .await
    .map_err(unavailable)?;
    let Some((before, is_gone, wanted, replicas)) = found else { return Ok(()) };
    let wanted: Vec<String> = rows::json(&wanted)?;
    let replicas: BTreeMap<String, ReplicaState> = rows::json(&replicas)?;
    let state = |store: &String| replicas.get(store).copied().unwrap_or(ReplicaState::Wanted);
    let state = ImageState::of(is_gone, &wanted.iter().map(state).collect::<Vec<_>>()).to_string();
    if before.as_ref() == Some(&state) {
        return Ok(());
    }
    let keep = sqlx::query("UPDATE images SET state = ?2 WHERE id = ?1");
    run(transaction, keep.bind(id.as_str()).bind(state)).await
}

/// For a ledger from before states were kept.
pub(super) async fn derive_states(writer: &SqlitePool) -> Result<()> {
    loop {
        let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await.map_err(unavailable)?;
        let without: Vec<String> = sqlx::query_scalar("SELECT id FROM images WHERE state IS NULL LIMIT ?1")
            .bind(BATCH)
            .fetch_all(&mut *transaction)
            .await
            .map_err(unavailable)?;
        if without.is_empty() {
            return Ok(());
        }
        for id in rows::ids(&without)? {
            keep_state(&mut transaction, &id).await?;
        }
        transaction.commit().await.map_err(unavailable)?;
    }
}
