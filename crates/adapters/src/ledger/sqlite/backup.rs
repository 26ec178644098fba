//! Copies of the ledger's file: made while `serve` runs, and put back while it does not.

use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    os::unix::fs::{MetadataExt, chown},
    path::{Path, PathBuf},
};

use mimeo_core::{Change, Error, Reason, Result, ports::Ledger};
use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};

use super::{BUSY, SqliteLedger, lock, make_private};

impl SqliteLedger {
    /// Writes the ledger at `path`, as it is at this moment, to `to`, which it replaces when it is complete. Says how many
    /// images are in it. Whoever writes to the ledger goes on; a failure leaves what was at `to`.
    pub async fn backup(path: &Path, to: &Path) -> Result<u64> {
        if is_same(path, to) {
            let message = format!("{} is the ledger itself: name another file for its backup", to.display());
            return Err(Error::new(Reason::Ledger, message));
        }
        if !path.exists() {
            let message = format!(
                "there is no ledger {}, or it is not to be seen: run this with the configuration of `serve`, as its user",
                path.display()
            );
            return Err(Error::new(Reason::Ledger, message));
        }
        let part = beside(to, ".part");
        let failed = |cause: Box<dyn std::error::Error + Send + Sync>| {
            let message = format!("the ledger {} cannot be backed up to {}", path.display(), to.display());
            Error::new(Reason::Ledger, message).caused_by(cause)
        };
        removed(&part).and_then(|()| make_private(&part)).map_err(|cause| failed(cause.into()))?;
        let images = match copied(path, &part).await {
            Ok(images) => images,
            Err(cause) => {
                let _ = removed(&part);
                return Err(failed(cause.into()));
            }
        };
        mimeo_crash::point("backup-copied");
        published(&part, to).map_err(|cause| failed(cause.into()))?;
        Ok(images)
    }

    /// Makes the backup at `from` the ledger at `path`, brought up to date, with these changes. The ledger that was there
    /// stays beside it; where that is, is the answer. Refused while a `serve` has it; a failure leaves it as it was.
    pub async fn restore(path: &Path, from: &Path, changes: &[Change]) -> Result<Option<PathBuf>> {
        let _claim = lock(path)?;
        let failed = |cause: io::Error| {
            let message = format!("the backup {} cannot become the ledger {}", from.display(), path.display());
            Error::new(Reason::Ledger, message).caused_by(cause)
        };
        let (part, before) = (beside(path, ".restored"), beside(path, ".before"));
        let private = || {
            sides(&part).iter().try_for_each(|file| removed(file))?;
            make_private(&part)
        };
        private().and_then(|()| fs::copy(from, &part)).map_err(failed)?;
        let restored = Self::open(&part).await?;
        restored.commit(changes).await?;
        restored.close().await;
        let had_one = path.exists();
        let swapped = || {
            if had_one {
                // What was committed last may be in the file at its side: they belong together.
                for (old, kept) in sides(path).iter().zip(&sides(&before)) {
                    removed(kept)?;
                    moved(old, kept)?;
                }
                mimeo_crash::point("ledger-put-aside");
            }
            published(&part, path)
        };
        given_back(&part, path).and_then(|()| swapped()).map_err(failed)?;
        Ok(had_one.then_some(before))
    }
}

/// Into an empty file, whole and compact. Says how many images are in it.
async fn copied(path: &Path, part: &Path) -> Result<u64, sqlx::Error> {
    let options = SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(BUSY);
    let mut ledger = SqliteConnection::connect_with(&options).await?;
    sqlx::query("VACUUM INTO ?1").bind(part.to_string_lossy().into_owned()).execute(&mut ledger).await?;
    ledger.close().await?;
    let mut copy = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(part).read_only(true)).await?;
    let images: i64 = sqlx::query_scalar("SELECT count(*) FROM images").fetch_one(&mut copy).await?;
    copy.close().await?;
    Ok(images.unsigned_abs())
}

/// Whoever had the ledger has it again, also when root puts a backup back: `serve` could not open what is root's.
fn given_back(part: &Path, ledger: &Path) -> io::Result<()> {
    let owner = fs::metadata(ledger).or_else(|_| fs::metadata(directory_of(ledger)))?;
    for file in [part, &beside(ledger, ".lock")] {
        match chown(file, Some(owner.uid()), Some(owner.gid())) {
            // Who may not has made them for themselves.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
            outcome => outcome?,
        }
    }
    Ok(())
}

/// On the disk before it has its name.
fn published(part: &Path, to: &Path) -> io::Result<()> {
    File::open(part)?.sync_all()?;
    fs::rename(part, to)?;
    File::open(directory_of(to))?.sync_all()
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn is_same(a: &Path, b: &Path) -> bool {
    a == b || fs::canonicalize(a).ok().zip(fs::canonicalize(b).ok()).is_some_and(|(a, b)| a == b)
}

/// The file and those that SQLite keeps at its side.
fn sides(path: &Path) -> [PathBuf; 3] {
    ["", "-wal", "-shm"].map(|suffix| beside(path, suffix))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn removed(path: &Path) -> io::Result<()> {
    absent_is_fine(fs::remove_file(path))
}

fn moved(from: &Path, to: &Path) -> io::Result<()> {
    absent_is_fine(fs::rename(from, to))
}

fn absent_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(()),
        done => done,
    }
}
