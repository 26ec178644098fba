//! The HTTP store against a small web server that publishes complete uploads only, and against bad ones.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod dav;
mod ranges;
mod server;

use std::time::Duration;

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Path,
    http::{StatusCode, header},
    routing::any,
};
use bytes::Bytes;
use dav::{Dav, dav};
use futures::{StreamExt, TryStreamExt};
use mimeo_adapters::stores::http::{HttpStore, HttpStoreConfig};
use mimeo_core::{ObjectName, Reason, Result, ports::Store};
use mimeo_testkit::{conformance, sample};
use tokio::{io::AsyncReadExt, net::TcpListener, task::JoinSet, time::timeout};

fn store(url: &str) -> HttpStore {
    HttpStore::new(HttpStoreConfig::new("http1".parse().unwrap(), url, None).unwrap()).unwrap()
}

/// So that small objects are large.
const SEGMENT: usize = 30_000;

/// One that has just been made, as after a restart.
fn in_segments(server: &server::Server) -> HttpStore {
    store(&format!("{}/images", server.url)).with_segment(SEGMENT as u64)
}

fn object() -> ObjectName {
    ObjectName::new(&sample::id(1), 1)
}

async fn put(store: &HttpStore, chunks: usize) -> Result<()> {
    let chunk = sample::bits(64 * 1024);
    let mut sink = store.open(&object(), Some((chunks * chunk.len()) as u64)).await?;
    for _ in 0..chunks {
        sink.write(chunk.clone()).await?;
    }
    sink.close().await.map(drop)
}

#[tokio::test]
async fn conforms_with_and_without_ranges() {
    for ranges in [true, false] {
        let dav_state = Dav { ranges, ..Default::default() };
        let server = dav_state.served().await;
        conformance::store(&store(&format!("{}/images", server.url))).await;
        assert!(dav_state.objects.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn each_refusal_has_its_reason_store_and_cure() {
    let cases = [
        (401, Reason::StoreRefused, "let the server's user write"),
        (403, Reason::StoreRefused, "allow Mimeo's address"),
        (405, Reason::StoreRefused, "dav_methods PUT DELETE"),
        (413, Reason::StoreFull, "client_max_body_size"),
        (507, Reason::StoreFull, "no room"),
        (409, Reason::StoreError, "directory"),
        (500, Reason::StoreError, "500"),
        (302, Reason::StoreError, "redirected"),
        (202, Reason::StoreError, "202"),
    ];
    for (status, reason, hint) in cases {
        let status = StatusCode::from_u16(status).unwrap();
        // The body is read or not: both kinds of server exist.
        for reads in [true, false] {
            let answer = move |body: Body| async move {
                if reads {
                    let _ = to_bytes(body, usize::MAX).await;
                }
                status
            };
            let server = server::serve(Router::new().fallback(answer)).await;
            for store in [store(&server.url), in_segments(&server)] {
                for chunks in [1, 100] {
                    let error = put(&store, chunks).await.unwrap_err();
                    let text = error.chain();
                    assert_eq!(error.reason, reason, "{text}");
                    assert!(text.starts_with("http1: PUT http://") && text.contains(hint), "{text}");
                }
            }
        }
    }
}

#[tokio::test]
async fn an_answer_before_the_end_is_no_success() {
    let server = server::serve(Router::new().fallback(async || StatusCode::CREATED)).await;
    let error = put(&store(&server.url), 1000).await.unwrap_err();
    assert_eq!(error.reason, Reason::StoreError, "{}", error.chain());
    assert!(error.chain().contains("before it had the whole body"), "{}", error.chain());
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let store = store(&format!("http://{port}/"));
    assert_eq!(put(&store, 100).await.unwrap_err().reason, Reason::StoreUnreachable);
    assert_eq!(store.probe(&object()).await.unwrap_err().reason, Reason::StoreUnreachable);
    assert_eq!(store.kept(&object()).await.unwrap_err().reason, Reason::StoreUnreachable);
    assert_eq!(put(&store.clone().with_segment(1), 100).await.unwrap_err().reason, Reason::StoreUnreachable);
    assert_eq!(store.delete(&object()).await.unwrap_err().reason, Reason::StoreUnreachable);
    assert_eq!(store.read(&object(), 0).await.err().unwrap().reason, Reason::StoreUnreachable);
}

#[tokio::test]
async fn a_server_that_closes_early_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let store = store(&format!("http://{}/", listener.local_addr().unwrap()));
    let mut server = JoinSet::new();
    server.spawn(async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        let _ = connection.read_exact(&mut vec![0; 100_000]).await;
    });
    assert_eq!(put(&store, 1000).await.unwrap_err().reason, Reason::StoreError);
}

#[tokio::test]
async fn a_stalling_server_holds_the_writer_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let store = store(&format!("http://{}/", listener.local_addr().unwrap()));
    let mut sink = store.open(&object(), None).await.unwrap();
    let flood = async {
        loop {
            sink.write(sample::bits(1024 * 1024)).await.unwrap();
        }
    };
    // Socket buffers take some megabytes; memory without bound would take them all.
    assert!(timeout(Duration::from_secs(1), flood).await.is_err());
}

