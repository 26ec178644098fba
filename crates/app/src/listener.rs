//! Takes connections: so many at a time, by TLS where that is wanted, and with a limit for how long a request's head may take.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
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
};
use tokio_util::sync::CancellationToken;

use crate::tls::Tls;

/// Connections at a time. Further ones wait at the system's door.
const CONNECTIONS: usize = 512;
/// How long a client may take to send the head of a request, or stay without one.
const HEAD: Duration = Duration::from_secs(30);
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
