//! The fakes pass the suites that the real adapters pass.

use mimeo_testkit::{FakeRegistry, FakeStore, MemoryLedger, conformance};

#[tokio::test]
async fn the_memory_ledger_conforms() {
    conformance::ledger(async || MemoryLedger::default()).await;
}

#[tokio::test]
async fn the_fake_store_conforms() {
    conformance::store(&FakeStore::new("fake")).await;
}

#[tokio::test]
async fn the_registry_conforms() {
    let registry = FakeRegistry::default();
    conformance::registry(&registry, &registry).await;
}
