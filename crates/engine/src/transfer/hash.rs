//! Hashing off the I/O path: each algorithm works on a thread of the blocking pool while there is something to hash,
//! and holds none while its transfer waits.

use bytes::Bytes;
use md5::Md5;
use mimeo_core::{Digest, HashAlgorithm};
use sha2::{Sha256, Sha512, digest::DynDigest};
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet, spawn_blocking},
};

/// Chunks that may wait for a hash; as many are hashed in one go. A chunk is up to 0.4 MiB.
const QUEUE: usize = 8;

/// One running hash. Dropping it ends the hash.
pub(crate) struct Hasher {
    chunks: mpsc::Sender<Bytes>,
    task: JoinSet<Result<String, JoinError>>,
}

impl Hasher {
    /// The digest that proves copies.
    pub(crate) fn blake3() -> Self {
        let update = |hash: &mut blake3::Hasher, chunk: &[u8]| {
            hash.update(chunk);
        };
        Self::run(blake3::Hasher::new(), update, |hash| hash.finalize().to_hex().to_string())
    }

    /// The digest that proves the source.
    pub(crate) fn content(algorithm: HashAlgorithm) -> Self {
        let hash: Box<dyn DynDigest + Send> = match algorithm {
            HashAlgorithm::Md5 => Box::new(Md5::default()),
            HashAlgorithm::Sha256 => Box::new(Sha256::default()),
            HashAlgorithm::Sha512 => Box::new(Sha512::default()),
        };
        Self::run(hash, |hash, chunk| hash.update(chunk), |hash| hex(&hash.finalize()))
    }

    fn run<H: Send + 'static>(
        mut hash: H,
        update: fn(&mut H, &[u8]),
        finish: impl FnOnce(H) -> String + Send + 'static,
    ) -> Self {
        let (chunks, mut queue) = mpsc::channel::<Bytes>(QUEUE);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut batch = Vec::with_capacity(QUEUE);
            while queue.recv_many(&mut batch, QUEUE).await > 0 {
                (hash, batch) = spawn_blocking(move || {
                    batch.drain(..).for_each(|chunk| update(&mut hash, &chunk));
                    (hash, batch)
                })
                .await?;
            }
            Ok(finish(hash))
        });
        Self { chunks, task }
    }

    /// Waits while the hash is behind.
    pub(crate) async fn update(&self, chunk: Bytes) {
        // It closes only after a panic, which `finish` tells.
        let _ = self.chunks.send(chunk).await;
    }

    /// The digest in lower-case hexadecimal. `None` if the hash broke down.
    pub(crate) async fn finish(self) -> Option<String> {
        let Self { chunks, mut task } = self;
        drop(chunks);
        task.join_next().await?.ok()?.ok()
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// As [`Digest`], from a BLAKE3 hasher.
pub(crate) async fn digest(hasher: Hasher) -> Option<Digest> {
    hasher.finish().await.map(Digest::from_hex)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_digests_are_the_published_ones() {
        let of_abc = async |hasher: Hasher| {
            hasher.update(Bytes::from_static(b"a")).await;
            hasher.update(Bytes::from_static(b"bc")).await;
            hasher.finish().await.unwrap()
        };
        // RFC 1321 and FIPS 180-2 give these for "abc"; the BLAKE3 team's test vectors do for BLAKE3.
        assert_eq!(of_abc(Hasher::content(HashAlgorithm::Md5)).await, "900150983cd24fb0d6963f7d28e17f72");
        assert!(of_abc(Hasher::content(HashAlgorithm::Sha256)).await.starts_with("ba7816bf8f01cfea414140de5dae2223"));
        assert!(of_abc(Hasher::content(HashAlgorithm::Sha512)).await.starts_with("ddaf35a193617abacc417349ae204131"));
        assert!(of_abc(Hasher::blake3()).await.starts_with("6437b3ac38465133ffb63b75273a8db5"));
    }
}
