//! The glance-api servers behind the gateway: which of them answer, and which one gets a request.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use futures::future::join_all;
use http_body_util::{BodyExt, Empty, combinators::UnsyncBoxBody};
use hyper::{
    Request, Response, StatusCode, Uri, Version,
    body::{Body, Frame, Incoming, SizeHint},
    http::{request::Parts, uri::PathAndQuery},
};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use tokio::net::TcpStream;
use tower::{ServiceExt, util::MapResponse};
use url::Url;

use super::{BUFFER, hearing::Hearing};

pub(super) type AnyBody = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

const CONNECT: Duration = Duration::from_secs(5);
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How often each is asked whether it is well, and how long it has to say so.
const BEAT: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(3);
/// As often it may say nothing before it counts as gone.
const SILENCES: usize = 3;
/// Shorter than the time after which common servers close an idle connection.
const IDLE: Duration = Duration::from_secs(4);

type Transport = MaybeHttpsStream<TokioIo<TcpStream>>;
type Connector = MapResponse<HttpsConnector<HttpConnector>, fn(Transport) -> Hearing<Transport>>;

pub(super) struct Upstreams {
    all: Vec<Upstream>,
    client: Client<Connector, Held>,
    next: AtomicUsize,
}

struct Upstream {
    /// Without the slash at its end.
    base: String,
    is_well: AtomicBool,
    /// How often in a row it said nothing in time: one that is busy with uploads is not gone, and has what was staged there.
    silences: AtomicUsize,
}

/// It could not be connected to, and has taken nothing.
struct Unreached;

impl Upstream {
    /// `None`: it said nothing in time.
    fn beat(&self, is_well: Option<bool>) {
        let silences = if is_well.is_none() { self.silences.load(Ordering::Relaxed) + 1 } else { 0 };
        self.silences.store(silences, Ordering::Relaxed);
        let Some(is_well) = is_well.or((silences >= SILENCES).then_some(false)) else { return };
        if self.is_well.swap(is_well, Ordering::Relaxed) != is_well {
            tracing::info!(upstream = self.base, is_well, "this glance-api changed");
        }
    }

    fn uri(&self, target: Option<&PathAndQuery>) -> Option<Uri> {
        format!("{}{}", self.base, target.map_or("/", PathAndQuery::as_str)).parse().ok()
    }
}

impl Upstreams {
    pub(super) fn new(urls: &[Url]) -> anyhow::Result<Self> {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT));
        connector.set_nodelay(true);
        // One that is gone without a word is noticed also where it has the whole request.
        connector.set_keepalive(Some(KEEPALIVE));
        connector.set_keepalive_interval(Some(KEEPALIVE));
        connector.enforce_http(false);
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_native_roots()
            .context("the system's certificates cannot be read")?
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector)
            .map_response(Hearing::new as fn(_) -> _);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .http1_preserve_header_case(true)
            .http1_max_buf_size(BUFFER)
            .build(connector);
        let upstream = |url: &Url| {
            let base = url.as_str().trim_end_matches('/').to_owned();
            Upstream { base, is_well: AtomicBool::new(true), silences: AtomicUsize::new(0) }
        };
        Ok(Self { all: urls.iter().map(upstream).collect(), client, next: AtomicUsize::new(0) })
    }

    /// Sends the request to the one that `image` leads to, or to the next in turn; to another one if that cannot be
    /// connected to. What was sent is not sent again: it may have been done. `None`: there is no answer.
    pub(super) async fn send(&self, request: Request<AnyBody>, image: Option<&str>) -> Option<Response<Incoming>> {
        let (parts, body) = request.into_parts();
        let held = Held::new(body);
        let order = self.in_order(image);
        let (last, others) = order.split_last()?;
        for upstream in others {
            if let Ok(ended) = self.ask(upstream, parts.clone(), held.clone()).await {
                return ended;
            }
        }
        self.ask(last, parts, held).await.ok().flatten()
    }

    /// `None`: it took the request, and gave no answer.
    async fn ask(
        &self,
        upstream: &Upstream,
        mut parts: Parts,
        body: Held,
    ) -> Result<Option<Response<Incoming>>, Unreached> {
        let Some(uri) = upstream.uri(parts.uri.path_and_query()) else { return Ok(None) };
        parts.uri = uri;
        parts.version = Version::HTTP_11;
        let error = match self.client.request(Request::from_parts(parts, body)).await {
            Ok(response) => return Ok(Some(response)),
            Err(error) => error,
        };
        let is_unreached = error.is_connect();
        let error = format!("{:#}", anyhow::Error::new(error));
        tracing::warn!(upstream = upstream.base, error, "this glance-api did not answer");
        if !is_unreached {
            return Ok(None);
        }
        upstream.is_well.store(false, Ordering::Relaxed);
        Err(Unreached)
    }

    /// All of them, those that are well first.
    fn in_order(&self, image: Option<&str>) -> Vec<&Upstream> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let rank = |(at, upstream): &(usize, &Upstream)| {
            let rank = match image {
                Some(image) => {
                    let mut hasher = DefaultHasher::new();
                    (image, &upstream.base).hash(&mut hasher);
                    hasher.finish()
                }
                None => (at.wrapping_add(turn) % self.all.len()) as u64,
            };
            (!upstream.is_well.load(Ordering::Relaxed), rank)
        };
        let mut order: Vec<(usize, &Upstream)> = self.all.iter().enumerate().collect();
        order.sort_by_key(rank);
        order.into_iter().map(|(_, upstream)| upstream).collect()
    }

    /// Asks each of them, on and on.
    pub(super) async fn watch(&self) {
        loop {
            join_all(self.all.iter().map(|upstream| self.look(upstream))).await;
            tokio::time::sleep(BEAT).await;
        }
    }

    async fn look(&self, upstream: &Upstream) {
        let Some(uri) = upstream.uri(Some(&PathAndQuery::from_static("/healthcheck"))) else { return };
        let mut request = Request::new(Held::new(Empty::new().map_err(|never| match never {}).boxed_unsync()));
        *request.uri_mut() = uri;
        let answer = tokio::time::timeout(PATIENCE, self.client.request(request)).await;
        // Without the middleware for this path any answer will do; with it, 503 says that it is being taken out.
        let is_answer = |answer: Result<Response<Incoming>, _>| {
            answer.is_ok_and(|answer| answer.status() != StatusCode::SERVICE_UNAVAILABLE)
        };
        upstream.beat(answer.ok().map(is_answer));
    }
}

