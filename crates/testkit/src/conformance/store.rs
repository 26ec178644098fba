use std::{ops::Range, sync::atomic::AtomicU64};

use bytes::Bytes;
use futures::TryStreamExt;
use mimeo_core::{
    ObjectName, Reason, Result,
    ports::{Offer, Receipt, Sink, Store},
};

use crate::sample::{bits, id};

/// Writes and reads an object that is larger than what one request may carry in some protocols: 5 GiB and a byte. It is
/// broken off, and gone on with where the store can, beyond what 32 bits count.
pub async fn large_object(store: &dyn Store) {
    const SIZE: u64 = (5 << 30) + 1;
    const COUNTED: u64 = 1 << 32;
    let (object, parts) = (object(13), Parts(bits(Parts::SIZE)));
    let mut sink = store.open(&object, Some(SIZE)).await.unwrap();
    parts.write(sink.as_mut(), 0..COUNTED + COUNTED / 8).await;
    sink.abort().await;
    notices().await;
    let kept = store.kept(&object).await.unwrap();
    let mut sink = match store.resumes() {
        Some(true) => {
            assert!(kept > COUNTED, "{kept}");
            store.resume(&object, Some(SIZE), kept).await.unwrap()
        }
        _ => store.open(&object, Some(SIZE)).await.unwrap(),
    };
    parts.write(sink.as_mut(), kept..SIZE).await;
    sink.close().await.unwrap();
    assert_eq!(store.probe(&object).await.unwrap(), Some(SIZE));
    for offset in [0, COUNTED + 5] {
        let (mut stream, mut at) = (store.read(&object, offset).await.unwrap(), offset);
        while let Some(chunk) = stream.try_next().await.unwrap() {
            at = parts.check(&chunk, at);
        }
        assert_eq!(at, SIZE);
    }
    store.delete(&object).await.unwrap();
}

/// Parts of an object too large to be held, which differ from each other by their numbers.
struct Parts(Bytes);

impl Parts {
    const SIZE: usize = 1 << 20;

    /// What is at this place, up to the end of its part.
    fn at(&self, place: u64) -> Bytes {
        let number = (place / Self::SIZE as u64).to_be_bytes();
        let offset = usize::try_from(place % Self::SIZE as u64).unwrap();
        if offset >= number.len() {
            return self.0.slice(offset..);
        }
        let mut part = self.0.to_vec();
        part[..number.len()].copy_from_slice(&number);
        Bytes::from(part).split_off(offset)
    }

    async fn write(&self, sink: &mut dyn Sink, range: Range<u64>) {
        let mut at = range.start;
        while at < range.end {
            let mut part = self.at(at);
            part.truncate(usize::try_from(range.end - at).unwrap());
            at += part.len() as u64;
            sink.write(part).await.unwrap();
        }
    }

    /// Gives the place behind the chunk.
    fn check(&self, chunk: &[u8], mut at: u64) -> u64 {
        let mut rest = chunk;
        while !rest.is_empty() {
            let part = self.at(at);
            let (now, later) = rest.split_at(part.len().min(rest.len()));
            assert!(now == &part[..now.len()], "other bytes after {at}");
            (at, rest) = (at + now.len() as u64, later);
        }
        at
    }
}

/// Checks a store's whole contract, and leaves it empty of what was written for it.
pub async fn store(store: &dyn Store) {
    gives_back_what_was_written(store).await;
    reads_from_an_offset(store).await;
    takes_an_object_of_unknown_size(store).await;
    says_what_is_not_there(store).await;
    publishes_nothing_that_is_cut_short(store).await;
    replaces_whole_objects_or_none(store).await;
    takes_other_objects_while_one_is_open(store).await;
    tells_its_room_always_or_never(store).await;
    if store.is_sparse() {
        reads_zeros_where_it_skipped(store).await;
    }
    if store.reopens() {
        opens_again_what_was_not_closed(store).await;
    }
    if store.list(None).await.unwrap().is_some() {
        lists_what_it_has(store).await;
    }
    // By now it is known.
    match store.resumes() {
        Some(true) => goes_on_with_what_was_kept(store).await,
        _ => keeps_nothing(store).await,
    }
}

