//! The fakes pass the suites that the real adapters pass.

use mimeo_core::{ObjectName, ports::Store};
use mimeo_testkit::{FakeRegistry, FakeStore, MemoryLedger, conformance, sample};

#[tokio::test]
async fn the_memory_ledger_conforms() {
    conformance::ledger(async || MemoryLedger::default()).await;
}

#[tokio::test]
async fn the_fake_store_conforms() {
    conformance::store(&FakeStore::new("fake")).await;
    conformance::store(&FakeStore::new("fake").resumable().sparse().listable().of_size(1 << 20)).await;
    conformance::store(&FakeStore::new("fake").comparing().reopening()).await;
    let giver = FakeStore::new("giver");
    conformance::take(&giver, &FakeStore::new("taker").taking_from(&giver)).await;
}

#[tokio::test]
async fn the_fake_store_counts_what_is_written_to_it_and_not_what_it_kept() {
    let store = FakeStore::new("fake").resumable().sparse();
    let (object, bits) = (ObjectName::new(&sample::id(1), 1), sample::bits(100));
    let mut sink = store.open(&object, Some(160)).await.unwrap();
    sink.write(bits.clone()).await.unwrap();
    drop(sink);
    assert_eq!((store.kept(&object).await.unwrap(), store.objects()), (100, vec![]));
    let mut sink = store.resume(&object, Some(160), 90).await.unwrap();
    sink.write(bits.slice(90..)).await.unwrap();
    sink.skip(60).await.unwrap();
    sink.close().await.unwrap();
    assert_eq!(store.bits(&object).unwrap(), [&bits[..], &[0; 60]].concat());
    assert_eq!((store.written(), store.objects()), (110, vec![object]));
}

#[tokio::test]
async fn the_registry_conforms() {
    let registry = FakeRegistry::default();
    conformance::registry(&registry, &registry).await;
}
