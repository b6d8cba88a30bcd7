//! A body in sixteen bytes: its length and a fast hash, the same however the body is cut.

/// Length and hash of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// Bytes.
    pub length: u64,
    /// A change within one aligned word always changes it; any other does but for one in 2^64.
    pub hash: u64,
}

/// A fingerprint being taken. Four lanes, so that the multiplications overlap.
#[derive(Clone, Copy, Debug)]
pub struct Hasher {
    lanes: [u64; LANES],
    length: u64,
    /// The last `length % BLOCK` bytes.
    rest: [u8; BLOCK],
}

const LANES: usize = 4;
const BLOCK: usize = LANES * size_of::<u64>();
/// Odd, so that multiplying loses nothing (the first prime of xxHash64).
const FACTOR: u64 = 0x9E37_79B1_85EB_CA87;

impl Hasher {
    /// The fingerprint of nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { lanes: [1, 2, 3, 4], length: 0, rest: [0; BLOCK] }
    }

    /// Bytes taken so far.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// Takes the next bytes of the body.
    pub fn update(&mut self, mut bytes: &[u8]) {
        let kept = (self.length % BLOCK as u64) as usize;
        self.length += bytes.len() as u64;
        if kept > 0 {
            let taken = bytes.len().min(BLOCK - kept);
            self.rest[kept..kept + taken].copy_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if kept + taken < BLOCK {
                return;
            }
            let block = self.rest;
            self.block(&block);
        }
        let (blocks, rest) = bytes.as_chunks::<BLOCK>();
        for block in blocks {
            self.block(block);
        }
        self.rest[..rest.len()].copy_from_slice(rest);
    }

    /// The fingerprint of all that was taken.
    #[must_use]
    pub fn finish(&self) -> Fingerprint {
        let mut last = *self;
        let kept = (self.length % BLOCK as u64) as usize;
        if kept > 0 {
            let mut block = [0; BLOCK];
            block[..kept].copy_from_slice(&self.rest[..kept]);
            last.block(&block);
        }
        let mut hash = self.length;
        for lane in last.lanes {
            hash = (hash.rotate_left(23) ^ lane).wrapping_mul(FACTOR);
            hash ^= hash >> 32;
        }
        Fingerprint { length: self.length, hash }
    }

    #[inline]
    fn block(&mut self, block: &[u8; BLOCK]) {
        let (words, _) = block.as_chunks::<{ size_of::<u64>() }>();
        for (lane, word) in self.lanes.iter_mut().zip(words) {
            *lane = (*lane ^ u64::from_le_bytes(*word)).wrapping_mul(FACTOR).rotate_left(31);
        }
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(bytes: &[u8]) -> Fingerprint {
        let mut hasher = Hasher::new();
        hasher.update(bytes);
        hasher.finish()
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter(bytes: Vec<u8>, cuts in prop::collection::vec(0_usize..50, 0..20)) {
            let mut hasher = Hasher::new();
            let mut rest = &bytes[..];
            for cut in cuts {
                let (part, after) = rest.split_at(cut.min(rest.len()));
                hasher.update(part);
                rest = after;
            }
            hasher.update(rest);
            prop_assert_eq!(hasher.finish(), of(&bytes));
        }

        #[test]
        fn a_changed_byte_changes_it(
            mut bytes in prop::collection::vec(any::<u8>(), 1..200),
            at: prop::sample::Index,
            by in 1_u8..,
        ) {
            let before = of(&bytes);
            let at = at.index(bytes.len());
            bytes[at] ^= by;
            prop_assert_ne!(of(&bytes).hash, before.hash);
        }
    }

    #[test]
    fn zeros_at_the_end_count() {
        assert_ne!(of(b"a"), of(b"a\0"));
        assert_ne!(of(b"").hash, of(&[0; 32]).hash);
    }

    #[test]
    fn blocks_in_another_order_are_another_body() {
        let (a, b) = ([1; 32], [2; 32]);
        assert_ne!(of(&[a, b].concat()).hash, of(&[b, a].concat()).hash);
    }
}
