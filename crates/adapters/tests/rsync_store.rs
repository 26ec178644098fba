//! The rsync store with the real rsync program (Debian's package `rsync`) and its daemon.
#![cfg(all(feature = "rsync", feature = "file"))]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::{
    fs,
    num::NonZeroU64,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::Ordering,
    time::Duration,
};

use axum::{
    Router,
    extract::{Path as Name, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use mimeo_adapters::stores::{
    base_url,
    file::{FileStore, FileStoreConfig},
    rsync::{RsyncStore, RsyncStoreConfig, RsyncTarget},
};
use mimeo_core::{
    ObjectName, Reason, Result,
    ports::{Receipt, Store},
};
use mimeo_testkit::{conformance, sample};
use tempfile::TempDir;
use tokio::{
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    task::JoinSet,
};

const PASSWORD: &str = "s3cret";

/// rsync's daemon with one module, and a web server that shows its files.
struct Server {
    directory: TempDir,
    port: u16,
    read_url: String,
    _daemon: Child,
    web: JoinSet<()>,
}

impl Server {
    async fn start(options: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for name in ["images", "spool"] {
            fs::create_dir(path(name)).unwrap();
        }
        fs::write(path("secrets"), format!("mimeo:{PASSWORD}\n")).unwrap();
        fs::set_permissions(path("secrets"), fs::Permissions::from_mode(0o600)).unwrap();
        let (images, secrets) = (path("images"), path("secrets"));
        // Run by root the daemon would write as nobody.
        let owner = fs::metadata(&images).unwrap();
        let module = format!(
            "uid = {}\ngid = {}\nuse chroot = no\nreverse lookup = no\n[images]\npath = {}\nread only = no\nauth users = mimeo\n\
             secrets file = {}\n{options}\n",
            owner.uid(),
            owner.gid(),
            images.display(),
            secrets.display()
        );
        fs::write(path("conf"), module).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let mut daemon = Command::new("rsync");
        daemon.args(["--daemon", "--no-detach", "--address=127.0.0.1", &format!("--port={port}"), "--config"]);
        daemon.arg(path("conf")).stdin(Stdio::null()).kill_on_drop(true);
        let daemon = daemon.spawn().expect("rsync is installed");
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let web = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let read_url = format!("http://{}/", web.local_addr().unwrap());
        let router = Router::new().route("/{name}", get(show)).with_state(images);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(web, router).await.unwrap() });
        Self { directory, port, read_url, _daemon: daemon, web: tasks }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn config(&self) -> RsyncStoreConfig {
        RsyncStoreConfig {
            name: "far".parse().unwrap(),
            target: RsyncTarget::parse(&format!("rsync://mimeo@127.0.0.1:{}/images/", self.port)).unwrap(),
            read_url: base_url("read_url", &self.read_url).unwrap(),
            spool: self.path("spool"),
            spool_size: 10 << 20,
            password: Some(PASSWORD.into()),
            key_file: None,
            bandwidth: None,
            known_hosts: None,
            port: None,
        }
    }

    fn store(&self) -> RsyncStore {
        RsyncStore::new(self.config()).unwrap()
    }
}

async fn show(Name(name): Name<String>, State(images): State<PathBuf>, headers: HeaderMap) -> Response {
    let Ok(bits) = fs::read(images.join(name)) else { return StatusCode::NOT_FOUND.into_response() };
    let range = headers.get("range").map(|range| range.to_str().unwrap());
    let from: usize = range.map_or(0, |range| range.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap());
    match range {
        Some(_) if from >= bits.len() => StatusCode::RANGE_NOT_SATISFIABLE.into_response(),
        Some(_) => {
            let range = format!("bytes {from}-{}/{}", bits.len() - 1, bits.len());
            (StatusCode::PARTIAL_CONTENT, [("content-range", range)], bits[from..].to_vec()).into_response()
        }
        None => bits.into_response(),
    }
}

fn object(attempt: u64) -> ObjectName {
    ObjectName::new(&sample::id(1), attempt)
}

async fn put(store: &RsyncStore, attempt: u64, bits: &Bytes) -> Result<Receipt> {
    let mut sink = store.open(&object(attempt), Some(bits.len() as u64)).await?;
    sink.write(bits.clone()).await?;
    sink.close().await
}

/// All files below, in order, without the directory's own path.
fn files(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap()) {
        let name = entry.file_name().into_string().unwrap();
        match entry.path().is_dir() {
            true => found.extend(files(&entry.path()).into_iter().map(|below| format!("{name}/{below}"))),
            false => found.push(name),
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn conforms_with_and_without_deltas_and_leaves_the_spool_empty() {
    let server = Server::start("").await;
    conformance::store(&server.store()).await;
    conformance::store(&server.store().with_delta_from(1)).await;
    assert_eq!((files(&server.path("images")), files(&server.path("spool"))), (vec![], vec![]));
}

#[tokio::test]
async fn only_what_differs_from_a_like_object_is_sent() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let options = format!("transfer logging = yes\nlog file = {}\nlog format = %f %b", log.path().display());
    let server = Server::start(&options).await;
    let store = server.store().with_delta_from(1);
    let bits = sample::bits(3_000_000);
    put(&store, 1, &bits).await.unwrap();
    let changed: Bytes = [&bits[..1_000_000], b"other bits", &bits[1_000_010..]].concat().into();
    // It is another's, and there is one with a name that is nearer.
    let other = ObjectName::new(&sample::id(2), 77);
    put(&store, 3, &sample::bits(1000)).await.unwrap();
    fs::rename(server.path("images").join(object(1).as_str()), server.path("images").join(other.as_str())).unwrap();
    let mut sink = store.open(&object(2), Some(3_000_000)).await.unwrap();
    sink.like(&other);
    sink.write(changed.clone()).await.unwrap();
    sink.close().await.unwrap();
    assert_eq!(fs::read(server.path("images").join(object(2).as_str())).unwrap(), changed);
    // The daemon names what it was sent by the name that it has here.
    let received = |name: &ObjectName| {
        let lines = fs::read_to_string(log.path()).unwrap();
        // Others of its lines tell what it was asked for.
        let mut told = lines.lines().filter(|line| line.contains(name.as_str()));
        told.find_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).unwrap()
    };
    assert!(received(&object(1)) >= 3_000_000, "{}", received(&object(1)));
    assert!(received(&other) < 100_000, "{}", received(&other));
}

fn local(server: &Server) -> FileStore {
    let read_url = base_url("read_url", &server.read_url).unwrap();
    FileStore::new(FileStoreConfig { name: "near".parse().unwrap(), path: server.path("images"), read_url }).unwrap()
}

#[tokio::test]
async fn a_file_of_this_machine_is_sent_from_where_it_lies() {
    let (near, server) = (Server::start("").await, Server::start("").await);
    // Nothing of it is in the spool.
    let store = RsyncStore::new(RsyncStoreConfig { spool_size: 1, ..server.config() }).unwrap();
    conformance::take(&local(&near), &store).await;
    assert_eq!((files(&server.path("images")), files(&server.path("spool"))), (vec![], vec![]));
}

#[tokio::test]
async fn what_a_broken_connection_left_is_not_sent_again() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let options = format!("transfer logging = yes\nlog file = {}\nlog format = %f %b", log.path().display());
    let server = Server::start(&options).await;
    let (bits, object) = (sample::bits(3_000_000), object(1));
    let slow = RsyncStoreConfig { bandwidth: NonZeroU64::new(2 << 20), ..server.config() };
    let mut sink = RsyncStore::new(slow).unwrap().open(&object, Some(3_000_000)).await.unwrap();
    sink.write(bits.clone()).await.unwrap();
    let (sent, mut closing) = (sink.sent().unwrap(), JoinSet::new());
    closing.spawn(sink.close());
    let partial = server.path("images").join(".mimeo-partial").join(object.as_str());
    let broken = async {
        while sent.load(Ordering::Relaxed) < 1_500_000 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        closing.shutdown().await;
        // The server notices it, and keeps what it has.
        while !partial.exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), broken).await.unwrap();
    put(&server.store(), 1, &bits).await.unwrap();
    assert_eq!(fs::read(server.path("images").join(object.as_str())).unwrap(), bits);
    let line = fs::read_to_string(log.path()).unwrap();
    let line = line.lines().rfind(|line| line.contains(object.as_str())).unwrap().to_owned();
    let received: u64 = line.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(received < 2_500_000, "{line}");
    server.store().delete(&object).await.unwrap();
    assert_eq!(files(&server.path("images")), Vec::<String>::new());
}

