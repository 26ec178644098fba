//! The gateway: a reverse proxy in front of glance-api that copies uploads to the stores as they pass.
//!
//! Everything else goes through unchanged, both ways, streamed. Nothing here decides which stores an image goes to, or
//! when an object may be registered: that is the engine's.

mod download;
mod forward;
mod headers;
mod target;
mod upload;
mod upstream;

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
};
use mimeo_engine::Engine;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::upstream::Upstreams;
use crate::{config::GatewaySettings, tls::Tls};

/// How long a client may take to send the head of a request, or stay without one.
const HEAD: Duration = Duration::from_mins(2);
/// What of a body is held at a time.
const BUFFER: usize = 64 << 10;
const MAX_HEADERS: usize = 200;
/// A listener that fails, for want of file descriptors say, is asked again after this.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

pub(crate) struct Gateway {
    engine: Arc<Engine>,
    settings: GatewaySettings,
    upstreams: Upstreams,
    /// Copies of uploads, which outlive the answer to the client.
    copies: TaskTracker,
}

impl Gateway {
    pub(crate) fn new(engine: Arc<Engine>, settings: GatewaySettings) -> anyhow::Result<Arc<Self>> {
        let upstreams = Upstreams::new(&settings.upstream)?;
        Ok(Arc::new(Self { engine, settings, upstreams, copies: TaskTracker::new() }))
    }

    /// Serves until `stop`; then takes no new requests, and gives those that run, and their copies, time to end.
    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) -> anyhow::Result<()> {
        let tls = self.settings.tls.as_ref().map(Tls::new).transpose()?.map(Arc::new);
        let (connections, mut tasks) = (GracefulShutdown::new(), JoinSet::new());
        let gateway = Arc::clone(&self);
        tasks.spawn(async move { gateway.upstreams.watch().await });
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = tasks.join_next() => continue,
                () = stop.cancelled() => break,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "the gateway cannot take a connection");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                    continue;
                }
            };
            let (gateway, tls, watcher) = (Arc::clone(&self), tls.clone(), connections.watcher());
            tasks.spawn(async move { gateway.connection(stream, peer, tls, watcher).await });
        }
        drop(listener);
        self.copies.close();
        let ended = async { tokio::join!(connections.shutdown(), self.copies.wait()) };
        if tokio::time::timeout(self.settings.stop_timeout, ended).await.is_err() {
            tracing::warn!("uploads were still running: they are cut off");
        }
        Ok(())
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, tls: Option<Arc<Tls>>, watcher: Watcher) {
        // Small answers are not to wait for more.
        let _ = stream.set_nodelay(true);
        match tls {
            None => self.requests(stream, headers::Client { peer, scheme: "http" }, watcher).await,
            Some(tls) => match tokio::time::timeout(HEAD, tls.current().accept(stream)).await {
                Ok(Ok(stream)) => self.requests(stream, headers::Client { peer, scheme: "https" }, watcher).await,
                Ok(Err(error)) => tracing::debug!(%peer, %error, "no TLS with this client"),
                Err(_) => {}
            },
        }
    }

    async fn requests(
        self: Arc<Self>,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        client: headers::Client,
        watcher: Watcher,
    ) {
        let service = service_fn(move |request: Request<Incoming>| {
            let gateway = Arc::clone(&self);
            async move { Ok::<_, Infallible>(gateway.answer(request, client).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_buf_size(BUFFER)
            .max_headers(MAX_HEADERS)
            .preserve_header_case(true)
            .auto_date_header(false)
            .serve_connection(TokioIo::new(stream), service);
        if let Err(error) = watcher.watch(connection).await {
            tracing::debug!(%error, "a connection broke off");
        }
    }
}
