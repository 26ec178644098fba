//! What people ask the engine, and the little that they tell it.

use std::collections::{BTreeMap, BTreeSet};

use mimeo_core::{
    Change, DirtyMark, Error, Image, ImageId, ImageRow, Reason, Record, Replica, ReplicaState, Result, StoreName,
    plan::{self, Observation, Plan, Sight},
};

use crate::{
    Engine,
    status::{EventsReport, GcReport, ImageReport, Overview, PlannedAction, ReasonReport, StoreReport},
    sweep,
    walk::{Records, Walk},
};

impl Engine {
    /// The images with this name or id, from the ledger and from Glance.
    pub async fn find(&self, name_or_id: &str) -> Result<Vec<ImageReport>> {
        if let Ok(id) = name_or_id.parse::<ImageId>() {
            // An id is an id, though a tenant may give it to another image as its name.
            return Ok(self.image(&id).await?.into_iter().collect());
        }
        let mut found: BTreeSet<ImageId> = self.ledger.find(name_or_id).await?.into_iter().collect();
        // A new image may bear the name, and Glance may be down: neither hides what the ledger knows.
        match self.registry.named(name_or_id).await {
            Ok(images) => found.extend(images.into_iter().map(|image| image.id)),
            Err(error) if found.is_empty() => return Err(error),
            Err(_) => {}
        }
        let mut reports = Vec::new();
        for id in found {
            reports.extend(self.image(&id).await?);
        }
        Ok(reports)
    }

    /// The image with this id, if the ledger or Glance knows it.
    pub async fn image(&self, id: &ImageId) -> Result<Option<ImageReport>> {
        if let Some(record) = self.ledger.load(id).await? {
            return Ok(Some(self.report(&record)));
        }
        Ok(self.registry.look(id).await?.map(|image| self.report(&self.preview(&image))))
    }

    pub async fn list(&self, after: Option<&ImageId>, limit: usize) -> Result<Vec<ImageReport>> {
        let records = self.ledger.list(after, limit).await?;
        Ok(records.iter().map(|record| self.report(record)).collect())
    }

    /// Tries everything that failed again now, and looks at the image.
    pub async fn replicate(&self, id: &ImageId) -> Result<()> {
        if self.image(id).await?.is_none() {
            return Err(Error::new(Reason::ImageNotVisible, format!("Glance shows no image {id}")));
        }
        let due = self.clock.now();
        let mark = DirtyMark { image: id.clone(), due };
        self.ledger.commit(&[Change::TryAt(id.clone(), due), Change::Dirty(mark)]).await?;
        self.turns.poke(id);
        self.wake.notify_one();
        Ok(())
    }

    /// What would be done about one image, or (`None`) about every image. Writes nothing.
    pub async fn plan(&self, id: Option<&ImageId>) -> Result<Vec<PlannedAction>> {
        if let Some(id) = id {
            let image = self.registry.look(id).await?;
            let image =
                image.ok_or_else(|| Error::new(Reason::ImageNotVisible, format!("Glance shows no image {id}")))?;
            return self.plan_image(&image).await;
        }
        let (mut actions, mut walk) = (Vec::new(), Walk::new(self.registry.as_ref(), None));
        while let Some(page) = walk.next().await? {
            for image in &page {
                actions.extend(self.plan_image(image).await?);
            }
        }
        Ok(actions)
    }

    pub async fn stores(&self) -> Result<Vec<StoreReport>> {
        let mut counts: BTreeMap<StoreName, BTreeMap<ReplicaState, u64>> = BTreeMap::new();
        self.each_record(|record| {
            for replica in record.replicas.values() {
                *counts.entry(replica.store.clone()).or_default().entry(replica.state).or_default() += 1;
            }
        })
        .await?;
        let seen = self.health.lock();
        let report = |facts: &mimeo_core::policy::StoreFacts| {
            let counts = counts.get(&facts.name).cloned().unwrap_or_default();
            let of = |state| counts.get(&state).copied().unwrap_or_default();
            let health = seen.stores.get(&facts.name).cloned().unwrap_or_default();
            StoreReport {
                name: facts.name.clone(),
                last_success: health.last_success,
                failure: health.failure,
                replicas: counts.values().sum(),
                registered: of(ReplicaState::Registered),
                failed: of(ReplicaState::Failed),
            }
        };
        Ok(self.settings.policy.stores.iter().map(report).collect())
    }

