//! BLAKE3 of what comes in pieces of any size.

use std::mem;

use mimeo_core::Digest;

/// BLAKE3 takes sixteen of its chunks at once, but only where they begin at a multiple of so many bytes. Pieces from a
/// connection rarely do: fed as they come they take up to twice the time.
const STEP: usize = 16 << 10;

/// One running digest.
#[derive(Default)]
pub(crate) struct Digester {
    hasher: blake3::Hasher,
    /// What came behind the last whole step.
    rest: Vec<u8>,
}

impl Digester {
    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        if !self.rest.is_empty() {
            let (first, others) = bytes.split_at(bytes.len().min(STEP - self.rest.len()));
            self.rest.extend_from_slice(first);
            if self.rest.len() < STEP {
                return;
            }
            self.hasher.update(&self.rest);
            self.rest.clear();
            bytes = others;
        }
        let (steps, rest) = bytes.split_at(bytes.len() - bytes.len() % STEP);
        self.hasher.update(steps);
        self.rest.extend_from_slice(rest);
    }

    /// The digest of all that came; what comes then begins another.
    pub(crate) fn finish(&mut self) -> Digest {
        let Self { mut hasher, rest } = mem::take(self);
        hasher.update(&rest);
        Digest::from_hex(hasher.finalize().to_hex().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_digest_of_the_whole_whatever_the_pieces() {
        let bits: Vec<u8> = (0..=250).cycle().take(3 * STEP + 100).collect();
        for length in [0, 1, STEP - 1, STEP, STEP + 1, 2 * STEP, bits.len()] {
            let bits = &bits[..length];
            let whole = Digest::from_hex(blake3::hash(bits).to_hex().to_string());
            for piece in [1, 1000, STEP - 1, STEP, STEP + 1, 2 * STEP + 7, 4 * STEP] {
                let mut digester = Digester::default();
                for time in ["first", "again"] {
                    bits.chunks(piece).for_each(|piece| digester.update(piece));
                    assert_eq!(digester.finish(), whole, "{length} bytes in pieces of {piece}, {time}");
                }
            }
        }
    }
}
