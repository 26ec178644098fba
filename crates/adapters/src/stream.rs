use std::error::Error as StdError;

use bytes::{Buf, Bytes};
use futures::{Stream, StreamExt};
use mimeo_core::{Error, ports::ByteStream};

/// The body without its first `skip` bytes: for servers that answer a ranged request with everything. What is skipped
/// comes as empty chunks, so that the reader sees that the stream is alive.
pub(crate) fn skipping<E>(
    body: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
    mut skip: u64,
    failed: impl Fn(E) -> Error + Send + 'static,
) -> ByteStream
where
    E: StdError + Send + Sync + 'static,
{
    body.map(move |chunk| {
        let mut chunk = chunk.map_err(&failed)?;
        let skipped = usize::try_from(skip).map_or(chunk.len(), |skip| skip.min(chunk.len()));
        chunk.advance(skipped);
        skip -= skipped as u64;
        Ok(chunk)
    })
    .boxed()
}