/// Checks that part of a store's contract in which the name of the place counts that its objects lie in.
pub async fn store_at(store: &dyn Store) {
    gives_back_what_was_written(store).await;
    says_what_is_not_there(store).await;
    publishes_nothing_that_is_cut_short(store).await;
    if store.list(None).await.unwrap().is_some() {
        lists_what_it_has(store).await;
    }
}

/// Sizes at and around the small parts, segments and requests that stores are checked with.
const SIZES: [usize; 9] = [0, 1, 1000, 1001, 16_384, 16_385, 25_001, 100_001, 300_000];

async fn gives_back_what_was_written(store: &dyn Store) {
    for size in SIZES {
        let (object, bits) = (object(1), bits(size));
        let receipt = write(store, &object, &bits, Some(size as u64)).await.unwrap();
        assert!(receipt.size.is_none_or(|told| told == size as u64), "{receipt:?}");
        // Of an empty file Apache tells no length; Glance takes no location of one anyway.
        if size > 0 {
            assert_eq!(store.probe(&object).await.unwrap(), Some(size as u64));
        }
        assert_eq!(read(store, &object, 0).await.unwrap(), bits);
        assert!(store.location(&object).contains(object.as_str()));
        for _once_more in 0..2 {
            store.delete(&object).await.unwrap();
        }
        assert_eq!(store.probe(&object).await.unwrap(), None);
    }
}

async fn reads_from_an_offset(store: &dyn Store) {
    let (object, bits) = (object(2), bits(200_000));
    write(store, &object, &bits, Some(200_000)).await.unwrap();
    for offset in [1, 65_536, 199_999] {
        assert_eq!(read(store, &object, offset as u64).await.unwrap(), bits.slice(offset..));
    }
    assert!(read(store, &object, 200_000).await.unwrap().is_empty());
    store.delete(&object).await.unwrap();
}

async fn takes_an_object_of_unknown_size(store: &dyn Store) {
    let (object, bits) = (object(3), bits(100_000));
    write(store, &object, &bits, None).await.unwrap();
    assert_eq!(read(store, &object, 0).await.unwrap(), bits);
    store.delete(&object).await.unwrap();
}

async fn says_what_is_not_there(store: &dyn Store) {
    assert_eq!(store.probe(&object(4)).await.unwrap(), None);
    assert_eq!(read(store, &object(4), 0).await.unwrap_err().reason, Reason::ObjectMissing);
    store.delete(&object(4)).await.unwrap();
}

async fn publishes_nothing_that_is_cut_short(store: &dyn Store) {
    for size in [Some(100_000), None] {
        let (aborted, dropped, short) = (object(5), object(6), object(7));
        let mut sink = store.open(&aborted, size).await.unwrap();
        sink.write(bits(50_000)).await.unwrap();
        sink.abort().await;
        let mut sink = store.open(&dropped, size).await.unwrap();
        sink.write(bits(50_000)).await.unwrap();
        drop(sink);
        if size.is_some() {
            assert!(write(store, &short, &bits(50_000), size).await.is_err());
        }
        notices().await;
        for object in [&aborted, &dropped, &short] {
            let found = store.probe(object).await.unwrap();
            let in_part = store.resumes() == Some(true) && found < Some(100_000);
            assert!(found.is_none() || in_part, "{found:?} bytes of {object} were published");
            store.delete(object).await.unwrap();
        }
    }
}

/// Once under a closed object's name: it is as it was, or the new one, and never a piece of each.
async fn replaces_whole_objects_or_none(store: &dyn Store) {
    let object = object(17);
    for (size, other) in [(25_001, 100_001), (100_001, 25_001)] {
        let (first, second) = (bits(size), inverted(&bits(other)));
        write(store, &object, &first, Some(size as u64)).await.unwrap();
        let expected = match write(store, &object, &second, Some(other as u64)).await {
            Ok(_) => second,
            Err(_) => first,
        };
        assert_eq!(store.probe(&object).await.unwrap(), Some(expected.len() as u64));
        assert_eq!(read(store, &object, 0).await.unwrap(), expected);
        store.delete(&object).await.unwrap();
        assert_eq!(store.probe(&object).await.unwrap(), None, "nothing of either is left");
    }
}

fn inverted(bits: &Bytes) -> Bytes {
    bits.iter().map(|byte| !byte).collect()
}

