//! The fakes pass the suites that the real adapters pass.

use mimeo_testkit::{FakeStore, MemoryLedger, conformance};

#[tokio::test]
async fn the_memory_ledger_conforms() {
    conformance::ledger(async || MemoryLedger::default()).await;
}

#[tokio::test]
async fn the_fake_store_conforms() {
    conformance::store(&FakeStore::new("fake")).await;
}
