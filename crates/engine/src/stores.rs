//! What people ask of the stores, and what they say of them.

use std::collections::BTreeMap;

use mimeo_core::{Failure, Reason, Record, ReplicaState, Result, StoreName, Timestamp, policy::StoreFacts};

use crate::{
    Engine, orders,
    status::{DrainEntry, DrainReport, MoveReport, ReasonReport, RenameReport, StoreReport},
    survey,
};

/// A word that makes no sense for this store, with the reason.
pub type Refusal = String;

impl Engine {
    /// The enabled stores in the operator's order, then those that only the ledger knows.
    pub async fn stores(&self) -> Result<Vec<StoreReport>> {
        let tally = self.ledger.tally().await?;
        let found = survey::survey(self).await?;
        let enabled = self.settings.policy.stores.iter().map(|facts: &StoreFacts| &facts.name);
        let known: Vec<&StoreName> = found.keys().filter(|name| !self.settings.policy.enables(name)).collect();
        let draining = self.orders.lock().draining.clone();
        let notes: BTreeMap<&StoreName, String> =
            found.iter().filter_map(|(name, found)| Some((name, found.note(self, name)?))).collect();
        let seen = self.health.lock();
        let report = |name: &StoreName| {
            let counts = tally.replicas.get(name).cloned().unwrap_or_default();
            let of = |state| counts.get(&state).copied().unwrap_or_default();
            let health = seen.stores.get(name).cloned().unwrap_or_default();
            let (answers, since, error) = self.breakers.report(name);
            StoreReport {
                name: name.clone(),
                enabled: self.settings.policy.enables(name),
                draining: draining.get(name).copied(),
                objects: found.get(name).map_or(0, |found| found.objects),
                note: notes.get(name).cloned(),
                health: answers.into(),
                since,
                error,
                oldest_proof: tally.oldest_proofs.get(name).copied(),
                last_success: health.last_success,
                failure: health.failure,
                replicas: counts.values().sum(),
                registered: of(ReplicaState::Registered),
                failed: of(ReplicaState::Failed),
            }
        };
        Ok(enabled.chain(known).map(report).collect())
    }

    /// The store is to become empty: it takes no more copies, and its own go once others are registered in their place.
    pub async fn drain(&self, store: &StoreName) -> Result<Result<DrainReport, Refusal>> {
        if let Err(refusal) = self.enabled(store) {
            return Ok(Err(refusal));
        }
        orders::drain(self, store).await?;
        self.drain_report(store).await
    }

    /// The store is one as the others again.
    pub async fn cancel_drain(&self, store: &StoreName) -> Result<Result<(), Refusal>> {
        match self.enabled(store) {
            Ok(()) => orders::cancel_drain(self, store).await.map(Ok),
            Err(refusal) => Ok(Err(refusal)),
        }
    }

    pub async fn drain_report(&self, store: &StoreName) -> Result<Result<DrainReport, Refusal>> {
        if let Err(refusal) = self.enabled(store) {
            return Ok(Err(refusal));
        }
        let _turn = self.lists.acquire().await;
        let since: Option<Timestamp> = self.orders.lock().draining.get(store).copied();
        let mut left = Vec::new();
        self.each_record(|record| left.extend(self.holdup(record, store, since.is_some()))).await?;
        Ok(Ok(DrainReport { store: store.clone(), since, left }))
    }

    /// What the ledger has of `from`, which is no longer enabled, is `to`'s from now on.
    pub async fn rename_store(&self, from: &StoreName, to: &StoreName) -> Result<Result<RenameReport, Refusal>> {
        if self.settings.policy.enables(from) {
            return Ok(Err(format!(
                "{from} is among enabled_stores: rename it there and in the rules first, and restart `mimeo serve`"
            )));
        }
        if let Err(refusal) = self.enabled(to).and_then(|()| self.own(to)) {
            return Ok(Err(refusal));
        }
        if !survey::survey(self).await?.contains_key(from) {
            return Ok(Err(format!("the ledger has no copies of a store {from}")));
        }
        survey::rename(self, from, to).await.map(Ok)
    }

    /// The store's copies are to be proven where the configuration puts it now.
    pub async fn move_store(&self, store: &StoreName) -> Result<Result<MoveReport, Refusal>> {
        if let Err(refusal) = self.enabled(store).and_then(|()| self.own(store)) {
            return Ok(Err(refusal));
        }
        if let Some(url) = survey::survey(self).await?.get(store).and_then(survey::Found::perhaps_the_same) {
            return Ok(Err(format!(
                "Glance removes the bits of a copy of {store} with its location ({url}), and at another server they may be \
                 the very bits at the new place. Give the new place a store of its own, and drain {store}"
            )));
        }
        Ok(Ok(MoveReport { copies: orders::move_store(self, store).await? }))
    }

    fn enabled(&self, store: &StoreName) -> Result<(), Refusal> {
        match self.settings.policy.enables(store) {
            true => Ok(()),
            false => Err(format!("{store} is not among enabled_stores")),
        }
    }

    fn own(&self, store: &StoreName) -> Result<(), Refusal> {
        match self.stores.contains_key(store) {
            true => Ok(()),
            false => Err(format!("only Glance writes {store}: what is there is known to Glance by its own name")),
        }
    }

    /// Why something of the image is still at the store, if it is.
    fn holdup(&self, record: &Record, store: &StoreName, is_drained: bool) -> Option<DrainEntry> {
        let replica = record.replicas.get(store);
        let objects: Vec<_> = record.objects.iter().filter(|object| object.store == *store).collect();
        let is_glances = self.settings.policy.backend(store).is_some()
            && replica.is_some_and(|replica| replica.state == ReplicaState::Registered);
        if objects.is_empty() && !is_glances {
            return None;
        }
        let not_removed = objects.iter().find_map(|object| self.leftovers.why(store, &object.name));
        let is_doomed = objects.iter().any(|object| object.state.is_to_go());
        let trouble = record.image.trouble.as_ref().filter(|_| record.image.gone_at.is_none());
        let failure = replica.and_then(|replica| replica.failure.as_ref());
        let reason = match (not_removed, failure.or(trouble)) {
            (Some(why), _) => why,
            (None, _) if is_doomed && trouble.is_none() => told(Reason::NotWanted, "it is being removed".to_owned()),
            (None, Some(failure)) => failure.into(),
            (None, None) if is_drained => told(Reason::NotWanted, "it is looked at shortly".to_owned()),
            (None, None) => told(Reason::NotWanted, "the store is not drained: it stays".to_owned()),
        };
        Some(DrainEntry { image: record.image.id.clone(), name: record.image.name.clone(), reason })
    }
}

fn told(reason: Reason, message: String) -> ReasonReport {
    ReasonReport::from(&Failure { reason, message, tries: 1, next_try: None })
}
