//! Takes connections: so many at a time, by TLS where that is wanted, and with limits for how long a request may take to
//! come.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{Router, body::Body, extract::Request, middleware};
use futures::{StreamExt, stream};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, timeout_at},
};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;

use crate::tls::Tls;

/// Connections at a time. Further ones wait at the system's door.
const CONNECTIONS: usize = 512;
/// One address has so many of them at most; what it opens beyond is closed.
const OF_ONE: usize = CONNECTIONS / 2;
/// How long a client may take to send the head of a request, or stay without one.
const HEAD: Duration = Duration::from_secs(30);
/// How long a client may take over the body of a request; all of them are small.
const BODY: Duration = Duration::from_secs(15);
/// How long a client may take nothing of what it asked for. The system tells of room only when a third of what it buffers
/// has gone: from one that takes 10 kB/s that can be minutes.
const STALL: Duration = Duration::from_mins(5);
/// A listener that fails, for want of file descriptors say, is asked again after this.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// How long requests under way may go on once it was told to stop.
const REQUESTS_GRACE: Duration = Duration::from_secs(2);

/// Serves `router` until `stop`; then takes nothing new and gives requests under way a little time.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    router: Router,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let router = router.layer(middleware::map_request(async |request: Request| request.map(in_time)));
    let (places, peers) = (Arc::new(Semaphore::new(CONNECTIONS)), Peers::default());
    let (connections, mut tasks) = (GracefulShutdown::new(), JoinSet::new());
    loop {
        let place = Arc::clone(&places).acquire_owned();
        let accepted = tokio::select! {
            accepted = async { (place.await, listener.accept().await) } => accepted,
            Some(_) = tasks.join_next() => continue,
            () = stop.cancelled() => break,
        };
        let (place, (stream, peer)) = match accepted {
            (place, Ok(accepted)) => (place, accepted),
            (_, Err(error)) => {
                tracing::warn!(%error, "the API cannot take a connection");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let Some(admitted) = peers.admit(peer.ip()) else { continue };
        let (tls, router, watcher) = (tls.clone(), router.clone(), connections.watcher());
        tasks.spawn(async move {
            connection(stream, peer, tls, router, watcher).await;
            drop((place, admitted));
        });
    }
    drop(listener);
    // What does not end in time ends with the process.
    let _ = tokio::time::timeout(REQUESTS_GRACE, connections.shutdown()).await;
    Ok(())
}

/// How many connections each address has.
#[derive(Clone, Default)]
struct Peers(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One connection of an address, until this is dropped.
struct Admitted(Peers, IpAddr);

impl Peers {
    /// `None`: it has as many as it may.
    fn admit(&self, peer: IpAddr) -> Option<Admitted> {
        let mut counts = self.lock();
        let count = counts.entry(peer).or_default();
        (*count < OF_ONE).then(|| {
            *count += 1;
            Admitted(self.clone(), peer)
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let Self(peers, peer) = self;
        let mut counts = peers.lock();
        if let Some(count) = counts.get_mut(peer) {
            *count -= 1;
            if *count == 0 {
                counts.remove(peer);
            }
        }
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, tls: Option<Arc<Tls>>, router: Router, watcher: Watcher) {
    // Small answers are not to wait for more.
    let _ = stream.set_nodelay(true);
    let stream = while_taken(stream, STALL);
    let Some(tls) = tls else { return requests(stream, router, watcher).await };
    match tokio::time::timeout(HEAD, tls.current().accept(stream)).await {
        Ok(Ok(stream)) => requests(stream, router, watcher).await,
        Ok(Err(error)) => tracing::debug!(%peer, %error, "no TLS with this client"),
        Err(_) => {}
    }
}

/// The connection, which breaks where the other side takes nothing for so long.
pub(crate) fn while_taken<S: AsyncRead + AsyncWrite>(stream: S, patience: Duration) -> Pin<Box<TimeoutStream<S>>> {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(patience));
    Box::pin(stream)
}

async fn requests(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router, watcher: Watcher) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "a connection broke off");
    }
}

/// The body, with an error where it has not come in time.
fn in_time(body: Body) -> Body {
    let deadline = Instant::now() + BODY;
    let pieces = stream::unfold(Some(body.into_data_stream()), move |rest| async move {
        let mut rest = rest?;
        match timeout_at(deadline, rest.next()).await {
            Ok(piece) => Some((piece?, Some(rest))),
            Err(late) => Some((Err(axum::Error::new(late)), None)),
        }
    });
    Body::from_stream(pieces)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use axum::body::to_bytes;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn one_address_alone_does_not_keep_out_the_others() {
        let (peers, one, other) = (Peers::default(), IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let mut all: Vec<Admitted> = (0..OF_ONE).map(|_| peers.admit(one).unwrap()).collect();
        assert!(peers.admit(one).is_none() && peers.admit(other).is_some());
        all.pop();
        assert!(peers.admit(one).is_some(), "when one has ended");
        all.clear();
        assert!(peers.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_not_waited_for_and_who_is_slow_is() {
        let (ours, mut theirs) = tokio::io::duplex(10);
        let mut ours = while_taken(ours, STALL);
        let reading = async {
            for _ in 0..10 {
                tokio::time::sleep(STALL / 2).await;
                theirs.read_exact(&mut [0; 2]).await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(ours.write_all(&[1; 30]), reading);
        written.unwrap();
        let began = Instant::now();
        let error = ours.write_all(&[1; 30]).await.unwrap_err();
        assert!(error.kind() == std::io::ErrorKind::TimedOut && began.elapsed() == STALL, "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_comes_a_byte_at_a_time_is_not_waited_for() {
        let slowly = |count| {
            let bytes = stream::iter(0..count).then(async |_| {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Ok::<_, std::io::Error>("a")
            });
            to_bytes(in_time(Body::from_stream(bytes)), 1000)
        };
        assert_eq!(slowly(5).await.unwrap().len(), 5);
        let began = Instant::now();
        assert!(slowly(1000).await.is_err() && began.elapsed() == BODY);
    }
}
