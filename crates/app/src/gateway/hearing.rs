//! What a glance-api says before it hangs up.

use std::{
    io::{Error, ErrorKind, IoSlice, Result},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use tokio::time::{Instant, Sleep, sleep};

/// How long what was said may wait to be read. It is all here: nothing comes after it.
const PATIENCE: Duration = Duration::from_secs(2);

/// A connection on which the other side may answer and hang up while it is still written to, as uwsgi does with a refusal:
/// then writing waits until what it has said is read, and fails only then. Without this, an upload that Glance refuses ends
/// with a broken pipe and no word of why.
pub(super) struct Hearing<T> {
    io: T,
    hung_up: Option<HungUp>,
}

struct HungUp {
    /// What writing failed with.
    kind: ErrorKind,
    is_all_read: bool,
    waits: Pin<Box<Sleep>>,
}

impl HungUp {
    fn new(kind: ErrorKind) -> Self {
        Self { kind, is_all_read: false, waits: Box::pin(sleep(PATIENCE)) }
    }

    fn poll<R>(&mut self, cx: &mut Context<'_>) -> Poll<Result<R>> {
        if !self.is_all_read {
            ready!(self.waits.as_mut().poll(cx));
        }
        Poll::Ready(Err(Error::from(self.kind)))
    }
}

impl<T> Hearing<T> {
    pub(super) fn new(io: T) -> Self {
        Self { io, hung_up: None }
    }
}

impl<T: Unpin> Hearing<T> {
    fn writing<R>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut T>, &mut Context<'_>) -> Poll<Result<R>>,
    ) -> Poll<Result<R>> {
        if let Some(hung_up) = &mut self.hung_up {
            return hung_up.poll(cx);
        }
        match write(Pin::new(&mut self.io), cx) {
            Poll::Ready(Err(error)) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                // Whoever writes is to read first.
                cx.waker().wake_by_ref();
                self.hung_up.insert(HungUp::new(error.kind())).poll(cx)
            }
            done => done,
        }
    }
}

impl<T: Write + Unpin> Write for Hearing<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        self.writing(cx, |io, cx| io.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        self.writing(cx, |io, cx| io.poll_write_vectored(cx, pieces))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.writing(cx, T::poll_flush)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl<T: Read + Unpin> Read for Hearing<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, mut buffer: ReadBufCursor<'_>) -> Poll<Result<()>> {
        let Self { io, hung_up } = &mut *self;
        let Some(hung_up) = hung_up else { return Pin::new(io).poll_read(cx, buffer) };
        let mut said = [0; 4096];
        let room = said.len().min(buffer.remaining());
        let mut heard = ReadBuf::new(&mut said[..room]);
        let done = ready!(Pin::new(io).poll_read(cx, heard.unfilled()));
        buffer.put_slice(heard.filled());
        hung_up.is_all_read = done.is_err() || heard.filled().is_empty();
        hung_up.waits.as_mut().reset(Instant::now() + PATIENCE);
        Poll::Ready(done)
    }
}

impl<T: Connection> Connection for Hearing<T> {
    fn connected(&self) -> Connected {
        self.io.connected()
    }
}