#[tokio::test]
async fn what_was_there_is_gone_whether_or_not_the_web_server_answers() {
    let mut server = Server::start("").await;
    put(&server.store(), 1, &sample::bits(10)).await.unwrap();
    server.web.shutdown().await;
    server.store().delete(&object(1)).await.unwrap();
    assert_eq!(files(&server.path("images")), Vec::<String>::new());
    // Now nothing is found, which may have another cause.
    assert_eq!(server.store().delete(&object(1)).await.unwrap_err().reason, Reason::StoreUnreachable);
}

#[tokio::test]
async fn deletes_what_is_left_of_an_object_and_no_other_file() {
    let server = Server::start("").await;
    let images = server.path("images");
    for directory in [".mimeo-partial", "deep"] {
        fs::create_dir(images.join(directory)).unwrap();
    }
    let own = object(1);
    let left = [format!("{own}"), format!(".{own}.aB3xY9"), format!(".mimeo-partial/{own}")];
    let mut foreign = [
        "notes".to_owned(),
        format!("{own}0"),
        format!("{}", object(2)),
        format!(".{own}.longer-name"),
        format!(".{}.aB3xY9", object(2)),
        format!("deep/{own}"),
        format!(".mimeo-partial/{}", object(2)),
        ".mimeo-partial/notes".to_owned(),
    ];
    for name in left.iter().chain(&foreign) {
        fs::write(images.join(name), "x").unwrap();
    }
    server.store().delete(&own).await.unwrap();
    foreign.sort();
    assert_eq!(files(&images), foreign);
}

