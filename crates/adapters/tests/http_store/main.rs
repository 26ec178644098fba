//! The HTTP store against a small web server that publishes complete uploads only, and against bad ones.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod dav;
mod ranges;
mod server;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Path,
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::IntoResponse,
    routing::any,
};
use bytes::Bytes;
use dav::{Dav, dav};
use futures::{StreamExt, TryStreamExt};
use mimeo_adapters::stores::http::{Access, HttpStore, HttpStoreConfig, Login};
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
async fn a_new_password_is_for_the_requests_that_begin_from_then_on() {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let noted = Arc::clone(&seen);
    let take = move |headers: HeaderMap, body: Body| {
        let noted = Arc::clone(&noted);
        async move {
            let said = headers.get(header::AUTHORIZATION).map(|said| said.to_str().unwrap().to_owned());
            noted.lock().unwrap().push(said.unwrap_or_default());
            to_bytes(body, usize::MAX).await.map_or(StatusCode::BAD_REQUEST, |_| StatusCode::CREATED)
        }
    };
    let server = server::serve(Router::new().route("/{name}", any(take))).await;
    let with = |token: &str| {
        let config = HttpStoreConfig::new("http1".parse().unwrap(), &server.url, None).unwrap();
        let login = Some(Login::Bearer(token.into()));
        HttpStoreConfig { access: Access { login, ..Access::default() }, ..config }
    };
    let store = HttpStore::new(with("old")).unwrap();
    let mut running = store.open(&object(), Some(2)).await.unwrap();
    running.write(sample::bits(1)).await.unwrap();
    let begun = async || {
        while seen.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(10), begun()).await.unwrap();
    store.clone().renew(with("new")).unwrap();
    running.write(sample::bits(1)).await.unwrap();
    running.close().await.unwrap();
    put(&store, 1).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), ["Bearer old", "Bearer new"]);
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
        (401, Reason::StoreRefused, "the user and password, or the token"),
        (403, Reason::StoreRefused, "allow Mimeo's address"),
        (407, Reason::StoreRefused, "the proxy wants"),
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
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            let _ = timeout(Duration::from_millis(100), connection.read_exact(&mut vec![0; 100_000])).await;
        }
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

/// Written at `/w/`, and read at `/r/`.
fn read_elsewhere(server: &str) -> HttpStore {
    let config = HttpStoreConfig::new("http1".parse().unwrap(), &format!("{server}/w/"), Some(&format!("{server}/r/")));
    HttpStore::new(config.unwrap()).unwrap()
}

#[tokio::test]
async fn what_one_of_two_addresses_does_not_show_is_not_missing_and_not_gone() {
    let (written, read) = (Dav::default(), Dav::default());
    let router = Router::new()
        .route("/w/{name}", any(dav).with_state(written.clone()))
        .route("/r/{name}", any(dav).with_state(read.clone()));
    let server = server::serve(router).await;
    let store = read_elsewhere(&server.url);
    written.objects.lock().unwrap().insert(object().to_string(), sample::bits(10));
    for error in [store.probe(&object()).await.unwrap_err(), store.read(&object(), 0).await.map(drop).unwrap_err()] {
        assert!(error.reason == Reason::StoreError && error.message.contains("is there, but"), "{error}");
    }
    let bits = written.objects.lock().unwrap().remove(&object().to_string()).unwrap();
    assert_eq!(store.probe(&object()).await.unwrap(), None);
    read.objects.lock().unwrap().insert(object().to_string(), bits);
    let error = store.delete(&object()).await.unwrap_err();
    assert!(error.reason == Reason::StoreError && error.message.contains("still shows it"), "{error}");
}

