//! Events: what was sent and is not acknowledged comes again to the next engine.

use std::sync::Arc;

use async_trait::async_trait;
use mimeo_core::ports::{Acknowledge, Delivery, Events, EventsHealth, ImageEvent};
use mimeo_testkit::FakeEvents;

use crate::{promises::Step, world::Life};

pub(crate) struct SimEvents {
    life: Arc<Life>,
    events: FakeEvents,
}

impl SimEvents {
    pub(crate) fn new(life: &Arc<Life>) -> Self {
        let (sender, events) = FakeEvents::new();
        let mut state = life.world.lock();
        for notice in &mut state.unacknowledged {
            notice.delivered = None;
            sender.send(notice.event.clone());
        }
        state.sender = Some(sender);
        drop(state);
        Self { life: Arc::clone(life), events }
    }
}

#[async_trait]
impl Events for SimEvents {
    async fn next(&mut self) -> Option<Delivery> {
        let Delivery { event, .. } = self.events.next().await?;
        self.life.alive().await;
        let mut state = self.life.world.lock();
        let step = state.steps;
        let same = |notice: &&mut crate::world::Notice| notice.delivered.is_none() && notice.event == event;
        if let Some(notice) = state.unacknowledged.iter_mut().find(same) {
            notice.delivered = Some(step);
        }
        drop(state);
        let ack = Box::new(Acknowledged { life: Arc::clone(&self.life), event: event.clone() });
        Some(Delivery { event, ack })
    }

    fn health(&self) -> Arc<EventsHealth> {
        self.events.health()
    }
}

struct Acknowledged {
    life: Arc<Life>,
    event: ImageEvent,
}

#[async_trait]
impl Acknowledge for Acknowledged {
    async fn acknowledge(self: Box<Self>) {
        self.life.alive().await;
        let mut state = self.life.world.lock();
        let is_it = |notice: &crate::world::Notice| notice.delivered.is_some() && notice.event == self.event;
        let Some(at) = state.unacknowledged.iter().position(is_it) else { return };
        let delivered = state.unacknowledged.remove(at).delivered.unwrap_or(0);
        drop(state);
        self.life.world.step(&Step::Acknowledged { event: &self.event, delivered });
    }
}
