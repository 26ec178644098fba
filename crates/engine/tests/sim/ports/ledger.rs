//! The ledger, behind the weather. A commit whose answer would be lost is a crash: the ledger is on the same machine.

use std::sync::Arc;

use async_trait::async_trait;
use mimeo_core::{
    Backlog, Change, Digest, DirtyMark, Due, HistoryLine, ImageFilter, ImageId, ObjectName, Place, Record, Replica,
    Result, Tally, Timestamp, Told,
    ports::{Ledger, Store},
};

use crate::{
    promises::Step,
    weather::Part,
    world::{Life, World},
};

pub(crate) struct SimLedger(Arc<Life>);

impl SimLedger {
    pub(crate) fn new(life: &Arc<Life>) -> Self {
        Self(Arc::clone(life))
    }
}

#[async_trait]
impl Ledger for SimLedger {
    async fn load(&self, id: &ImageId) -> Result<Option<Record>> {
        self.0.call(Part::Ledger, || format!("load {id}"), self.0.world.ledger.load(id)).await
    }

    async fn commit(&self, changes: &[Change]) -> Result<()> {
        let world = &self.0.world;
        let act = async {
            let before = changes.iter().find_map(image_of).and_then(|id| world.ledger.record(&id));
            world.ledger.commit(changes).await?;
            note(world, changes);
            world.step(&Step::Committed { changes, before: before.as_ref() });
            Ok(())
        };
        self.0.call(Part::Ledger, || format!("commit {}", summary(changes)), act).await
    }

    async fn marks(&self, now: Timestamp, limit: usize, busy: &[ImageId]) -> Result<Vec<Due>> {
        self.0.call(Part::Ledger, || "marks".into(), self.0.world.ledger.marks(now, limit, busy)).await
    }

    async fn settle(&self, due: &Due, next: Option<DirtyMark>) -> Result<()> {
        let world = &self.0.world;
        let name = || format!("settle {} {:?}", due.image, next.as_ref().map(|mark| mark.due));
        let act = async {
            world.ledger.settle(due, next.clone()).await?;
            world.step(&Step::Settled { image: &due.image });
            Ok(())
        };
        self.0.call(Part::Ledger, name, act).await
    }

    async fn find(&self, name_or_id: &str) -> Result<Vec<ImageId>> {
        self.0.world.ledger.find(name_or_id).await
    }

    async fn named_near(&self, name: &str, limit: usize) -> Result<Vec<ImageId>> {
        let near = self.0.world.ledger.named_near(name, limit);
        self.0.call(Part::Ledger, || format!("named near {name}"), near).await
    }

    async fn page(&self, filter: &ImageFilter, after: Option<&ImageId>, limit: usize) -> Result<Vec<Record>> {
        self.0.call(Part::Ledger, || "page".into(), self.0.world.ledger.page(filter, after, limit)).await
    }

    async fn tally(&self) -> Result<Tally> {
        self.0.world.ledger.tally().await
    }

    async fn backlog(&self, now: Timestamp) -> Result<Backlog> {
        self.0.world.ledger.backlog(now).await
    }

    async fn places(&self) -> Result<Vec<Place>> {
        self.0.call(Part::Ledger, || "places".into(), self.0.world.ledger.places()).await
    }

    async fn sweepable(&self, after: Option<&ImageId>, limit: usize) -> Result<Vec<Record>> {
        self.0.call(Part::Ledger, || "sweepable".into(), self.0.world.ledger.sweepable(after, limit)).await
    }

    async fn count(&self) -> Result<u64> {
        self.0.call(Part::Ledger, || "count".into(), self.0.world.ledger.count()).await
    }

    async fn bookmark(&self, name: &str) -> Result<Option<String>> {
        self.0.call(Part::Ledger, || format!("bookmark {name}"), self.0.world.ledger.bookmark(name)).await
    }

    async fn chunks(&self, id: &ImageId) -> Result<Vec<Digest>> {
        self.0.call(Part::Ledger, || format!("chunks {id}"), self.0.world.ledger.chunks(id)).await
    }

    async fn unknown(&self, objects: &[ObjectName]) -> Result<Vec<ObjectName>> {
        self.0.call(Part::Ledger, || "unknown".into(), self.0.world.ledger.unknown(objects)).await
    }

    async fn history(&self, id: &ImageId) -> Result<Vec<HistoryLine>> {
        self.0.world.ledger.history(id).await
    }

    async fn told(&self, after: u64, limit: usize) -> Result<Vec<Told>> {
        self.0.world.ledger.told(after, limit).await
    }

    async fn last_told(&self) -> Result<u64> {
        self.0.world.ledger.last_told().await
    }
}

fn note(world: &World, changes: &[Change]) {
    let state = &mut *world.lock();
    for change in changes {
        match change {
            Change::Dirty(mark) => drop(state.witness.marked.insert(mark.image.clone(), state.steps)),
            Change::Replica(_, Replica { store, object: Some(object), proof: None, .. }) => {
                let at = world.stores.iter().position(|it| it.name() == store);
                at.inspect(|at| state.witness.noted(&(*at, object.clone())));
            }
            _ => {}
        }
    }
}

/// The image that the change gives or takes something that the promises ask about.
fn image_of(change: &Change) -> Option<ImageId> {
    match change {
        Change::Image(row) => Some(row.id.clone()),
        Change::Replica(id, replica) if replica.state == mimeo_core::ReplicaState::Registered => Some(id.clone()),
        Change::Doom(_, object, _) => Some(object.image()),
        _ => None,
    }
}

/// For the trace: what is committed, in a line.
fn summary(changes: &[Change]) -> String {
    let word = |change: &Change| match change {
        Change::Image(row) => {
            let trouble = row.trouble.as_ref().map(|trouble| trouble.reason.code());
            format!("image {} {:?} gone {:?} trouble {trouble:?}", row.id, row.status, row.gone_at)
        }
        Change::Replica(id, replica) => {
            let failure = replica.failure.as_ref().map(|failure| failure.reason.code());
            let object = replica.object.as_ref().map(mimeo_core::ObjectName::as_str);
            format!("replica {id} {} {} {object:?} {failure:?}", replica.store, replica.state)
        }
        Change::Object(object) => format!("object {} {} {:?}", object.store, object.name, object.state),
        other => format!("{other:?}"),
    };
    format!("[{}]", changes.iter().map(word).collect::<Vec<_>>().join("; "))
}
