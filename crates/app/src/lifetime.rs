//! How the process ends: signals, and a stop that explains itself when it takes too long.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Context;
use axum::Router;
use futures::future::select_all;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// How long everything together may take to end after the first signal.
const GRACE: Duration = Duration::from_secs(10);

/// The shell's own code for a process that ended by SIGINT.
const INTERRUPTED: i32 = 130;

/// Ends a process in the background as well as in a terminal.
pub(crate) const END: [SignalKind; 2] = [SignalKind::interrupt(), SignalKind::terminate()];

/// Also when the terminal is closed: for what only a terminal starts.
pub(crate) const END_OR_HANGUP: [SignalKind; 3] =
    [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];

/// A token that is cancelled by the first of these signals. A second one ends the process at once.
pub(crate) fn stop_on(signals: &[SignalKind], tasks: &mut Tasks) -> anyhow::Result<CancellationToken> {
    let mut signals = signals.iter().map(|kind| listen(*kind)).collect::<anyhow::Result<Vec<_>>>()?;
    let stop = CancellationToken::new();
    let cancelled = stop.clone();
    tasks.watch(async move {
        for second in [false, true] {
            select_all(signals.iter_mut().map(|signal| Box::pin(signal.recv()))).await;
            if second {
                std::process::exit(INTERRUPTED);
            }
            tracing::info!("stopping; a second signal stops at once");
            cancelled.cancel();
            mimeo_crash::point("serve-stops");
        }
    });
    Ok(stop)
}

/// From now on SIGHUP does not end the process, but is told by this.
pub(crate) fn hangups() -> anyhow::Result<Signal> {
    listen(SignalKind::hangup())
}

fn listen(kind: SignalKind) -> anyhow::Result<Signal> {
    signal(kind).with_context(|| format!("cannot listen for signal {}", kind.as_raw_value()))
}

/// Beside those of the gateway's clients: stores, glance-api, the ledger.
const OTHER_FILES: u64 = 1024;

/// Asks the system for as many open files as so many clients may need: each has a connection, and one to glance-api.
pub(crate) fn allow_open_files(clients: usize) {
    let needed = 2 * clients as u64 + OTHER_FILES;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return;
    }
    let allowed = limit.maximum.map_or(needed, |most| most.min(needed));
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(allowed), ..limit });
    if raised.is_err() || allowed < needed {
        tracing::warn!(
            allowed,
            needed,
            "fewer files may be open than [gateway] connections needs: raise the limit (systemd's LimitNOFILE), or lower \
             `connections`"
        );
    }
}

/// How long requests under way may go on once a server was told to stop.
const REQUESTS_GRACE: Duration = Duration::from_secs(2);

/// Serves `router` until `stop` is cancelled; then takes nothing new and gives requests under way a little time.
pub(crate) async fn serve_until(listener: TcpListener, router: Router, stop: CancellationToken) -> anyhow::Result<()> {
    let serving = axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
    let overdue = async {
        stop.cancelled().await;
        tokio::time::sleep(REQUESTS_GRACE).await;
    };
    tokio::select! {
        ended = serving.into_future() => Ok(ended?),
        () = overdue => Ok(()),
    }
}

/// The long-lived tasks of a command, each with a name. The end of any of them is the end of all.
#[derive(Default)]
pub(crate) struct Tasks {
    running: JoinSet<(&'static str, anyhow::Result<()>)>,
    names: BTreeSet<&'static str>,
    /// Beyond [`GRACE`].
    allowance: Duration,
    /// Ended with the process, waited for by nobody.
    watchers: JoinSet<()>,
}

impl Tasks {
    pub(crate) fn start(
        &mut self,
        name: &'static str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        self.names.insert(name);
        self.running.spawn(async move { (name, task.await) });
    }

    /// Starts what goes on for as long as the process does, and is not waited for.
    pub(crate) fn watch(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.watchers.spawn(task);
    }

    /// Gives them so much more time to end: what is under way may be large.
    pub(crate) fn allow(&mut self, more: Duration) {
        self.allowance = more;
    }

    /// Waits until a task ends or `stop` is cancelled; then gives all of them [`GRACE`] to end. Gives the first
    /// failure, also that of a task that did not end in time.
    pub(crate) async fn finish(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut outcome = tokio::select! {
            () = stop.cancelled() => Ok(()),
            ended = self.running.join_next() => self.ended(ended),
        };
        stop.cancel();
        let limit = GRACE + self.allowance;
        let grace = tokio::time::sleep(limit);
        tokio::pin!(grace);
        while !self.running.is_empty() {
            tokio::select! {
                ended = self.running.join_next() => outcome = outcome.and(self.ended(ended)),
                () = &mut grace => {
                    let held = self.names.iter().copied().collect::<Vec<_>>().join(", ");
                    return outcome.and(Err(anyhow::anyhow!("did not stop within {limit:?}: {held}")));
                }
            }
        }
        outcome
    }

    fn ended(
        &mut self,
        ended: Option<Result<(&'static str, anyhow::Result<()>), tokio::task::JoinError>>,
    ) -> anyhow::Result<()> {
        let Some(ended) = ended else { return Ok(()) };
        let (name, outcome) = ended.context("a task broke off")?;
        self.names.remove(name);
        outcome.with_context(|| format!("{name} ended"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_fails_stops_the_others() {
        let mut tasks = Tasks::default();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tasks.start("patient", async move {
            stopped.cancelled().await;
            Ok(())
        });
        tasks.start("broken", async { Err(anyhow::anyhow!("no port")) });
        let error = tasks.finish(stop).await.unwrap_err();
        assert_eq!(format!("{error:#}"), "broken ended: no port");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_end_is_named() {
        let mut tasks = Tasks::default();
        tasks.start("stuck", std::future::pending());
        let stop = CancellationToken::new();
        stop.cancel();
        let error = tasks.finish(stop).await.unwrap_err();
        assert!(error.to_string().ends_with(": stuck"), "{error}");
    }
}