#[tokio::test]
async fn a_body_cut_off_while_reading_is_an_error() {
    let cut = async || {
        let cut = futures::stream::once(async {
            // After what went before has left.
            tokio::time::sleep(Duration::from_millis(100)).await;
            Err(std::io::Error::other("cut"))
        });
        let body = futures::stream::iter([Ok(sample::bits(1000))]).chain(cut);
        ([(header::CONTENT_LENGTH, "2000")], Body::from_stream(body))
    };
    let server = server::serve(Router::new().fallback(cut)).await;
    let read = store(&server.url).read(&object(), 0).await.unwrap().try_collect::<Vec<Bytes>>().await;
    assert_eq!(read.unwrap_err().reason, Reason::StoreError);
}

#[tokio::test]
async fn follows_the_redirects_that_glance_follows() {
    let found = Dav { ranges: true, ..Default::default() };
    found.objects.lock().unwrap().insert(object().to_string(), sample::bits(10));
    let to = |status: StatusCode, place: &'static str| {
        any(move |Path(name): Path<String>| async move { (status, [(header::LOCATION, format!("{place}{name}"))]) })
    };
    let router = Router::new()
        .route("/moved/{name}", to(StatusCode::MOVED_PERMANENTLY, "/found/"))
        .route("/found/{name}", to(StatusCode::FOUND, "/images/"))
        .route("/kept/{name}", to(StatusCode::TEMPORARY_REDIRECT, "/images/"))
        .route("/loop/{name}", to(StatusCode::FOUND, "/loop/"))
        .route("/images/{name}", any(dav))
        .with_state(found);
    let server = server::serve(router).await;
    let probe = async |path: &str| store(&format!("{}/{path}", server.url)).probe(&object()).await;
    assert_eq!(probe("moved").await.unwrap(), Some(10));
    assert!(probe("kept").await.is_err());
    assert!(probe("loop").await.is_err());
}

#[tokio::test]
async fn the_location_and_all_reads_are_where_glance_reads() {
    let dav_state = Dav::default();
    let server = server::serve(Router::new().route("/r/{name}", any(dav)).with_state(dav_state.clone())).await;
    dav_state.objects.lock().unwrap().insert(object().to_string(), sample::bits(10));
    let read_url = format!("{}/r/", server.url);
    let config = HttpStoreConfig::new("http1".parse().unwrap(), "http://nowhere.invalid/w", Some(&read_url)).unwrap();
    let store = HttpStore::new(config).unwrap();
    assert_eq!(store.probe(&object()).await.unwrap(), Some(10));
    assert_eq!(store.location(&object()), format!("{read_url}{}", object()));
}
