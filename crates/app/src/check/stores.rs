//! Each store: an object is written, read back and asked for, as a copy of an image would be.

use std::sync::Arc;

use bytes::Bytes;
use mimeo_core::{Error, ObjectName, Reason, Result, StoreName, ports::Store, without_credentials};

use super::{
    report::Report,
    trial::{Part, Trial, collect},
};
use crate::config::StoreKind;

/// Stores that were renamed, moved or switched off: what the ledger has of them, and what to do.
pub(super) async fn survey(trial: &Trial<'_>, report: &mut Report<'_>) {
    let stores: Vec<&dyn Store> = trial.stores.iter().map(|part| part.store.as_ref()).collect();
    let enabled: Vec<&StoreName> = trial.config.stores.iter().map(|store| &store.facts.name).collect();
    match mimeo_engine::notes(trial.ledger(), &stores, &enabled).await {
        Ok(notes) => {
            for (store, note) in notes {
                report.warn(format!("{store}: copies"), note, "");
            }
        }
        Err(error) => report.fail("ledger", error.chain(), ""),
    }
}

/// Gives the places of the stores whose object is there and right.
pub(super) async fn write_all(trial: &mut Trial<'_>, report: &mut Report<'_>) -> Vec<usize> {
    let mut written = Vec::new();
    for at in 0..trial.stores.len() {
        if write(trial, at, report).await {
            written.push(at);
        }
    }
    written
}

async fn write(trial: &mut Trial<'_>, at: usize, report: &mut Report<'_>) -> bool {
    let store = Arc::clone(&trial.stores[at].store);
    let object = match trial.record_object(&store).await {
        Ok(object) => object,
        Err(error) => {
            report.fail(format!("{}: write", store.name()), error.chain(), "the ledger must know before a store does");
            return false;
        }
    };
    let part = &trial.stores[at];
    let url = store.location(&object);
    if let Err(error) = part.within(put(&*store, &object, &trial.bits)).await {
        report.fail(format!("{}: write", part.name()), error.chain(), write_cure(part));
        return false;
    }
    match part.within(read_back(&*store, &object, &trial.bits)).await {
        Ok(()) => {
            report.ok(format!("{}: write and read", part.name()), without_credentials(&url));
            true
        }
        Err(error) => {
            report.fail(format!("{}: read back", part.name()), error.chain(), read_cure(part));
            false
        }
    }
}

async fn put(store: &dyn Store, object: &ObjectName, bits: &Bytes) -> Result<()> {
    let mut sink = store.open(object, Some(bits.len() as u64)).await?;
    sink.write(bits.clone()).await?;
    sink.close().await.map(drop)
}

async fn read_back(store: &dyn Store, object: &ObjectName, bits: &Bytes) -> Result<()> {
    let mismatch = |text: String| Err(Error::new(Reason::ProofMismatch, text));
    let read = collect(store.read(object, 0).await?, bits.len()).await?;
    if read != bits {
        return mismatch(format!("other bytes came back than were written ({} of {})", read.len(), bits.len()));
    }
    match store.probe(object).await? {
        Some(size) if size == bits.len() as u64 => Ok(()),
        Some(size) => {
            mismatch(format!("HEAD tells {size} bytes instead of {}: Glance would take that size", bits.len()))
        }
        None => mismatch("HEAD does not find what GET gives: Glance would refuse the location".into()),
    }
}

fn write_cure(part: &Part<'_>) -> String {
    match &part.config.kind {
        StoreKind::Http(http) => format!(
            "let the web server take PUT at {} from this machine (nginx: dav_methods PUT DELETE; Apache: mod_dav), and \
             start it if it is down",
            http.url
        ),
        _ => "see the message; what each type of store needs is in docs/stores.md".to_owned(),
    }
}

fn read_cure(part: &Part<'_>) -> String {
    match part.config.kind.read_url() {
        Some(read_url) => format!(
            "url and read_url of this store must show the same files: what is written must be there at {read_url}"
        ),
        None => "let Mimeo, and Glance, read there what was written".to_owned(),
    }
}
