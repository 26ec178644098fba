//! Hashing the source off the I/O path: each algorithm works on a thread of the blocking pool while there is something
//! to hash, and holds none while its transfer waits. Small images are not worth the way to a thread.

use aws_lc_rs::digest::{Context, SHA256, SHA512};
use md5::{Digest as _, Md5};
use mimeo_core::{Digest, HashAlgorithm};
use tokio::task::{JoinError, JoinSet, spawn_blocking};

use super::{piece::Piece, window::Cursor};
use crate::digester::Digester;

/// Bytes that are hashed before the room that they took is given back.
pub(super) const BATCH: usize = 1 << 20;
/// A piece is hashed in parts of this size: zeros are not held in memory.
pub(super) const PART: usize = 256 << 10;

/// An image of no more than this is hashed in place: all of it takes less than a millisecond.
const SMALL: u64 = 256 << 10;

/// Where the work of hashing one image is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effort {
    InPlace,
    OnAThread,
    /// Of a size that nobody knows: in place as long as it is small.
    InPlaceAtFirst,
}

impl Effort {
    pub(super) fn of(size: Option<u64>) -> Self {
        match size {
            Some(size) if size <= SMALL => Self::InPlace,
            Some(_) => Self::OnAThread,
            None => Self::InPlaceAtFirst,
        }
    }

    /// What it is behind so many bytes.
    pub(super) fn after(self, hashed: u64) -> Self {
        if self == Self::InPlaceAtFirst && hashed >= SMALL { Self::OnAThread } else { self }
    }

    /// How many bytes are hashed without a look at what else there is to do.
    pub(super) fn most(self) -> u64 {
        if self == Self::InPlaceAtFirst { SMALL } else { u64::MAX }
    }

    pub(super) async fn spend<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        match self {
            Self::InPlace | Self::InPlaceAtFirst => Ok(work()),
            Self::OnAThread => spawn_blocking(work).await,
        }
    }
}

/// One running hash over everything that its cursor gives. Dropping it ends the hash.
pub(super) struct Hasher(JoinSet<Result<String, JoinError>>);

impl Hasher {
    /// The digest that proves copies.
    pub(super) fn blake3<T: Clone + Send + 'static>(cursor: Cursor<T>, effort: Effort) -> Self {
        Self::run((cursor, effort), Digester::default(), Digester::update, |mut digester| digester.finish().to_string())
    }

    /// The digest that proves the source.
    pub(super) fn content<T: Clone + Send + 'static>(
        cursor: Cursor<T>,
        algorithm: HashAlgorithm,
        effort: Effort,
    ) -> Self {
        let sha = |algorithm, cursor| {
            Self::run((cursor, effort), Context::new(algorithm), Context::update, |hash| hex(hash.finish().as_ref()))
        };
        match algorithm {
            HashAlgorithm::Md5 => {
                Self::run((cursor, effort), Md5::new(), |hash, part| hash.update(part), |hash| hex(&hash.finalize()))
            }
            HashAlgorithm::Sha256 => sha(&SHA256, cursor),
            HashAlgorithm::Sha512 => sha(&SHA512, cursor),
        }
    }

    fn run<T: Clone + Send + 'static, H: Send + 'static>(
        (mut cursor, effort): (Cursor<T>, Effort),
        mut hash: H,
        update: fn(&mut H, &[u8]),
        finish: impl FnOnce(H) -> String + Send + 'static,
    ) -> Self {
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut hashed = 0_u64;
            while cursor.more().await {
                let effort = effort.after(hashed);
                // For as long as there is something to hash: who is behind does not go through the scheduler each time.
                (cursor, hash, hashed) = effort
                    .spend(move || {
                        let most = hashed.saturating_add(effort.most());
                        loop {
                            let batch = if hashed < most { cursor.take(BATCH) } else { Vec::new() };
                            if batch.is_empty() {
                                return (cursor, hash, hashed);
                            }
                            for part in batch.into_iter().flat_map(|piece: Piece| piece.into_bytes(PART)) {
                                update(&mut hash, &part);
                                hashed += part.len() as u64;
                            }
                        }
                    })
                    .await?;
            }
            Ok(finish(hash))
        });
        Self(task)
    }

    /// The digest in lower-case hexadecimal. `None` if the hash broke down.
    pub(super) async fn finish(mut self) -> Option<String> {
        self.0.join_next().await?.ok()?.ok()
    }

    /// As [`finish`](Self::finish), of a BLAKE3 hash.
    pub(super) async fn digest(self) -> Option<Digest> {
        self.finish().await.map(Digest::from_hex)
    }
}

/// One running hash that is worked out where it is fed: for what comes no faster than it is hashed.
pub(crate) enum ContentHasher {
    Md5(Md5),
    Sha(Context),
}

impl ContentHasher {
    pub(crate) fn new(algorithm: HashAlgorithm) -> Self {
        match algorithm {
            HashAlgorithm::Md5 => Self::Md5(Md5::new()),
            HashAlgorithm::Sha256 => Self::Sha(Context::new(&SHA256)),
            HashAlgorithm::Sha512 => Self::Sha(Context::new(&SHA512)),
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Md5(hash) => hash.update(bytes),
            Self::Sha(hash) => hash.update(bytes),
        }
    }

    /// In lower-case hexadecimal.
    pub(crate) fn finish(self) -> String {
        match self {
            Self::Md5(hash) => hex(&hash.finalize()),
            Self::Sha(hash) => hex(hash.finish().as_ref()),
        }
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use bytes::Bytes;

    use super::{super::window::Window, *};

    #[test]
    fn only_what_is_small_is_hashed_in_place() {
        let effort = |size, hashed| Effort::of(size).after(hashed);
        assert_eq!(effort(Some(SMALL), SMALL), Effort::InPlace);
        assert_eq!(effort(Some(SMALL + 1), 0), Effort::OnAThread);
        assert_eq!([effort(None, SMALL - 1), effort(None, SMALL)], [Effort::InPlaceAtFirst, Effort::OnAThread]);
    }

    async fn of_abc(start: impl FnOnce(Cursor<()>) -> Hasher) -> String {
        let window = Window::new(100);
        let hasher = start(window.hash());
        let _sink = window.sink(false);
        for part in ["a", "bc"] {
            assert!(window.push(Piece::Bytes(Bytes::from_static(part.as_bytes()))).await);
        }
        window.complete();
        hasher.finish().await.unwrap()
    }

    #[tokio::test]
    async fn the_digests_are_the_published_ones() {
        for effort in [Effort::InPlace, Effort::OnAThread, Effort::InPlaceAtFirst] {
            let content = |algorithm| of_abc(move |cursor| Hasher::content(cursor, algorithm, effort));
            // RFC 1321 and FIPS 180-2 give these for "abc"; the BLAKE3 team's test vectors do for BLAKE3.
            assert_eq!(content(HashAlgorithm::Md5).await, "900150983cd24fb0d6963f7d28e17f72");
            assert!(content(HashAlgorithm::Sha256).await.starts_with("ba7816bf8f01cfea414140de5dae2223"));
            assert!(content(HashAlgorithm::Sha512).await.starts_with("ddaf35a193617abacc417349ae204131"));
            assert!(
                of_abc(|cursor| Hasher::blake3(cursor, effort)).await.starts_with("6437b3ac38465133ffb63b75273a8db5")
            );
        }
    }
}
