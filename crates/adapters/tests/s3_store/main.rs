//! The S3 store against a small server of its own, good and bad. What a real one says to it is `e2e/`'s to find out.
#![cfg(feature = "s3")]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod bucket;

use std::{collections::BTreeMap, time::Duration};

use bucket::{Bucket, Server};
use mimeo_adapters::stores::{
    base_url,
    s3::{self, S3Credentials, S3Store, S3StoreConfig, UrlStyle},
};
use mimeo_core::{
    ObjectName, Reason, Result,
    ports::{Sink, Store},
};
use mimeo_testkit::{conformance, sample};
use tokio::{net::TcpListener, time::timeout};

/// So that small objects are large.
const PART: u32 = 25_000;
const SIZE: u64 = 110_000;

fn store(url: &str) -> S3Store {
    store_with(url, false)
}

fn store_with(url: &str, checksum: bool) -> S3Store {
    let endpoint = base_url("endpoint", url).unwrap();
    let config = S3StoreConfig {
        name: "s3".parse().unwrap(),
        bucket: s3::bucket(endpoint.clone(), UrlStyle::Path, "images", "us-east-1").unwrap(),
        endpoint,
        written: url.to_owned(),
        prefix: "mimeo.".into(),
        credentials: S3Credentials { access_key: "AK".into(), secret_key: "s3cret".into(), session_token: None },
        authorities: Vec::new(),
        location_credentials: false,
        checksum,
    };
    S3Store::new(config).unwrap()
}

fn in_parts(server: &Server) -> S3Store {
    store(&server.url).with_part(PART)
}

fn object() -> ObjectName {
    ObjectName::new(&sample::id(1), 1)
}

fn key() -> String {
    format!("mimeo.{}", object())
}

/// Writes what an object of [`SIZE`] has from `from` to `to`.
async fn fill(sink: &mut Box<dyn Sink>, from: usize, to: usize) -> Result<()> {
    let bits = sample::bits(usize::try_from(SIZE).unwrap());
    for at in (from..to).step_by(7000) {
        sink.write(bits.slice(at..to.min(at + 7000))).await?;
    }
    Ok(())
}

async fn put(store: &S3Store, size: Option<u64>) -> Result<()> {
    let mut sink = store.open(&object(), size).await?;
    fill(&mut sink, 0, 110_000).await?;
    sink.close().await.map(drop)
}

#[tokio::test]
async fn conforms_with_whole_objects_and_with_parts() {
    let bucket = Bucket::new();
    let server = bucket.served().await;
    conformance::store(&store(&server.url)).await;
    assert!(!bucket.content.lock().unwrap().seen.contains("create"));
    conformance::store(&in_parts(&server)).await;
    assert!(bucket.content.lock().unwrap().seen.contains("list parts"));
    assert!(bucket.is_empty());
}

#[tokio::test]
async fn conforms_with_checksums() {
    let bucket = Bucket::new();
    let server = bucket.served().await;
    conformance::store(&store_with(&server.url, true)).await;
    conformance::store(&store_with(&server.url, true).with_part(PART)).await;
    assert!(bucket.is_empty());
}

#[tokio::test]
async fn an_upload_with_checksums_that_is_gone_on_with_has_all_of_them_at_its_end() {
    let bucket = Bucket::new();
    let server = bucket.served().await;
    let store = store_with(&server.url, true).with_part(PART);
    let mut sink = store.open(&object(), Some(SIZE)).await.unwrap();
    fill(&mut sink, 0, 80_000).await.unwrap();
    drop(sink);
    // Whether the last whole part was answered by then does not matter.
    let kept = store.kept(&object()).await.unwrap();
    assert!(kept >= 50_000);
    let mut sink = store.resume(&object(), Some(SIZE), kept).await.unwrap();
    fill(&mut sink, usize::try_from(kept).unwrap(), 110_000).await.unwrap();
    sink.close().await.unwrap();
    let content = bucket.content.lock().unwrap();
    assert_eq!(content.objects[&key()], sample::bits(110_000));
    let (parts, said) = (sample::bits(110_000), content.completion.clone());
    let checksums: Vec<String> = parts.chunks(PART as usize).map(bucket::sha256).collect();
    assert_eq!(said.matches("<ChecksumSHA256>").count(), checksums.len());
    assert!(checksums.iter().all(|checksum| said.contains(checksum)), "{said}");
}

#[tokio::test]
async fn a_server_that_knows_no_checksums_is_told_from_one_that_does() {
    let mut bucket = Bucket::new();
    bucket.is_old = true;
    let server = bucket.served().await;
    let whole = store_with(&server.url, true);
    for store in [whole.clone(), whole.with_part(PART)] {
        let error = put(&store, Some(SIZE)).await.unwrap_err();
        assert!(error.reason == Reason::StoreRefused && error.message.contains("remove checksum"), "{error}");
    }
}

