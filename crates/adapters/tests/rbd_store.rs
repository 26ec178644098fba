//! The RBD store without a cluster, and its corners with one: those tests are run by
//! `cargo test --test rbd_store -- --ignored` with `MIMEO_CEPH_CONF`, Ceph's configuration of a cluster for tests with the
//! pool `images` and the keys of `client.admin` and of `client.mimeo`, which may use that pool alone.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::{
    env, fs,
    net::TcpListener,
    process::Command,
    sync::atomic::AtomicU64,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::TryStreamExt;
use mimeo_adapters::stores::rbd::{RbdStore, RbdStoreConfig};
use mimeo_core::{
    Error, ObjectName, Reason, Result,
    ports::{Offer, Sink, Store},
};
use mimeo_testkit::{
    conformance,
    sample::{self, bits},
};
use serde_json::{Value, json};

const SIZE: usize = 300_000;
const REQUEST: usize = 16 << 10;

/// What Ceph itself has as `rbd_default_features`.
const DEFAULT_FEATURES: [&str; 5] = ["layering", "exclusive-lock", "object-map", "fast-diff", "deep-flatten"];

fn object(n: u32) -> ObjectName {
    ObjectName::new(&sample::id(0xCE00 + n), 1)
}

fn conf_file() -> String {
    env::var("MIMEO_CEPH_CONF").expect("MIMEO_CEPH_CONF is not set")
}

fn config() -> RbdStoreConfig {
    let fsid = RbdStoreConfig::fsid_of(conf_file().as_ref()).unwrap();
    let config = RbdStoreConfig::new("ceph".parse().unwrap(), "images".into(), fsid);
    RbdStoreConfig { user: "mimeo".into(), conf_file: conf_file().into(), ..config }
}

/// With small objects and requests, so that small images are large.
fn store() -> RbdStore {
    RbdStore::new(RbdStoreConfig { order: 16, ..config() }).unwrap().with_request(REQUEST as u64)
}

