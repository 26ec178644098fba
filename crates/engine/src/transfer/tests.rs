//! The transfer against a reference model: whatever the pace, the chunks and the faults, every sink ends with the
//! source's very bytes or with an error, and memory never passes its budget.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt, future::join_all, stream};
use mimeo_core::{
    ContentHash, HashAlgorithm, ObjectName,
    ports::{ByteStream, Receipt, Sink, Source, Store},
};
use mimeo_testkit::sample;
use proptest::prelude::*;
use sha2::{Digest as _, Sha512};
use tokio::{sync::Semaphore, time::sleep};

use super::*;
use crate::{
    StorePart,
    health::Health,
    progress::{Board, Phase},
};

/// Bytes that are in memory now, and the most that ever were.
#[derive(Debug, Default)]
struct Memory {
    now: AtomicUsize,
    peak: AtomicUsize,
}

/// A chunk that counts as long as anybody holds any part of it.
struct Counted(Vec<u8>, Arc<Memory>);

impl Counted {
    fn bytes(part: &[u8], memory: &Arc<Memory>) -> Bytes {
        let now = memory.now.fetch_add(part.len(), Ordering::SeqCst) + part.len();
        memory.peak.fetch_max(now, Ordering::SeqCst);
        Bytes::from_owner(Self(part.to_vec(), Arc::clone(memory)))
    }
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.now.fetch_sub(self.0.len(), Ordering::SeqCst);
    }
}

/// Gives `bits` in chunks of the given sizes, over and over, and breaks once at each of `breaks`.
#[derive(Clone)]
struct TestSource(Arc<Given>);

struct Given {
    bits: Vec<u8>,
    chunks: Vec<usize>,
    breaks: Mutex<Vec<usize>>,
    pause: Duration,
    memory: Arc<Memory>,
}

#[async_trait]
impl Source for TestSource {
    async fn open(&self, offset: u64) -> Result<ByteStream> {
        let offset = usize::try_from(offset).unwrap();
        let end = {
            let mut breaks = self.0.breaks.lock().unwrap();
            let next = breaks.iter().position(|at| *at >= offset);
            next.map(|at| breaks.swap_remove(at).min(self.0.bits.len()))
        };
        let source = Arc::clone(&self.0);
        let chunks = stream::unfold((offset, 0), move |(at, turn)| {
            let source = Arc::clone(&source);
            async move {
                let rest = end.unwrap_or(source.bits.len()) - at;
                if rest == 0 {
                    let broken = || Err(Error::new(Reason::SourceUnreadable, "it broke, as told to"));
                    return (end.is_some() && turn < usize::MAX).then(|| (broken(), (at, usize::MAX)));
                }
                sleep(source.pause).await;
                let length = source.chunks[turn % source.chunks.len()].min(rest);
                Some((Ok(Counted::bytes(&source.bits[at..at + length], &source.memory)), (at + length, turn + 1)))
            }
        });
        Ok(chunks.boxed())
    }
}

/// What one sink is like.
#[derive(Debug, Clone)]
struct Manner {
    pause: Duration,
    fails_at: Option<usize>,
    sparse: bool,
    slow: bool,
}

struct TestStore {
    name: StoreName,
    manner: Manner,
    kept: Arc<Mutex<Option<Vec<u8>>>>,
}

#[async_trait]
impl Store for TestStore {
    fn name(&self) -> &StoreName {
        &self.name
    }

    fn location(&self, object: &ObjectName) -> String {
        object.to_string()
    }

    fn is_sparse(&self) -> bool {
        self.manner.sparse
    }

    async fn open(&self, _: &ObjectName, _: Option<u64>) -> Result<Box<dyn Sink>> {
        let (manner, kept) = (self.manner.clone(), Arc::clone(&self.kept));
        Ok(Box::new(TestSink { manner, kept, bits: Vec::new() }))
    }

    async fn read(&self, _: &ObjectName, _: u64) -> Result<ByteStream> {
        Err(Error::new(Reason::StoreError, "nobody reads here"))
    }

    async fn probe(&self, _: &ObjectName) -> Result<Option<u64>> {
        Ok(None)
    }

    async fn delete(&self, _: &ObjectName) -> Result<()> {
        Ok(())
    }
}

struct TestSink {
    manner: Manner,
    kept: Arc<Mutex<Option<Vec<u8>>>>,
    bits: Vec<u8>,
}

