use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use mimeo_core::ports::{Acknowledge, Delivery, Events, EventsHealth, ImageEvent};
use tokio::sync::mpsc;

/// An event source that a test feeds by hand.
pub struct FakeEvents {
    events: mpsc::UnboundedReceiver<ImageEvent>,
    health: Arc<EventsHealth>,
    acknowledged: Arc<AtomicUsize>,
}

/// The feeding end. When the last one is dropped, the source ends.
#[derive(Debug, Clone)]
pub struct EventSender {
    events: mpsc::UnboundedSender<ImageEvent>,
    acknowledged: Arc<AtomicUsize>,
}

impl FakeEvents {
    pub fn new() -> (EventSender, Self) {
        let (sender, events) = mpsc::unbounded_channel();
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let health = Arc::new(EventsHealth::default());
        health.update(|state| state.connected = true);
        (EventSender { events: sender, acknowledged: acknowledged.clone() }, Self { events, health, acknowledged })
    }
}

impl EventSender {
    /// Does nothing once the source was dropped.
    pub fn send(&self, event: ImageEvent) {
        let _ = self.events.send(event);
    }

    /// How many events the receiver has acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Events for FakeEvents {
    async fn next(&mut self) -> Option<Delivery> {
        let event = self.events.recv().await?;
        self.health.update(|state| state.received += 1);
        Some(Delivery { event, ack: Box::new(Counted(self.acknowledged.clone())) })
    }

    fn health(&self) -> Arc<EventsHealth> {
        self.health.clone()
    }
}

struct Counted(Arc<AtomicUsize>);

#[async_trait]
impl Acknowledge for Counted {
    async fn acknowledge(self: Box<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}
