//! Ranged PUT, and what is gone on with.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{
    Router,
    http::{Method, StatusCode},
    response::IntoResponse,
};
use mimeo_core::{ObjectName, Reason, ports::Store};
use mimeo_testkit::{conformance, sample};

use crate::{
    SEGMENT,
    dav::{Dav, InRanges},
    in_segments, object, put,
    server::{self, settled},
};

#[tokio::test]
async fn conforms_whatever_the_server_does_with_ranged_puts() {
    for in_ranges in [
        InRanges::Taken,
        InRanges::PassedOver,
        InRanges::Refused(StatusCode::NOT_IMPLEMENTED),
        InRanges::Refused(StatusCode::BAD_REQUEST),
        InRanges::Refused(StatusCode::FORBIDDEN),
    ] {
        let dav = Dav { ranges: true, ..Dav::taking(in_ranges) };
        let server = dav.served().await;
        let store = in_segments(&server);
        conformance::store(&store).await;
        assert_eq!(store.resumes() == Some(true), in_ranges == InRanges::Taken);
        assert!(dav.objects.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn what_was_kept_is_not_sent_again_after_a_restart() {
    let dav = Dav { ranges: true, ..Dav::taking(InRanges::Taken) };
    let server = dav.served().await;
    let bits = sample::bits(10 * SEGMENT);
    let store = in_segments(&server);
    let mut sink = store.open(&object(), Some(bits.len() as u64)).await.unwrap();
    // The first byte alone, and no write ends where a segment does.
    sink.write(bits.slice(..1)).await.unwrap();
    for at in (1..7 * SEGMENT).step_by(SEGMENT / 3) {
        sink.write(bits.slice(at..at + SEGMENT / 3)).await.unwrap();
    }
    drop(sink);
    let sent = settled(|| dav.bits()).await.unwrap().len();
    assert!((6 * SEGMENT..8 * SEGMENT).contains(&sent), "{sent} bytes of whole segments and of a part");
    let before = dav.puts().len();

    let store = in_segments(&server);
    assert_eq!(store.resumes(), None, "not yet known");
    let kept = store.kept(&object()).await.unwrap();
    assert_eq!((kept, store.resumes()), (sent as u64, Some(true)));
    let from = sent - 10;
    let mut sink = store.resume(&object(), Some(bits.len() as u64), from as u64).await.unwrap();
    sink.write(bits.slice(from..)).await.unwrap();
    sink.close().await.unwrap();
    assert_eq!(dav.bits().unwrap(), bits);
    let last = (Some(format!("bytes {}-{}/*", sent - 1, sent - 1)), 1);
    assert_eq!(dav.puts()[before], last, "the last byte shows that the server takes ranges");
    let again: usize = dav.puts()[before + 1..].iter().map(|(_, length)| length).sum();
    assert_eq!(again, bits.len() - from);
    assert!(dav.puts()[before + 1..].iter().all(|(_, length)| *length <= SEGMENT));
}

#[tokio::test]
async fn a_server_without_ranged_puts_is_asked_once() {
    for (in_ranges, asked) in [(InRanges::Refused(StatusCode::NOT_IMPLEMENTED), 1), (InRanges::PassedOver, 2)] {
        let dav = Dav::taking(in_ranges);
        let server = dav.served().await;
        let store = in_segments(&server);
        for _ in 0..3 {
            put(&store, 8).await.unwrap();
            assert_eq!(dav.bits().unwrap().len(), 8 * 64 * 1024);
        }
        let ranged = dav.puts().iter().filter(|(range, _)| range.is_some()).count();
        assert_eq!((ranged, dav.puts().len()), (asked, asked + 3));
        assert_eq!(store.kept(&object()).await.unwrap(), 0);
        assert!(store.resume(&object(), Some(1000), 0).await.is_err());
    }
}

#[tokio::test]
async fn nothing_is_kept_where_the_server_cannot_go_on() {
    for in_ranges in
        [InRanges::PassedOver, InRanges::Refused(StatusCode::NOT_IMPLEMENTED), InRanges::Refused(StatusCode::FORBIDDEN)]
    {
        for ranges in [true, false] {
            let dav = Dav { ranges, ..Dav::taking(in_ranges) };
            let server = dav.served().await;
            assert_eq!(in_segments(&server).kept(&object()).await.unwrap(), 0);
            dav.objects.lock().unwrap().insert(object().to_string(), sample::bits(1000));
            let store = in_segments(&server);
            assert_eq!(store.kept(&object()).await.unwrap(), 0);
            assert_ne!(store.resumes(), Some(true));
        }
    }
}

#[tokio::test]
async fn a_server_in_trouble_may_have_kept_an_object() {
    let server = server::serve(Router::new().fallback(async || StatusCode::SERVICE_UNAVAILABLE)).await;
    assert_eq!(in_segments(&server).kept(&object()).await.unwrap_err().reason, Reason::StoreError);
    let dav = Dav { ranges: true, ..Dav::taking(InRanges::Refused(StatusCode::INSUFFICIENT_STORAGE)) };
    dav.objects.lock().unwrap().insert(object().to_string(), sample::bits(1000));
    let server = dav.served().await;
    assert_eq!(in_segments(&server).kept(&object()).await.unwrap_err().reason, Reason::StoreFull);
    assert_eq!(dav.bits().unwrap(), sample::bits(1000));
}

#[tokio::test]
async fn a_segment_that_is_refused_ends_the_copy() {
    let puts = Arc::new(AtomicUsize::new(0));
    let answer = move |method: Method| {
        let puts = Arc::clone(&puts);
        async move {
            match method {
                Method::PUT if puts.fetch_add(1, Ordering::SeqCst) < 2 => StatusCode::CREATED.into_response(),
                Method::PUT => StatusCode::INSUFFICIENT_STORAGE.into_response(),
                _ => "ab".into_response(),
            }
        }
    };
    let server = server::serve(Router::new().fallback(answer)).await;
    let store = in_segments(&server);
    let error = put(&store, 8).await.unwrap_err();
    assert_eq!(error.reason, Reason::StoreFull, "{}", error.chain());
    assert!(store.resumes() == Some(true), "ranges are taken all the same");
}

#[tokio::test]
async fn more_or_less_than_announced_is_an_error() {
    let dav = Dav::taking(InRanges::Taken);
    let server = dav.served().await;
    let store = in_segments(&server);
    for chunks in [1, 2, 4] {
        let size = chunks * 2 * SEGMENT;
        for given in [size - 1, size + 1] {
            let object = ObjectName::new(&sample::id(1), given as u64);
            let mut sink = store.open(&object, Some(size as u64)).await.unwrap();
            let mut outcome = Ok(());
            for at in (0..given).step_by(SEGMENT) {
                outcome = outcome.and(sink.write(sample::bits(SEGMENT.min(given - at))).await);
            }
            let error = match outcome {
                Ok(()) => sink.close().await.unwrap_err(),
                Err(error) => error,
            };
            assert!(error.to_string().contains(&format!("{given} bytes where {size} were announced")), "{error}");
        }
    }
}
