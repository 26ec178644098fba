//! An upload: to glance-api and to the stores from one stream, and the answer once enough replicas are registered.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, stream};
use http_body_util::BodyExt;
use hyper::{
    Request, Response, StatusCode,
    body::{Body, Frame, Incoming, SizeHint},
    header::{CONTENT_LENGTH, HeaderName, HeaderValue},
};
use mimeo_core::{ImageId, ReplicaState};
use mimeo_engine::{Becomes, Bits, Upload, status::ImageReport};
use tokio::time::Instant;

use super::{Gateway, headers::Client, upstream::AnyBody};
use crate::config::Ack;

/// Tells the client how many replicas are registered, of how many that are wanted.
const REPLICAS: &str = "x-mimeo-replicas";
/// How long the image service and the ledger may take to say what is to be copied.
const PREPARING: Duration = Duration::from_secs(3);
/// How often it is looked whether enough are registered: at first, and at the least.
const LOOK: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(100));

impl Gateway {
    /// The copies never stand in the way of the upload: what cannot be copied now is copied out of band.
    pub(super) async fn upload(
        &self,
        id: &ImageId,
        becomes: Becomes,
        request: Request<Incoming>,
        client: Client,
    ) -> Response<AnyBody> {
        let Some(Upload { bits, outcome, copying, wanted }) = self.prepare(id, becomes, &request).await else {
            return self.forward(request.map(|body| body.map_err(Into::into).boxed_unsync()), client).await;
        };
        self.copies.spawn(copying.run());
        let mut response = self.forward(request.map(|body| tee(body, bits)), client).await;
        if response.status() == StatusCode::NO_CONTENT {
            outcome.taken();
            if becomes == Becomes::Staged {
                // Nothing can be registered before the import.
                return response;
            }
            let (registered, wanted) = self.acknowledged(id).await.unwrap_or((0, wanted));
            let replicas = HeaderValue::from_str(&format!("{registered}/{wanted}")).ok();
            response.headers_mut().extend(replicas.map(|replicas| (HeaderName::from_static(REPLICAS), replicas)));
        }
        response
    }

    async fn prepare(&self, id: &ImageId, becomes: Becomes, request: &Request<Incoming>) -> Option<Upload> {
        let length = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let why = match tokio::time::timeout(PREPARING, self.engine.upload(id, becomes, length)).await {
            Ok(Ok(upload)) => return upload,
            Ok(Err(error)) => error.chain(),
            Err(_) => "the image service and the ledger did not answer in time".to_owned(),
        };
        tracing::warn!(image = %id, why, "this upload is not copied as it passes, but later");
        None
    }

    /// Waits for as many registered replicas as the client's answer is to wait for, and no longer than it is to, nor for
    /// what cannot come. Gives how many there are, and how many are wanted; `None` where nobody has looked yet.
    async fn acknowledged(&self, id: &ImageId) -> Option<(usize, usize)> {
        let (deadline, mut pause) = (Instant::now() + self.settings.ack_timeout, LOOK.0);
        let mut seen = None;
        loop {
            let report = tokio::time::timeout_at(deadline, self.engine.known(id)).await;
            // Without its size it is still what it was before the upload.
            let report = report.ok().and_then(Result::ok).flatten().filter(|report| report.size.is_some());
            // A ledger that does not answer in time takes nothing back.
            seen = report.as_ref().map(counts).or(seen);
            let is_enough = seen.is_some_and(|(registered, wanted)| match self.settings.ack {
                Ack::All => registered >= wanted,
                Ack::Some(least) => registered >= least.min(wanted),
                Ack::None => true,
            });
            let is_over = self.settings.ack == Ack::None || Instant::now() >= deadline;
            if is_enough || is_over || report.is_some_and(|report| report.is_stuck()) {
                return seen;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 5 / 4).min(LOOK.1);
        }
    }
}

/// How many replicas are registered, of those that are wanted.
fn counts(report: &ImageReport) -> (usize, usize) {
    let wanted = || report.replicas.iter().filter(|replica| replica.wanted);
    (wanted().filter(|replica| replica.state == ReplicaState::Registered).count(), wanted().count())
}

/// The same body, of which each piece is handed to the copies before it goes on.
fn tee(body: Incoming, bits: Bits) -> AnyBody {
    let hint = body.size_hint();
    let frames = stream::unfold((body, bits), |(mut body, mut bits)| async move {
        let frame = body.frame().await?;
        if let Some(bytes) = frame.as_ref().ok().and_then(Frame::data_ref) {
            bits.pass(bytes.clone()).await;
        }
        Some((frame, (body, bits)))
    });
    Announced { frames: Box::pin(frames), hint }.map_err(Into::into).boxed_unsync()
}

/// A stream of frames with the length that was announced for them.
struct Announced {
    frames: Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, hyper::Error>> + Send>>,
    hint: SizeHint,
}

impl Body for Announced {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.frames.as_mut().poll_next(cx)
    }

    fn size_hint(&self) -> SizeHint {
        self.hint
    }
}
