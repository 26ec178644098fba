//! Digests of the image's chunks as they pass, so that a copy that is broken off can be gone on with.

use mimeo_core::Digest;
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    hash::{BATCH, Effort, PART},
    window::Cursor,
};
use crate::digester::Digester;

/// The digests, in order. Dropping it ends the hashing.
pub(crate) struct Chunks {
    digests: mpsc::UnboundedReceiver<Digest>,
    _task: JoinSet<()>,
}

impl Chunks {
    pub(super) fn hash<T: Clone + Send + 'static>(mut cursor: Cursor<T>, length: u64, effort: Effort) -> Self {
        let (sender, digests) = mpsc::unbounded_channel();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut chunk = Chunk::new(length);
            let mut length = 0;
            while cursor.more().await {
                let hashed = effort.after(length).spend(move || {
                    let mut done = Vec::new();
                    for part in cursor.take(BATCH).into_iter().flat_map(|piece| piece.into_bytes(PART)) {
                        chunk.update(&part, &mut done);
                        length += part.len() as u64;
                    }
                    (cursor, chunk, done, length)
                });
                let Ok(hashed) = hashed.await else { return };
                let done;
                (cursor, chunk, done, length) = hashed;
                for digest in done {
                    drop(sender.send(digest));
                }
            }
            if chunk.taken > 0 {
                drop(sender.send(chunk.digest()));
            }
        });
        Self { digests, _task: task }
    }

    /// The next ones, at least one; none after the last.
    pub(crate) async fn next(&mut self) -> Vec<Digest> {
        let mut next = Vec::new();
        self.digests.recv_many(&mut next, usize::MAX).await;
        next
    }
}

/// One chunk while it passes.
pub(crate) struct Chunk {
    digester: Digester,
    length: u64,
    taken: u64,
}

impl Chunk {
    pub(crate) fn new(length: u64) -> Self {
        Self { digester: Digester::default(), length, taken: 0 }
    }

    /// Takes bytes, and adds the digest of each chunk that they complete to `done`.
    pub(crate) fn update(&mut self, mut bytes: &[u8], done: &mut Vec<Digest>) {
        while !bytes.is_empty() {
            let room = usize::try_from(self.length - self.taken).unwrap_or(usize::MAX);
            let (now, rest) = bytes.split_at(room.min(bytes.len()));
            self.digester.update(now);
            self.taken += now.len() as u64;
            bytes = rest;
            if self.taken == self.length {
                done.push(self.digest());
            }
        }
    }

    /// Of what there is of it: the image's last chunk is a short one.
    pub(crate) fn digest(&mut self) -> Digest {
        self.taken = 0;
        self.digester.finish()
    }
}
