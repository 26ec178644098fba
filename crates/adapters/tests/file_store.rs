//! The file store in a directory that a small web server shows.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    time::Duration,
};

use axum::{
    Router,
    extract::{self, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use futures::TryStreamExt;
use mimeo_adapters::stores::{
    base_url,
    file::{FileStore, FileStoreConfig},
};
use mimeo_core::{ObjectName, Reason, ports::Store};
use mimeo_testkit::{conformance, sample};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinSet};

/// The directory, and the web server that shows it until this is dropped.
struct Place {
    directory: TempDir,
    url: String,
    server: JoinSet<()>,
}

impl Place {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let router = Router::new().route("/{name}", get(show)).with_state(directory.path().to_owned());
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { directory, url, server }
    }

    /// One that has just been made, as after a restart, and writes at once what it is given.
    fn store(&self) -> FileStore {
        let read_url = base_url("read_url", &self.url).unwrap();
        let path = self.directory.path().to_owned();
        let config = FileStoreConfig { name: "file1".parse().unwrap(), path, read_url };
        FileStore::new(config).unwrap().with_gathered(1000)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn part(&self) -> PathBuf {
        self.path(&format!(".{}.part", object()))
    }

    fn names(&self) -> Vec<String> {
        let names = fs::read_dir(self.directory.path()).unwrap();
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

async fn show(
    State(directory): State<PathBuf>,
    extract::Path(name): extract::Path<String>,
    headers: HeaderMap,
) -> Response {
    let Ok(bits) = fs::read(directory.join(name)) else { return StatusCode::NOT_FOUND.into_response() };
    let Some(range) = headers.get(header::RANGE) else { return bits.into_response() };
    let from: usize = range.to_str().unwrap().trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap();
    if from >= bits.len() {
        return StatusCode::RANGE_NOT_SATISFIABLE.into_response();
    }
    let told = format!("bytes {from}-{}/{}", bits.len() - 1, bits.len());
    (StatusCode::PARTIAL_CONTENT, [(header::CONTENT_RANGE, told)], bits[from..].to_vec()).into_response()
}

fn object() -> ObjectName {
    ObjectName::new(&sample::id(1), 1)
}

async fn write(store: &FileStore, bits: Bytes, size: Option<u64>) -> mimeo_core::Result<()> {
    let mut sink = store.open(&object(), size).await?;
    sink.write(bits).await?;
    sink.close().await.map(drop)
}

/// Leaves `bits` as the beginning of an object of this size.
async fn begin(store: &FileStore, bits: Bytes, size: u64) {
    let mut sink = store.open(&object(), Some(size)).await.unwrap();
    sink.write(bits).await.unwrap();
    sink.abort().await;
}

#[tokio::test]
async fn conforms_with_small_and_large_writes() {
    let place = Place::new().await;
    for gathered in [1000, 70_000, 1 << 20] {
        conformance::store(&place.store().with_gathered(gathered)).await;
        assert!(place.names().is_empty(), "{:?}", place.names());
    }
}

#[tokio::test]
async fn an_object_shows_under_its_name_only_when_it_is_whole_and_others_may_read_it() {
    let place = Place::new().await;
    let store = place.store();
    let mut sink = store.open(&object(), Some(5000)).await.unwrap();
    sink.write(sample::bits(5000)).await.unwrap();
    assert_eq!(place.names(), [format!(".{}.part", object())]);
    assert_eq!(sink.close().await.unwrap().size, Some(5000));
    assert_eq!(place.names(), [object().to_string()]);
    let probe = place.path("probe");
    fs::write(&probe, "").unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&place.path(object().as_str())), mode(&probe) & !0o022, "as the umask leaves it of 0644");
}

#[tokio::test]
async fn other_lengths_than_announced_are_no_object() {
    let place = Place::new().await;
    for given in [4999, 5001] {
        let error = write(&place.store(), sample::bits(given), Some(5000)).await.unwrap_err();
        assert_eq!(error.reason, Reason::StoreError);
        assert!(error.message.contains(&format!("given {given} bytes where 5000 were announced")), "{error}");
        assert_eq!(place.store().probe(&object()).await.unwrap(), None);
    }
}

#[tokio::test]
async fn zeros_that_are_left_out_take_no_room() {
    const ZEROS: u64 = 256 << 20;
    let place = Place::new().await;
    let mut sink = place.store().open(&object(), Some(2 * ZEROS + 5000)).await.unwrap();
    sink.skip(ZEROS).await.unwrap();
    sink.write(sample::bits(5000)).await.unwrap();
    sink.skip(ZEROS).await.unwrap();
    sink.close().await.unwrap();
    let found = fs::metadata(place.path(object().as_str())).unwrap();
    assert_eq!(found.len(), 2 * ZEROS + 5000);
    assert!(found.blocks() * 512 < 1 << 20, "{} blocks", found.blocks());
}

#[tokio::test]
async fn what_was_behind_does_not_show_through_zeros_that_are_left_out() {
    let place = Place::new().await;
    begin(&place.store(), sample::bits(9000), 10_000).await;
    let store = place.store();
    assert_eq!(store.kept(&object()).await.unwrap(), 9000);
    let mut sink = store.resume(&object(), Some(10_000), 2000).await.unwrap();
    sink.skip(6000).await.unwrap();
    sink.write(sample::bits(2000)).await.unwrap();
    sink.close().await.unwrap();
    let bits = sample::bits(2000);
    assert_eq!(fs::read(place.path(object().as_str())).unwrap(), [&bits[..], &[0; 6000], &bits[..]].concat());
}

#[tokio::test]
async fn an_object_is_gone_on_with_no_further_than_it_was_kept() {
    let place = Place::new().await;
    begin(&place.store(), sample::bits(9000), 10_000).await;
    let error = place.store().resume(&object(), Some(10_000), 9001).await.err().unwrap();
    assert!(error.reason == Reason::StoreError && error.message.contains("has 9000 bytes"), "{error}");
    let kept = place.store().read_kept(&object()).await.unwrap().unwrap();
    assert_eq!(kept.try_collect::<Vec<_>>().await.unwrap().concat(), sample::bits(9000));
}

#[tokio::test]
async fn what_an_earlier_try_left_is_replaced() {
    let place = Place::new().await;
    let store = place.store();
    let mut late = store.open(&object(), Some(9000)).await.unwrap();
    late.write(Bytes::from(vec![1; 5000])).await.unwrap();
    let mut sink = store.open(&object(), Some(4000)).await.unwrap();
    late.write(Bytes::from(vec![1; 4000])).await.unwrap();
    drop(late);
    sink.write(sample::bits(4000)).await.unwrap();
    sink.close().await.unwrap();
    assert_eq!(fs::read(place.path(object().as_str())).unwrap(), sample::bits(4000));
}

#[tokio::test]
async fn a_symbolic_link_in_an_objects_place_is_not_followed() {
    let place = Place::new().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let target = elsewhere.path().join("target");
    fs::write(&target, "precious").unwrap();
    let store = place.store();

    symlink(&target, place.part()).unwrap();
    assert_eq!(store.kept(&object()).await.unwrap(), 0);
    assert_eq!(store.resume(&object(), Some(10), 5).await.err().unwrap().reason, Reason::StoreRefused);
    assert_eq!(store.read_kept(&object()).await.err().unwrap().reason, Reason::StoreRefused);
    symlink(&target, place.path(object().as_str())).unwrap();
    write(&store, sample::bits(10), Some(10)).await.unwrap();
    assert!(fs::symlink_metadata(place.path(object().as_str())).unwrap().is_file());

    symlink(&target, place.part()).unwrap();
    store.delete(&object()).await.unwrap();
    assert!(place.names().is_empty());
    assert_eq!(fs::read(&target).unwrap(), b"precious");
}

#[tokio::test]
async fn the_room_is_that_of_the_directorys_file_system() {
    let place = Place::new().await;
    let room = place.store().room().await.unwrap().unwrap();
    assert!((1..1 << 60).contains(&room), "{room}");
    fs::remove_dir(place.directory.path()).unwrap();
    assert_eq!(place.store().room().await.unwrap_err().reason, Reason::StoreError);
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_no_empty_one() {
    let place = Place::new().await;
    let store = place.store();
    fs::remove_dir(place.directory.path()).unwrap();
    let errors = [
        store.open(&object(), Some(10)).await.err().unwrap(),
        store.open(&object(), None).await.err().unwrap(),
        store.kept(&object()).await.unwrap_err(),
        store.delete(&object()).await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.reason, Reason::StoreError);
        assert!(error.message.contains("the directory is not there"), "{error}");
    }
    fs::create_dir(place.directory.path()).unwrap();
}

#[tokio::test]
async fn what_was_there_is_gone_whether_or_not_the_web_server_answers() {
    let mut place = Place::new().await;
    write(&place.store(), sample::bits(3), Some(3)).await.unwrap();
    place.server.shutdown().await;
    place.store().delete(&object()).await.unwrap();
    assert_eq!(place.names(), Vec::<String>::new());
    begin(&place.store(), sample::bits(2000), 3000).await;
    place.store().delete(&object()).await.unwrap();
    assert_eq!(place.names(), Vec::<String>::new());
}

#[tokio::test]
async fn what_the_web_server_still_shows_is_not_gone() {
    // As when the directory is a mount point and nothing is mounted there: the bits are on the file server, which goes on
    // to show them.
    let mut place = Place::new().await;
    write(&place.store(), sample::bits(3), Some(3)).await.unwrap();
    let unmounted = tempfile::tempdir().unwrap();
    let read_url = base_url("read_url", &place.url).unwrap();
    let config = FileStoreConfig { name: "file1".parse().unwrap(), path: unmounted.path().to_owned(), read_url };
    let store = FileStore::new(config).unwrap();
    let error = store.delete(&object()).await.unwrap_err();
    assert_eq!(error.reason, Reason::StoreError);
    assert!(error.message.contains("do path and read_url show the same files?"), "{error}");
    assert_eq!(store.probe(&object()).await.unwrap(), Some(3));
    place.server.shutdown().await;
    assert_eq!(store.delete(&object()).await.unwrap_err().reason, Reason::StoreUnreachable);
}

#[tokio::test]
async fn what_the_web_server_does_not_show_is_not_missing() {
    let (place, other) = (Place::new().await, Place::new().await);
    write(&place.store(), sample::bits(3), Some(3)).await.unwrap();
    let read_url = base_url("read_url", &other.url).unwrap();
    let path = place.directory.path().to_owned();
    let store = FileStore::new(FileStoreConfig { name: "file1".parse().unwrap(), path, read_url }).unwrap();
    for error in [store.probe(&object()).await.unwrap_err(), store.read(&object(), 0).await.map(drop).unwrap_err()] {
        assert!(error.reason == Reason::StoreError && error.message.contains("is there, but"), "{error}");
    }
    place.store().delete(&object()).await.unwrap();
    assert_eq!(store.probe(&object()).await.unwrap(), None);
    assert_eq!(store.read(&object(), 0).await.map(drop).unwrap_err().reason, Reason::ObjectMissing);
}

#[tokio::test]
async fn nothing_is_deleted_where_nothing_may_be_written() {
    // As in a mount point of root's without its mount, which the web server shows too.
    let place = Place::new().await;
    fs::set_permissions(place.directory.path(), fs::Permissions::from_mode(0o555)).unwrap();
    if fs::write(place.path("as root"), "").is_ok() {
        return; // Root may write everywhere.
    }
    let error = place.store().delete(&object()).await.unwrap_err();
    assert!(error.reason == Reason::StoreRefused && error.message.contains("let Mimeo's user write"), "{error}");
}

#[tokio::test]
async fn a_path_that_is_no_directory_is_told() {
    let place = Place::new().await;
    let plain = place.path("plain");
    fs::write(&plain, "").unwrap();
    let read_url = base_url("read_url", &place.url).unwrap();
    let config = FileStoreConfig { name: "file1".parse().unwrap(), path: plain, read_url };
    let store = FileStore::new(config).unwrap();
    for error in [write(&store, sample::bits(3), Some(3)).await.err(), store.delete(&object()).await.err()] {
        let error = error.unwrap();
        assert!(error.reason == Reason::StoreError && error.message.contains("is no directory"), "{error}");
    }
}

#[test]
fn a_file_system_that_hangs_takes_no_more_than_its_share_of_threads() {
    // A FIFO stands for a hard mount whose server is away: the call never comes back. The runtime has 512 threads for
    // such calls, here 20, and every other store needs them too.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().max_blocking_threads(20).build().unwrap();
    let (free, answers) = runtime.block_on(async {
        let place = Place::new().await;
        assert!(std::process::Command::new("mkfifo").arg(place.part()).status().unwrap().success());
        let store = place.store();
        let mut reads = JoinSet::new();
        for _ in 0..40 {
            let store = store.clone();
            reads.spawn(async move {
                let limit = Duration::from_millis(500);
                tokio::time::timeout(limit, store.read_kept(&object())).await.is_err()
            });
        }
        assert!(reads.join_all().await.into_iter().all(|hangs| hangs));
        let another = tokio::task::spawn_blocking(|| ());
        let free = tokio::time::timeout(Duration::from_secs(5), another).await.is_ok();
        // Lets them go: the store works again.
        let mut kept = JoinSet::new();
        kept.spawn(async move { store.kept(&object()).await });
        let mut answer = None;
        while answer.is_none() {
            let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NONBLOCK;
            let _ = rustix::fs::open(place.part().as_path(), flags, rustix::fs::Mode::empty());
            tokio::time::sleep(Duration::from_millis(20)).await;
            answer = kept.try_join_next();
        }
        (free, answer.unwrap().unwrap().is_ok())
    });
    runtime.shutdown_background();
    assert!(free, "no thread is left for anybody");
    assert!(answers);
}
