//! Each change as SQL, inside the caller's transaction.

use mimeo_core::{
    Change, Digest, DirtyMark, Error, Failure, ImageId, ImageRow, ImageState, Object, ObjectState, Reason, Replica,
    Result, StoreName, Timestamp,
};
use sqlx::{Sqlite, SqliteConnection, query::Query, sqlite::SqliteArguments};

use super::{
    history,
    rows::{bytes, index, milliseconds, object_state},
    unavailable,
};

type Statement<'a> = Query<'a, Sqlite, SqliteArguments>;

/// The statement, and before it a bare row for the image `?1` that it hangs on. In one text, because each text is a way to the
/// connection's thread and back, which costs more than what is done there.
macro_rules! with_image {
    ($statement:literal) => {
        concat!("INSERT INTO images (id, state) VALUES (?1, ?2) ON CONFLICT (id) DO NOTHING; ", $statement)
    };
}

pub(super) async fn apply(transaction: &mut SqliteConnection, change: &Change) -> Result<()> {
    match change {
        Change::Image(row) => {
            image(transaction, row).await?;
            history::note_image(transaction, row).await
        }
        Change::Replica(id, new) => {
            replica(transaction, id, new).await?;
            history::note_replica(transaction, id, new).await
        }
        Change::ReplicaGone(id, store) => {
            let gone = sqlx::query("DELETE FROM replicas WHERE image = ?1 AND store = ?2");
            run(transaction, gone.bind(id.as_str()).bind(store.as_str())).await
        }
        Change::Object(new) => object(transaction, new).await,
        Change::Doom(store, name, at) => {
            let doom = sqlx::query(
                "UPDATE objects SET state = ?4, since = ?5, regretted = FALSE WHERE image = ?1 AND name = ?2 AND store = ?3",
            );
            let doom = doom.bind(String::from(name.image())).bind(name.as_str()).bind(store.as_str());
            run(transaction, doom.bind(object_state(ObjectState::Doomed)).bind(milliseconds(*at))).await
        }
        Change::Regret(store, name) => {
            let regret =
                "UPDATE objects SET regretted = TRUE WHERE image = ?1 AND name = ?2 AND store = ?3 AND state = ?4";
            let regret = sqlx::query(regret).bind(String::from(name.image())).bind(name.as_str()).bind(store.as_str());
            run(transaction, regret.bind(object_state(ObjectState::Doomed))).await
        }
        Change::ObjectGone(store, name) => {
            let gone = sqlx::query("DELETE FROM objects WHERE image = ?1 AND name = ?2 AND store = ?3");
            run(transaction, gone.bind(String::from(name.image())).bind(name.as_str()).bind(store.as_str())).await
        }
        Change::Dirty(mark) => dirty(transaction, mark).await,
        Change::DeleteSeen(id, at) => {
            let seen = of_image(with_image!("UPDATE images SET delete_seen = ?3 WHERE id = ?1"), id.as_str());
            run(transaction, seen.bind(milliseconds(*at))).await
        }
        Change::VerifyAsked(id, at) => {
            let asked = of_image(with_image!("UPDATE images SET verify_asked = ?3 WHERE id = ?1"), id.as_str());
            run(transaction, asked.bind(milliseconds(*at))).await
        }
        Change::DeleteUnseen(id) => {
            let unseen = sqlx::query("UPDATE images SET delete_seen = NULL WHERE id = ?1");
            run(transaction, unseen.bind(id.as_str())).await
        }
        Change::Chunks { image, first, digests } => chunks(transaction, image, *first, digests).await,
        Change::ChunksGone(id) => {
            run(transaction, sqlx::query("DELETE FROM chunks WHERE image = ?1").bind(id.as_str())).await
        }
        Change::Forget(id) => forget(transaction, id).await,
        Change::TryAt(id, at) => {
            let due = sqlx::query(
                "UPDATE replicas SET failure_next_try = ?2 WHERE image = ?1 AND failure_reason IS NOT NULL",
            );
            run(transaction, due.bind(id.as_str()).bind(milliseconds(*at))).await?;
            let own =
                sqlx::query("UPDATE images SET failure_next_try = ?2 WHERE id = ?1 AND failure_reason IS NOT NULL");
            run(transaction, own.bind(id.as_str()).bind(milliseconds(*at))).await
        }
        Change::Bookmark(name, value) => {
            let upsert = sqlx::query(
                "INSERT INTO bookmarks (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2",
            );
            run(transaction, upsert.bind(name).bind(value)).await
        }
    }
}

async fn image(transaction: &mut SqliteConnection, row: &ImageRow) -> Result<()> {
    // Not delete_seen and verify_asked: they may have come since the caller read the row.
    let upsert = sqlx::query(
        "INSERT INTO images (id, name, status, size, owner, wanted, observed_at, gone_at,
             failure_reason, failure_message, failure_tries, failure_next_try, rules)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
         ON CONFLICT (id) DO UPDATE SET name = ?2, status = ?3, size = ?4, owner = ?5, wanted = ?6, observed_at = ?7,
             gone_at = ?8, failure_reason = ?9, failure_message = ?10, failure_tries = ?11, failure_next_try = ?12,
             rules = ?13",
    );
    let wanted = serde_json::Value::from(row.wanted.iter().map(StoreName::as_str).collect::<Vec<_>>());
    let bound = upsert
        .bind(row.id.as_str())
        .bind(row.name.as_deref())
        .bind(row.status.as_deref())
        .bind(bytes(row.size)?)
        .bind(row.owner.as_deref())
        .bind(wanted.to_string())
        .bind(optional(row.observed_at))
        .bind(optional(row.gone_at));
    let bound = bind_failure(bound, row.trouble.as_ref()).bind(serde_json::Value::from(row.rules.clone()).to_string());
    run(transaction, bound).await
}

