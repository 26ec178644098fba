//! What people ask the engine, and the little that they tell it.

use std::collections::{BTreeMap, BTreeSet};

use mimeo_core::{
    Change, DirtyMark, Error, Image, ImageFilter, ImageId, ImageRow, Reason, Record, Replica, ReplicaState, Result,
    StoreName, Timestamp, Told,
    plan::{self, CHECK_PROPERTY, Plan, Sight},
    policy::Verdict,
};

use crate::{
    Engine, Refusal, Running, Traffic,
    breaker::Answers,
    guard,
    status::{ChangeReport, EventsReport, GcReport, HistoryReport, ImageReport, Overview, PlannedAction, ReasonReport},
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
        if let Some(report) = self.known(id).await? {
            return Ok(Some(report));
        }
        Ok(self.registry.look(id).await?.map(|image| self.report(&self.preview(&image))))
    }

    /// As [`image`](Self::image), of one that the ledger knows.
    pub async fn known(&self, id: &ImageId) -> Result<Option<ImageReport>> {
        Ok(self.ledger.load(id).await?.map(|record| self.report(&record)))
    }

    /// Images that fit, in order of their ids.
    pub async fn list(&self, filter: &ImageFilter, after: Option<&ImageId>, limit: usize) -> Result<Vec<ImageReport>> {
        let records = self.ledger.page(filter, after, limit).await?;
        Ok(records.iter().map(|record| self.report(record)).collect())
    }

    /// What became of all images and copies, in the order in which it was written down: what came after line `after`.
    /// Each comes with its number.
    pub async fn told(&self, after: u64, limit: usize) -> Result<Vec<(u64, ChangeReport)>> {
        let (mut reports, mut states) = (Vec::new(), BTreeMap::new());
        for Told { number, image, line } in self.ledger.told(after, limit).await? {
            if !states.contains_key(&image) {
                let record = self.ledger.load(&image).await?;
                states.insert(image.clone(), record.as_ref().map(plan::state));
            }
            let image_state = states.get(&image).copied().flatten();
            reports.push((number, ChangeReport { image, image_state, line: line.into() }));
        }
        Ok(reports)
    }

    /// The number of the newest of those lines.
    pub async fn last_told(&self) -> Result<u64> {
        self.ledger.last_told().await
    }

    /// How far a listener has come with those lines, if it ever noted that.
    pub async fn heard(&self, listener: &str) -> Result<Option<u64>> {
        let bookmark = self.ledger.bookmark(&bookmark_of(listener)).await?;
        Ok(bookmark.and_then(|number| number.parse().ok()))
    }

    /// The listener has all lines up to this one.
    pub async fn note_heard(&self, listener: &str, number: u64) -> Result<()> {
        let noted = self.ledger.commit(&[Change::Bookmark(bookmark_of(listener), number.to_string())]).await;
        self.health.wrote_down(&noted);
        noted
    }

    /// What became of the image and its copies, the oldest first; of one that was forgotten too, for a while.
    pub async fn history(&self, id: &ImageId) -> Result<Vec<HistoryReport>> {
        Ok(self.ledger.history(id).await?.into_iter().map(HistoryReport::from).collect())
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
        if self.leftovers.asked(id) {
            self.sweep.notify_one();
        }
        Ok(())
    }

    /// Reads all copies of the image again, and says which proofs are too old from now on.
    pub async fn verify(&self, id: &ImageId) -> Result<Timestamp> {
        let now = self.clock.now();
        let mark = DirtyMark { image: id.clone(), due: now };
        let asked = Change::VerifyAsked(id.clone(), now);
        self.ledger.commit(&[asked, Change::TryAt(id.clone(), now), Change::Dirty(mark)]).await?;
        self.turns.poke(id);
        self.wake.notify_one();
        Ok(now)
    }

    /// What would be done about one image, or (`None`) about every image. Writes nothing.
    pub async fn plan(&self, id: Option<&ImageId>) -> Result<Vec<PlannedAction>> {
        if let Some(id) = id {
            let image = self.registry.look(id).await?;
            let image =
                image.ok_or_else(|| Error::new(Reason::ImageNotVisible, format!("Glance shows no image {id}")))?;
            return self.plan_image(&image).await;
        }
        let _turn = self.questions.acquire().await;
        let (mut actions, mut walk) = (Vec::new(), Walk::new(self.registry.as_ref(), None));
        while let Some(page) = walk.next().await? {
            for image in &page {
                actions.extend(self.plan_image(image).await?);
            }
        }
        Ok(actions)
    }

    pub async fn overview(&self) -> Result<Overview> {
        let tally = self.ledger.tally().await?;
        let hidden = tally.hidden.as_ref().map(ReasonReport::from);
        let is_down = |store: &&StoreName| self.breakers.report(store).0 == Answers::No;
        let seen = self.health.lock();
        Ok(Overview {
            version: env!("CARGO_PKG_VERSION").into(),
            observe: self.settings.observe,
            images: tally.images.values().sum(),
            states: tally.images,
            events: seen.events.as_ref().map(|health| EventsReport::from(health.state())),
            last_scan: seen.last_scan,
            // While the ledger takes nothing, nothing is done.
            trouble: seen.ledger.clone().or_else(|| seen.trouble.clone()).or(hidden),
            stores_down: self.stores.keys().filter(is_down).cloned().collect(),
            contested: tally.contested,
            held_deletes: seen.held_deletes,
        })
    }

    /// The copies that run now.
    pub fn running(&self) -> Vec<Running> {
        self.board.running()
    }

    /// What was moved to and from each store since this process began.
    pub fn traffic(&self) -> BTreeMap<StoreName, Traffic> {
        self.board.traffic()
    }

    /// Why this process is not up to its work yet, if so: the image service was not looked at, or the ledger takes nothing.
    pub fn not_ready(&self) -> Option<ReasonReport> {
        let seen = self.health.lock();
        let unseen = || ReasonReport {
            code: Reason::ImageServiceUnreachable.code().into(),
            message: "Glance has not been looked at yet".into(),
            permanent: false,
        };
        seen.ledger.clone().or_else(|| seen.last_scan.is_none().then(|| seen.trouble.clone().unwrap_or_else(unseen)))
    }

    /// What is to be removed of so many images behind this one.
    pub async fn gc(&self, after: Option<&ImageId>, limit: usize) -> Result<GcReport> {
        sweep::report(self, after, limit).await
    }

    /// Lets through what the guard holds of a list that was made at this time ([`GcReport::as_of`]).
    pub async fn confirm_gc(&self, seen: Timestamp) -> Result<Result<(), Refusal>> {
        let now = self.clock.now();
        if seen > now {
            return Ok(Err(format!("seen: {seen} is yet to come: say which list you saw, by its as_of")));
        }
        guard::confirm(self, seen).await?;
        self.sweep.notify_one();
        Ok(Ok(()))
    }

    pub(crate) async fn each_record(&self, mut visit: impl FnMut(&Record)) -> Result<()> {
        let mut walk = Records::all(self.ledger.as_ref());
        while let Some(records) = walk.next().await? {
            records.iter().for_each(&mut visit);
        }
        Ok(())
    }

    fn report(&self, record: &Record) -> ImageReport {
        let mut report = ImageReport::new(record, |store| self.board.get(&record.image.id, store));
        for told in report.replicas.iter_mut().filter(|told| told.state == ReplicaState::Retiring) {
            let object = record.replicas.get(&told.store).and_then(|replica| replica.object.as_ref());
            let left = object.and_then(|object| self.leftovers.why(&told.store, object));
            told.reason = left.or(told.reason.take());
        }
        report
    }

    /// An image that the ledger does not know yet, as its first look will record it.
    fn preview(&self, image: &Image) -> Record {
        let mut record = Record::new(image.id.clone());
        let plan = self.plan_alone(&record, image);
        for change in plan.changes {
            if let Change::Image(row) = change {
                record.image = ImageRow { ..row };
            }
        }
        record
    }

    fn plan_alone(&self, record: &Record, image: &Image) -> Plan {
        self.plan_for(record, &Sight::Present(Box::new(image.clone())), &BTreeSet::new())
    }

    async fn plan_image(&self, image: &Image) -> Result<Vec<PlannedAction>> {
        let record = self.ledger.load(&image.id).await?.unwrap_or_else(|| Record::new(image.id.clone()));
        let plan = self.plan_alone(&record, image);
        let (mut row, mut replicas) = (record.image, record.replicas);
        for change in &plan.changes {
            match change {
                Change::Image(after) => row = after.clone(),
                Change::Replica(_, after) => drop(replicas.insert(after.store.clone(), after.clone())),
                _ => {}
            }
        }
        let planned = |store: Option<&StoreName>, (action, why): (&str, String)| {
            let (image, name) = (image.id.clone(), image.name.clone());
            PlannedAction { image, name, store: store.cloned(), action: action.into(), why }
        };
        if row.wanted.is_empty() {
            return Ok(vec![planned(None, ("none", self.why_nowhere(image, &row.rules)))]);
        }
        let describe = |store| planned(Some(store), action(&plan, store, replicas.get(store), row.trouble.as_ref()));
        Ok(row.wanted.iter().map(describe).collect())
    }

    /// Why no store is to have the image.
    fn why_nowhere(&self, image: &Image, matching: &[String]) -> String {
        if image.properties.contains_key(CHECK_PROPERTY) {
            return format!("it is a test image of `mimeo check` (property {CHECK_PROPERTY})");
        }
        let rules = &self.settings.policy.rules;
        if !matching.is_empty() || rules.specs().next().is_none() {
            return format!("no store that is not drained takes {} images", image.visibility);
        }
        let failing = rules.specs().zip(rules.verdicts(image)).filter_map(|(spec, verdict)| match verdict {
            Verdict::Fails(why) => Some(format!("; rule \"{}\" cannot be answered for it: {why}", spec.name)),
            _ => None,
        });
        format!("no rule matches it{}", failing.collect::<String>())
    }
}

fn bookmark_of(listener: &str) -> String {
    format!("heard by {listener}")
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
