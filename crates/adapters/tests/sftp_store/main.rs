//! The SFTP store against a small server that knows SFTP 3 alone, and against refusals.
#![cfg(feature = "sftp")]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod server;

use std::{fs, sync::atomic::Ordering, time::Duration};

use mimeo_adapters::stores::{
    base_url,
    sftp::{SftpStore, SftpStoreConfig},
};
use mimeo_core::{ObjectName, Reason, Result, ports::Store};
use mimeo_testkit::{conformance, sample};
use russh_sftp::protocol::StatusCode;
use server::{DIRECTORY, Files, PASSWORD, Server, host_key};
use tempfile::TempDir;
use tokio::{net::TcpListener, time::timeout};

/// A store at the server, with this in its `known_hosts`, which is there as long as the directory.
fn store_that_knows(server: &Server, known: &str, password: &str) -> (SftpStore, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("known_hosts"), format!("{known}\n")).unwrap();
    let config = SftpStoreConfig {
        name: "far".parse().unwrap(),
        host: "127.0.0.1".into(),
        port: server.address.port(),
        user: "mimeo".into(),
        path: DIRECTORY.into(),
        read_url: base_url("read_url", &server.read_url).unwrap(),
        key_file: None,
        key_passphrase: None,
        agent: false,
        password: Some(password.into()),
        known_hosts: directory.path().join("known_hosts"),
    };
    (SftpStore::new(config).unwrap(), directory)
}

fn store(server: &Server) -> (SftpStore, TempDir) {
    store_that_knows(server, &server.key, PASSWORD)
}

fn object() -> ObjectName {
    ObjectName::new(&sample::id(1), 1)
}

async fn put(store: &SftpStore, chunks: usize) -> Result<()> {
    let chunk = sample::bits(64 * 1024);
    let mut sink = store.open(&object(), Some((chunks * chunk.len()) as u64)).await?;
    for _ in 0..chunks {
        sink.write(chunk.clone()).await?;
    }
    sink.close().await.map(drop)
}

#[tokio::test]
async fn conforms_at_a_server_without_extensions() {
    let files = Files::default();
    let server = files.served().await;
    let (store, _directory) = store(&server);
    conformance::store(&store).await;
    conformance::store(&store.with_request(1000)).await;
    assert_eq!(files.names(), Vec::<String>::new());
}

#[tokio::test]
async fn an_object_has_its_name_only_when_it_is_complete() {
    let files = Files::default();
    let server = files.served().await;
    let (store, _directory) = store(&server);
    let mut sink = store.open(&object(), None).await.unwrap();
    sink.write(sample::bits(10)).await.unwrap();
    assert_eq!(files.names(), [format!("/.{}.part", object())]);
    assert_eq!(sink.close().await.unwrap().size, Some(10));
    assert_eq!(files.names(), [format!("/{}", object())]);
}

#[tokio::test]
async fn deletes_no_other_file() {
    let files = Files::default();
    let server = files.served().await;
    let (store, _directory) = store(&server);
    let (own, part) = (format!("{DIRECTORY}/{}", object()), format!("{DIRECTORY}/.{}.part", object()));
    let foreign = [format!("{own}0"), format!("{DIRECTORY}/notes"), format!("{DIRECTORY}/.{}0.part", object())];
    for path in foreign.iter().chain([&own, &part]) {
        files.all.lock().unwrap().insert(path.clone(), vec![1]);
    }
    store.delete(&object()).await.unwrap();
    let left = files.all.lock().unwrap().keys().cloned().collect::<Vec<_>>();
    assert!(left.len() == 3 && foreign.iter().all(|path| left.contains(path)), "{left:?}");
}

#[tokio::test]
async fn nothing_is_deleted_where_the_directory_is_away() {
    let files = Files::default();
    files.faults.lock().unwrap().insert("directory", StatusCode::NoSuchFile);
    let server = files.served().await;
    let error = store(&server).0.delete(&object()).await.unwrap_err();
    assert_eq!(error.reason, Reason::StoreError);
    assert!(error.chain().contains("the directory is not there; make or mount it"), "{}", error.chain());
}

#[tokio::test]
async fn what_was_there_is_gone_whether_or_not_the_web_server_answers() {
    let files = Files::default();
    let mut server = files.served().await;
    put(&store(&server).0, 1).await.unwrap();
    server.read_url = "http://127.0.0.1:9/".into();
    store(&server).0.delete(&object()).await.unwrap();
    assert_eq!(files.names(), Vec::<String>::new());
}

#[tokio::test]
async fn what_the_web_server_still_shows_is_not_gone() {
    let (files, mount) = (Files::default(), Files::default());
    let (mut server, elsewhere) = (files.served().await, mount.served().await);
    put(&store(&elsewhere).0, 1).await.unwrap();
    server.read_url = elsewhere.read_url.clone();
    let error = store(&server).0.delete(&object()).await.unwrap_err();
    assert_eq!(error.reason, Reason::StoreError);
    assert!(error.chain().contains("do path and read_url show the same files?"), "{}", error.chain());
    drop(elsewhere);
    assert_eq!(store(&server).0.delete(&object()).await.unwrap_err().reason, Reason::StoreUnreachable);
}

#[tokio::test]
async fn what_the_web_server_does_not_show_is_not_missing() {
    let (files, others) = (Files::default(), Files::default());
    let (mut server, elsewhere) = (files.served().await, others.served().await);
    put(&store(&server).0, 1).await.unwrap();
    server.read_url = elsewhere.read_url.clone();
    let (store, _directory) = store(&server);
    for error in [store.probe(&object()).await.unwrap_err(), store.read(&object(), 0).await.map(drop).unwrap_err()] {
        assert!(error.reason == Reason::StoreError && error.message.contains("is there, but"), "{error}");
    }
}

