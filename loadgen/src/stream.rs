//! The bytes an echo must bring back: a stream that is a function of a key and an offset, so that
//! nothing needs to be kept to know what must come.

/// One connection's endless stream of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    key: u64,
}

const WORD: usize = size_of::<u64>();
/// 2^64 divided by the golden ratio: consecutive multiples are far apart.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
/// An odd factor with bits all over (from the Mum hash family).
const FACTOR: u64 = 0xD6E8_FEB8_6659_FD93;

impl Stream {
    /// The stream of connection `number` in a run with `seed`.
    #[must_use]
    pub fn new(seed: u64, number: u64) -> Self {
        Self { key: mix(mix(seed).wrapping_add(number.wrapping_mul(STEP))) }
    }

    /// Writes the bytes at `offset` into `out`.
    pub fn fill(self, offset: u64, out: &mut [u8]) {
        let (first, out) = out.split_at_mut(head_bytes(offset, out.len()));
        first.iter_mut().zip(self.edge(offset)).for_each(|(byte, must)| *byte = must);
        let mut index = (offset + first.len() as u64) / WORD as u64;
        let (words, last) = out.as_chunks_mut::<WORD>();
        for word in words {
            *word = self.word(index).to_le_bytes();
            index += 1;
        }
        last.copy_from_slice(&self.word(index).to_le_bytes()[..last.len()]);
    }

    /// Where `bytes`, taken as those at `offset`, differ first from what they must be.
    #[must_use]
    pub fn mismatch(self, offset: u64, bytes: &[u8]) -> Option<usize> {
        let (first, rest) = bytes.split_at(head_bytes(offset, bytes.len()));
        let mut index = (offset + first.len() as u64) / WORD as u64;
        let (words, last) = rest.as_chunks::<WORD>();
        // One branch at the end instead of one per word: they are all equal as a rule.
        let mut different = 0;
        for (byte, must) in first.iter().zip(self.edge(offset)) {
            different |= u64::from(byte ^ must);
        }
        for word in words {
            different |= self.word(index) ^ u64::from_le_bytes(*word);
            index += 1;
        }
        for (byte, must) in last.iter().zip(self.word(index).to_le_bytes()) {
            different |= u64::from(byte ^ must);
        }
        if different == 0 { None } else { self.first_mismatch(offset, bytes) }
    }

    #[cold]
    fn first_mismatch(self, offset: u64, bytes: &[u8]) -> Option<usize> {
        let mut must = vec![0; bytes.len()];
        self.fill(offset, &mut must);
        bytes.iter().zip(&must).position(|(byte, must)| byte != must)
    }

    /// The bytes from `offset` to the next whole word.
    fn edge(self, offset: u64) -> impl Iterator<Item = u8> {
        let word = self.word(offset / WORD as u64).to_le_bytes();
        word.into_iter().skip((offset % WORD as u64) as usize)
    }

    #[inline]
    fn word(self, index: u64) -> u64 {
        mix(self.key.wrapping_add(index.wrapping_mul(STEP)))
    }
}

/// Bytes from `offset` to the next whole word, at most `len`.
fn head_bytes(offset: u64, len: usize) -> usize {
    (offset.wrapping_neg() % WORD as u64).min(len as u64) as usize
}

/// Folds a 128-bit product: one multiplication, every bit of the input in every bit of the output.
#[inline]
fn mix(value: u64) -> u64 {
    let product = u128::from(value ^ STEP) * u128::from(FACTOR);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_stream_is_the_same_however_it_is_cut(
            seed: u64, number: u64, start in 0_u64..100, cuts in prop::collection::vec(0_usize..40, 1..20),
        ) {
            let stream = Stream::new(seed, number);
            let mut whole = vec![0; cuts.iter().sum()];
            stream.fill(start, &mut whole);
            let mut at = 0;
            for cut in cuts {
                let mut part = vec![0; cut];
                stream.fill(start + at as u64, &mut part);
                prop_assert_eq!(&part, &whole[at..at + cut]);
                prop_assert_eq!(stream.mismatch(start + at as u64, &part), None);
                at += cut;
            }
        }

        #[test]
        fn every_wrong_byte_is_found(
            seed: u64, offset in 0_u64..100, len in 1_usize..100, at: prop::sample::Index, by in 1_u8..,
        ) {
            let stream = Stream::new(seed, 1);
            let mut bytes = vec![0; len];
            stream.fill(offset, &mut bytes);
            let at = at.index(len);
            bytes[at] ^= by;
            prop_assert_eq!(stream.mismatch(offset, &bytes), Some(at));
        }
    }

    #[test]
    fn streams_differ_by_seed_connection_and_place() {
        let mut seen = std::collections::HashSet::new();
        for (seed, number, offset) in
            [(1, 1, 0), (2, 1, 0), (1, 2, 0), (1, 1, 16), (2, 2, 0), (0, 0, 0), (1, 0, 0)]
        {
            let mut bytes = [0; 16];
            Stream::new(seed, number).fill(offset, &mut bytes);
            assert!(seen.insert(bytes), "{seed} {number} {offset}");
        }
    }
}