#[tokio::test]
async fn what_the_address_that_is_written_to_does_not_tell_is_not_missing() {
    for status in [StatusCode::SERVICE_UNAVAILABLE, StatusCode::FORBIDDEN, StatusCode::METHOD_NOT_ALLOWED] {
        let router = Router::new()
            .route("/w/{name}", any(async move || status))
            .route("/r/{name}", any(async || StatusCode::NOT_FOUND));
        let server = server::serve(router).await;
        let store = read_elsewhere(&server.url);
        for error in [store.probe(&object()).await.unwrap_err(), store.read(&object(), 0).await.map(drop).unwrap_err()]
        {
            assert!(error.reason != Reason::ObjectMissing && error.message.contains("/w/"), "{error}");
        }
    }
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_made_once_with_those_above_it_and_again_when_it_has_gone() {
    let (asked, directories) = (Asked::default(), Arc::new(Mutex::new(BTreeSet::from(["/".to_owned()]))));
    let (seen, there) = (Arc::clone(&asked), Arc::clone(&directories));
    let answer = async move |method: Method, uri: Uri, body: Body| {
        seen.lock().unwrap().push(format!("{method} {}", uri.path()));
        let parent = |path: &str| path[..=path.trim_end_matches('/').rfind('/').unwrap()].to_owned();
        let path = uri.path().to_owned();
        let has_parent = there.lock().unwrap().contains(&parent(&path));
        match (method.as_str(), has_parent) {
            ("HEAD", _) => StatusCode::NOT_FOUND,
            (_, false) => StatusCode::CONFLICT,
            ("MKCOL", true) => match there.lock().unwrap().insert(path) {
                true => StatusCode::CREATED,
                false => StatusCode::METHOD_NOT_ALLOWED,
            },
            _ => {
                let _ = to_bytes(body, usize::MAX).await;
                StatusCode::CREATED
            }
        }
    };
    let server = server::serve(Router::new().fallback(answer)).await;
    let store = store(&format!("{}/a/b", server.url));
    for _ in 0..2 {
        put(&store.clone(), 1).await.unwrap();
    }
    let put = format!("PUT /a/b/{}", object());
    let made = ["HEAD /a/b/", "MKCOL /a/b/", "MKCOL /a/", "MKCOL /a/b/"].map(str::to_owned);
    let puts = [put.clone(), put.clone()];
    assert_eq!(*asked.lock().unwrap(), [&made[..], &puts].concat());

    asked.lock().unwrap().clear();
    directories.lock().unwrap().retain(|directory| directory == "/");
    let error = self::put(&store.clone(), 1).await.unwrap_err();
    assert!(error.message.contains("the directory is not there"), "{error}");
    self::put(&store, 1).await.unwrap();
    assert_eq!(*asked.lock().unwrap(), [&puts[..1], &made, &puts[..1]].concat());
}

/// What a server was asked, one line each.
type Asked = Arc<Mutex<Vec<String>>>;

#[tokio::test]
async fn credentials_are_sent_where_it_writes_and_nowhere_else() {
    let asked = Asked::default();
    let seen = Arc::clone(&asked);
    let answer = async move |method: Method, uri: Uri, headers: HeaderMap, body: Body| {
        let login = headers.get(header::AUTHORIZATION).map_or("-", |value| value.to_str().unwrap());
        seen.lock().unwrap().push(format!("{method} {} {login}", uri.path().split('/').nth(1).unwrap()));
        let _ = to_bytes(body, usize::MAX).await;
        match method {
            Method::PUT => StatusCode::CREATED.into_response(),
            Method::HEAD | Method::GET => sample::bits(10).into_response(),
            _ => StatusCode::NO_CONTENT.into_response(),
        }
    };
    let server = server::serve(Router::new().fallback(answer)).await;
    let url = format!("{}/written/", server.url);
    let basic = Login::Basic { user: "mimeo".into(), password: "s3cret".into() };
    for (login, told) in [(basic, "Basic bWltZW86czNjcmV0"), (Login::Bearer("t0ken".into()), "Bearer t0ken")] {
        for (read_url, place) in [(None, "written"), (Some(format!("{}/read/", server.url)), "read")] {
            let config = HttpStoreConfig::new("http1".parse().unwrap(), &url, read_url.as_deref()).unwrap();
            let access = Access { login: Some(login.clone()), ..Access::default() };
            let config = HttpStoreConfig { access, ..config };
            let shown = format!("{config:?}");
            assert!(!shown.contains("s3cret") && !shown.contains("t0ken"), "{shown}");
            let store = HttpStore::new(config).unwrap();
            put(&store, 1).await.unwrap();
            store.probe(&object()).await.unwrap();
            drop(store.read(&object(), 0).await.unwrap());
            store.delete(&object()).await.unwrap();
            let expected = [
                format!("HEAD written {told}"),
                format!("PUT written {told}"),
                format!("HEAD {place} -"),
                format!("GET {place} -"),
                format!("DELETE written {told}"),
            ];
            assert_eq!(std::mem::take(&mut *asked.lock().unwrap()), expected);
        }
    }
}

#[tokio::test]
async fn a_server_that_asks_readers_too_needs_a_read_url_and_says_so() {
    let server = server::serve(Router::new().fallback(async || StatusCode::UNAUTHORIZED)).await;
    for error in [
        store(&server.url).probe(&object()).await.unwrap_err(),
        store(&server.url).read(&object(), 0).await.err().unwrap(),
    ] {
        assert_eq!(error.reason, Reason::StoreRefused);
        assert!(error.message.contains("name a read_url"), "{error}");
    }
}