#[tokio::test]
async fn a_host_that_is_not_known_is_told_no_password() {
    let files = Files::default();
    let server = files.served().await;
    let other = host_key(2).public_key().to_openssh().unwrap();
    let port = server.address.port();
    for (known, hint) in [
        (String::new(), "does not have"),
        (server.key.replace("127.0.0.1", "127.0.0.2"), "does not have"),
        (format!("# one\n[127.0.0.1]:{port} {other}"), "somebody may pretend"),
        (format!("{}\n@revoked * {}", server.key, server.key.split_once(' ').unwrap().1), "revoked"),
    ] {
        let (store, directory) = store_that_knows(&server, &known, PASSWORD);
        let error = put(&store, 1).await.unwrap_err();
        let (text, file) = (error.chain(), directory.path().join("known_hosts"));
        assert_eq!(error.reason, Reason::StoreRefused, "{text}");
        assert!(text.contains(hint) && text.contains(file.to_str().unwrap()), "{text}");
        let keyscan = format!("ssh-keyscan -p {port} 127.0.0.1 >> {}", file.display());
        assert!(text.contains(&keyscan) || hint == "revoked", "{text}");
    }
    let (store, directory) = store(&server);
    fs::remove_file(directory.path().join("known_hosts")).unwrap();
    let error = put(&store, 1).await.unwrap_err();
    assert!(error.reason == Reason::StoreRefused && error.chain().contains("ssh-keyscan"), "{}", error.chain());
    assert_eq!(files.logins.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_wrong_password_is_refused_and_not_repeated() {
    let server = Files::default().served().await;
    let (store, _directory) = store_that_knows(&server, &server.key, "wr0ng");
    let error = put(&store, 1).await.unwrap_err();
    assert_eq!(error.reason, Reason::StoreRefused, "{}", error.chain());
    assert!(error.chain().contains("does not take the password"), "{}", error.chain());
    assert!(!error.chain().contains("wr0ng") && !format!("{store:?}").contains("wr0ng"));
}

#[tokio::test]
async fn each_refusal_has_its_reason_and_cure() {
    let cases = [
        ("open", StatusCode::NoSuchFile, false, Reason::StoreError, "make or mount it"),
        ("open", StatusCode::PermissionDenied, false, Reason::StoreRefused, "let mimeo write"),
        ("open", StatusCode::Failure, true, Reason::StoreFull, "no room"),
        ("write", StatusCode::Failure, false, Reason::StoreError, "disk full"),
        ("write", StatusCode::Failure, true, Reason::StoreFull, "no room"),
        ("close", StatusCode::Failure, true, Reason::StoreFull, "no room"),
        ("rename", StatusCode::PermissionDenied, false, Reason::StoreRefused, "let mimeo write"),
    ];
    for (request, status, full, reason, hint) in cases {
        let files = Files { full, ..Files::default() };
        files.faults.lock().unwrap().insert(request, status);
        let server = files.served().await;
        let (store, _directory) = store(&server);
        for chunks in [1, 100] {
            let error = put(&store, chunks).await.unwrap_err();
            assert_eq!(error.reason, reason, "{request}: {}", error.chain());
            assert!(error.chain().starts_with("far: ") && error.chain().contains(hint), "{request}: {}", error.chain());
        }
    }
    let files = Files::default();
    files.faults.lock().unwrap().insert("remove", StatusCode::PermissionDenied);
    let server = files.served().await;
    assert_eq!(store(&server).0.delete(&object()).await.unwrap_err().reason, Reason::StoreRefused);
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let mut server = Files::default().served().await;
    server.address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (store, _directory) = store(&server);
    assert_eq!(put(&store, 1).await.unwrap_err().reason, Reason::StoreUnreachable);
    assert_eq!(store.kept(&object()).await.unwrap_err().reason, Reason::StoreUnreachable);
    assert_eq!(store.delete(&object()).await.unwrap_err().reason, Reason::StoreUnreachable);
}

#[tokio::test]
async fn a_server_that_says_nothing_is_unreachable() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut server = Files::default().served().await;
    server.address = silent.local_addr().unwrap();
    let (store, _directory) = store(&server);
    let answer = timeout(Duration::from_secs(30), put(&store, 1)).await.unwrap();
    assert_eq!(answer.unwrap_err().reason, Reason::StoreUnreachable);
}

#[tokio::test]
async fn a_connection_that_breaks_is_an_error() {
    let files = Files { stalls: true, ..Files::default() };
    let mut server = files.served().await;
    let (store, _directory) = store(&server);
    let mut sink = store.open(&object(), None).await.unwrap();
    sink.write(sample::bits(1000)).await.unwrap();
    server.tasks.shutdown().await;
    let error = timeout(Duration::from_secs(30), sink.close()).await.unwrap().unwrap_err();
    assert!(error.reason == Reason::StoreError && error.chain().contains("broke"), "{}", error.chain());
}

#[tokio::test]
async fn a_stalling_server_holds_the_writer_back() {
    let server = Files { stalls: true, ..Files::default() }.served().await;
    let (store, _directory) = store(&server);
    let mut sink = store.open(&object(), None).await.unwrap();
    let mut taken = 0;
    let flood = async {
        loop {
            sink.write(sample::bits(64 * 1024)).await.unwrap();
            taken += 64 * 1024;
        }
    };
    assert!(timeout(Duration::from_secs(2), flood).await.is_err());
    assert!(taken <= 2 << 20, "{taken} bytes were taken though none was acknowledged");
}
