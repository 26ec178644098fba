//! Takes connections: so many at a time, by TLS where that is wanted, and with limits for how long a request may take to
//! come.

use std::{net::SocketAddr, sync::Arc, time::Duration};

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
use tokio_util::sync::CancellationToken;

use crate::tls::Tls;

/// Connections at a time. Further ones wait at the system's door.
const CONNECTIONS: usize = 512;
/// How long a client may take to send the head of a request, or stay without one.
const HEAD: Duration = Duration::from_secs(30);
/// How long a client may take over the body of a request; all of them are small.
const BODY: Duration = Duration::from_secs(15);
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
    let places = Arc::new(Semaphore::new(CONNECTIONS));
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
        let (tls, router, watcher) = (tls.clone(), router.clone(), connections.watcher());
        tasks.spawn(async move {
            connection(stream, peer, tls, router, watcher).await;
            drop(place);
        });
    }
    drop(listener);
    // What does not end in time ends with the process.
    let _ = tokio::time::timeout(REQUESTS_GRACE, connections.shutdown()).await;
    Ok(())
}

async fn connection(stream: TcpStream, peer: SocketAddr, tls: Option<Arc<Tls>>, router: Router, watcher: Watcher) {
    // Small answers are not to wait for more.
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else { return requests(stream, router, watcher).await };
    match tokio::time::timeout(HEAD, tls.current().accept(stream)).await {
        Ok(Ok(stream)) => requests(stream, router, watcher).await,
        Ok(Err(error)) => tracing::debug!(%peer, %error, "no TLS with this client"),
        Err(_) => {}
    }
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

    use super::*;

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
