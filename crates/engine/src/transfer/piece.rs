//! Pieces: the unit that sinks take. Runs of zeros are found here, once for all sinks.

use bytes::Bytes;

/// A run shorter than this is sent like any other bytes: skipping it would save nobody anything.
const LEAST_RUN: usize = 64 << 10;
/// Runs begin and end at multiples of this, counted in the image: file systems and RBD care for no finer.
const BLOCK: usize = 4 << 10;
/// What a piece of zeros counts in a window: its place in the queue.
const ZEROS_WEIGHT: usize = 1 << 10;

static ZEROS: [u8; LEAST_RUN] = [0; LEAST_RUN];

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    Bytes(Bytes),
    Zeros(usize),
}

impl Piece {
    pub(super) fn length(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Zeros(length) => *length,
        }
    }

    /// Bytes of memory that it holds.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Zeros(_) => ZEROS_WEIGHT,
        }
    }

    /// What is left of it without its first bytes.
    pub(super) fn without(self, first: u64) -> Option<Self> {
        let first = usize::try_from(first).ok().filter(|first| *first < self.length())?;
        Some(match self {
            Self::Bytes(bytes) => Self::Bytes(bytes.slice(first..)),
            Self::Zeros(length) => Self::Zeros(length - first),
        })
    }

    /// The same as plain bytes, none longer than `most`. Zeros take no memory of their own.
    pub(super) fn into_bytes(self, most: usize) -> impl Iterator<Item = Bytes> + Send {
        let (length, most) = (self.length(), most.min(if matches!(self, Self::Zeros(_)) { LEAST_RUN } else { most }));
        (0..length).step_by(most.max(1)).map(move |at| {
            let end = length.min(at + most);
            match &self {
                Self::Bytes(bytes) => bytes.slice(at..end),
                Self::Zeros(_) => Bytes::from_static(&ZEROS[..end - at]),
            }
        })
    }
}

/// Cuts a chunk that begins at `offset` of the image into bytes and runs of zeros. What is left beside zeros is copied: else
/// a few bytes would hold the whole chunk in memory.
pub(super) fn pieces(chunk: Bytes, offset: u64) -> Vec<Piece> {
    let mut pieces = Vec::with_capacity(1);
    let mut done = 0;
    for run in zero_runs(&chunk, offset) {
        if run.start > done {
            pieces.push(Piece::Bytes(Bytes::copy_from_slice(&chunk[done..run.start])));
        }
        done = run.end;
        pieces.push(Piece::Zeros(run.len()));
    }
    match done {
        0 => pieces.push(Piece::Bytes(chunk)),
        _ if done < chunk.len() => pieces.push(Piece::Bytes(Bytes::copy_from_slice(&chunk[done..]))),
        _ => {}
    }
    pieces
}

fn zero_runs(chunk: &[u8], offset: u64) -> Vec<std::ops::Range<usize>> {
    let (mut runs, mut run) = (Vec::new(), 0..0);
    let first = usize::try_from(offset.next_multiple_of(BLOCK as u64) - offset).unwrap_or(0);
    for at in (first..chunk.len().saturating_sub(BLOCK - 1)).step_by(BLOCK) {
        if is_zero(&chunk[at..at + BLOCK]) {
            run = if run.end == at && !run.is_empty() { run.start..at + BLOCK } else { at..at + BLOCK };
            continue;
        }
        if run.len() >= LEAST_RUN {
            runs.push(run);
        }
        run = 0..0;
    }
    if run.len() >= LEAST_RUN {
        runs.push(run);
    }
    runs
}

/// A block with data shows it in its first bytes, most often.
fn is_zero(block: &[u8]) -> bool {
    let (head, rest) = block.split_at(16);
    head.iter().all(|byte| *byte == 0) && rest.chunks(256).all(|part| part.iter().fold(0, |all, byte| all | byte) == 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn joined(pieces: Vec<Piece>) -> Vec<u8> {
        pieces.into_iter().flat_map(|piece| piece.into_bytes(10_000)).flatten().collect()
    }

    proptest! {
        #[test]
        #[allow(clippy::cast_possible_truncation)]
        fn pieces_together_are_the_chunk_and_every_long_run_of_zeros_is_one_piece(
            runs in prop::collection::vec((any::<bool>(), 1_usize..200_000), 1..6),
            offset in 0_u64..10_000,
        ) {
            let bytes = |(zero, length): &(bool, usize)| vec![u8::from(!zero); *length];
            let chunk: Vec<u8> = runs.iter().flat_map(bytes).collect();
            let cut = pieces(Bytes::from(chunk.clone()), offset);
            let zeros: usize = cut.iter().filter(|it| matches!(it, Piece::Zeros(_))).map(Piece::length).sum();
            let mut expected = 0;
            for run in chunk.chunk_by(|a, b| a == b).filter(|run| run[0] == 0) {
                let before = run.as_ptr() as usize - chunk.as_ptr() as usize;
                let (start, end) = (offset as usize + before, offset as usize + before + run.len());
                let blocks = (end / BLOCK).saturating_sub(start.div_ceil(BLOCK)) * BLOCK;
                expected += if blocks >= LEAST_RUN { blocks } else { 0 };
            }
            prop_assert_eq!(zeros, expected);
            prop_assert!(cut.iter().all(|piece| piece.length() > 0));
            prop_assert_eq!(joined(cut), chunk);
        }
    }

    #[test]
    fn a_chunk_without_zeros_stays_whole() {
        let chunk = Bytes::from(vec![1; 300_000]);
        assert_eq!(pieces(chunk.clone(), 7), [Piece::Bytes(chunk)]);
    }
}