#[tokio::test]
async fn each_kind_of_request_that_is_refused_has_its_reason_and_no_secret() {
    let bucket = Bucket::new();
    let server = bucket.served().await;
    let (whole, parts) = (store(&server.url), in_parts(&server));
    let refusals = [
        (403, "InvalidAccessKeyId", Reason::StoreRefused),
        (403, "QuotaExceeded", Reason::StoreFull),
        (404, "NoSuchBucket", Reason::StoreError),
        (503, "SlowDown", Reason::StoreError),
    ];
    for (status, code, reason) in refusals {
        for kind in ["put", "create", "part", "complete", "get", "delete", "abort", "list uploads", "list parts"] {
            bucket.content.lock().unwrap().refusals = BTreeMap::new();
            parts.delete(&object()).await.unwrap();
            if matches!(kind, "abort" | "list parts") {
                drop(parts.open(&object(), Some(SIZE)).await.unwrap());
            }
            bucket.content.lock().unwrap().refusals = BTreeMap::from([(kind, (status, code))]);
            let error = match kind {
                "put" => put(&whole, Some(SIZE)).await,
                "get" => parts.read(&object(), 1).await.map(drop),
                "delete" | "abort" => parts.delete(&object()).await,
                "list uploads" | "list parts" => parts.kept(&object()).await.map(drop),
                _ => put(&parts, Some(SIZE)).await,
            };
            let error = error.unwrap_err();
            let text = error.chain();
            assert!(error.reason == reason && text.contains(code) && text.contains("s3: "), "{kind}: {text}");
            assert!(!text.contains("X-Amz") && !text.contains("s3cret"), "{text}");
        }
    }
    bucket.content.lock().unwrap().refusals = BTreeMap::from([("head", (403, "AccessDenied"))]);
    assert_eq!(whole.probe(&object()).await.unwrap_err().reason, Reason::StoreRefused);
}

#[tokio::test]
async fn what_is_not_there_is_told_from_a_bucket_or_a_server_that_is_not_there() {
    let bucket = Bucket::new();
    let server = bucket.served().await;
    let store = store(&server.url);
    assert_eq!(store.probe(&object()).await.unwrap(), None);
    put(&store, Some(SIZE)).await.unwrap();
    // An answer to HEAD has no code. The last is a proxy's, without the code of an error.
    for (get, hint) in [
        ((404, "NoSuchBucket"), "NoSuchBucket: make the bucket"),
        ((403, "AccessDenied"), "let the access key's owner"),
        ((404, ""), "correct endpoint"),
    ] {
        bucket.content.lock().unwrap().refusals = BTreeMap::from([("head", (404, "")), ("get", get)]);
        let error = store.probe(&object()).await.unwrap_err();
        assert!(error.reason != Reason::ObjectMissing && error.message.contains(hint), "{error}");
    }
    bucket.content.lock().unwrap().refusals = BTreeMap::from([("head", (404, ""))]);
    let error = store.probe(&object()).await.unwrap_err();
    assert!(error.reason == Reason::StoreError && error.message.contains("let HEAD through"), "{error}");
    for kind in ["delete", "list uploads"] {
        bucket.content.lock().unwrap().refusals = BTreeMap::from([(kind, (404, "NoSuchBucket"))]);
        let error = store.delete(&object()).await.unwrap_err();
        assert!(error.reason == Reason::StoreError && error.message.contains("make the bucket"), "{kind}: {error}");
    }
    bucket.content.lock().unwrap().refusals = BTreeMap::from([("delete", (404, "NoSuchKey"))]);
    store.delete(&object()).await.unwrap();
}

#[tokio::test]
async fn an_error_in_a_successful_answer_to_the_last_request_is_an_error() {
    let bucket = Bucket::new();
    let server = bucket.served().await;
    bucket.content.lock().unwrap().refusals = BTreeMap::from([("complete", (200, "InternalError"))]);
    let error = put(&in_parts(&server), Some(SIZE)).await.unwrap_err();
    assert!(error.reason == Reason::StoreError && error.message.contains("InternalError"), "{error}");
}

#[tokio::test]
async fn a_part_is_sent_while_the_answer_to_the_one_before_is_still_to_come() {
    for size in [Some(SIZE), None] {
        let mut bucket = Bucket::new();
        bucket.overlap = true;
        let server = bucket.served().await;
        timeout(Duration::from_secs(20), put(&in_parts(&server), size)).await.unwrap().unwrap();
        assert_eq!(bucket.content.lock().unwrap().objects[&key()], sample::bits(110_000));
    }
}

#[tokio::test]
async fn what_is_kept_ends_where_a_part_is_missing_or_short() {
    let bucket = Bucket::new();
    let server = bucket.served().await;
    let store = in_parts(&server);
    for (parts, kept) in [
        (&[(1, 25_000), (2, 25_000), (4, 25_000)][..], 50_000),
        (&[(2, 25_000)], 0),
        (&[(1, 25_000), (2, 10_000), (3, 25_000)], 35_000),
        (&[(1, 25_000), (2, 30_000)], 25_000),
        // Of a copy of unknown size, which cannot be gone on with.
        (&[(1, 8_000), (2, 8_000)], 0),
        (&[], 0),
    ] {
        let sizes = parts.iter().map(|(number, size)| (*number, sample::bits(*size)));
        let upload = ((key(), "2~a".to_owned()), sizes.collect());
        bucket.content.lock().unwrap().uploads = BTreeMap::from([upload]);
        assert_eq!(store.kept(&object()).await.unwrap(), kept, "{parts:?}");
    }
}

