//! The Swift store against a small server that speaks as much of the protocol as it needs.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod swift;

use axum::http::StatusCode;
use bytes::Bytes;
use futures::TryStreamExt;
use mimeo_adapters::stores::swift::{SwiftCredentials, SwiftLogin, SwiftStore, SwiftStoreConfig};
use mimeo_core::{ObjectName, Reason, Result, ports::Store};
use mimeo_testkit::{conformance, sample};
use swift::{KEY, Swift, with_key};
use tokio::net::TcpListener;

/// So that small objects are large.
const SEGMENT: u64 = 1000;

fn object() -> ObjectName {
    ObjectName::new(&sample::id(1), 1)
}

fn named(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| format!("{}{name}", object())).collect()
}

async fn put(store: &SwiftStore, size: usize) -> Result<()> {
    let mut sink = store.open(&object(), Some(size as u64)).await?;
    for chunk in sample::bits(size).chunks(300) {
        sink.write(Bytes::copy_from_slice(chunk)).await?;
    }
    sink.close().await.map(drop)
}

/// Writes the beginning of an object and leaves it.
async fn begin(store: &SwiftStore, size: usize, written: usize) {
    let mut sink = store.open(&object(), Some(size as u64)).await.unwrap();
    sink.write(sample::bits(size).slice(..written)).await.unwrap();
    sink.abort().await;
}

async fn read(store: &SwiftStore) -> Bytes {
    let chunks: Vec<Bytes> = store.read(&object(), 0).await.unwrap().try_collect().await.unwrap();
    chunks.concat().into()
}

