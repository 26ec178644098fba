//! What the check works with, what it has made, and how that is removed again.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use mimeo_adapters::openstack::Glance;
use mimeo_core::{
    Change, Error, ImageId, ImageRow, Object, ObjectName, ObjectState, Reason, Result, StoreName, Timestamp,
    ports::{ByteStream, Clock, Ledger, Store},
    without_credentials,
};
use uuid::Uuid;

use super::report::Report;
use crate::{
    config::{Config, StoreConfig},
    sample,
    wire::{self, SystemClock},
};

const SIZE: u64 = 64 << 10;

pub(super) struct Trial<'a> {
    pub(super) config: &'a Config,
    pub(super) glance: Glance,
    pub(super) stores: Vec<Part<'a>>,
    pub(super) bits: Bytes,
    /// The image, once it was created.
    pub(super) image: Option<ImageId>,
    /// When, by this machine's clock.
    pub(super) created: Option<Timestamp>,
    /// Distinguishes this check from any other, in names.
    pub(super) tag: String,
    /// The number of the objects, by time as every attempt's: another check may run.
    attempt: u64,
    ledger: Arc<dyn Ledger>,
    /// What may exist at a store: recorded before it is written.
    objects: Vec<Object>,
}

pub(super) struct Part<'a> {
    pub(super) config: &'a StoreConfig,
    pub(super) store: Arc<dyn Store>,
}

impl Part<'_> {
    pub(super) fn name(&self) -> &StoreName {
        &self.config.facts.name
    }

    /// Gives up when the store takes longer than its time-out.
    pub(super) async fn within<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        within(self.config.timeout, work).await
    }
}

pub(super) async fn within<T>(limit: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
    let late = |_| Error::new(Reason::StoreStalled, format!("no answer within {limit:?}"));
    tokio::time::timeout(limit, work).await.map_err(late)?
}

/// Those that Mimeo writes.
pub(super) fn stores(config: &Config) -> Result<Vec<Part<'_>>> {
    let part = |config| Ok(wire::store(config)?.map(|store| Part { config, store }));
    config.stores.iter().filter_map(|config| part(config).transpose()).collect()
}

pub(super) fn now() -> Timestamp {
    SystemClock.now()
}

impl<'a> Trial<'a> {
    pub(super) fn ledger(&self) -> &dyn Ledger {
        self.ledger.as_ref()
    }

    pub(super) fn new(config: &'a Config, glance: Glance, ledger: Arc<dyn Ledger>, stores: Vec<Part<'a>>) -> Self {
        let tag = Uuid::new_v4().simple().to_string()[..8].to_owned();
        let seed = tag.bytes().fold(0, |seed, byte| (seed << 8) ^ u64::from(byte));
        let bits: BytesMut = sample::chunks(seed, SIZE).flatten().collect();
        Self {
            config,
            glance,
            stores,
            bits: bits.freeze(),
            image: None,
            created: None,
            tag,
            attempt: now().as_millisecond().unsigned_abs(),
            ledger,
            objects: Vec::new(),
        }
    }

    /// What the check makes in Glance, at the broker and in the ledger is called so.
    pub(super) fn name(&self) -> String {
        format!("mimeo-check-{}", self.tag)
    }

    /// Whose the objects are.
    fn owner(&self) -> ImageId {
        self.image.clone().unwrap_or_else(ImageId::nil)
    }

    /// The object at each store.
    pub(super) fn object(&self) -> ObjectName {
        ObjectName::new(&self.owner(), self.attempt)
    }

    /// The object for this store, once the ledger knows of it. Nothing is written before.
    pub(super) async fn record_object(&mut self, store: &Arc<dyn Store>) -> Result<ObjectName> {
        let name = self.object();
        let (url, since) = (store.location(&name), now());
        let object = Object { store: store.name().clone(), name: name.clone(), url, state: ObjectState::Open, since };
        self.ledger.commit(&[Change::Object(object.clone())]).await?;
        self.objects.push(object);
        Ok(name)
    }

    /// Removes the image first, so that no location of it names bits that are gone; then its objects.
    pub(super) async fn clean_up(&mut self, report: &mut Report<'_>) {
        let (owner, made_any) = (self.owner(), self.image.is_some() || !self.objects.is_empty());
        if let Some(id) = self.image.take()
            && let Err(error) = self.glance.delete_image(&id).await
        {
            self.doom(report).await;
            return report.fail("clean up: image", error.chain(), format!("openstack image delete {id}"));
        }
        if made_any {
            self.remove_objects(&owner, report).await;
        }
    }

    async fn remove_objects(&mut self, id: &ImageId, report: &mut Report<'_>) {
        let mut gone = Vec::new();
        for object in std::mem::take(&mut self.objects) {
            let Some(part) = self.stores.iter().find(|part| *part.name() == object.store) else { continue };
            match part.within(part.store.delete(&object.name)).await {
                Ok(()) => gone.push(Change::ObjectGone(object.store, object.name)),
                Err(error) => {
                    let seen = format!("{} may be left: {}", without_credentials(&object.url), error.chain());
                    report.warn(format!("{}: clean up", object.store), seen, "serve removes it once the store answers");
                    self.objects.push(object);
                }
            }
        }
        if self.objects.is_empty() {
            gone.push(Change::Forget(id.clone()));
        }
        if let Err(error) = self.ledger.commit(&gone).await {
            report.fail("clean up: ledger", error.chain(), "");
        }
        self.doom(report).await;
        if self.objects.is_empty() {
            report.ok("clean up", "everything that was made is removed");
        }
    }

    /// Hands what could not be removed to the sweeper of `serve`.
    async fn doom(&self, report: &mut Report<'_>) {
        let doomed =
            |object: &Object| Change::Object(Object { state: ObjectState::Doomed, since: now(), ..object.clone() });
        let changes: Vec<Change> = self.objects.iter().map(doomed).collect();
        if let Err(error) = self.ledger.commit(&changes).await {
            report.fail("clean up: ledger", error.chain(), "");
        } else if let Err(error) = self.name_what_is_left().await {
            report.warn("clean up: ledger", error.chain(), "");
        }
    }

    /// Where no `serve` saw the image, nobody would know what is left of what.
    async fn name_what_is_left(&self) -> Result<()> {
        let Some(left) = self.objects.first() else { return Ok(()) };
        let record = self.ledger.load(&left.name.image()).await?;
        let Some(row) = record.map(|record| record.image).filter(|row| row.name.is_none()) else { return Ok(()) };
        self.ledger.commit(&[Change::Image(ImageRow { name: Some(self.name()), ..row })]).await
    }
}

/// All of a stream that should have `expected` bytes; no more than one byte beyond.
pub(super) async fn collect(mut stream: ByteStream, expected: usize) -> Result<Bytes> {
    let mut bytes = BytesMut::new();
    while let Some(chunk) = stream.try_next().await? {
        bytes.extend_from_slice(&chunk[..chunk.len().min(expected + 1 - bytes.len())]);
        if bytes.len() > expected {
            break;
        }
    }
    Ok(bytes.freeze())
}