async fn replica(transaction: &mut SqliteConnection, id: &ImageId, replica: &Replica) -> Result<()> {
    // No REPLACE: of what that removes no trigger is told.
    let replace = with_image!(
        "INSERT INTO replicas (image, store, state, object, url, size, digest, proof_kind, proof_at, seen_at,
             unwanted_since, failure_reason, failure_message, failure_tries, failure_next_try)
         VALUES (?1, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)
         ON CONFLICT (image, store) DO UPDATE SET state = ?4, object = ?5, url = ?6, size = ?7, digest = ?8,
             proof_kind = ?9, proof_at = ?10, seen_at = ?11, unwanted_since = ?12, failure_reason = ?13,
             failure_message = ?14, failure_tries = ?15, failure_next_try = ?16"
    );
    let bound = of_image(replace, id.as_str())
        .bind(replica.store.as_str())
        .bind(replica.state.to_string())
        .bind(replica.object.as_ref().map(mimeo_core::ObjectName::as_str))
        .bind(replica.url.as_deref())
        .bind(bytes(replica.size)?)
        .bind(replica.digest.as_ref().map(Digest::as_str))
        .bind(replica.proof.map(|proof| proof.kind.to_string()))
        .bind(optional(replica.proof.map(|proof| proof.at)))
        .bind(optional(replica.seen_at))
        .bind(optional(replica.unwanted_since));
    run(transaction, bind_failure(bound, replica.failure.as_ref())).await
}

async fn object(transaction: &mut SqliteConnection, object: &Object) -> Result<()> {
    // No REPLACE: of what that removes no trigger is told.
    let insert = match object.state {
        ObjectState::Found => with_image!(
            "INSERT INTO objects (image, name, store, url, state, since, regretted) VALUES (?1, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (image, name, store) DO NOTHING"
        ),
        _ => with_image!(
            "INSERT INTO objects (image, name, store, url, state, since, regretted) VALUES (?1, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (image, name, store) DO UPDATE SET url = ?5, state = ?6, since = ?7, regretted = ?8"
        ),
    };
    let bound = of_image(insert, String::from(object.name.image()))
        .bind(object.name.as_str())
        .bind(object.store.as_str())
        .bind(object.url.as_str())
        .bind(object_state(object.state))
        .bind(milliseconds(object.since))
        .bind(object.state == ObjectState::Regretted);
    run(transaction, bound).await
}

/// All of them in one statement, in which SQLite takes the list apart.
async fn chunks(transaction: &mut SqliteConnection, image: &ImageId, first: u64, digests: &[Digest]) -> Result<()> {
    let replace = with_image!(
        "INSERT OR REPLACE INTO chunks (image, number, digest) SELECT ?1, ?3 + key, value FROM json_each(?4)"
    );
    let listed = serde_json::Value::from(digests.iter().map(Digest::as_str).collect::<Vec<_>>());
    run(transaction, of_image(replace, image.as_str()).bind(index(first)?).bind(listed.to_string())).await
}

async fn dirty(transaction: &mut SqliteConnection, mark: &DirtyMark) -> Result<()> {
    let upsert = sqlx::query(
        "INSERT INTO dirty (image, seq, due) VALUES (?1, 1, ?2)
         ON CONFLICT (image) DO UPDATE SET seq = seq + 1, due = min(due, ?2)",
    );
    run(transaction, upsert.bind(mark.image.as_str()).bind(milliseconds(mark.due))).await
}

async fn forget(transaction: &mut SqliteConnection, id: &ImageId) -> Result<()> {
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM objects WHERE image = ?1")
        .bind(id.as_str())
        .fetch_one(&mut *transaction)
        .await
        .map_err(unavailable)?;
    if left > 0 {
        let message = format!("image {id} still has {left} objects at stores: it cannot be forgotten");
        return Err(Error::new(Reason::Ledger, message));
    }
    let forgotten = sqlx::query("DELETE FROM images WHERE id = ?1").bind(id.as_str());
    match forgotten.execute(&mut *transaction).await.map_err(unavailable)?.rows_affected() {
        0 => Ok(()),
        _ => history::note_forgotten(transaction, id).await,
    }
}

/// A statement of [`with_image`], with what that needs bound: the statement's own values begin with `?3`.
fn of_image<'a>(statement: &'static str, id: impl sqlx::Encode<'a, Sqlite> + sqlx::Type<Sqlite>) -> Statement<'a> {
    sqlx::query(statement).bind(id).bind(ImageState::of(false, &[]).to_string())
}

fn bind_failure<'a>(statement: Statement<'a>, failure: Option<&'a Failure>) -> Statement<'a> {
    statement
        .bind(failure.map(|failure| failure.reason.code()))
        .bind(failure.map(|failure| failure.message.as_str()))
        .bind(failure.map(|failure| i64::from(failure.tries)))
        .bind(optional(failure.and_then(|failure| failure.next_try)))
}

fn optional(time: Option<Timestamp>) -> Option<i64> {
    time.map(milliseconds)
}

pub(super) async fn run(transaction: &mut SqliteConnection, statement: Statement<'_>) -> Result<()> {
    statement.execute(transaction).await.map_err(unavailable)?;
    Ok(())
}