#[tokio::test]
async fn a_copy_goes_on_from_within_the_parts_that_are_there_and_begins_anew_from_elsewhere() {
    let bucket = Bucket::new();
    let server = bucket.served().await;
    let store = in_parts(&server);
    let begin = async || {
        let mut sink = store.open(&object(), Some(SIZE)).await.unwrap();
        fill(&mut sink, 0, 101_000).await.unwrap();
        sink.abort().await;
        // Two more of it, of which one is as good as nothing.
        drop(store.open(&object(), Some(SIZE)).await.unwrap());
        assert_eq!(store.kept(&object()).await.unwrap() % 25_000, 0);
    };
    for offset in [0, 50_000, 60_000, 99_999, 100_000] {
        let parts = (1..).zip([0, 25_000, 50_000, 75_000]);
        let parts = parts.map(|(number, at)| (number, sample::bits(110_000).slice(at..at + 25_000)));
        let upload = ((key(), "2~a".to_owned()), parts.collect());
        bucket.content.lock().unwrap().uploads = BTreeMap::from([upload]);
        let mut sink = store.resume(&object(), Some(SIZE), offset as u64).await.unwrap();
        fill(&mut sink, offset, 110_000).await.unwrap();
        sink.close().await.unwrap();
        assert_eq!(bucket.content.lock().unwrap().objects.remove(&key()).unwrap(), sample::bits(110_000), "{offset}");
    }
    // Too few bits are none the less too few, and too many are too many.
    begin().await;
    let mut sink = store.resume(&object(), Some(SIZE), 60_000).await.unwrap();
    fill(&mut sink, 60_000, 109_000).await.unwrap();
    assert!(sink.close().await.is_err());
    begin().await;
    let mut sink = store.resume(&object(), Some(SIZE), 60_000).await.unwrap();
    assert!(sink.write(sample::bits(50_001)).await.is_err());
    for (size, offset) in [(Some(SIZE), 100_001), (Some(SIZE), 110_000), (None, 50_000), (Some(10_000), 50_000)] {
        begin().await;
        let error = store.resume(&object(), size, offset).await.err().unwrap();
        assert!(error.reason == Reason::StoreError && error.message.contains("begins anew"), "{error}");
        assert!(bucket.content.lock().unwrap().uploads.is_empty());
        assert_eq!(store.kept(&object()).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn deleting_ends_every_upload_of_the_key_and_none_of_another() {
    let bucket = Bucket::new();
    let server = bucket.served().await;
    let other = (format!("{}0", key()), "2~b".to_owned());
    bucket.content.lock().unwrap().uploads.insert(other.clone(), BTreeMap::new());
    assert_eq!(in_parts(&server).kept(&object()).await.unwrap(), 0);
    for _ in 0..7 {
        drop(in_parts(&server).open(&object(), Some(SIZE)).await.unwrap());
    }
    in_parts(&server).delete(&object()).await.unwrap();
    let content = bucket.content.lock().unwrap();
    assert_eq!(content.uploads.keys().collect::<Vec<_>>(), [&other]);
}

#[tokio::test]
async fn nobody_there_is_unreachable_and_the_signature_is_not_shown() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let whole = store(&format!("http://{port}/"));
    for store in [whole.clone().with_part(PART), whole] {
        let errors = [
            put(&store, Some(SIZE)).await.unwrap_err(),
            put(&store, None).await.unwrap_err(),
            store.probe(&object()).await.unwrap_err(),
            store.kept(&object()).await.unwrap_err(),
            store.delete(&object()).await.unwrap_err(),
            store.read(&object(), 0).await.err().unwrap(),
        ];
        for error in errors {
            assert_eq!(error.reason, Reason::StoreUnreachable, "{error}");
            assert!(!error.chain().contains("X-Amz"), "{}", error.chain());
        }
        let shown = format!("{store:?}");
        assert!(!shown.contains("s3cret"), "{shown}");
    }
}

#[tokio::test]
async fn another_server_than_one_of_s3_is_told_so() {
    let router = axum::Router::new().fallback(async || "<html>hello</html>");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut server = tokio::task::JoinSet::new();
    server.spawn(async move { axum::serve(listener, router).await.unwrap() });
    let store = store(&url).with_part(PART);
    for error in [put(&store, Some(SIZE)).await.unwrap_err(), store.kept(&object()).await.unwrap_err()] {
        assert!(error.reason == Reason::StoreError && error.message.contains("correct endpoint"), "{error}");
    }
}