async fn takes_other_objects_while_one_is_open(store: &dyn Store) {
    let mut first = store.open(&object(8), Some(2000)).await.unwrap();
    first.write(bits(1000)).await.unwrap();
    write(store, &object(9), &bits(10), Some(10)).await.unwrap();
    first.write(bits(1000)).await.unwrap();
    first.close().await.unwrap();
    for object in [object(8), object(9)] {
        store.delete(&object).await.unwrap();
    }
}

async fn tells_its_room_always_or_never(store: &dyn Store) {
    let (object, before) = (object(14), store.room().await.unwrap());
    write(store, &object, &bits(1000), Some(1000)).await.unwrap();
    let after = store.room().await.unwrap();
    assert_eq!(before.is_some(), after.is_some());
    assert_ne!(before, Some(0), "it took 1000 bytes");
    store.delete(&object).await.unwrap();
}

async fn reads_zeros_where_it_skipped(store: &dyn Store) {
    let (object, bits) = (object(12), bits(1000));
    for (before, behind) in [(100_000, 0), (0, 100_000), (70_000, 30_000)] {
        let mut sink = store.open(&object, Some(101_000)).await.unwrap();
        sink.skip(before).await.unwrap();
        sink.write(bits.clone()).await.unwrap();
        sink.skip(behind).await.unwrap();
        sink.close().await.unwrap();
        let zeros = |length: u64| vec![0; usize::try_from(length).unwrap()];
        assert_eq!(read(store, &object, 0).await.unwrap(), [&zeros(before), &bits[..], &zeros(behind)].concat());
        store.delete(&object).await.unwrap();
    }
}

async fn opens_again_what_was_not_closed(store: &dyn Store) {
    let (object, bits) = (object(14), bits(100_000));
    break_off(store.open(&object, Some(100_000)).await.unwrap(), bits.slice(..60_000)).await;
    write(store, &object, &bits, Some(100_000)).await.unwrap();
    assert_eq!(read(store, &object, 0).await.unwrap(), bits);
    store.delete(&object).await.unwrap();
}

/// Checks what a store owes that takes objects from another by itself, and leaves nothing behind at either.
pub async fn take(giver: &dyn Store, taker: &dyn Store) {
    let area = giver.area().unwrap();
    assert!(taker.takes_from(&area), "{area}");
    assert!(!taker.takes_from("http://elsewhere.example/"));
    for size in [1, 100_001, 300_000] {
        let (source, own, bits) = (object(15), object(16), bits(size));
        write(giver, &source, &bits, Some(size as u64)).await.unwrap();
        let offer = Offer { area: area.clone(), object: source.clone(), size: size as u64, like: None };
        let sent = AtomicU64::new(0);
        let receipt = taker.take(&own, &offer, &sent).await.unwrap();
        assert!(receipt.size.is_none_or(|told| told == size as u64), "{receipt:?}");
        assert_eq!(taker.probe(&own).await.unwrap(), Some(size as u64));
        assert_eq!(read(taker, &own, 0).await.unwrap(), bits);
        // It is a copy: nothing of it needs the other any more.
        giver.delete(&source).await.unwrap();
        assert_eq!(giver.probe(&source).await.unwrap(), None);
        assert_eq!(read(taker, &own, 0).await.unwrap(), bits);
        taker.delete(&own).await.unwrap();
        assert!(taker.take(&own, &offer, &sent).await.is_err(), "there is nothing to take");
        assert_eq!(taker.probe(&own).await.unwrap(), None);
        taker.delete(&own).await.unwrap();
    }
}

/// Its own objects, closed or kept in part; others may be there too.
async fn lists_what_it_has(store: &dyn Store) {
    let objects: Vec<ObjectName> = (20..25).map(object).collect();
    for object in &objects {
        // Of several segments or parts, where those are small.
        write(store, object, &bits(25_001), Some(25_001)).await.unwrap();
    }
    let in_part = object(25);
    break_off(store.open(&in_part, Some(300_000)).await.unwrap(), bits(250_000)).await;
    let is_kept = store.kept(&in_part).await.unwrap() > 0;
    let listed = listed(store).await;
    assert!(objects.iter().all(|object| listed.contains(object)), "{listed:?}");
    assert!(!is_kept || listed.contains(&in_part), "what is kept of one that was not closed: {listed:?}");
    for object in objects.iter().chain([&in_part]) {
        store.delete(object).await.unwrap();
    }
    let left = self::listed(store).await;
    assert!(!objects.iter().chain([&in_part]).any(|object| left.contains(object)), "{left:?}");
}