#[tokio::test]
async fn nothing_is_deleted_where_the_target_is_away_and_it_is_not_made() {
    let server = Server::start("").await;
    let target = format!("rsync://mimeo@127.0.0.1:{}/images/mounted/", server.port);
    let config = RsyncStoreConfig { target: RsyncTarget::parse(&target).unwrap(), ..server.config() };
    let error = RsyncStore::new(config).unwrap().delete(&object(1)).await.unwrap_err();
    assert_eq!(error.reason, Reason::StoreError, "{}", error.chain());
    assert!(error.chain().contains("make the directory of target"), "{}", error.chain());
    assert!(!server.path("images").join("mounted").exists());
}

#[tokio::test]
async fn what_the_web_server_still_shows_is_not_gone() {
    let (server, elsewhere) = (Server::start("").await, Server::start("").await);
    put(&elsewhere.store(), 1, &sample::bits(10)).await.unwrap();
    let config = RsyncStoreConfig { read_url: base_url("read_url", &elsewhere.read_url).unwrap(), ..server.config() };
    let store = RsyncStore::new(config).unwrap();
    let error = store.delete(&object(1)).await.unwrap_err();
    assert_eq!(error.reason, Reason::StoreError);
    assert!(error.chain().contains("do target and read_url show the same files?"), "{}", error.chain());
    drop(elsewhere);
    assert_eq!(store.delete(&object(1)).await.unwrap_err().reason, Reason::StoreUnreachable);
}

#[tokio::test]
async fn what_the_web_server_does_not_show_is_not_missing() {
    let (server, elsewhere) = (Server::start("").await, Server::start("").await);
    put(&server.store(), 1, &sample::bits(10)).await.unwrap();
    let config = RsyncStoreConfig { read_url: base_url("read_url", &elsewhere.read_url).unwrap(), ..server.config() };
    let store = RsyncStore::new(config).unwrap();
    for error in [store.probe(&object(1)).await.unwrap_err(), store.read(&object(1), 0).await.map(drop).unwrap_err()] {
        assert!(error.reason == Reason::StoreError && error.message.contains("is there, but"), "{error}");
    }
    assert_eq!(store.probe(&object(2)).await.unwrap(), None, "another is not");
}

