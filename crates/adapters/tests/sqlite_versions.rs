//! Ledgers of earlier releases, as their own schema made them (`tests/ledgers`): each is opened, and holds what it held.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use mimeo_adapters::ledger::sqlite::SqliteLedger;
use mimeo_core::{
    Change, Digest, Failure, ImageRow, ImageState, Object, ObjectName, ObjectState, Proof, ProofKind, Reason, Replica,
    ReplicaState, ports::Ledger,
};
use mimeo_testkit::sample::{id, time};
use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};

/// Of which release of the schema a dump is kept.
fn dumps() -> Vec<(i64, PathBuf)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ledgers");
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let mut dumps: Vec<(i64, PathBuf)> =
        files.map(|path| (path.file_stem().unwrap().to_str().unwrap().parse().unwrap(), path)).collect();
    dumps.sort();
    dumps
}

async fn connect(path: &Path) -> SqliteConnection {
    // A dump has its tables in the order of their names.
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true).foreign_keys(false);
    SqliteConnection::connect_with(&options).await.unwrap()
}

#[tokio::test]
async fn a_ledger_of_every_earlier_version_is_opened_with_all_that_it_held() {
    let folder = tempfile::tempdir().unwrap();
    for (version, dump) in dumps() {
        let path = folder.path().join(format!("{version}.db"));
        let mut older = connect(&path).await;
        sqlx::raw_sql(sqlx::AssertSqlSafe(std::fs::read_to_string(&dump).unwrap())).execute(&mut older).await.unwrap();
        older.close().await.unwrap();
        let ledger = SqliteLedger::open(&path).await.unwrap();
        holds_what_it_held(&ledger, version).await;
        let tally = ledger.tally().await.unwrap();
        assert_eq!(tally.images, BTreeMap::from([(ImageState::Degraded, 1), (ImageState::Retiring, 1)]));
        let of = |name: &str, state| (name.parse().unwrap(), BTreeMap::from([(state, 1)]));
        let replicas = [of("http1", ReplicaState::Registered), of("http2", ReplicaState::Failed)];
        assert_eq!(tally.replicas, BTreeMap::from(replicas));
        let places = ledger.places().await.unwrap().into_iter().map(|place| (place.url, place.objects, place.doomed));
        let kept = ("http://http1.example/1".to_owned(), 1, 0);
        assert_eq!(places.collect::<Vec<_>>(), [kept, ("http://http2.example/2".to_owned(), 1, 1)]);
        // And it is as good as a new one.
        ledger.commit(&[Change::Replica(id(1), Replica::wanted("http3".parse().unwrap()))]).await.unwrap();
        assert_eq!(ledger.history(&id(1)).await.unwrap().len(), if version < 5 { 1 } else { 2 });
        assert_eq!(ledger.told(0, 9).await.unwrap().len(), 1, "what is from before has no number");
    }
}

async fn holds_what_it_held(ledger: &SqliteLedger, version: i64) {
    let full = Failure { reason: Reason::StoreFull, message: "full".into(), tries: 3, next_try: None };
    let record = ledger.load(&id(1)).await.unwrap().unwrap();
    let row = ImageRow {
        name: Some("debian".into()),
        status: Some("active".into()),
        size: Some(1 << 40),
        wanted: ["http2", "http1"].map(|name| name.parse().unwrap()).into(),
        trouble: Some(full.clone()),
        observed_at: Some(time(1)),
        ..ImageRow::new(id(1))
    };
    assert_eq!(record.image, row, "version {version}");
    let object = |store: &str, attempt, state, since| {
        let url = format!("http://{store}.example/{attempt}");
        Object { store: store.parse().unwrap(), name: ObjectName::new(&id(1), attempt), url, state, since: time(since) }
    };
    assert_eq!(record.objects, [object("http1", 1, ObjectState::Kept, 0), object("http2", 2, ObjectState::Doomed, 5)]);
    let registered = Replica {
        state: ReplicaState::Registered,
        object: Some(ObjectName::new(&id(1), 1)),
        url: Some("http://http1.example/1".into()),
        size: Some(1 << 40),
        digest: Some(Digest::from_hex("ab")),
        proof: Some(Proof { kind: ProofKind::Readback, at: time(3) }),
        seen_at: Some(time(4)),
        ..Replica::wanted("http1".parse().unwrap())
    };
    let failed = Replica {
        state: ReplicaState::Failed,
        failure: Some(Failure { next_try: Some(time(7)), ..full }),
        ..Replica::wanted("http2".parse().unwrap())
    };
    assert_eq!(record.replicas.into_values().collect::<Vec<_>>(), [registered, failed]);
    let gone = ledger.load(&id(2)).await.unwrap().unwrap().image;
    assert_eq!((gone.delete_seen, gone.gone_at), (Some(time(2)), Some(time(3))));
    let marks = ledger.marks(time(99), 9, &[]).await.unwrap();
    assert_eq!((marks[0].image.clone(), marks[0].seq, marks[0].due), (id(1), 7, time(9)));
    assert_eq!(ledger.bookmark("scan").await.unwrap().as_deref(), Some("2026-01-01T00:00:00Z"));
    let chunks = if version < 2 { vec![] } else { vec![Digest::from_hex("cd")] };
    assert_eq!(ledger.chunks(&id(1)).await.unwrap(), chunks);
}

/// What was released is not changed any more: a new migration comes behind.
#[tokio::test]
async fn every_version_before_the_newest_has_its_dump() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new.db");
    SqliteLedger::open(&path).await.unwrap().close().await;
    let versions: Vec<i64> = sqlx::query_scalar("SELECT version FROM _sqlx_migrations ORDER BY version")
        .fetch_all(&mut connect(&path).await)
        .await
        .unwrap();
    // 3 to 5 came with one release.
    let released: Vec<i64> =
        versions[..versions.len() - 1].iter().copied().filter(|version| !(3..5).contains(version)).collect();
    let kept: Vec<i64> = dumps().into_iter().map(|(version, _)| version).collect();
    assert!(
        released.iter().all(|version| kept.contains(version)),
        "there are versions {versions:?}, and dumps of {kept:?}: make one with sqlite3's .dump of a ledger of the version \
         that is missing, with the rows that the others have"
    );
}

#[tokio::test]
async fn a_ledger_of_a_newer_version_is_refused_with_what_to_do_and_stays_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mimeo.db");
    SqliteLedger::open(&path).await.unwrap().close().await;
    let newer = "INSERT INTO _sqlx_migrations VALUES (9999, 'newer', CURRENT_TIMESTAMP, TRUE, x'00', 1)";
    sqlx::query(newer).execute(&mut connect(&path).await).await.unwrap();
    let content = async || {
        let all = "SELECT version || '' FROM _sqlx_migrations UNION ALL SELECT coalesce(sql, '') FROM sqlite_master";
        sqlx::query_scalar::<_, String>(all).fetch_all(&mut connect(&path).await).await.unwrap()
    };
    let before = content().await;
    let error = SqliteLedger::open(&path).await.unwrap_err();
    assert_eq!(error.reason, Reason::Ledger);
    for said in [path.to_str().unwrap(), "newer release", "9999", "run that release", "backup"] {
        assert!(error.message.contains(said), "{error}");
    }
    assert!(content().await == before);
}
