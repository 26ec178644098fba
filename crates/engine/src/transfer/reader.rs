//! Reading: one ordered stream out of a source that may break and is then opened again where it broke.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::StreamExt;
use mimeo_core::{
    Error, Reason, Result,
    ports::{ByteStream, Source},
};

/// How often in a row a source may break without giving a byte.
const RETRIES: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_millis(200);

pub(crate) struct Reader {
    source: Arc<dyn Source>,
    stream: Option<ByteStream>,
    offset: u64,
    /// Where the image ends, if known: a stream that ends before it broke.
    size: Option<u64>,
    failures: u32,
    /// A stream that gives no byte for this long is broken.
    patience: Duration,
}

impl Reader {
    pub(crate) fn new(source: Arc<dyn Source>, offset: u64, size: Option<u64>, patience: Duration) -> Self {
        Self { source, stream: None, offset, size, failures: 0, patience }
    }

    /// The next bytes; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            match self.attempt().await {
                Ok(Some(chunk)) if chunk.is_empty() => {}
                Ok(Some(chunk)) => {
                    self.failures = 0;
                    self.offset += chunk.len() as u64;
                    return Ok(Some(chunk));
                }
                Ok(None) if self.size.is_none_or(|size| self.offset >= size) => return Ok(None),
                Ok(None) => {
                    let message = format!("the source ended at byte {} of {}", self.offset, self.size.unwrap_or(0));
                    self.broke(Error::new(Reason::SourceSize, message)).await?;
                }
                Err(error) if error.reason.is_permanent() => return Err(error),
                Err(error) => self.broke(error).await?,
            }
        }
    }

    async fn attempt(&mut self) -> Result<Option<Bytes>> {
        let stalled = || {
            let message = format!("the source gave no byte for {:?} at offset {}", self.patience, self.offset);
            Error::new(Reason::SourceUnreadable, message)
        };
        let work = async {
            let stream = match &mut self.stream {
                Some(stream) => stream,
                none => none.insert(self.source.open(self.offset).await?),
            };
            stream.next().await.transpose()
        };
        match tokio::time::timeout(self.patience, work).await {
            Ok(result) => result,
            Err(_) => Err(stalled()),
        }
    }

    /// Waits before the next attempt, or gives up.
    async fn broke(&mut self, error: Error) -> Result<()> {
        self.stream = None;
        self.failures += 1;
        if self.failures > RETRIES {
            return Err(error);
        }
        tracing::debug!(offset = self.offset, error = error.chain(), "the source broke; opening it again");
        tokio::time::sleep(FIRST_WAIT * 2_u32.pow(self.failures - 1)).await;
        Ok(())
    }
}