#[tokio::test]
async fn tells_how_much_has_travelled() {
    let server = Server::start("").await;
    let store = server.store();
    let mut sink = store.open(&object(1), Some(1_000_000)).await.unwrap();
    sink.write(sample::bits(1_000_000)).await.unwrap();
    let sent = sink.sent().unwrap();
    assert_eq!(sent.load(Ordering::Relaxed), 0);
    assert_eq!(sink.close().await.unwrap().size, Some(1_000_000));
    assert_eq!(sent.load(Ordering::Relaxed), 1_000_000);
}

#[tokio::test]
async fn what_others_may_not_read_here_the_web_server_may_read_there() {
    let server = Server::start("").await;
    let store = server.store();
    let mut sink = store.open(&object(1), None).await.unwrap();
    sink.write(sample::bits(10)).await.unwrap();
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(server.path("spool").join(&files(&server.path("spool"))[0])), 0o600);
    sink.close().await.unwrap();
    assert_eq!(mode(server.path("images").join(object(1).as_str())), 0o644);
}

#[tokio::test]
async fn refusals_have_their_reason_and_no_secret() {
    let server = Server::start("").await;
    let (mut wrong, mut missing, mut gone) = (server.config(), server.config(), server.config());
    wrong.password = Some("wr0ng".into());
    missing.target = RsyncTarget::parse(&format!("rsync://mimeo@127.0.0.1:{}/other/", server.port)).unwrap();
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    gone.target = RsyncTarget::parse(&format!("rsync://mimeo@127.0.0.1:{free}/images/")).unwrap();
    let cases = [
        (wrong, Reason::StoreRefused, "password"),
        (missing, Reason::StoreRefused, "module"),
        (gone, Reason::StoreUnreachable, "refused"),
    ];
    for (config, reason, hint) in cases {
        let store = RsyncStore::new(config).unwrap();
        for error in [put(&store, 1, &sample::bits(10)).await.unwrap_err(), store.delete(&object(1)).await.unwrap_err()]
        {
            let text = error.chain();
            assert_eq!(error.reason, reason, "{text}");
            assert!(text.starts_with("far: rsync to rsync://mimeo@127.0.0.1:") && text.contains(hint), "{text}");
            assert!(!text.contains("wr0ng") && !text.contains(PASSWORD), "{text}");
        }
        assert!(!format!("{store:?}").contains("wr0ng"));
    }
    let strict = Server::start("refuse options = delete").await;
    let error = strict.store().delete(&object(1)).await.unwrap_err();
    assert!(error.reason == Reason::StoreRefused && error.chain().contains("rsyncd.conf"), "{}", error.chain());
    let readable = Server::start("read only = yes").await;
    let error = put(&readable.store(), 1, &sample::bits(10)).await.unwrap_err();
    assert_eq!(error.reason, Reason::StoreRefused, "{}", error.chain());
}

#[tokio::test]
async fn what_the_web_server_does_not_show_is_no_success() {
    let (server, other) = (Server::start("").await, Server::start("").await);
    let config = RsyncStoreConfig { read_url: base_url("read_url", &other.read_url).unwrap(), ..server.config() };
    let error = put(&RsyncStore::new(config).unwrap(), 1, &sample::bits(10)).await.unwrap_err();
    assert_eq!(error.reason, Reason::StoreError);
    assert!(error.chain().contains("must show the same directory"), "{}", error.chain());
}

/// The programs of this machine that were started with this word among their arguments.
fn programs_with(word: &str) -> usize {
    let has =
        |entry: &fs::DirEntry| fs::read_to_string(entry.path().join("cmdline")).is_ok_and(|line| line.contains(word));
    fs::read_dir("/proc").unwrap().flatten().filter(has).count()
}

#[tokio::test]
async fn giving_up_ends_the_program_and_empties_the_spool() {
    let mut server = Server::start("").await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    server.port = silent.local_addr().unwrap().port();
    let target = format!("rsync://mimeo@127.0.0.1:{}/images/", server.port);
    let store = server.store();
    let mut sink = store.open(&object(1), None).await.unwrap();
    sink.write(sample::bits(10)).await.unwrap();
    let mut closing = JoinSet::new();
    closing.spawn(sink.close());
    let _connection = silent.accept().await.unwrap();
    assert_eq!((programs_with(&target), files(&server.path("spool")).len()), (1, 1));
    closing.shutdown().await;
    let gone = async {
        while programs_with(&target) > 0 || !files(&server.path("spool")).is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.unwrap();
}