#[tokio::test]
async fn conforms_in_one_piece_and_in_segments() {
    let (swift, _server) = Swift::serve().await;
    for segment in [1 << 20, 30_000, 16_384] {
        conformance::store(&swift.store(segment)).await;
        assert_eq!(swift.names(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_large_object_lies_as_glance_writes_it() {
    let (swift, _server) = Swift::serve().await;
    put(&swift.store(SEGMENT), 2500).await.unwrap();
    assert_eq!(swift.names(), named(&["", "-00001", "-00002", "-00003"]));
    let sizes: Vec<usize> = swift.with(|account| account.objects.values().map(|object| object.bits.len()).collect());
    assert_eq!(sizes, [0, 1000, 1000, 500]);
    swift.with(|account| account.objects.clear());
    put(&swift.store(SEGMENT), 1000).await.unwrap();
    assert_eq!(swift.names(), named(&[""]));
}

#[tokio::test]
async fn each_refusal_has_its_reason_store_and_cure() {
    let cases = [
        (403, Reason::StoreRefused, "give the user a role"),
        (404, Reason::StoreError, "create_container = true"),
        (413, Reason::StoreFull, "quota"),
        (507, Reason::StoreFull, "no room"),
        (429, Reason::StoreError, "busy"),
        (498, Reason::StoreError, "busy"),
        (503, Reason::StoreError, "busy"),
        (500, Reason::StoreError, "500"),
    ];
    let (swift, _server) = Swift::serve().await;
    for (status, reason, hint) in cases {
        swift.with(|account| account.refuses = Some(StatusCode::from_u16(status).unwrap()));
        for size in [500, 3000] {
            let error = put(&swift.store(SEGMENT), size).await.unwrap_err();
            let text = error.chain();
            assert_eq!(error.reason, reason, "{text}");
            assert!(text.starts_with("swift1: PUT http://") && text.contains(hint), "{text}");
            assert!(!text.contains(KEY), "{text}");
        }
    }
}

#[tokio::test]
async fn the_room_is_what_the_tighter_quota_leaves() {
    let (swift, _server) = Swift::serve().await;
    let store = swift.store(SEGMENT);
    assert_eq!(store.room().await.unwrap(), None);
    put(&store, 600).await.unwrap();
    for (quotas, room) in
        [((Some(1000), None), 400), ((None, Some(5000)), 4400), ((Some(1000), Some(700)), 100), ((Some(500), None), 0)]
    {
        swift.with(|account| account.quotas = quotas);
        assert_eq!(store.room().await.unwrap(), Some(room));
    }
}

#[tokio::test]
async fn an_answer_before_the_end_is_no_success() {
    let (swift, _server) = Swift::serve().await;
    swift.with(|account| account.refuses = Some(StatusCode::CREATED));
    let store = swift.store(1 << 30);
    let mut sink = store.open(&object(), Some(1 << 30)).await.unwrap();
    let error = loop {
        match sink.write(sample::bits(1 << 20)).await {
            Ok(()) => {}
            Err(error) => break error,
        }
    };
    assert!(error.chain().contains("before it had the whole body"), "{}", error.chain());
}

#[tokio::test]
async fn a_new_password_is_for_the_next_login_and_for_locations_and_the_copy_goes_on() {
    let (swift, _server) = Swift::serve().await;
    let store = swift.store(SEGMENT);
    let mut sink = store.open(&object(), Some(3000)).await.unwrap();
    sink.write(sample::bits(1500)).await.unwrap();
    swift.with(|account| account.key = Some("0ther"));
    store.renew(&with_key(&swift.with(|account| account.url.clone()), SEGMENT, "0ther")).unwrap();
    assert!(store.location(&object()).contains("0ther"));
    sink.write(sample::bits(1500)).await.unwrap();
    sink.close().await.unwrap();
    assert_eq!(swift.with(|account| account.logins), 2);
}

#[tokio::test]
async fn a_token_that_ended_is_exchanged_and_the_copy_goes_on() {
    let (swift, _server) = Swift::serve().await;
    let store = swift.store(SEGMENT);
    let bits = sample::bits(3000);
    let mut sink = store.open(&object(), Some(3000)).await.unwrap();
    sink.write(bits.slice(..2000)).await.unwrap();
    // The second segment is whole only when its answer was taken: what comes next waits for that.
    sink.write(bits.slice(2000..2001)).await.unwrap();
    swift.with(|account| account.ended = true);
    drop(sink);
    assert_eq!(store.kept(&object()).await.unwrap(), 2000);
    assert_eq!(swift.with(|account| account.logins), 2);

    let mut sink = store.resume(&object(), Some(3000), 2000).await.unwrap();
    swift.with(|account| account.ended = true);
    sink.write(bits.slice(2000..)).await.unwrap();
    let error = sink.close().await.unwrap_err();
    assert_eq!(error.reason, Reason::StoreError, "{}", error.chain());
    assert!(error.chain().contains("the token had ended"), "{}", error.chain());
    assert_eq!(swift.with(|account| account.logins), 3);

    let mut sink = store.resume(&object(), Some(3000), 2000).await.unwrap();
    sink.write(bits.slice(2000..)).await.unwrap();
    sink.close().await.unwrap();
    assert_eq!(read(&store).await, bits);
    assert_eq!(swift.with(|account| account.logins), 3);
}

#[tokio::test]
async fn wrong_credentials_are_refused_and_not_repeated() {
    let (swift, _server) = Swift::serve().await;
    let url = format!("{}/auth/1.0", swift.with(|account| account.url.clone()));
    let credentials = SwiftCredentials::tempauth(&url, "a:mimeo", "wr0ng".into()).unwrap();
    let store = SwiftStore::new(SwiftStoreConfig { login: SwiftLogin::TempAuth(credentials), ..swift.config(SEGMENT) });
    let error = store.unwrap().probe(&object()).await.unwrap_err();
    assert_eq!(error.reason, Reason::StoreRefused);
    let text = format!("{} {error:?}", error.chain());
    assert!(text.starts_with("swift1: the login at http://") && !text.contains("wr0ng"), "{text}");
}

#[tokio::test]
async fn a_large_object_is_waited_for_until_the_server_counts_all_of_it() {
    let (swift, _server) = Swift::serve().await;
    let store = swift.store(SEGMENT);
    put(&store, 2500).await.unwrap();
    swift.with(|account| account.lags = 2);
    assert_eq!(store.probe(&object()).await.unwrap(), Some(2500));
    swift.with(|account| account.lags = 2);
    assert_eq!(read(&store).await, sample::bits(2500));
}

#[tokio::test]
async fn going_on_with_other_segments_leaves_nothing_behind_the_end() {
    let (swift, _server) = Swift::serve().await;
    begin(&swift.store(SEGMENT), 6000, 5001).await;
    for (segment, offset) in [(1500, 2000), (1500, 2700), (600, 2900), (4000, 0)] {
        let before = swift.with(|account| account.objects.clone());
        let store = swift.store(segment);
        let mut sink = store.resume(&object(), Some(6000), offset).await.unwrap();
        sink.write(sample::bits(6000).slice(usize::try_from(offset).unwrap()..)).await.unwrap();
        sink.close().await.unwrap();
        assert_eq!(store.probe(&object()).await.unwrap(), Some(6000), "{segment} {offset}");
        assert_eq!(read(&store).await, sample::bits(6000), "{segment} {offset}");
        swift.with(|account| account.objects = before);
    }
    let store = swift.store(SEGMENT);
    for (size, offset) in [(6000, 5001), (6000, 7000), (4000, 4500)] {
        assert_eq!(store.resume(&object(), Some(size), offset).await.err().unwrap().reason, Reason::StoreError);
    }
}

#[tokio::test]
async fn a_delete_takes_the_segments_of_that_very_name_alone() {
    let (swift, _server) = Swift::serve().await;
    let store = swift.store(SEGMENT);
    begin(&store, 9000, 8001).await;
    let others = named(&["-000001", "-0000a", "-x", "0-00001"]);
    swift.with(|account| account.objects.extend(others.iter().map(|name| (name.clone(), swift::Object::default()))));
    assert_eq!(store.kept(&object()).await.unwrap(), 8000);
    store.delete(&object()).await.unwrap();
    let mut left = swift.names();
    left.sort();
    let mut others = others;
    others.sort();
    assert_eq!(left, others);
}

#[tokio::test]
async fn a_missing_container_is_made_where_that_is_allowed() {
    let (swift, _server) = Swift::serve().await;
    swift.with(|account| account.has_container = false);
    let error = put(&swift.store(SEGMENT), 2500).await.unwrap_err();
    assert!(error.chain().contains("create_container = true"), "{}", error.chain());
    // Where the account, the region or the container is another one, nothing says that the object is gone.
    let store = swift.store(SEGMENT);
    for error in [
        store.delete(&object()).await.unwrap_err(),
        store.probe(&object()).await.unwrap_err(),
        store.kept(&object()).await.unwrap_err(),
        store.read(&object(), 0).await.map(drop).unwrap_err(),
    ] {
        assert!(error.reason == Reason::StoreError && error.message.contains("container is not there"), "{error}");
    }
    let config = SwiftStoreConfig { create_container: true, ..swift.config(SEGMENT) };
    put(&SwiftStore::new(config).unwrap(), 2500).await.unwrap();
    assert_eq!(read(&swift.store(SEGMENT)).await, sample::bits(2500));
}

#[tokio::test]
async fn a_container_that_goes_later_is_made_again() {
    let (swift, _server) = Swift::serve().await;
    let config = SwiftStoreConfig { create_container: true, ..swift.config(SEGMENT) };
    let store = SwiftStore::new(config).unwrap();
    put(&store, 100).await.unwrap();
    swift.with(|account| account.has_container = false);
    let error = put(&store, 100).await.unwrap_err();
    assert!(error.chain().contains("made with the next copy"), "{}", error.chain());
    put(&store, 100).await.unwrap();
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let store = SwiftStore::new(swift::config(&format!("http://{port}"), SEGMENT)).unwrap();
    assert_eq!(put(&store, 100).await.unwrap_err().reason, Reason::StoreUnreachable);
    assert_eq!(store.probe(&object()).await.unwrap_err().reason, Reason::StoreUnreachable);
    assert_eq!(store.delete(&object()).await.unwrap_err().reason, Reason::StoreUnreachable);
}
