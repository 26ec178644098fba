//! What a glance-api says before it hangs up.

use std::{
    io::{ErrorKind, IoSlice, Result},
    pin::Pin,
    task::{Context, Poll},
};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};

/// A connection on which the other side may answer and hang up while it is still written to, as uwsgi does with a refusal:
/// then nothing more is written, and reading goes on to what it has said. Without this, an upload that Glance refuses
/// ends with a broken pipe and no word of why.
pub(super) struct Hearing<T> {
    io: T,
    is_hung_up: bool,
}

impl<T> Hearing<T> {
    pub(super) fn new(io: T) -> Self {
        Self { io, is_hung_up: false }
    }
}

impl<T: Unpin> Hearing<T> {
    fn writing<R>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut T>, &mut Context<'_>) -> Poll<Result<R>>,
    ) -> Poll<Result<R>> {
        if self.is_hung_up {
            return Poll::Pending;
        }
        match write(Pin::new(&mut self.io), cx) {
            Poll::Ready(Err(error)) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                self.is_hung_up = true;
                // Whoever writes is to read first: what was said, or else that this is the end.
                cx.waker().wake_by_ref();
                Poll::Pending
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
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<T: Connection> Connection for Hearing<T> {
    fn connected(&self) -> Connected {
        self.io.connected()
    }
}