#[async_trait]
impl Sink for TestSink {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        sleep(self.manner.pause).await;
        self.bits.extend_from_slice(&bytes);
        match self.manner.fails_at {
            Some(at) if self.bits.len() > at => Err(Error::new(Reason::StoreError, "it failed, as told to")),
            _ => Ok(()),
        }
    }

    async fn skip(&mut self, length: u64) -> Result<()> {
        self.bits.resize(self.bits.len() + usize::try_from(length).unwrap(), 0);
        Ok(())
    }

    async fn close(self: Box<Self>) -> Result<Receipt> {
        *self.kept.lock().unwrap() = Some(self.bits);
        Ok(Receipt::default())
    }

    async fn abort(self: Box<Self>) {}
}

/// One case: the image, how it is read, and to whom.
#[derive(Debug, Clone)]
struct Case {
    bits: Vec<u8>,
    chunks: Vec<usize>,
    breaks: Vec<usize>,
    read_pause: u64,
    damaged: bool,
    sinks: Vec<Manner>,
    window: usize,
}

fn case() -> impl Strategy<Value = Case> {
    let run = (any::<bool>(), 1..150_000_usize);
    let bits = prop::collection::vec(run, 1..5).prop_map(|runs| {
        let bytes = |(zeros, length): (bool, usize)| {
            if zeros { vec![0; length] } else { sample::bits(length).to_vec() }
        };
        runs.into_iter().flat_map(bytes).collect::<Vec<u8>>()
    });
    let manner = (0..2000_u64, prop::option::weighted(0.2, 0..300_000_usize), any::<bool>(), prop::bool::weighted(0.2))
        .prop_map(|(pause, fails_at, sparse, slow)| Manner {
            pause: Duration::from_millis(pause),
            fails_at,
            sparse,
            slow,
        });
    (
        bits,
        prop::collection::vec(1_000..60_000_usize, 1..4),
        prop::collection::vec(0..400_000_usize, 0..3),
        0..300_u64,
        prop::bool::weighted(0.1),
        prop::collection::vec(manner, 1..6),
        20_000..200_000_usize,
    )
        .prop_map(|(bits, chunks, breaks, read_pause, damaged, sinks, window)| Case {
            bits,
            chunks,
            breaks,
            read_pause,
            damaged,
            sinks,
            window,
        })
}

struct Outcome {
    kept: Vec<Option<Vec<u8>>>,
    results: Vec<Result<Verified>>,
    peak: usize,
    left: usize,
}

async fn run(case: &Case) -> Outcome {
    let memory = Arc::new(Memory::default());
    let source = TestSource(Arc::new(Given {
        bits: case.bits.clone(),
        chunks: case.chunks.clone(),
        breaks: Mutex::new(case.breaks.clone()),
        pause: Duration::from_millis(case.read_pause),
        memory: Arc::clone(&memory),
    }));
    let mut image = sample::image(1, case.bits.len() as u64);
    let mut value = format!("{:x}", Sha512::digest(&case.bits));
    if case.damaged {
        value.replace_range(..1, if value.starts_with('0') { "1" } else { "0" });
    }
    image.hash = Some(ContentHash { algorithm: HashAlgorithm::Sha512, value });
    let origins = Origins::new(vec![Origin::service(Arc::new(source))]);
    let transfer = Transfer::new(image.clone(), origins, case.window, Duration::from_mins(1));
    let paces = Paces::new(std::iter::empty(), None);
    let (mut feeds, mut stores) = (Vec::new(), Vec::new());
    for (number, manner) in case.sinks.iter().enumerate() {
        let store =
            TestStore { name: format!("store{number}").parse().unwrap(), manner: manner.clone(), kept: Arc::default() };
        stores.push(Arc::clone(&store.kept));
        let feed = transfer.feed(manner.slow);
        let (paces, image) = (&paces, &image);
        feeds.push(async move {
            let part = StorePart { store: Arc::new(store), timeout: Duration::from_mins(1), backend: None };
            let line = Board::default().show(&image.id, part.store.name(), Phase::Copying, None);
            let slow = Arc::new(Semaphore::new(1));
            let health = Health::default();
            let way = Lane { part: &part, paces, line: &line, health: &health, slow: &slow, like: None };
            feed.copy_to(&ObjectName::new(&image.id, 1), 0, &way).await.map(|(verified, _)| verified)
        });
    }
    let reading = async {
        let verdict = transfer.read(&paces).await;
        transfer.end(verdict).await;
    };
    let (results, ()) = tokio::join!(join_all(feeds), reading);
    Outcome {
        kept: stores.iter().map(|kept| kept.lock().unwrap().take()).collect(),
        results,
        peak: memory.peak.load(Ordering::SeqCst),
        left: memory.now.load(Ordering::SeqCst),
    }
}

