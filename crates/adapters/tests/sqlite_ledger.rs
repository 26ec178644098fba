//! The SQL ledger in a file of its own: the port's contract, and what only a file can show.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{os::unix::fs::PermissionsExt, path::Path};

use mimeo_adapters::ledger::sqlite::SqliteLedger;
use mimeo_core::{
    Change, Digest, DirtyMark, ImageFilter, ImageRow, Object, ObjectName, ObjectState, Reason, ports::Ledger,
};
use mimeo_testkit::{
    conformance,
    sample::{id, time},
};

#[tokio::test]
async fn conforms_in_memory() {
    conformance::ledger(async || SqliteLedger::open_in_memory().await.unwrap()).await;
}

#[tokio::test]
async fn conforms_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let count = std::cell::Cell::new(0);
    conformance::ledger(async || {
        count.set(count.get() + 1);
        SqliteLedger::open(folder.path().join(format!("{}.db", count.get()))).await.unwrap()
    })
    .await;
}

#[tokio::test]
async fn what_was_committed_is_there_for_the_next_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mimeo.db");
    let first = SqliteLedger::open(&path).await.unwrap();
    let digests = vec![Digest::from_hex("ab".repeat(32)), Digest::from_hex("cd".repeat(32))];
    let chunks = Change::Chunks { image: id(1), first: 0, digests: digests.clone() };
    first.commit(&[Change::Dirty(DirtyMark { image: id(1), due: time(1) }), chunks]).await.unwrap();
    // Not closed: as after a kill.
    let second = SqliteLedger::open(&path).await.unwrap();
    assert_eq!(second.marks(time(1), 1, &[]).await.unwrap()[0].due, time(1));
    assert_eq!(second.chunks(&id(1)).await.unwrap(), digests);
    drop(first);
}

#[tokio::test]
async fn only_its_owner_may_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mimeo.db");
    std::fs::write(&path, "").unwrap();
    let ledger = SqliteLedger::open(&path).await.unwrap();
    ledger.commit(&[Change::Bookmark("a".into(), "b".into())]).await.unwrap();
    let _claim = ledger.claim().unwrap();
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", file.file_name());
    }
}

#[tokio::test]
async fn a_second_serve_is_refused_until_the_first_ends() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mimeo.db");
    let (first, second) = (SqliteLedger::open(&path).await.unwrap(), SqliteLedger::open(&path).await.unwrap());
    let claim = first.claim().unwrap();
    let refused = second.claim().unwrap_err();
    assert!(refused.to_string().contains("another `mimeo serve`"), "{refused}");
    drop(claim);
    assert!(second.claim().is_ok());
}

#[tokio::test]
async fn a_file_that_cannot_be_a_ledger_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text");
    std::fs::write(&text, "no database, and longer than the header of one would be: ".repeat(100)).unwrap();
    for path in [text.as_path(), folder.path(), Path::new("/no/such/folder/mimeo.db")] {
        let error = SqliteLedger::open(path).await.unwrap_err();
        assert_eq!(error.reason, Reason::Ledger);
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
}

#[tokio::test]
async fn readers_and_writers_at_once_all_succeed() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = SqliteLedger::open(folder.path().join("mimeo.db")).await.unwrap();
    let work = (0..20).map(|n| {
        let ledger = ledger.clone();
        async move {
            for attempt in 0..5 {
                let name = ObjectName::new(&id(n), attempt);
                let store = "http1".parse().unwrap();
                let object = Object { store, name, url: "u".into(), state: ObjectState::Doomed, since: time(0) };
                let row = ImageRow { name: Some("same".into()), ..ImageRow::new(id(n)) };
                ledger.commit(&[Change::Image(row), Change::Object(object)]).await.unwrap();
                assert!(!ledger.find("same").await.unwrap().is_empty());
                assert!(!ledger.sweepable(None, 3).await.unwrap().is_empty());
            }
        }
    });
    futures::future::join_all(work).await;
    assert_eq!(ledger.page(&ImageFilter::default(), None, 100).await.unwrap().len(), 20);
}

