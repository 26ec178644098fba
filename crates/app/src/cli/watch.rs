//! Watching one image until all its wanted replicas are registered: bars on a terminal, plain lines elsewhere.

mod bars;
mod lines;

use std::{io::IsTerminal, time::Duration};

use mimeo_core::{ImageId, ImageState, ReplicaState, Timestamp, ports::Clock};
use mimeo_engine::status::{ImageReport, ReplicaReport};
use tokio::time::Instant;

use self::{bars::Bars, lines::Lines};
use super::{Client, Failure, Outcome, visible};
use crate::wire::SystemClock;

const PAUSE: Duration = Duration::from_millis(200);

/// How long a hopeless state must last to be believed: the first answers may still be from before the new look.
const CERTAIN: Duration = Duration::from_secs(3);

/// What `--wait` asks for.
pub(super) struct Wait {
    pub(super) timeout: Option<Duration>,
}

/// Waits until the image is as it should be, and shows how it gets there.
pub(super) async fn watch(
    client: &Client,
    id: &ImageId,
    Wait { timeout }: Wait,
    is_done: impl Fn(&ImageReport) -> bool,
) -> Outcome<ImageReport> {
    if client.overview().await?.observe {
        return Err(Failure::failed("this `mimeo serve` only observes: it copies and reads nothing"));
    }
    let watched = until(id, || client.image(id), is_done);
    let Some(timeout) = timeout else { return watched.await };
    let in_time = tokio::time::timeout(timeout, watched).await;
    let late = |_| Failure::not_yet(format!("not done everywhere within {timeout:?}: see `mimeo status {id}`"));
    in_time.map_err(late)?
}

/// Asks `look` again and again until the image is registered.
pub(crate) async fn until_registered<F>(id: &ImageId, look: impl Fn() -> F) -> Outcome<ImageReport>
where
    F: Future<Output = Outcome<ImageReport>>,
{
    until(id, look, ImageReport::is_registered).await
}

/// Asks `look` again and again until it is done. Ends with a failure as soon as what is missing cannot come by itself.
/// Dropping it ends the display.
async fn until<F>(id: &ImageId, look: impl Fn() -> F, is_done: impl Fn(&ImageReport) -> bool) -> Outcome<ImageReport>
where
    F: Future<Output = Outcome<ImageReport>>,
{
    let mut display = Display::new();
    let mut hopeless_since = None;
    loop {
        let report = look().await?;
        display.show(&report);
        if is_done(&report) {
            return Ok(report);
        }
        match hopeless(&report, SystemClock.now()) {
            None => hopeless_since = None,
            Some(why) if hopeless_since.get_or_insert_with(Instant::now).elapsed() >= CERTAIN => {
                return Err(Failure::failed(format!("{id}: {why}")));
            }
            Some(_) => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Why waiting is of no use, if so.
fn hopeless(report: &ImageReport, now: Timestamp) -> Option<String> {
    match report.state {
        ImageState::Unmanaged => Some("no rule wants it at any store".into()),
        ImageState::Retiring => Some("the image was deleted".into()),
        _ if report.is_stuck() && !missing(report).any(|replica| in_hand(replica, now)) => {
            let reasons = missing(report).filter_map(|replica| {
                let reason = replica.reason.as_ref()?;
                Some(format!("\n  {}: {}: {}", replica.store, reason.code, visible(&reason.message)))
            });
            Some(format!("what is missing cannot come by itself:{}", reasons.collect::<String>()))
        }
        _ => None,
    }
}

/// Whether it is tried again right now, so that its reason is of the past.
fn in_hand(replica: &ReplicaReport, now: Timestamp) -> bool {
    replica.progress.is_some() || replica.next_try.is_some_and(|next_try| next_try <= now)
}

fn missing(report: &ImageReport) -> impl Iterator<Item = &ReplicaReport> {
    report.replicas.iter().filter(|replica| replica.wanted && replica.state != ReplicaState::Registered)
}

enum Display {
    Bars(Bars),
    Lines(Lines),
}

impl Display {
    fn new() -> Self {
        match std::io::stderr().is_terminal() {
            true => Self::Bars(Bars::default()),
            false => Self::Lines(Lines::default()),
        }
    }

    fn show(&mut self, report: &ImageReport) {
        for replica in report.replicas.iter().filter(|replica| replica.wanted) {
            match self {
                Self::Bars(bars) => bars.show(replica, report.size),
                Self::Lines(lines) => lines.show(replica, super::note),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use mimeo_engine::status::ReasonReport;

    use super::*;

    fn report(state: ImageState, permanent: bool) -> ImageReport {
        let replica = ReplicaReport {
            store: "http1".parse().unwrap(),
            state: ReplicaState::Failed,
            wanted: true,
            location: None,
            proof: None,
            proven_at: None,
            seen_at: None,
            reason: Some(ReasonReport { code: "empty-image".into(), message: "empty".into(), permanent }),
            next_try: None,
            progress: None,
        };
        let (id, name, size, owner, rules, reason, observed_at) =
            (ImageId::nil(), None, None, None, vec![], None, None);
        ImageReport { id, name, state, size, owner, rules, reason, observed_at, replicas: vec![replica] }
    }

    #[tokio::test(start_paused = true)]
    async fn ends_when_registered_and_not_for_the_hopeless_look_of_a_moment() {
        let (id, looks) = (ImageId::nil(), Cell::new(0));
        let outcome = until_registered(&id, async || {
            looks.set(looks.get() + 1);
            Ok(match looks.get() {
                1..5 => report(ImageState::Failed, true),
                5..50 => report(ImageState::Failed, false),
                _ => report(ImageState::Registered, false),
            })
        });
        assert_eq!(outcome.await.unwrap().state, ImageState::Registered);
    }

    #[tokio::test(start_paused = true)]
    async fn ends_with_the_reasons_when_nothing_can_come_by_itself() {
        let id = ImageId::nil();
        let outcome = until_registered(&id, async || Ok(report(ImageState::Failed, true)));
        let failure = outcome.await.unwrap_err();
        assert_eq!(failure.code, 1);
        assert!(failure.message.contains("http1: empty-image: empty"), "{}", failure.message);
        let outcome = until_registered(&id, async || Ok(report(ImageState::Unmanaged, false)));
        assert!(outcome.await.unwrap_err().message.ends_with("no rule wants it at any store"));
    }
}