fn in_virtual_time<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(work)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn every_sink_ends_with_the_sources_bytes_or_an_error_and_memory_keeps_its_budget(case in case()) {
        let outcome = in_virtual_time(run(&case));
        for ((kept, result), manner) in outcome.kept.iter().zip(&outcome.results).zip(&case.sinks) {
            let must_fail = case.damaged || manner.fails_at.is_some_and(|at| !manner.sparse && at < case.bits.len());
            match result {
                Ok(verified) => {
                    prop_assert!(!must_fail);
                    prop_assert_eq!(kept.as_ref(), Some(&case.bits));
                    prop_assert_eq!(verified.size, case.bits.len() as u64);
                    let digest = Digest::from_hex(blake3::hash(&case.bits).to_hex().to_string());
                    prop_assert_eq!(&verified.digest, &Some(digest));
                }
                Err(error) => {
                    prop_assert!(must_fail || manner.fails_at.is_some(), "{}", error.chain());
                    prop_assert_eq!(kept.as_ref(), None);
                }
            }
        }
        // Beside the window: one chunk that the reader has in hand, and one for each sink that reads alone.
        let chunk = case.chunks.iter().max().unwrap();
        let budget = case.window.max(*chunk) + chunk * (1 + case.sinks.len());
        prop_assert!(outcome.peak <= budget, "{} of {budget}", outcome.peak);
        prop_assert_eq!(outcome.left, 0);
    }
}

#[test]
fn a_slow_sink_goes_on_alone_and_ends_with_the_same_bytes() {
    let manner = |pause| Manner { pause: Duration::from_millis(pause), fails_at: None, sparse: false, slow: false };
    let case = Case {
        bits: sample::bits(1 << 20).to_vec(),
        chunks: vec![10_000],
        breaks: Vec::new(),
        read_pause: 0,
        damaged: false,
        sinks: vec![manner(1), manner(1000), manner(1)],
        window: 50_000,
    };
    let outcome = in_virtual_time(run(&case));
    for (kept, result) in outcome.kept.iter().zip(outcome.results) {
        assert!(result.is_ok() && kept.as_ref() == Some(&case.bits));
    }
}

/// Copies that are proven on the way take over from the image service, and one that breaks hands on to the next.
#[test]
fn a_reader_goes_on_from_a_better_origin_and_from_the_next_when_one_breaks() {
    let source = |breaks: &[usize]| {
        TestSource(Arc::new(Given {
            bits: (0..=255).cycle().take(10_000).collect(),
            chunks: vec![1000],
            breaks: Mutex::new(breaks.to_vec()),
            pause: Duration::ZERO,
            memory: Arc::default(),
        }))
    };
    in_virtual_time(async {
        let far: StoreName = "far".parse().unwrap();
        let copy = Origin { store: Some(far.clone()), source: Arc::new(source(&[7_000])) };
        let origins = Origins::new(vec![Origin::service(Arc::new(source(&[])))]);
        let mut reader = Reader::new(&origins, 0, Some(10_000), Duration::from_secs(1));
        let mut read = Vec::new();
        while let Some(chunk) = reader.next().await.unwrap() {
            read.extend_from_slice(&chunk);
            if read.len() == 5000 {
                origins.prefer(copy.clone());
            }
        }
        assert_eq!(read, (0..=255).cycle().take(10_000).collect::<Vec<u8>>());
        let (used, broken) = reader.findings();
        assert_eq!((used, broken.len()), ([far].into(), 1));
    });
}

#[test]
fn somebody_who_waits_for_bits_is_not_held_up_by_copies_that_give_none() {
    let origin = |store: Option<&str>, pause| {
        let source = TestSource(Arc::new(Given {
            bits: vec![7; 1000],
            chunks: vec![1000],
            breaks: Mutex::default(),
            pause,
            memory: Arc::default(),
        }));
        Origin { store: store.map(|name| name.parse().unwrap()), source: Arc::new(source) }
    };
    in_virtual_time(async {
        let began = tokio::time::Instant::now();
        let hang = Duration::from_hours(1);
        let near = [origin(Some("near"), hang), origin(Some("far"), hang), origin(None, Duration::from_secs(20))];
        let origins = Origins::new(near.to_vec());
        let bits: Vec<Bytes> =
            reader::read(&origins, 100, 500, Duration::from_mins(1)).await.unwrap().try_collect().await.unwrap();
        assert_eq!(bits.concat(), vec![7; 500]);
        assert_eq!(began.elapsed().as_secs(), 24, "2 s for each copy, and the image service's own time");
    });
}

#[test]
fn nothing_waits_for_ever_when_the_reading_is_dropped() {
    in_virtual_time(async {
        let transfer = Transfer::new(sample::image(1, 10), Origins::new(Vec::new()), 100, Duration::from_secs(1));
        let mut feed = transfer.feed(false);
        drop(transfer);
        let next = feed.cursor.next().now_or_never();
        assert!(matches!(next, Some(window::Found::End(Err(_)))));
    });
}
