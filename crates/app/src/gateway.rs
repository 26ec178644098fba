//! The gateway: a reverse proxy in front of glance-api that copies uploads to the stores as they pass.
//!
//! Everything else goes through unchanged, both ways, streamed. Nothing here decides which stores an image goes to, or
//! when an object may be registered: that is the engine's.

mod download;
mod forward;
mod headers;
mod hearing;
mod target;
mod upload;
mod upstream;

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{CONNECTION, HeaderValue, RETRY_AFTER},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
};
use mimeo_engine::Engine;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    headers::Client,
    upstream::{AnyBody, Upstreams},
};
use crate::{config::GatewaySettings, listener::while_taken, tls::Tls};

/// How long a client may take to send the head of a request, or stay without one.
const HEAD: Duration = Duration::from_mins(1);
/// How long a client may take nothing of what it asked for, as in glance-api.
const STALL: Duration = Duration::from_mins(15);
/// One that is only to be told that there are too many has less, and at most so many are told at a time: the others are
/// closed without a word.
const REFUSED_HEAD: Duration = Duration::from_secs(5);
const REFUSED: usize = 128;
/// What of a body is held at a time.
const BUFFER: usize = 64 << 10;
const MAX_HEADERS: usize = 200;
/// A listener that fails, for want of file descriptors say, is asked again after this.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

pub(crate) struct Gateway {
    engine: Arc<Engine>,
    settings: GatewaySettings,
    upstreams: Upstreams,
    tls: Option<Arc<Tls>>,
    /// Places for connections that are served, and for those that are refused.
    served: Arc<Semaphore>,
    refused: Arc<Semaphore>,
    stopping: CancellationToken,
    /// Copies of uploads, which outlive the answer to the client.
    copies: TaskTracker,
}

impl Gateway {
    pub(crate) fn new(
        engine: Arc<Engine>,
        settings: GatewaySettings,
        tls: Option<Arc<Tls>>,
    ) -> anyhow::Result<Arc<Self>> {
        let upstreams = Upstreams::new(&settings.upstream)?;
        let served = Arc::new(Semaphore::new(settings.connections.get()));
        let refused = Arc::new(Semaphore::new(REFUSED));
        let (stopping, copies) = (CancellationToken::new(), TaskTracker::new());
        Ok(Arc::new(Self { engine, settings, upstreams, tls, served, refused, stopping, copies }))
    }

    /// Serves until `stop`; then takes no new requests, and gives those that run, and their copies, time to end.
    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) -> anyhow::Result<()> {
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
            let (is_served, place) = match Arc::clone(&self.served).try_acquire_owned() {
                Ok(place) => (true, place),
                Err(_) => match Arc::clone(&self.refused).try_acquire_owned() {
                    Ok(place) => (false, place),
                    Err(_) => continue,
                },
            };
            let (gateway, watcher) = (Arc::clone(&self), connections.watcher());
            tasks.spawn(async move {
                gateway.connection(stream, peer, is_served, watcher).await;
                drop(place);
            });
        }
        drop(listener);
        self.stopping.cancel();
        let ended = async {
            connections.shutdown().await;
            // None begins any more.
            self.copies.close();
            self.copies.wait().await;
        };
        if tokio::time::timeout(self.settings.stop_timeout, ended).await.is_err() {
            tracing::warn!("uploads were still running: they are cut off");
        }
        Ok(())
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, is_served: bool, watcher: Watcher) {
        // Small answers are not to wait for more.
        let _ = stream.set_nodelay(true);
        // One that says nothing yet takes 2 KiB, and not the buffers of a request: there may be thousands.
        let mut first = [0];
        let said = tokio::time::timeout(patience(is_served), stream.peek(&mut first));
        if let Some(Ok(Ok(1))) = self.stopping.run_until_cancelled(said).await {
            Box::pin(self.begun(stream, peer, is_served, watcher)).await;
        }
    }

    async fn begun(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, is_served: bool, watcher: Watcher) {
        let stream = while_taken(stream, STALL);
        let Some(tls) = &self.tls else {
            return self.requests(stream, Client { peer, scheme: "http" }, is_served, watcher).await;
        };
        let shaken = tokio::time::timeout(patience(is_served), tls.current().accept(stream));
        match self.stopping.run_until_cancelled(shaken).await {
            Some(Ok(Ok(stream))) => {
                self.requests(stream, Client { peer, scheme: "https" }, is_served, watcher).await;
            }
            Some(Ok(Err(error))) => tracing::debug!(%peer, %error, "no TLS with this client"),
            Some(Err(_)) | None => {}
        }
    }

    async fn requests(
        self: Arc<Self>,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        client: Client,
        is_served: bool,
        watcher: Watcher,
    ) {
        let has_begun = Arc::new(AtomicBool::new(false));
        let (begun, gateway) = (Arc::clone(&has_begun), Arc::clone(&self));
        let service = service_fn(move |request: Request<Incoming>| {
            begun.store(true, Ordering::Relaxed);
            let gateway = Arc::clone(&gateway);
            // On the heap, so that a connection without a request is small.
            Box::pin(async move {
                Ok::<_, Infallible>(match is_served {
                    true => gateway.answer(request, client).await,
                    false => too_many(),
                })
            })
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(patience(is_served))
            .max_buf_size(BUFFER)
            .max_headers(MAX_HEADERS)
            .preserve_header_case(true)
            .auto_date_header(false)
            .serve_connection(TokioIo::new(stream), service);
        // One that sent no more than a part of its first request's head is not waited for at the end.
        let is_left = async {
            self.stopping.cancelled().await;
            if has_begun.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            ended = watcher.watch(connection) => if let Err(error) = ended {
                tracing::debug!(%error, "a connection broke off");
            },
            () = is_left => {}
        }
    }
}

fn patience(is_served: bool) -> Duration {
    if is_served { HEAD } else { REFUSED_HEAD }
}

fn too_many() -> Response<AnyBody> {
    let mut answer = forward::say(
        StatusCode::SERVICE_UNAVAILABLE,
        "this gateway has as many connections as it may have ([gateway] connections); try again in a moment",
    );
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}