#[tokio::test]
async fn a_backup_beside_a_writer_holds_a_moment_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (path, to) = (folder.path().join("mimeo.db"), folder.path().join("it's a backup.db"));
    let ledger = SqliteLedger::open(&path).await.unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let writing = async {
        for n in 0.. {
            // Two rows in one commit: a backup has both or none.
            let rows = [2 * n, 2 * n + 1].map(|n| Change::Image(ImageRow::new(id(n))));
            ledger.commit(&rows).await.unwrap();
            if n > 20 && stop.load(std::sync::atomic::Ordering::SeqCst) {
                return;
            }
        }
    };
    let backing_up = async {
        for _ in 0..5 {
            let images = SqliteLedger::backup(&path, &to).await.unwrap();
            let copy = SqliteLedger::open(&to).await.unwrap();
            let found = copy.count().await.unwrap();
            assert_eq!((found, found % 2), (images, 0));
            copy.close().await;
        }
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
    };
    tokio::join!(writing, backing_up);
    assert_eq!(to.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let mut left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    left.retain(|name| !name.to_str().unwrap().starts_with("mimeo.db"));
    assert_eq!(left, ["it's a backup.db"]);
}

#[tokio::test]
async fn a_backup_that_cannot_be_made_leaves_the_one_before_and_the_ledger() {
    let folder = tempfile::tempdir().unwrap();
    let (path, to) = (folder.path().join("mimeo.db"), folder.path().join("backup.db"));
    std::fs::write(&to, "the one before").unwrap();
    let error = SqliteLedger::backup(&path, &to).await.unwrap_err();
    assert!(error.message.contains(path.to_str().unwrap()), "{error}");
    assert_eq!(std::fs::read_to_string(&to).unwrap(), "the one before");
    assert!(!path.exists(), "and makes no ledger");
    let ledger = SqliteLedger::open(&path).await.unwrap();
    ledger.commit(&[Change::Image(ImageRow::new(id(1)))]).await.unwrap();
    let itself = SqliteLedger::backup(&path, &path).await.unwrap_err();
    assert!(itself.message.contains("the ledger itself"), "{itself}");
    assert_eq!(ledger.count().await.unwrap(), 1);
}

#[tokio::test]
async fn a_restored_backup_is_the_ledger_and_the_one_before_stays_whole_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let (path, to) = (folder.path().join("mimeo.db"), folder.path().join("backup.db"));
    let image = |n| Change::Image(ImageRow::new(id(n)));
    let ledger = SqliteLedger::open(&path).await.unwrap();
    ledger.commit(&[image(1)]).await.unwrap();
    SqliteLedger::backup(&path, &to).await.unwrap();
    // Not closed, as after a kill: this commit is in the file at its side.
    ledger.commit(&[image(2)]).await.unwrap();
    let claim = ledger.claim().unwrap();
    let refused = SqliteLedger::restore(&path, &to, &[]).await.unwrap_err();
    assert!(refused.message.contains("another `mimeo serve`"), "{refused}");
    drop(claim);
    let noted = Change::Bookmark("came".into(), "back".into());
    let before = SqliteLedger::restore(&path, &to, &[noted]).await.unwrap().unwrap();
    drop(ledger);
    let images = async |path: &Path| {
        let records = SqliteLedger::open(path).await.unwrap().page(&ImageFilter::default(), None, 9).await.unwrap();
        records.into_iter().map(|record| record.image.id).collect::<Vec<_>>()
    };
    assert_eq!(images(&path).await, [id(1)]);
    assert_eq!(images(&before).await, [id(1), id(2)]);
    let restored = SqliteLedger::open(&path).await.unwrap();
    assert_eq!(restored.bookmark("came").await.unwrap().as_deref(), Some("back"));
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn what_is_no_backup_does_not_become_the_ledger() {
    let folder = tempfile::tempdir().unwrap();
    let (path, text) = (folder.path().join("mimeo.db"), folder.path().join("text"));
    std::fs::write(&text, "no database, and longer than the header of one would be: ".repeat(100)).unwrap();
    let ledger = SqliteLedger::open(&path).await.unwrap();
    ledger.commit(&[Change::Image(ImageRow::new(id(1)))]).await.unwrap();
    ledger.close().await;
    for from in [text, folder.path().join("nowhere")] {
        assert_eq!(SqliteLedger::restore(&path, &from, &[]).await.unwrap_err().reason, Reason::Ledger);
        assert_eq!(
            SqliteLedger::open(&path).await.unwrap().page(&ImageFilter::default(), None, 9).await.unwrap().len(),
            1
        );
    }
}
