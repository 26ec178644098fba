//! One HTTP request whose body is sent as it is given.

use std::io;

use bytes::Bytes;
use futures::{Stream, stream};
use mimeo_core::{Error, Reason, Result, root_cause};
use reqwest::{Body, RequestBuilder, Response, header};
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
};

/// How many chunks wait between the writer and the connection: one is under way while the next is handed over.
const WAITING: usize = 1;

/// The request runs in a task of its own, so that the connection is served between two writes. The body ends well
/// only when [`Part::End`] comes through: whatever else ends it breaks the connection, and no server takes that for
/// complete. Dropping it breaks it off.
pub(crate) struct Upload {
    /// For messages, as in `http1: PUT http://host/name`.
    what: String,
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

impl Upload {
    /// Sends the request with a body of this size.
    pub(crate) fn start(request: RequestBuilder, what: String, size: Option<u64>) -> Self {
        let (body, parts) = mpsc::channel(WAITING);
        let mut request = request.body(Body::wrap_stream(until_the_end(parts)));
        if let Some(size) = size {
            request = request.header(header::CONTENT_LENGTH, size);
        }
        let mut task = JoinSet::new();
        task.spawn(request.send());
        Self { what, size, written: 0, body, request: task }
    }

    /// Hands over the next bytes; waits while the server cannot take them. An answer: the server wants no more of them,
    /// whatever it says.
    pub(crate) async fn write(&mut self, bytes: Bytes) -> Result<Option<Response>> {
        if bytes.is_empty() {
            return Ok(None);
        }
        self.written += bytes.len() as u64;
        self.check_length(false)?;
        let answer = tokio::select! {
            biased;
            answer = self.request.join_next(), if !self.request.is_empty() => Some(answer),
            place = self.body.reserve() => match place {
                Ok(place) => {
                    place.send(Part::Bytes(bytes));
                    return Ok(None);
                }
                Err(_) => None,
            },
        };
        match answer {
            Some(answer) => self.response(answer),
            None => self.answer().await,
        }
        .map(Some)
    }

    /// Ends the body and waits for the answer.
    pub(crate) async fn finish(mut self) -> Result<Response> {
        self.check_length(true)?;
        // With a known length the connection is done at the last byte and no longer listens: no error.
        let _ = self.body.send(Part::End).await;
        self.answer().await
    }

    async fn answer(&mut self) -> Result<Response> {
        let answer = self.request.join_next().await;
        self.response(answer)
    }

    fn response(&self, answer: Option<Answer>) -> Result<Response> {
        match answer {
            Some(Ok(Ok(response))) => Ok(response),
            Some(Ok(Err(cause))) => Err(unanswered(&self.what, cause)),
            Some(Err(cause)) => Err(self.error("was not finished").caused_by(cause)),
            None => Err(self.error("had ended before")),
        }
    }

    fn error(&self, what: &str) -> Error {
        Error::new(Reason::StoreError, format!("{} {what}", self.what))
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

/// No answer at all to a store's request; `what` as in `http1: PUT http://host/name`.
pub(crate) fn unanswered(what: &str, cause: reqwest::Error) -> Error {
    let (reason, how) = match () {
        () if cause.is_connect() => (Reason::StoreUnreachable, "found no connection"),
        () if cause.is_timeout() => (Reason::StoreUnreachable, "had no answer in time"),
        () => (Reason::StoreError, "broke off"),
    };
    Error::new(reason, format!("{what} {how}: {}", root_cause(&cause.without_url())))
}
