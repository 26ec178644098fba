#![allow(clippy::unwrap_used)]

use bytes::Bytes;

use super::*;

fn piece(byte: u8) -> Piece {
    Piece::Bytes(Bytes::from(vec![byte; 10]))
}

async fn fill(window: &Window<&'static str>, bytes: std::ops::Range<u8>) {
    for byte in bytes {
        assert!(window.push(piece(byte)).await);
        window.wake();
    }
    window.finish(Ok("done"));
}

async fn drain(mut cursor: Cursor<&'static str>) -> (Vec<u8>, Found<&'static str>) {
    let mut bytes = Vec::new();
    loop {
        match cursor.next().await {
            Found::Piece(Piece::Bytes(chunk)) => bytes.push(chunk[0]),
            other => return (bytes, other),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_cursor_gets_every_piece_though_the_window_holds_two() {
    let window = Window::new(20);
    let (a, b, mut hash) = (window.sink(false), window.sink(false), window.hash());
    let hashing = async {
        let mut count = 0;
        while hash.more().await {
            count += hash.take(1000).len();
        }
        count
    };
    let ((), a, b, hashed) = tokio::join!(fill(&window, 0..50), drain(a), drain(b), hashing);
    for (bytes, end) in [a, b] {
        assert_eq!(bytes, (0..50).collect::<Vec<u8>>());
        assert!(matches!(end, Found::End(Ok("done"))));
    }
    assert_eq!(hashed, 50);
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_stands_still_is_detached_at_its_offset_and_the_other_goes_on() {
    let window = Window::new(20);
    let (fast, mut stuck) = (window.sink(false), window.sink(false));
    assert!(window.push(piece(0)).await);
    assert!(matches!(stuck.next().await, Found::Piece(_)));
    let began = Instant::now();
    let ((), (bytes, _)) = tokio::join!(fill(&window, 1..50), drain(fast));
    assert_eq!(bytes.len(), 50);
    assert!(began.elapsed() >= PATIENCE);
    assert!(matches!(stuck.next().await, Found::Detached(10)));
    assert_eq!(stuck.ending().await.unwrap(), "done");
}

#[tokio::test(start_paused = true)]
async fn a_sink_known_to_be_slow_is_waited_for_by_nobody() {
    let window = Window::new(20);
    let (fast, _stuck) = (window.sink(false), window.sink(true));
    let began = Instant::now();
    let ((), (bytes, _)) = tokio::join!(fill(&window, 0..50), drain(fast));
    assert_eq!(bytes.len(), 50);
    assert!(began.elapsed() <= 2 * TICK);
}

/// Works off its pieces with a pause before each next one.
async fn slowly(mut cursor: Cursor<&'static str>, pause: Duration) -> (u64, bool) {
    let mut count = 0;
    loop {
        match cursor.next().await {
            Found::Piece(_) => count += 1,
            other => return (count, matches!(other, Found::Detached(_))),
        }
        tokio::time::sleep(pause).await;
    }
}

#[tokio::test(start_paused = true)]
async fn when_all_are_equally_slow_nobody_is_detached() {
    let window = Window::new(20);
    let pause = Duration::from_secs(5);
    let (a, b) = (slowly(window.sink(false), pause), slowly(window.sink(false), pause));
    assert_eq!(tokio::join!(a, b, fill(&window, 0..10)), ((10, false), (10, false), ()));
}

#[tokio::test(start_paused = true)]
async fn a_little_slower_is_waited_for_and_much_slower_is_not() {
    for (pause, detached) in [(105, false), (300, true)] {
        let window = Window::new(40);
        let even = slowly(window.sink(false), Duration::from_millis(100));
        let slower = slowly(window.sink(false), Duration::from_millis(pause));
        let ((count, _), (_, found), ()) = tokio::join!(even, slower, fill(&window, 0..200));
        assert_eq!((count, found), (200, detached), "{pause} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_hash_is_waited_for_and_nobody_is_blamed() {
    let window = Window::new(20);
    let (a, mut hash) = (window.sink(false), window.hash());
    let hashing = async {
        while hash.more().await {
            assert_eq!(hash.take(1).len(), 1);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let ((), (bytes, end), ()) = tokio::join!(fill(&window, 0..20), drain(a), hashing);
    assert!(bytes.len() == 20 && matches!(end, Found::End(_)));
}

#[tokio::test(start_paused = true)]
async fn the_last_pieces_are_kept_for_a_while_and_then_given_up() {
    let window = Window::new(20);
    let (mut slow, mut stuck) = (window.sink(false), window.sink(false));
    fill(&window, 0..1).await;
    let taking = async {
        tokio::time::sleep(PATIENCE).await;
        assert!(matches!(slow.next().await, Found::Piece(_)));
        assert!(matches!(slow.next().await, Found::End(Ok("done"))));
    };
    tokio::join!(window.drain(), taking);
    assert!(matches!(stuck.next().await, Found::Detached(0)));
}

#[tokio::test]
async fn reading_stops_when_no_sink_is_left_though_a_hash_is() {
    let window: Arc<Window<&'static str>> = Window::new(20);
    let (sink, _hash) = (window.sink(false), window.hash());
    assert!(window.push(piece(0)).await);
    drop(sink);
    assert!(!window.push(piece(1)).await);
}

#[tokio::test(start_paused = true)]
async fn a_piece_counts_until_the_next_one_is_asked_for() {
    let window: Arc<Window<&'static str>> = Window::new(20);
    let mut sink = window.sink(false);
    assert!(window.push(piece(0)).await && window.push(piece(1)).await);
    sink.next().await;
    let third = tokio::time::timeout(Duration::from_mins(1), window.push(piece(2)));
    assert!(third.await.is_err(), "the first piece is still being written");
    sink.next().await;
    assert!(window.push(piece(2)).await);
}

#[tokio::test(start_paused = true)]
async fn the_time_that_a_hash_took_is_held_against_no_sink() {
    for pause in [5, 6, 7, 8] {
        let window = Window::new(40);
        let (quick, mut hash) = (window.sink(false), window.hash());
        let other = slowly(window.sink(false), Duration::from_millis(pause));
        let hashing = async {
            // Slower than either sink, and three pieces at a time.
            while hash.more().await {
                hash.take(30);
                tokio::time::sleep(Duration::from_millis(27)).await;
            }
        };
        let reading = async {
            for byte in (0..250).chain(0..250).chain(0..250) {
                assert!(window.push(piece(byte)).await);
                window.wake();
            }
            window.finish(Ok("done"));
        };
        let ((), (count, _), (_, detached), ()) = tokio::join!(reading, slowly(quick, Duration::ZERO), other, hashing);
        assert_eq!((count, detached), (750, false), "{pause} ms a piece");
    }
}
