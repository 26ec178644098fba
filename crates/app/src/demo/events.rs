//! The image service's events without a broker: straight from its channel.

use std::sync::Arc;

use async_trait::async_trait;
use mimeo_core::{
    ImageId,
    ports::{Acknowledge, Delivery, EventKind, Events, EventsHealth, ImageEvent},
};
use tokio::sync::mpsc::UnboundedReceiver;

use super::image_service::Notification;

pub(super) struct ChannelEvents {
    notifications: UnboundedReceiver<Notification>,
    health: Arc<EventsHealth>,
}

impl ChannelEvents {
    pub(super) fn new(notifications: UnboundedReceiver<Notification>) -> Self {
        let health = Arc::new(EventsHealth::default());
        health.update(|state| state.connected = true);
        Self { notifications, health }
    }
}

#[async_trait]
impl Events for ChannelEvents {
    async fn next(&mut self) -> Option<Delivery> {
        loop {
            let event = event(&self.notifications.recv().await?);
            self.health.update(|state| match event {
                Some(_) => state.received += 1,
                None => state.bad += 1,
            });
            if let Some(event) = event {
                return Some(Delivery { event, ack: Box::new(Nothing) });
            }
        }
    }

    fn health(&self) -> Arc<EventsHealth> {
        self.health.clone()
    }
}

/// The embedded service never undoes a change with another, so no snapshot is kept.
fn event(notification: &Notification) -> Option<ImageEvent> {
    let image: ImageId = notification.payload.get("id")?.as_str()?.parse().ok()?;
    let kind = match notification.event_type.as_str() {
        "image.delete" => EventKind::Deleted,
        _ => EventKind::Changed,
    };
    Some(ImageEvent { image, kind, snapshot: None })
}

/// A channel does not deliver twice: there is nobody to tell.
struct Nothing;

#[async_trait]
impl Acknowledge for Nothing {
    async fn acknowledge(self: Box<Self>) {}
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn notifications_become_events_until_the_service_ends() {
        let (sender, receiver) = mpsc::unbounded_channel();
        let id = "0b3f8a10-7a44-4f0e-9d57-1f2e3d4c5b6a";
        for (event_type, payload) in
            [("image.update", json!({"id": id})), ("image.update", json!({})), ("image.delete", json!({"id": id}))]
        {
            sender.send(Notification { event_type: event_type.into(), payload }).unwrap();
        }
        drop(sender);
        let mut events = ChannelEvents::new(receiver);
        let mut kinds = Vec::new();
        while let Some(delivery) = events.next().await {
            assert_eq!(delivery.event.image.as_str(), id);
            kinds.push(delivery.event.kind);
        }
        assert_eq!(kinds, [EventKind::Changed, EventKind::Deleted]);
        let state = events.health().state();
        assert_eq!((state.received, state.bad), (2, 1));
    }
}