/// A body that the next server gets where the one before could not be connected to, and so has taken nothing of it.
#[derive(Clone)]
struct Held {
    body: Arc<Mutex<AnyBody>>,
    hint: SizeHint,
    is_empty: bool,
}

impl Held {
    fn new(body: AnyBody) -> Self {
        let (hint, is_empty) = (body.size_hint(), body.is_end_stream());
        Self { body: Arc::new(Mutex::new(body)), hint, is_empty }
    }
}

impl Body for Held {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let mut body = self.body.lock().unwrap_or_else(PoisonError::into_inner);
        Pin::new(&mut *body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.is_empty
    }

    fn size_hint(&self) -> SizeHint {
        self.hint
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::disallowed_methods)]
mod tests {
    use std::io::{Read as _, Write as _};

    use hyper::Method;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        sync::mpsc,
    };

    use super::*;

    /// A server that tells of each request that it gets, and then gives this answer and closes the connection.
    async fn server(answer: &'static str) -> (Url, mpsc::UnboundedReceiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let (tell, told) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = [0; 4096];
                let length = stream.read(&mut head).await.unwrap();
                let _ = tell.send(String::from_utf8_lossy(&head[..length]).lines().next().unwrap_or("").to_owned());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        (url, told)
    }

    #[test]
    fn one_that_is_slow_to_answer_is_not_gone_before_it_was_so_again_and_again() {
        let upstreams = Upstreams::new(&["http://127.0.0.1:9/".parse().unwrap()]).unwrap();
        let upstream = &upstreams.all[0];
        let after = |beats: &[Option<bool>]| {
            for beat in beats {
                upstream.beat(*beat);
            }
            upstream.is_well.load(Ordering::Relaxed)
        };
        assert!(after(&[None, None, Some(true), None, None]), "busy");
        assert!(!after(&[None]), "for long");
        assert!(after(&[Some(true)]) && !after(&[Some(false)]), "what it says counts at once");
    }

    /// Where nobody listens.
    async fn nowhere() -> Url {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}", listener.local_addr().unwrap()).parse().unwrap()
    }

    fn request(method: Method) -> Request<AnyBody> {
        let mut request = Request::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
        (*request.method_mut(), *request.uri_mut()) = (method, "/v2/images".parse().unwrap());
        request
    }

    const OK: &str = "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";

    #[tokio::test]
    async fn what_was_sent_is_not_sent_again_to_another() {
        for method in [Method::DELETE, Method::POST, Method::GET] {
            let ((breaks, mut first), (other, mut second)) = (server("").await, server(OK).await);
            let upstreams = Upstreams::new(&[breaks, other]).unwrap();
            assert!(upstreams.send(request(method.clone()), None).await.is_none());
            assert_eq!(first.recv().await.unwrap(), format!("{method} /v2/images HTTP/1.1"));
            assert!(second.try_recv().is_err());
            assert!(upstreams.all[0].is_well.load(Ordering::Relaxed), "it can be connected to");
        }
    }

    /// A server that reads a part of an upload, says this, and closes with what is still on its way to it unread, as uwsgi
    /// does. In a thread of its own, so that it hangs up while it is written to.
    fn one_that_hangs_up(says: &'static str) -> Url {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        std::thread::spawn(move || {
            for (read, stream) in (1..).step_by(10_000).zip(listener.incoming()) {
                let mut stream = stream.unwrap();
                stream.read_exact(&mut vec![0; read]).unwrap();
                stream.write_all(says.as_bytes()).unwrap();
            }
        });
        url
    }

    /// An upload without an end; the receiver ends when nobody wants more of it.
    fn endless_upload() -> (Request<AnyBody>, mpsc::Receiver<()>) {
        let (wanted, is_given_up) = mpsc::channel(1);
        let piece = Bytes::from(vec![0; 64 << 10]);
        let endless = futures::stream::repeat_with(move || {
            let _ = &wanted;
            Ok(Frame::data(piece.clone()))
        });
        let mut request = request(Method::PUT);
        *request.body_mut() = http_body_util::StreamBody::new(endless).boxed_unsync();
        (request, is_given_up)
    }

    #[tokio::test]
    async fn what_it_says_before_it_hangs_up_on_an_upload_is_heard() {
        let refuses = "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n";
        let upstreams = Upstreams::new(&[one_that_hangs_up(refuses)]).unwrap();
        for _ in 0..200 {
            let (request, mut is_given_up) = endless_upload();
            let answer = upstreams.send(request, None).await.expect("its answer");
            assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
            assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "no\n");
            assert_eq!(is_given_up.recv().await, None);
        }
    }

    #[tokio::test]
    async fn an_upload_is_given_up_whatever_was_said_before_the_end() {
        let nothing = "";
        let half = "HTTP/1.1 413 Too Large\r\nContent-Length: 100\r\n\r\nno\n";
        let more = "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nno\nHTTP/1.1 400 Bad Request\r\n\r\n";
        for says in [nothing, half, more] {
            let upstreams = Upstreams::new(&[one_that_hangs_up(says)]).unwrap();
            let uploads = (0..10).map(async |_| {
                let (request, mut is_given_up) = endless_upload();
                let answer = upstreams.send(request, None).await;
                assert_eq!(answer.is_none(), says.is_empty());
                if let Some(answer) = answer {
                    assert_eq!(answer.into_body().collect().await.is_ok(), says == more);
                }
                let ended = tokio::time::timeout(Duration::from_secs(30), is_given_up.recv()).await;
                assert_eq!(ended, Ok(None), "after {says:?}");
            });
            join_all(uploads).await;
        }
    }

    /// It may be said, and not be read.
    #[tokio::test]
    async fn an_upload_is_given_up_with_its_answer() {
        let large = "HTTP/1.1 413 Too Large\r\nContent-Length: 1000000\r\n\r\nno\n";
        let upstreams = Upstreams::new(&[one_that_hangs_up(large)]).unwrap();
        let (request, mut is_given_up) = endless_upload();
        drop(upstreams.send(request, None).await.expect("its answer"));
        let ended = tokio::time::timeout(Duration::from_secs(30), is_given_up.recv()).await;
        assert_eq!(ended, Ok(None));
    }

    #[tokio::test]
    async fn one_that_cannot_be_connected_to_hands_on_and_is_asked_last() {
        let (url, mut told) = server(OK).await;
        let upstreams = Upstreams::new(&[nowhere().await, url]).unwrap();
        let answer = upstreams.send(request(Method::DELETE), None).await.unwrap();
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
        assert_eq!(told.recv().await.unwrap(), "DELETE /v2/images HTTP/1.1");
        assert!(!upstreams.all[0].is_well.load(Ordering::Relaxed));
        assert_eq!(upstreams.in_order(None)[0].base, upstreams.all[1].base);
    }

    #[tokio::test]
    async fn one_that_was_not_well_is_no_better_for_breaking_off() {
        let upstreams = Upstreams::new(&[server("").await.0]).unwrap();
        upstreams.all[0].is_well.store(false, Ordering::Relaxed);
        assert!(upstreams.send(request(Method::GET), None).await.is_none());
        assert!(!upstreams.all[0].is_well.load(Ordering::Relaxed));
    }
}
