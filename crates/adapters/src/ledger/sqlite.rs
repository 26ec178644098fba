//! The ledger in one SQLite file: the default, embedded.
//!
//! Owns the file, its schema (`migrations/sqlite`) and its lock. One connection writes, one transaction at a time;
//! a few others read, each from a snapshot of its own (WAL), so that a status never waits for a commit.

mod backup;
mod changes;
mod history;
mod query;
mod rows;

use std::{
    fs::{File, OpenOptions, Permissions, TryLockError},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use mimeo_core::{
    Backlog, Change, Digest, DirtyMark, Due, Error, HistoryLine, ImageFilter, ImageId, ObjectName, Place, Reason,
    Record, Result, Tally, Timestamp, Told, ports::Ledger,
};
use sqlx::{
    Connection as _, SqliteConnection, SqlitePool,
    migrate::{MigrateError, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use rows::{json_ids, milliseconds};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

const READERS: u32 = 4;

/// How long a write waits for another process that has the file, such as a backup.
const BUSY: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
pub struct SqliteLedger {
    writer: SqlitePool,
    readers: SqlitePool,
    /// None: in memory.
    path: Option<PathBuf>,
}

/// The right to be this ledger's only `serve`; given up when dropped, and by the system when the process dies.
#[derive(Debug)]
#[must_use]
pub struct Claim {
    _locked: Option<File>,
}

impl SqliteLedger {
    /// Opens the file, makes it if there is none, and brings its schema up to date. Only its owner may read it.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let failed = |cause: sqlx::Error| cannot_open(path).caused_by(cause);
        make_private(path).map_err(|cause| cannot_open(path).caused_by(cause))?;
        // FULL: a commit that returned is on the disk, whatever loses power after it.
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY);
        let writer = pool(1).connect_with(options.clone()).await.map_err(failed)?;
        mimeo_crash::point("ledger-made");
        MIGRATIONS.run(&writer).await.map_err(|cause| not_migrated(path, cause))?;
        mimeo_crash::point("ledger-migrated");
        query::derive_states(&writer).await?;
        let readers = pool(READERS).connect_with(options.read_only(true)).await.map_err(failed)?;
        Ok(Self { writer, readers, path: Some(path.to_owned()) })
    }

    /// One that is gone with its last clone.
    pub async fn open_in_memory() -> Result<Self> {
        let options = SqliteConnectOptions::new().in_memory(true).foreign_keys(true);
        let writer = pool(1).connect_with(options).await.map_err(unavailable)?;
        MIGRATIONS.run(&writer).await.map_err(unavailable)?;
        Ok(Self { readers: writer.clone(), writer, path: None })
    }

    /// Makes this process the ledger's only `serve`, by a lock on `<path>.lock`.
    pub fn claim(&self) -> Result<Claim> {
        match &self.path {
            Some(path) => lock(path),
            None => Ok(Claim { _locked: None }),
        }
    }

    /// Waits for the connections to close, so that SQLite tidies its files up.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

#[async_trait]
impl Ledger for SqliteLedger {
    async fn load(&self, id: &ImageId) -> Result<Option<Record>> {
        let mut reader = self.readers.acquire().await.map_err(unavailable)?;
        Ok(rows::records(&mut reader, std::slice::from_ref(id)).await?.pop())
    }

    async fn commit(&self, changes: &[Change]) -> Result<()> {
        let mut connection = self.writer.acquire().await.map_err(unavailable)?;
        match commit_on(&mut connection, changes).await {
            Ok(outcome) => outcome,
            Err(error) => {
                // After some failures, a full disk for one, SQLite has rolled back by itself, and the connection would
                // take itself to be within a transaction for ever: the next commit has a new one.
                connection.close_on_drop();
                Err(error)
            }
        }
    }

    async fn marks(&self, now: Timestamp, limit: usize, busy: &[ImageId]) -> Result<Vec<Due>> {
        let marks: Vec<(String, i64, i64)> = sqlx::query_as(
            "WITH free AS NOT MATERIALIZED
                 (SELECT image, seq, due FROM dirty WHERE image NOT IN (SELECT value FROM json_each(?1)))
             SELECT * FROM (SELECT * FROM free WHERE due <= ?2 ORDER BY due, image LIMIT ?3)
             UNION ALL
             SELECT * FROM (SELECT * FROM free WHERE due > ?2 ORDER BY due, image LIMIT 1)
             ORDER BY due, image",
        )
        .bind(json_ids(busy))
        .bind(milliseconds(now))
        .bind(rows::limit(limit))
        .fetch_all(&self.readers)
        .await
        .map_err(unavailable)?;
        marks.into_iter().map(rows::due).collect()
    }

    async fn settle(&self, due: &Due, next: Option<DirtyMark>) -> Result<()> {
        let query = match next {
            Some(next) => sqlx::query("UPDATE dirty SET due = ?3 WHERE image = ?1 AND seq = ?2")
                .bind(due.image.as_str())
                .bind(rows::seq(due.seq)?)
                .bind(milliseconds(next.due)),
            None => sqlx::query("DELETE FROM dirty WHERE image = ?1 AND seq = ?2")
                .bind(due.image.as_str())
                .bind(rows::seq(due.seq)?),
        };
        query.execute(&self.writer).await.map_err(unavailable)?;
        Ok(())
    }

    async fn find(&self, name_or_id: &str) -> Result<Vec<ImageId>> {
        let id = name_or_id.parse::<ImageId>().ok();
        let found: Vec<String> = sqlx::query_scalar("SELECT id FROM images WHERE name = ?1 OR id = ?2 ORDER BY id")
            .bind(name_or_id)
            .bind(id.as_ref().map(ImageId::as_str))
            .fetch_all(&self.readers)
            .await
            .map_err(unavailable)?;
        rows::ids(&found)
    }

    async fn named_near(&self, name: &str, limit: usize) -> Result<Vec<ImageId>> {
        let before = "SELECT id FROM images WHERE name <= ?1 ORDER BY name DESC, id LIMIT ?2";
        let behind = "SELECT id FROM images WHERE name > ?1 ORDER BY name, id LIMIT ?2";
        let mut found: Vec<String> = Vec::new();
        for query in [before, behind] {
            let query = sqlx::query_scalar(query).bind(name).bind(rows::limit(limit));
            found.extend(query.fetch_all(&self.readers).await.map_err(unavailable)?);
        }
        rows::ids(&found)
    }

    async fn page(&self, filter: &ImageFilter, after: Option<&ImageId>, limit: usize) -> Result<Vec<Record>> {
        let mut snapshot = self.readers.begin().await.map_err(unavailable)?;
        let found = query::ids(&mut snapshot, filter, after, limit).await?;
        rows::records(&mut snapshot, &found).await
    }

    async fn tally(&self) -> Result<Tally> {
        query::tally(&self.readers).await
    }

    async fn backlog(&self, now: Timestamp) -> Result<Backlog> {
        query::backlog(&self.readers, now).await
    }

    async fn places(&self) -> Result<Vec<Place>> {
        query::places(&self.readers).await
    }

    async fn sweepable(&self, after: Option<&ImageId>, limit: usize) -> Result<Vec<Record>> {
        let mut snapshot = self.readers.begin().await.map_err(unavailable)?;
        let found: Vec<String> = sqlx::query_scalar(
            "SELECT id FROM images WHERE gone_at IS NOT NULL AND id > ?1
             UNION
             SELECT image FROM objects WHERE state = 'doomed' AND image > ?1
             UNION
             SELECT image FROM objects WHERE state = 'found' AND image > ?1
             UNION
             SELECT image FROM replicas WHERE unwanted_since IS NOT NULL AND image > ?1
             ORDER BY 1 LIMIT ?2",
        )
        .bind(after.map_or("", ImageId::as_str))
        .bind(rows::limit(limit))
        .fetch_all(&mut *snapshot)
        .await
        .map_err(unavailable)?;
        rows::records(&mut snapshot, &rows::ids(&found)?).await
    }

    async fn count(&self) -> Result<u64> {
        let images: i64 =
            sqlx::query_scalar("SELECT count(*) FROM images").fetch_one(&self.readers).await.map_err(unavailable)?;
        Ok(images.unsigned_abs())
    }

    async fn bookmark(&self, name: &str) -> Result<Option<String>> {
        sqlx::query_scalar("SELECT value FROM bookmarks WHERE name = ?1")
            .bind(name)
            .fetch_optional(&self.readers)
            .await
            .map_err(unavailable)
    }

    async fn chunks(&self, id: &ImageId) -> Result<Vec<Digest>> {
        let rows: Vec<(i64, String)> =
            sqlx::query_as("SELECT number, digest FROM chunks WHERE image = ?1 ORDER BY number")
                .bind(id.as_str())
                .fetch_all(&self.readers)
                .await
                .map_err(unavailable)?;
        let without_gap = (0..).zip(rows).take_while(|(next, (number, _))| next == number);
        Ok(without_gap.map(|(_, (_, digest))| Digest::from_hex(digest)).collect())
    }

    async fn unknown(&self, objects: &[ObjectName]) -> Result<Vec<ObjectName>> {
        // An object's image is the first 36 letters of its name: for that there is an index.
        let listed = serde_json::Value::from(objects.iter().map(ObjectName::as_str).collect::<Vec<_>>());
        let found: Vec<String> = sqlx::query_scalar(
            "SELECT value FROM json_each(?1)
             WHERE NOT EXISTS (SELECT 1 FROM objects WHERE image = substr(value, 1, 36) AND name = value) ORDER BY key",
        )
        .bind(listed.to_string())
        .fetch_all(&self.readers)
        .await
        .map_err(unavailable)?;
        found.iter().map(|name| rows::text(name)).collect()
    }

    async fn history(&self, id: &ImageId) -> Result<Vec<HistoryLine>> {
        history::lines(&self.readers, id).await
    }

    async fn told(&self, after: u64, limit: usize) -> Result<Vec<Told>> {
        history::told(&self.readers, after, limit).await
    }

    async fn last_told(&self) -> Result<u64> {
        history::last_told(&self.readers).await
    }
}

fn lock(path: &Path) -> Result<Claim> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".lock");
    let beside = PathBuf::from(beside);
    let refused = |why: &str| Error::new(Reason::Ledger, format!("cannot lock {}: {why}", beside.display()));
    let opened = OpenOptions::new().create(true).write(true).truncate(false).mode(0o600).open(&beside);
    let file = opened.map_err(|cause| refused("it cannot be opened").caused_by(cause))?;
    match file.try_lock() {
        Ok(()) => Ok(Claim { _locked: Some(file) }),
        Err(TryLockError::WouldBlock) => {
            Err(refused("another `mimeo serve` runs on this ledger; stop it, or give this one a ledger of its own"))
        }
        Err(TryLockError::Error(cause)) => Err(refused("the file system refused").caused_by(cause)),
    }
}

