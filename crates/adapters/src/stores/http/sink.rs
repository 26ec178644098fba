use std::io;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{Stream, stream};
use mimeo_core::{
    Error, Reason, Result, StoreName,
    ports::{Receipt, Sink},
};
use reqwest::{Body, Method, RequestBuilder, Response, StatusCode, header};
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
};
use url::Url;

use super::store::{refused, unanswered};

/// How many chunks wait between the writer and the connection: one is under way while the next is handed over.
const WAITING: usize = 1;

/// One PUT while its body is sent.
///
/// The request runs in a task of its own, so that the connection is served between two writes. The body ends well
/// only when [`Part::End`] comes through: whatever else ends it breaks the connection, and no server publishes that.
pub(super) struct HttpSink {
    store: StoreName,
    url: Url,
    size: Option<u64>,
    written: u64,
    body: mpsc::Sender<Part>,
    /// One task; empty once its answer was taken.
    request: JoinSet<reqwest::Result<Response>>,
}

type Answer = std::result::Result<reqwest::Result<Response>, JoinError>;

enum Part {
    Bytes(Bytes),
    End,
}

impl HttpSink {
    /// Sends `put`, which is for this URL, with a body of this size.
    pub(super) fn start(put: RequestBuilder, store: StoreName, url: Url, size: Option<u64>) -> Self {
        let (body, parts) = mpsc::channel(WAITING);
        let mut put = put.body(Body::wrap_stream(until_the_end(parts)));
        if let Some(size) = size {
            put = put.header(header::CONTENT_LENGTH, size);
        }
        let mut request = JoinSet::new();
        request.spawn(put.send());
        Self { store, url, size, written: 0, body, request }
    }

    /// Waits for the server's answer: its status, or why there is none.
    async fn answer(&mut self) -> Result<StatusCode> {
        let answer = self.request.join_next().await;
        self.status(answer)
    }

    fn status(&self, answer: Option<Answer>) -> Result<StatusCode> {
        match answer {
            Some(Ok(Ok(response))) => Ok(response.status()),
            Some(Ok(Err(cause))) => Err(unanswered(&self.store, &Method::PUT, &self.url, cause)),
            Some(Err(cause)) => Err(self.error("was not finished").caused_by(cause)),
            None => Err(self.error("had ended before")),
        }
    }

    /// The server answered while bytes were still to come: no copy, whatever it says.
    fn too_early(&self, answer: Result<StatusCode>) -> Error {
        match answer {
            Ok(status) if is_done(status) => self.error(&format!("answered {status} before it had the whole body")),
            Ok(status) => refused(&self.store, &Method::PUT, &self.url, status),
            Err(error) => error,
        }
    }

    fn error(&self, what: &str) -> Error {
        Error::new(Reason::StoreError, format!("{}: PUT {} {what}", self.store, self.url))
    }

    /// The connection would cut off or wait for what differs from the announced length; this says so instead.
    fn check_length(&self, complete: bool) -> Result<()> {
        let fits = |size| if complete { self.written == size } else { self.written <= size };
        match self.size {
            Some(size) if !fits(size) => {
                Err(self.error(&format!("was given {} bytes where {size} were announced", self.written)))
            }
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Sink for HttpSink {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.written += bytes.len() as u64;
        self.check_length(false)?;
        let answer = tokio::select! {
            biased;
            answer = self.request.join_next(), if !self.request.is_empty() => Some(answer),
            place = self.body.reserve() => match place {
                Ok(place) => {
                    place.send(Part::Bytes(bytes));
                    return Ok(());
                }
                Err(_) => None,
            },
        };
        let answer = match answer {
            Some(answer) => self.status(answer),
            None => self.answer().await,
        };
        Err(self.too_early(answer))
    }

    async fn close(mut self: Box<Self>) -> Result<Receipt> {
        self.check_length(true)?;
        // With a known length the connection is done at the last byte and no longer listens: no error.
        let _ = self.body.send(Part::End).await;
        match self.answer().await? {
            status if is_done(status) => Ok(Receipt::default()),
            status => Err(refused(&self.store, &Method::PUT, &self.url, status)),
        }
    }

    async fn abort(self: Box<Self>) {}
}

/// The body, which fails where its sender is gone without having said that it is complete.
fn until_the_end(parts: mpsc::Receiver<Part>) -> impl Stream<Item = io::Result<Bytes>> + Send {
    stream::unfold(Some(parts), |parts| async {
        let mut parts = parts?;
        match parts.recv().await {
            Some(Part::Bytes(bytes)) => Some((Ok(bytes), Some(parts))),
            Some(Part::End) => None,
            None => Some((Err(io::Error::other("the copy was given up")), None)),
        }
    })
}

pub(super) fn is_done(status: StatusCode) -> bool {
    matches!(status, StatusCode::OK | StatusCode::CREATED | StatusCode::NO_CONTENT)
}