    pub async fn overview(&self) -> Result<Overview> {
        let (mut states, mut hidden) = (BTreeMap::new(), None);
        self.each_record(|record| {
            *states.entry(plan::state(record)).or_default() += 1;
            let trouble = record.image.trouble.as_ref().filter(|trouble| trouble.reason == Reason::ImageNotVisible);
            hidden = hidden.take().or(trouble.map(ReasonReport::from));
        })
        .await?;
        let seen = self.health.lock();
        Ok(Overview {
            version: env!("CARGO_PKG_VERSION").into(),
            observe: self.settings.observe,
            images: states.values().sum(),
            states,
            events: seen.events.as_ref().map(|health| EventsReport::from(health.state())),
            last_scan: seen.last_scan,
            trouble: seen.trouble.clone().or(hidden),
            held_deletes: seen.held_deletes,
        })
    }

    pub async fn gc(&self) -> Result<GcReport> {
        sweep::report(self).await
    }

    /// Lets the deletions that the guard holds now go through.
    pub async fn confirm_gc(&self) -> Result<()> {
        sweep::confirm(self).await
    }

    async fn each_record(&self, mut visit: impl FnMut(&Record)) -> Result<()> {
        let mut walk = Records::all(self.ledger.as_ref());
        while let Some(records) = walk.next().await? {
            records.iter().for_each(&mut visit);
        }
        Ok(())
    }

    fn report(&self, record: &Record) -> ImageReport {
        ImageReport::new(record, |store| self.board.get(&record.image.id, store))
    }

    /// An image that the ledger does not know yet, as its first look will record it.
    fn preview(&self, image: &Image) -> Record {
        let mut record = Record::new(image.id.clone());
        let plan = self.plan_for(&record, image);
        for change in plan.changes {
            if let Change::Image(row) = change {
                record.image = ImageRow { ..row };
            }
        }
        record
    }

    fn plan_for(&self, record: &Record, image: &Image) -> Plan {
        let (now, sight) = (self.clock.now(), Sight::Present(Box::new(image.clone())));
        let (running, conditions) = (BTreeSet::new(), self.conditions(now));
        let observation = Observation { now, record, sight: &sight, running: &running, conditions: &conditions };
        plan::plan(&self.settings.policy, &observation)
    }

    async fn plan_image(&self, image: &Image) -> Result<Vec<PlannedAction>> {
        let record = self.ledger.load(&image.id).await?.unwrap_or_else(|| Record::new(image.id.clone()));
        let plan = self.plan_for(&record, image);
        let (mut row, mut replicas) = (record.image, record.replicas);
        for change in &plan.changes {
            match change {
                Change::Image(after) => row = after.clone(),
                Change::Replica(_, after) => drop(replicas.insert(after.store.clone(), after.clone())),
                _ => {}
            }
        }
        let describe = |store: &StoreName| {
            let (action, why) = action(&plan, store, replicas.get(store), row.trouble.as_ref());
            let (image, name) = (image.id.clone(), image.name.clone());
            PlannedAction { image, name, store: store.clone(), action: action.into(), why }
        };
        Ok(row.wanted.iter().map(describe).collect())
    }
}

fn action(
    plan: &Plan,
    store: &StoreName,
    replica: Option<&Replica>,
    trouble: Option<&mimeo_core::Failure>,
) -> (&'static str, String) {
    let failure = replica.and_then(|replica| replica.failure.as_ref());
    let again = || failure.map_or(String::new(), |failure| format!("; last time: {}", failure.message));
    let is_after_others = failure.is_some_and(|failure| failure.reason == mimeo_core::Reason::AfterOthers);
    if plan.copy.contains(store) {
        ("copy", format!("wanted there, and not there yet{}", again()))
    } else if let Some((_, giver)) = plan.take.iter().find(|(taker, _)| taker == store) {
        ("copy", format!("wanted there, and not there yet; the store takes it from {giver} by itself{}", again()))
    } else if is_after_others {
        ("ask", "wanted there, and only Glance can copy it there, after Mimeo's own copies".into())
    } else if plan.ask.contains(store) {
        ("ask", format!("wanted there, and only Glance can copy it there{}", again()))
    } else if plan.prove.contains(store) {
        ("prove", format!("written, not yet read back{}", again()))
    } else if plan.register.contains(store) {
        ("register", format!("proven, and not among the image's locations{}", again()))
    } else if replica.is_some_and(|replica| replica.state == ReplicaState::Registered) {
        ("none", "registered".into())
    } else {
        let why = failure.or(trouble).map_or("nothing to do now", |failure| failure.message.as_str());
        ("wait", why.to_owned())
    }
}