/// The outer error says that the connection is not to be used again.
async fn commit_on(connection: &mut SqliteConnection, changes: &[Change]) -> Result<Result<()>> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(unavailable)?;
    for change in changes {
        if let Err(error) = changes::apply(&mut transaction, change).await {
            return match transaction.rollback().await {
                Ok(()) => Ok(Err(error)),
                Err(_) => Err(error),
            };
        }
    }
    query::keep_states(&mut transaction, changes).await?;
    mimeo_crash::point("ledger-written");
    transaction.commit().await.map_err(unavailable)?;
    mimeo_crash::point("ledger-committed");
    Ok(Ok(()))
}

/// Connections that live as long as the ledger: an in-memory database is its connection.
fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .min_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
}

/// SQLite gives its side files the mode of the main one.
fn make_private(path: &Path) -> std::io::Result<()> {
    let file = OpenOptions::new().create(true).write(true).truncate(false).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))
}

fn not_migrated(path: &Path, cause: MigrateError) -> Error {
    let newest = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0);
    match cause {
        MigrateError::VersionMissing(version) if version > newest => {
            let message = format!(
                "the ledger {} is of a newer release of Mimeo (it has version {version}, and this release knows {newest}): \
                 run that release, or put back a backup made before the upgrade (`mimeo ledger restore`)",
                path.display()
            );
            Error::new(Reason::Ledger, message)
        }
        cause => cannot_open(path).caused_by(cause),
    }
}