/// What one of Ceph's commands says, as the administrator.
fn run(program: &str, arguments: &[&str]) -> String {
    let done = Command::new(program).args(["-c", &conf_file()]).args(arguments).output().unwrap();
    assert!(done.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

fn told(arguments: &[&str]) -> Value {
    serde_json::from_str(&run("rbd", &[arguments, &["--format", "json"]].concat())).unwrap()
}

async fn filled(store: &RbdStore, object: &ObjectName, size: Option<u64>) -> Box<dyn Sink> {
    let mut sink = store.open(object, size).await.unwrap();
    sink.write(bits(SIZE)).await.unwrap();
    sink
}

async fn read(store: &RbdStore, object: &ObjectName) -> Result<Bytes> {
    let chunks: Vec<Bytes> = store.read(object, 0).await?.try_collect().await?;
    Ok(chunks.concat().into())
}

async fn fails(config: RbdStoreConfig) -> Error {
    RbdStore::new(config).unwrap().probe(&object(0)).await.unwrap_err()
}

#[tokio::test]
async fn a_cluster_that_does_not_answer_is_unreachable_within_seconds() {
    let directory = tempfile::tempdir().unwrap();
    // Takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let conf_file = directory.path().join("ceph.conf");
    let monitor = format!("[global]\nmon_host = [v1:{}]\nauth_client_required = none\n", silent.local_addr().unwrap());
    fs::write(&conf_file, monitor).unwrap();
    let config = RbdStoreConfig::new("ceph".parse().unwrap(), "images".into(), sample::id(1).to_string());
    let since = Instant::now();
    let error = fails(RbdStoreConfig { conf_file, ..config }).await;
    // Where Ceph's libraries are not installed, that is what is told.
    let installed = error.reason == Reason::StoreUnreachable;
    assert!(installed || error.message.contains("install librbd1 and librados2"), "{}", error.chain());
    assert!(since.elapsed() < Duration::from_secs(8), "{:?}", since.elapsed());
}

#[tokio::test]
#[ignore = "needs a Ceph"]
async fn an_image_is_as_glance_makes_them() {
    let (store, object) = (RbdStore::new(config()).unwrap(), object(1));
    for size in [Some(SIZE as u64), None] {
        filled(&store, &object, size).await.close().await.unwrap();
        let spec = format!("images/{object}");
        let info = told(&["info", &spec]);
        assert_eq!(
            (&info["size"], &info["order"], &info["features"]),
            (&json!(SIZE), &json!(23), &json!(DEFAULT_FEATURES)),
            "as a client of the cluster makes it that names no features"
        );
        let snapshots = told(&["snap", "ls", &spec]);
        let only = (&snapshots[0]["name"], &snapshots[0]["size"], &snapshots[0]["protected"], &snapshots[1]);
        assert_eq!(only, (&json!("snap"), &json!(SIZE), &json!("true"), &Value::Null));
        assert!(!run("rbd", &["image-meta", "ls", &spec]).contains("mimeo"), "clones would inherit it");
        assert_eq!(store.location(&object), format!("rbd://{}/images/{object}/snap", run("ceph", &["fsid"]).trim()));
        store.delete(&object).await.unwrap();
    }
}

/// Another pool, for the administrator alone.
fn other_pool(purpose: &str) -> RbdStoreConfig {
    let pool = format!("{purpose}-{}", std::process::id());
    run("ceph", &["osd", "pool", "create", &pool, "1"]);
    run("rbd", &["pool", "init", &pool]);
    RbdStoreConfig { pool, user: "admin".into(), ..config() }
}

#[tokio::test]
#[ignore = "needs a Ceph"]
async fn features_that_the_cluster_does_not_want_are_left_out_but_for_what_clones_need() {
    let directory = tempfile::tempdir().unwrap();
    let conf_file = directory.path().join("ceph.conf");
    let conf = fs::read_to_string(self::conf_file()).unwrap();
    for (said, expected) in [("exclusive-lock", vec!["layering", "exclusive-lock"]), ("0", vec!["layering"])] {
        fs::write(&conf_file, format!("{conf}\n[client]\nrbd_default_features = {said}\n")).unwrap();
        let store = RbdStore::new(RbdStoreConfig { conf_file: conf_file.clone(), ..config() }).unwrap();
        let object = object(7);
        filled(&store, &object, None).await.close().await.unwrap();
        assert_eq!(told(&["info", &format!("images/{object}")])["features"], json!(expected));
        store.delete(&object).await.unwrap();
    }
}

#[tokio::test]
#[ignore = "needs a Ceph"]
async fn ceph_copies_from_one_pool_to_another() {
    let taker = RbdStore::new(other_pool("taker")).unwrap();
    conformance::take(&store(), &taker).await;
    // Of what was taken the pool has all that Glance's own images have.
    let (given, own) = (object(8), object(9));
    filled(&store(), &given, None).await.close().await.unwrap();
    let offer = Offer { area: store().area().unwrap(), object: given.clone(), size: SIZE as u64, like: None };
    let sent = AtomicU64::new(0);
    taker.take(&own, &offer, &sent).await.unwrap();
    let pool = taker.area().unwrap();
    let spec = format!("{}/{own}", pool.trim_end_matches('/').rsplit('/').next().unwrap());
    let info = told(&["info", &spec]);
    assert_eq!(
        (&info["order"], &info["features"], &info["parent"]),
        (&json!(23), &json!(DEFAULT_FEATURES), &json!(null))
    );
    assert_eq!(told(&["snap", "ls", &spec])[0]["protected"], json!("true"));
    taker.delete(&own).await.unwrap();
    store().delete(&given).await.unwrap();
}

#[tokio::test]
#[ignore = "needs a Ceph"]
async fn where_the_manager_lets_nobody_copy_it_is_said_and_not_tried_again() {
    let pool = other_pool("refused");
    let user = format!("unmanaged-{}", std::process::id());
    let client = format!("client.{user}");
    let allowed = format!("profile rbd pool={}, profile rbd-read-only pool=images", pool.pool);
    run("ceph", &["auth", "get-or-create", &client, "mon", "profile rbd", "osd", &allowed]);
    let directory = tempfile::tempdir().unwrap();
    let keyring = directory.path().join("keyring");
    fs::write(&keyring, run("ceph", &["auth", "get", &client])).unwrap();
    let taker = RbdStoreConfig { user, keyring: Some(keyring), ..pool };
    let (taker, giver, source, own) = (RbdStore::new(taker).unwrap(), store(), object(10), object(11));
    filled(&giver, &source, None).await.close().await.unwrap();
    let area = giver.area().unwrap();
    let offer = Offer { area: area.clone(), object: source.clone(), size: SIZE as u64, like: None };
    assert!(taker.takes_from(&area));
    let error = taker.take(&own, &offer, &AtomicU64::new(0)).await.unwrap_err();
    assert!(
        error.reason == Reason::StoreError && error.message.contains("needs mgr 'profile rbd"),
        "{}",
        error.chain()
    );
    assert!(!taker.takes_from(&area));
    assert_eq!(taker.probe(&own).await.unwrap(), None, "what is not parted from its parent is not published");
    taker.delete(&own).await.unwrap();
    giver.delete(&source).await.unwrap();
}

#[tokio::test]
#[ignore = "needs a Ceph"]
async fn an_image_with_clones_stays_whole_and_goes_after_them() {
    let (store, object) = (store(), object(2));
    for format in ["1", "2"] {
        filled(&store, &object, None).await.close().await.unwrap();
        let (parent, clone) = (format!("images/{object}@snap"), format!("images/disk-{format}"));
        run("rbd", &["--rbd-default-clone-format", format, "clone", &parent, &clone]);
        let error = store.delete(&object).await.unwrap_err();
        assert_eq!(error.reason, Reason::StoreInUse, "{}", error.chain());
        assert!(error.message.contains(&format!("held by 1 clone ({clone})")), "{}", error.message);
        assert_eq!(told(&["snap", "ls", &format!("images/{object}")])[0]["protected"], json!("true"));
        assert_eq!(read(&store, &object).await.unwrap(), bits(SIZE));
        run("rbd", &["rm", "--no-progress", &clone]);
        store.delete(&object).await.unwrap();
        assert_eq!(store.probe(&object).await.unwrap(), None);
    }
}

#[tokio::test]
#[ignore = "needs a Ceph"]
async fn an_image_that_somebody_writes_is_not_removed_under_them() {
    let (store, object) = (store(), object(3));
    let sink = filled(&store, &object, None).await;
    let error = store.delete(&object).await.unwrap_err();
    assert!(error.reason == Reason::StoreInUse && error.message.contains("rbd status"), "{}", error.chain());
    sink.close().await.unwrap();
    store.delete(&object).await.unwrap();
}

#[tokio::test]
#[ignore = "needs a Ceph"]
async fn zeros_that_are_left_out_take_no_room() {
    const HALF: u64 = 5 << 20;
    let (store, object) = (store(), object(13));
    let mut sink = store.open(&object, Some(2 * HALF)).await.unwrap();
    sink.skip(HALF).await.unwrap();
    sink.write(bits(REQUEST)).await.unwrap();
    sink.skip(HALF - REQUEST as u64).await.unwrap();
    sink.close().await.unwrap();
    let written = told(&["diff", &format!("images/{object}@snap")]);
    let places: Vec<(u64, u64)> = written
        .as_array()
        .unwrap()
        .iter()
        .map(|extent| (extent["offset"].as_u64().unwrap(), extent["length"].as_u64().unwrap()))
        .collect();
    assert_eq!(places, [(HALF, REQUEST as u64)]);
    store.delete(&object).await.unwrap();
}

/// Without a map of its objects Ceph asks for each one that there might be.
#[tokio::test]
#[ignore = "needs a Ceph"]
async fn a_removal_that_was_given_up_goes_on_and_is_in_nobodys_way() {
    let (store, large, small) = (store(), object(12), object(13));
    for (object, size) in [(&large, "64G"), (&small, "1M")] {
        run("rbd", &["create", &format!("images/{object}"), "--size", size, "--image-feature", "layering"]);
    }
    let given_up = tokio::time::timeout(Duration::from_millis(300), store.delete(&large)).await;
    assert!(given_up.is_err(), "it takes longer: {given_up:?}");
    store.delete(&small).await.unwrap();
    let mut waits = 0;
    while let Err(error) = store.delete(&large).await {
        assert!(error.reason == Reason::StoreBusy && error.to_string().contains("is being removed"), "{error}");
        waits += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(waits > 0, "it went on when the small one was gone");
    let left = told(&["ls", "images"]);
    assert!(
        [&large, &small].iter().all(|object| !left.as_array().unwrap().contains(&json!(object.as_str()))),
        "{left}"
    );
}

#[tokio::test]
#[ignore = "needs a Ceph"]
async fn a_snapshot_of_somebody_elses_holds_the_image() {
    let (store, object) = (store(), object(4));
    filled(&store, &object, None).await.close().await.unwrap();
    let other = format!("images/{object}@theirs");
    run("rbd", &["snap", "create", "--no-progress", &other]);
    assert_eq!(store.delete(&object).await.unwrap_err().reason, Reason::StoreInUse);
    run("rbd", &["snap", "rm", "--no-progress", &other]);
    store.delete(&object).await.unwrap();
}

#[tokio::test]
#[ignore = "needs a Ceph"]
async fn what_was_behind_the_point_of_resumption_is_gone() {
    let (store, object) = (store(), object(5));
    filled(&store, &object, Some(SIZE as u64)).await.abort().await;
    assert_eq!(store.kept(&object).await.unwrap(), (SIZE - SIZE % REQUEST) as u64);
    let offset = 100_000;
    let mut sink = store.resume(&object, Some(SIZE as u64), offset as u64).await.unwrap();
    assert_eq!(store.kept(&object).await.unwrap(), offset as u64);
    sink.skip((SIZE - offset) as u64).await.unwrap();
    sink.close().await.unwrap();
    assert_eq!(read(&store, &object).await.unwrap(), [&bits(SIZE)[..offset], &vec![0; SIZE - offset]].concat());
    assert_eq!(store.kept(&object).await.unwrap(), 0, "it is published");
    store.delete(&object).await.unwrap();
}

#[tokio::test]
#[ignore = "needs a Ceph"]
async fn a_writer_that_is_dropped_has_noted_how_far_it_came() {
    let (store, object) = (store(), object(6));
    let mut sink = store.open(&object, Some(20 * SIZE as u64)).await.unwrap();
    for _ in 0..10 {
        sink.write(bits(SIZE)).await.unwrap();
    }
    drop(sink);
    let kept = store.kept(&object).await.unwrap();
    assert!(kept > SIZE as u64 && kept <= 10 * SIZE as u64, "{kept}");
    let begun = Instant::now();
    // It is closed once its requests have ended.
    while let Err(error) = store.delete(&object).await {
        assert!(begun.elapsed() < Duration::from_secs(20), "{}", error.chain());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
#[ignore = "needs a Ceph"]
async fn what_the_cluster_refuses_is_told_with_a_cure() {
    let wrong = RbdStoreConfig { fsid: sample::id(1).to_string(), ..config() };
    let unknown = RbdStoreConfig { pool: "nowhere".into(), ..config() };
    let keyless = RbdStoreConfig { user: "nobody".into(), ..config() };
    let misplaced = RbdStoreConfig { conf_file: "/nowhere/ceph.conf".into(), ..config() };
    let directory = tempfile::tempdir().unwrap();
    let keyring = directory.path().join("keyring");
    fs::write(&keyring, "[client.mimeo]\nkey = AQAA8VNlAAAAABAAYW5vdGhlciBrZXkgaGVyZQ==\n").unwrap();
    let other_key = RbdStoreConfig { keyring: Some(keyring), ..config() };
    for (config, reason, cure) in [
        (wrong, Reason::StoreError, "correct conf_file or fsid"),
        (unknown, Reason::StoreError, "`rbd pool init nowhere`"),
        (keyless, Reason::StoreRefused, "keyring"),
        (other_key, Reason::StoreRefused, "`ceph auth get client.mimeo`"),
        (misplaced, Reason::StoreError, "correct conf_file"),
    ] {
        let error = fails(config).await;
        assert!(error.reason == reason && error.message.contains(cure), "{}", error.chain());
    }
    // The pool is there, but not for this user.
    run("ceph", &["osd", "pool", "create", "others", "1"]);
    let error = fails(RbdStoreConfig { pool: "others".into(), ..config() }).await;
    assert!(error.reason == Reason::StoreRefused && error.message.contains("ceph auth caps"), "{}", error.chain());
}

#[tokio::test]
#[ignore = "needs a Ceph"]
async fn a_pool_whose_quota_is_used_up_is_full() {
    let pool = format!("small-{}", std::process::id());
    run("ceph", &["osd", "pool", "create", &pool, "1"]);
    run("rbd", &["pool", "init", &pool]);
    run("ceph", &["osd", "pool", "set-quota", &pool, "max_objects", "10"]);
    let store = RbdStore::new(RbdStoreConfig { pool: pool.clone(), user: "admin".into(), ..config() }).unwrap();
    let store = store.with_request(REQUEST as u64);
    assert_ne!(store.room().await.unwrap(), Some(0));
    run("ceph", &["osd", "pool", "set-quota", &pool, "max_bytes", "1000000"]);
    let begun = Instant::now();
    // The pool's own header takes a few bytes of it, once the manager has counted them.
    while !matches!(store.room().await.unwrap(), Some(999_000..=1_000_000)) {
        assert!(begun.elapsed() < Duration::from_mins(1), "the quota is never seen");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    run("ceph", &["osd", "pool", "set-quota", &pool, "max_bytes", "0"]);
    let begun = Instant::now();
    // The manager counts now and then.
    for n in 100.. {
        assert!(begun.elapsed() < Duration::from_mins(1), "never full");
        let written = async {
            let mut sink = store.open(&object(n), None).await?;
            sink.write(bits(SIZE)).await?;
            sink.close().await
        };
        match written.await {
            Ok(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            Err(error) => {
                assert_eq!(error.reason, Reason::StoreFull, "{}", error.chain());
                return;
            }
        }
    }
}
