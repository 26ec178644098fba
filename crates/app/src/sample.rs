//! Bits for images that Mimeo makes itself (`demo`, `check`): nothing in them repeats, so nothing can be mixed up.

use bytes::Bytes;
use mimeo_core::ImageId;

const CHUNK: u64 = 256 << 10;

/// Each image has bits of its own.
pub(crate) fn seed(id: &ImageId) -> u64 {
    id.as_str().bytes().fold(0, |seed, byte| mix(seed ^ u64::from(byte)))
}

/// `size` bytes, the same for the same seed.
pub(crate) fn chunks(seed: u64, size: u64) -> impl Iterator<Item = Bytes> + Send {
    (0..size.div_ceil(CHUNK)).map(move |chunk| {
        let start = chunk * CHUNK;
        let length = usize::try_from(CHUNK.min(size - start)).unwrap_or(usize::MAX);
        let mut bytes: Vec<u8> = Vec::with_capacity(length + 8);
        let mut word = start / 8;
        while bytes.len() < length {
            bytes.extend_from_slice(&mix(seed.wrapping_add(word)).to_le_bytes());
            word += 1;
        }
        bytes.truncate(length);
        bytes.into()
    })
}

/// As `SplitMix64` does it: every bit of the result depends on every bit of the number.
fn mix(number: u64) -> u64 {
    let mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_the_size_asked_for_and_differs_by_seed() {
        for size in [0, 1, 8, CHUNK, CHUNK + 13] {
            let total: usize = chunks(1, size).map(|chunk| chunk.len()).sum();
            assert_eq!(total as u64, size);
        }
        let first = |seed| chunks(seed, 64).next();
        assert_eq!(first(1), first(1));
        assert_ne!(first(1), first(2));
    }
}