fn cannot_open(path: &Path) -> Error {
    Error::new(Reason::Ledger, format!("the ledger {} cannot be opened", path.display()))
}

fn unavailable(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(Reason::Ledger, "the ledger cannot be read or written").caused_by(cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_disk_fails_commits_only_as_long_as_it_is_full() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = SqliteLedger::open(&directory.path().join("mimeo.db")).await.unwrap();
        let pages: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(&ledger.writer).await.unwrap();
        let small = format!("PRAGMA max_page_count = {pages}");
        sqlx::query(sqlx::AssertSqlSafe(small)).execute(&ledger.writer).await.unwrap();
        let large = Change::Bookmark("large".into(), "x".repeat(1 << 20));
        assert_eq!(ledger.commit(&[large]).await.unwrap_err().reason, Reason::Ledger);
        // The limit went with the connection, as a full disk does when somebody makes room.
        for value in ["1", "2"] {
            ledger.commit(&[Change::Bookmark("small".into(), value.into())]).await.unwrap();
            assert_eq!(ledger.bookmark("small").await.unwrap().as_deref(), Some(value));
        }
    }

    #[tokio::test]
    async fn the_history_of_an_image_goes_a_month_after_it_was_forgotten_and_not_before() {
        let ledger = SqliteLedger::open_in_memory().await.unwrap();
        let id = |number: u32| format!("{number:08x}-0b0a-4009-8807-060504030201").parse::<ImageId>().unwrap();
        let forget = async |number| {
            let row = Change::Image(Record::new(id(number)).image);
            ledger.commit(&[row, Change::Forget(id(number))]).await.unwrap();
        };
        for (number, days) in [(1, 31), (2, 29)] {
            forget(number).await;
            let earlier = sqlx::query("UPDATE history SET at = at - ?2 * 86400000 WHERE image = ?1");
            earlier.bind(id(number).as_str()).bind(days).execute(&ledger.writer).await.unwrap();
        }
        forget(3).await;
        let is_kept = async |number| !ledger.history(&id(number)).await.unwrap().is_empty();
        assert_eq!([is_kept(1).await, is_kept(2).await, is_kept(3).await], [false, true, true]);
    }
}
