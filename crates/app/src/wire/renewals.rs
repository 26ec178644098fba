//! What credentials of a changed configuration are handed to while `serve` runs. Requests that begin from then on have
//! them; what is under way goes on.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use mimeo_adapters::{
    Live,
    events::rabbitmq::{RabbitConfig, RabbitEvents},
    openstack::Glance,
};
use mimeo_core::{Result, StoreName, ports::Store};

use crate::config::{Config, StoreKind};

/// Takes over the credentials, and nothing else, of another configuration of the same type.
pub(super) type Renew = Box<dyn Fn(StoreKind) -> Result<()> + Send + Sync>;

pub(super) struct Made {
    pub(super) store: Arc<dyn Store>,
    pub(super) renew: Renew,
}

impl Made {
    pub(super) fn of<S: Store + Clone + 'static>(store: S, renew: fn(&S, StoreKind) -> Result<()>) -> Self {
        let same = store.clone();
        Self { store: Arc::new(store), renew: Box::new(move |kind| renew(&same, kind)) }
    }
}

pub(crate) struct Renewals {
    glance: Glance,
    events: Option<Live<RabbitConfig>>,
    stores: BTreeMap<StoreName, Renew>,
}

impl Renewals {
    pub(super) fn of(glance: Glance) -> Self {
        Self { glance, events: None, stores: BTreeMap::new() }
    }

    pub(super) fn and_of(self, events: Option<&RabbitEvents>) -> Self {
        Self { events: events.map(RabbitEvents::config), ..self }
    }

    pub(super) fn add(&mut self, store: StoreName, renew: Renew) {
        self.stores.insert(store, renew);
    }

    /// Puts the credentials in force, but for the sections that differ in more than those: their credentials may be for
    /// another place. Gives what went wrong, section by section.
    pub(crate) fn renew(&self, config: &Config, other: &BTreeSet<String>) -> Vec<(String, mimeo_core::Error)> {
        let mut failed = Vec::new();
        let is_same = |section: &str| !other.contains(section);
        if let (Some(events), Some(config)) = (&self.events, &config.events)
            && is_same("[events]")
        {
            events.set(config.clone());
        }
        if is_same("[openstack]")
            && let Err(error) = self.glance.renew(&config.openstack)
        {
            failed.push(("[openstack]".to_owned(), error));
        }
        for store in &config.stores {
            let (name, section) = (&store.facts.name, format!("[stores.{}]", store.facts.name));
            if let Some(renew) = self.stores.get(name).filter(|_| is_same(&section) && is_same("[store_defaults]"))
                && let Err(error) = renew(store.kind.clone())
            {
                failed.push((section, error));
            }
        }
        failed
    }
}
