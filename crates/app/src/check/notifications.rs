//! Notifications: a queue of the check's own must receive those of the check's image.

use std::time::Duration;

use mimeo_adapters::events::rabbitmq::RabbitConfig;
use mimeo_core::ports::Events;

use super::{report::Report, trial::Trial};
use crate::wire;

const CONNECTING: Duration = Duration::from_secs(5);

/// From the end of all changes: the broker takes milliseconds.
const ARRIVING: Duration = Duration::from_secs(10);

const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Connects. None where no events are wanted, or none can come.
pub(super) async fn listen(trial: &Trial<'_>, report: &mut Report<'_>) -> Option<Box<dyn Events>> {
    let Some(config) = &trial.config.events else {
        report.info("notifications", "no [events]: the scan alone finds new images");
        return None;
    };
    let queue = trial.name();
    let events = wire::events(RabbitConfig { queue, temporary: true, ..config.clone() });
    let health = events.health();
    let connected = async {
        while !health.state().connected {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    if tokio::time::timeout(CONNECTING, connected).await.is_ok() {
        return Some(events);
    }
    let seen = health.state().last_error.unwrap_or_else(|| format!("no connection within {CONNECTING:?}"));
    report.fail("notifications", seen, "correct [events] transport_url: the one in glance-api.conf, as seen from here");
    None
}

/// Waits for the first event of the check's image. Others are nobody's here: they came to a queue of its own.
pub(super) async fn expect(mut events: Box<dyn Events>, trial: &Trial<'_>, report: &mut Report<'_>) {
    let Some(id) = &trial.image else { return };
    let arrived = async {
        while let Some(delivery) = events.next().await {
            delivery.ack.acknowledge().await;
            if delivery.event.image == *id {
                return true;
            }
        }
        false
    };
    match tokio::time::timeout(ARRIVING, arrived).await {
        Ok(true) => report.ok("notifications", "the events of this image arrived"),
        _ => report.fail(
            "notifications",
            format!("no event of this image arrived within {ARRIVING:?}; the scan alone finds new images"),
            "in glance-api.conf: [oslo_messaging_notifications] driver = messagingv2, with transport_url and topics as in \
             [events] here, and [DEFAULT] control_exchange as [events] exchange",
        ),
    }
}
