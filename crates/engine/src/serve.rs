//! The daemon's tasks: intake, scan, sweep, and the dispatcher that gives each due image its turn.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt;
use mimeo_core::{Due, Reason, Result, ports::Events};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::{
    Engine, adopt, intake, probe, reconcile, scan,
    set_back::{self, Wall},
    survey, sweep,
    turn::Held,
};

/// Images that may have a turn at the same time. Most wait for a transfer's permit or a slow store; a transfer's
/// memory is bounded elsewhere.
const TURNS: usize = 256;
/// The place of a turn that could not be settled is kept for so long.
const BROKEN_TURN_RETRY: Duration = Duration::from_secs(5);
/// A ledger that failed is asked again after this.
const LEDGER_RETRY: Duration = Duration::from_secs(1);
/// The longest that the dispatcher sleeps: a clock that was set back must not stop it for long.
const NAP: Duration = Duration::from_secs(30);

pub(crate) async fn run(engine: &Arc<Engine>, events: Option<Box<dyn Events>>, stop: CancellationToken) -> Result<()> {
    if let Some(events) = &events {
        engine.health.lock().events = Some(events.health());
    }
    // Nothing is planned before it is known what operators said.
    while let Err(error) = begin(engine).await {
        tracing::error!(error = error.chain(), "the ledger does not say where to go on; it is asked again");
        if stop.run_until_cancelled(tokio::time::sleep(LEDGER_RETRY)).await.is_none() {
            return Ok(());
        }
    }
    let mut tasks = JoinSet::new();
    if let Some(events) = events {
        spawn(&mut tasks, "intake", intake::run(Arc::clone(engine), events, stop.clone()));
    }
    spawn(&mut tasks, "scan", scan::run(Arc::clone(engine), stop.clone()));
    if !engine.settings.observe {
        spawn(&mut tasks, "sweep", sweep::run(Arc::clone(engine), stop.clone()));
        for store in engine.stores.keys() {
            spawn(&mut tasks, "probe", probe::run(Arc::clone(engine), store.clone(), stop.clone()));
        }
    }
    spawn(&mut tasks, "hours", hours(Arc::clone(engine), stop.clone()));
    let surveyed = CancellationToken::new();
    spawn(&mut tasks, "survey", adopt::run(Arc::clone(engine), surveyed.clone(), stop.clone()));
    spawn(&mut tasks, "dispatch", dispatch(Arc::clone(engine), surveyed, stop.clone()));
    // A task ends only when told to. One that ends otherwise takes the daemon with it, rather than dying silently.
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a task broke down; stopping");
        }
        stop.cancel();
    }
    Ok(())
}

async fn begin(engine: &Engine) -> Result<()> {
    engine.recall().await?;
    survey::tell(engine).await
}

fn spawn(tasks: &mut JoinSet<()>, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
    tasks.spawn(task.instrument(tracing::info_span!("task", name)));
}

/// Marks what waits for a store's hours whenever the limits have changed.
async fn hours(engine: Arc<Engine>, stop: CancellationToken) {
    let mut limits = engine.limits.subscribe();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            changed = limits.changed() => if changed.is_err() { return },
        }
        if let Err(error) = scan::mark_waiting(&engine, Reason::OutsideHours).await {
            tracing::error!(error = error.chain(), "what waits for other hours goes on waiting until its next look");
        }
    }
}

async fn dispatch(engine: Arc<Engine>, surveyed: CancellationToken, stop: CancellationToken) {
    adopt::before_the_first_copy(&engine, &surveyed, &stop).await;
    let mut running: JoinSet<()> = JoinSet::new();
    let mut wall = Wall::new(engine.clock.now());
    // At the start, what was noted under a clock that was ahead is known by waiting for longer than anything may.
    let mut retry = Some(Some(engine.settings.policy.backoff.max));
    while !stop.is_cancelled() {
        if wall.was_set_back(engine.clock.now()) {
            retry = Some(None);
        }
        if let Some(may_wait) = retry
            && set_back::retry(&engine, may_wait).await.is_ok()
        {
            retry = None;
        }
        let wait = match start_due(&engine, &stop, &mut running).await {
            Ok(wait) => {
                engine.meter.beat("dispatch", engine.clock.now());
                wait
            }
            Err(error) => {
                tracing::error!(error = error.chain(), "the ledger does not say what is due");
                LEDGER_RETRY
            }
        };
        // Whatever it is, the loop begins anew; turns that have ended are first, as they make room for others.
        tokio::select! {
            biased;
            Some(ended) = running.join_next() => finished(ended),
            () = engine.wake.notified() => {}
            () = tokio::time::sleep(wait) => {}
            () = stop.cancelled() => {}
        }
    }
    while let Some(ended) = running.join_next().await {
        finished(ended);
    }
}

/// Starts the turns that are due, and says how long there is nothing more to start.
async fn start_due(engine: &Arc<Engine>, stop: &CancellationToken, running: &mut JoinSet<()>) -> Result<Duration> {
    let room = TURNS.saturating_sub(running.len());
    if room == 0 {
        // What is due waits for a turn to end, not for the time to pass.
        return Ok(NAP);
    }
    let now = engine.clock.now();
    let mut marks = engine.ledger.marks(now, room + 1, &engine.turns.images()).await?;
    let due = marks.partition_point(|mark| mark.due <= now).min(room);
    let next = marks.split_off(due).into_iter().next();
    for due in marks {
        start(engine, stop, running, due);
    }
    let wait = next.map_or(NAP, |next| next.due.duration_since(now).try_into().unwrap_or_default());
    Ok(if running.len() >= TURNS { NAP } else { wait.min(NAP) })
}

fn start(engine: &Arc<Engine>, stop: &CancellationToken, running: &mut JoinSet<()>, due: Due) {
    // Another may have taken the image since it was asked for what is due.
    let Some(held) = Held::take(engine, &due.image) else { return };
    let (image, turn) = (due.image.clone(), held.turn(due, stop.clone()));
    let engine = Arc::clone(engine);
    running.spawn(async move {
        let _held = held;
        let ended = AssertUnwindSafe(reconcile::run(Arc::clone(&engine), turn)).catch_unwind().await;
        if let Ok(settled) = &ended {
            engine.health.wrote_down(settled);
        }
        engine.meter.turned(matches!(ended, Ok(Ok(()))));
        let error = match ended {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.chain(),
            Err(_) => "it panicked".to_owned(),
        };
        // The mark is still due, so the image gets another turn; but not at once and for ever.
        tracing::error!(%image, error, "a turn broke down");
        tokio::time::sleep(BROKEN_TURN_RETRY).await;
    });
}

fn finished(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        // Its mark was not settled, so the image gets another turn.
        tracing::error!(%error, "an image's turn broke down");
    }
}
