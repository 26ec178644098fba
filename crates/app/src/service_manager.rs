//! What systemd, or whoever else set `NOTIFY_SOCKET`, is told of `serve`: that it is ready, reads its configuration
//! again, stops, and still turns. Without that variable nobody is told anything.

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

pub(crate) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// To be followed by [`ready`].
pub(crate) fn reloading() {
    let mut states = vec![NotifyState::Reloading];
    // It lets systemd tell this from an answer to an earlier signal.
    states.extend(NotifyState::monotonic_usec_now());
    tell(&states);
}

/// Waits for `stop`, and tells it.
pub(crate) async fn stopping(stop: CancellationToken) -> anyhow::Result<()> {
    stop.cancelled().await;
    tell(&[NotifyState::Stopping]);
    Ok(())
}

/// Says that the process is alive, as often as it was asked to (`WatchdogSec` of the unit): from a task like any other, so
/// that a runtime that is stuck says nothing. Ends at once if nobody asked.
pub(crate) async fn watchdog() {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let mut beat = tokio::time::interval(limit / 3);
    loop {
        beat.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!("the service manager could not be told {}: {error}", states[0]);
    }
}