async fn listed(store: &dyn Store) -> Vec<ObjectName> {
    let (mut objects, mut after) = (Vec::new(), None);
    loop {
        let page = store.list(after.as_ref()).await.unwrap().unwrap();
        objects.extend(page.objects);
        match page.next {
            Some(next) => after = Some(next),
            None => return objects,
        }
    }
}

/// Broken off after every tenth of 60 chunks, twice.
async fn goes_on_with_what_was_kept(store: &dyn Store) {
    const SIZE: usize = 60 * CHUNK;
    let (object, bits) = (object(10), bits(SIZE));
    for written in (10 * CHUNK..=SIZE).step_by(10 * CHUNK) {
        for part in [1_usize, 2] {
            break_off(store.open(&object, Some(SIZE as u64)).await.unwrap(), bits.slice(..written)).await;
            let kept = beginning(store, &object, &bits).await;
            assert!(kept <= written, "{kept} bytes were kept of {written}");
            if kept > 0 {
                let sink = store.resume(&object, Some(SIZE as u64), (kept / part) as u64).await.unwrap();
                break_off(sink, bits.slice(kept / part..written)).await;
                let offset = beginning(store, &object, &bits).await / part;
                let sink = store.resume(&object, Some(SIZE as u64), offset as u64).await.unwrap();
                fill(sink, bits.slice(offset..)).await.unwrap();
                assert_eq!(store.probe(&object).await.unwrap(), Some(SIZE as u64));
                assert_eq!(read(store, &object, 0).await.unwrap(), bits);
            }
            store.delete(&object).await.unwrap();
        }
    }
    break_off(store.open(&object, Some(SIZE as u64)).await.unwrap(), bits.slice(..250_000)).await;
    store.delete(&object).await.unwrap();
    assert_eq!((store.kept(&object).await.unwrap(), store.probe(&object).await.unwrap()), (0, None));
}

/// How many bytes were kept, after a look that they are right, where they can be read.
async fn beginning(store: &dyn Store, object: &ObjectName, bits: &Bytes) -> usize {
    let kept = usize::try_from(store.kept(object).await.unwrap()).unwrap();
    if kept > 0
        && let Some(stream) = store.read_kept(object).await.unwrap()
    {
        let chunks: Vec<Bytes> = stream.try_collect().await.unwrap();
        assert_eq!(chunks.concat(), bits.slice(..kept));
    }
    kept
}

/// What is broken off is written in chunks of so many bytes.
const CHUNK: usize = 5000;

async fn break_off(mut sink: Box<dyn Sink>, bits: Bytes) {
    for at in (0..bits.len()).step_by(CHUNK) {
        sink.write(bits.slice(at..bits.len().min(at + CHUNK))).await.unwrap();
    }
    tokio::time::timeout(std::time::Duration::from_secs(1), sink.abort()).await.expect("an abort within a second");
    notices().await;
}

async fn keeps_nothing(store: &dyn Store) {
    break_off(store.open(&object(11), Some(100_000)).await.unwrap(), bits(50_000)).await;
    assert_eq!(store.kept(&object(11)).await.unwrap(), 0);
    assert!(store.resume(&object(11), Some(100_000), 0).await.is_err());
}

/// A store may take a moment to notice that a sink has ended.
async fn notices() {
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
}

async fn write(store: &dyn Store, object: &ObjectName, bits: &Bytes, size: Option<u64>) -> Result<Receipt> {
    fill(store.open(object, size).await?, bits.clone()).await
}

async fn fill(mut sink: Box<dyn Sink>, bits: Bytes) -> Result<Receipt> {
    for chunk in crate::store::chunks(&bits) {
        sink.write(chunk).await?;
    }
    sink.close().await
}

async fn read(store: &dyn Store, object: &ObjectName, offset: u64) -> Result<Bytes> {
    let chunks: Vec<Bytes> = store.read(object, offset).await?.try_collect().await?;
    Ok(chunks.concat().into())
}

fn object(attempt: u64) -> ObjectName {
    ObjectName::new(&id(0xC0), attempt)
}
