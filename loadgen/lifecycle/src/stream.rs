//! The bytes of an echo: a stream that is a function of a key and an offset.
//!
//! The expected bytes can be computed at any time, so sent data is not stored. Bytes at the wrong
//! place can be traced to the connection and the offset to which they belong.

use crate::fault::{ErrorKind, Fault};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// One connection's endless stream of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    key: u64,
}

/// The place to which bytes belong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Home {
    /// Number of the connection whose stream contains them.
    pub number: u64,
    /// Offset in that stream.
    pub offset: u64,
}

impl std::fmt::Display for Home {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "these bytes belong to offset {} of connection {}", self.offset, self.number)
    }
}

/// Traces the first few wrong bytes of a run; a search takes up to 30 ms. One value per shard.
#[derive(Clone, Debug)]
pub struct Tracer {
    seed: u64,
    /// Upper bound (exclusive) of the numbers of all connections in the run.
    numbers: Arc<AtomicU64>,
    /// The largest offset that a connection of this shard has sent.
    offsets: u64,
    searches_left: u32,
}

impl Tracer {
    /// Creates a tracer for a run with `seed`. All shards share `numbers`.
    #[must_use]
    pub fn new(seed: u64, numbers: Arc<AtomicU64>) -> Self {
        Self { seed, numbers, offsets: 0, searches_left: SEARCHES_MAX }
    }

    /// Records a new connection.
    pub fn opened(&self, number: u64) {
        self.numbers.fetch_max(number + 1, Ordering::Relaxed);
    }

    /// Records that a connection has sent `offset` bytes.
    #[inline]
    pub fn sent(&mut self, offset: u64) {
        self.offsets = self.offsets.max(offset);
    }

    /// Makes the error for `bytes` that arrived instead of those of `stream` at `offset`. `what`
    /// describes the place.
    #[cold]
    pub fn fault(
        &mut self,
        stream: Stream,
        offset: u64,
        bytes: &[u8],
        what: impl std::fmt::Display,
    ) -> Fault {
        let mut must = [0];
        stream.fill(offset, &mut must);
        let wrong = format!("{what} is {:#04x}, expected {:#04x}", bytes[0], must[0]);
        let home = match self.searches_left.checked_sub(1) {
            None => None,
            Some(left) => {
                self.searches_left = left;
                let numbers = 0..self.numbers.load(Ordering::Relaxed);
                // Connections of other shards have sent about as much.
                let offsets = 0..self.offsets.saturating_add(SLICE_BYTES);
                let bytes = &bytes[..bytes.len().min(COMPARED_MAX)];
                attribute(self.seed, numbers, offsets, offset, bytes)
            }
        };
        match home {
            None => Fault::new(ErrorKind::WrongBytes, wrong),
            Some(home) => Fault::new(ErrorKind::ForeignBytes, format_args!("{wrong}: {home}")),
        }
    }
}

/// Maximum number of searches of one [`Tracer`].
const SEARCHES_MAX: u32 = 4;
/// Maximum number of bytes compared; bytes further on may belong to yet another connection.
const COMPARED_MAX: usize = 16;
/// Minimum number of bytes for an attribution; a shorter match may be chance.
pub const ATTRIBUTED_MIN: usize = size_of::<u64>();
/// Maximum number of words searched for one attribution: about 30 ms, during which the connections
/// of the shard wait.
const WORDS_MAX: u64 = 1 << 22;
/// Bytes of each stream that are searched before the search moves further away.
const SLICE_BYTES: u64 = 4 << 10;

const WORD: usize = size_of::<u64>();
/// 2^64 divided by the golden ratio: consecutive multiples are far apart.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
/// An odd factor from the Mum hash family.
const FACTOR: u64 = 0xD6E8_FEB8_6659_FD93;

impl Stream {
    /// Returns the stream of connection `number` in a run with `seed`.
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

    /// Returns the index of the first byte that differs from the stream at `offset`.
    #[must_use]
    pub fn mismatch(self, offset: u64, bytes: &[u8]) -> Option<usize> {
        let (first, rest) = bytes.split_at(head_bytes(offset, bytes.len()));
        let mut index = (offset + first.len() as u64) / WORD as u64;
        let (words, last) = rest.as_chunks::<WORD>();
        // One branch at the end instead of one per word: normally all words are equal.
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

    /// Returns the first offset within `offsets` at which the stream has `bytes`.
    fn find(self, offsets: Range<u64>, bytes: &[u8]) -> Option<u64> {
        let target = u64::from_le_bytes(*bytes.first_chunk()?);
        let (first, last) = (offsets.start / WORD as u64, offsets.end.div_ceil(WORD as u64));
        let mut word = self.word(first);
        for index in first..last {
            let next = self.word(index + 1);
            let both = u128::from(next) << u64::BITS | u128::from(word);
            // Branchless: a hit is very rare.
            let hits = (0..WORD)
                .fold(0, |hits, at| hits | u8::from((both >> (8 * at)) as u64 == target) << at);
            if hits != 0 {
                let offset = index * WORD as u64 + u64::from(hits.trailing_zeros());
                if offsets.contains(&offset) && self.mismatch(offset, bytes).is_none() {
                    return Some(offset);
                }
            }
            word = next;
        }
        None
    }

    /// Returns the bytes from `offset` to the next word boundary.
    fn edge(self, offset: u64) -> impl Iterator<Item = u8> {
        let word = self.word(offset / WORD as u64).to_le_bytes();
        word.into_iter().skip((offset % WORD as u64) as usize)
    }

    #[inline]
    fn word(self, index: u64) -> u64 {
        mix(self.key.wrapping_add(index.wrapping_mul(STEP)))
    }
}

/// Finds the connection and offset to which `bytes` belong. Searches the streams of the connections
/// `numbers` of a run with `seed` at `offsets`, nearest to `near` first and newest connection
/// first.
///
/// Returns `None` if nothing matches, if `bytes` has fewer than [`ATTRIBUTED_MIN`] bytes, or if the
/// search takes longer than about 30 ms.
#[cold]
#[must_use]
pub fn attribute(
    seed: u64,
    numbers: Range<u64>,
    offsets: Range<u64>,
    near: u64,
    bytes: &[u8],
) -> Option<Home> {
    let mut words_left = WORDS_MAX;
    let (mut above, mut below) = (near.clamp(offsets.start, offsets.end), near.min(offsets.end));
    while above < offsets.end || below > offsets.start {
        let up = above..above.saturating_add(SLICE_BYTES).min(offsets.end);
        let down = below.saturating_sub(SLICE_BYTES).max(offsets.start)..below;
        (above, below) = (up.end, down.start);
        for slice in [up, down] {
            if slice.is_empty() {
                continue;
            }
            let words = (slice.end - slice.start).div_ceil(WORD as u64) + 1;
            for number in numbers.clone().rev() {
                words_left = words_left.checked_sub(words)?;
                if let Some(offset) = Stream::new(seed, number).find(slice.clone(), bytes) {
                    return Some(Home { number, offset });
                }
            }
        }
    }
    None
}

/// Returns the number of bytes from `offset` to the next word boundary, at most `len`.
fn head_bytes(offset: u64, len: usize) -> usize {
    (offset.wrapping_neg() % WORD as u64).min(len as u64) as usize
}

/// Folds a 128-bit product, so that every input bit affects every output bit.
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
            seed: u64, number: u64, start in 0_u64..100,
            cuts in prop::collection::vec(0_usize..40, 1..20),
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
            seed: u64, offset in 0_u64..100, len in 1_usize..100, at: prop::sample::Index,
            by in 1_u8..,
        ) {
            let stream = Stream::new(seed, 1);
            let mut bytes = vec![0; len];
            stream.fill(offset, &mut bytes);
            let at = at.index(len);
            bytes[at] ^= by;
            prop_assert_eq!(stream.mismatch(offset, &bytes), Some(at));
        }
    }

    proptest! {
        #[test]
        fn bytes_are_traced_to_where_they_belong(
            seed: u64, number in 0_u64..40, offset in 0_u64..20_000, len in ATTRIBUTED_MIN..40,
            near in 0_u64..30_000,
        ) {
            let mut bytes = vec![0; len];
            Stream::new(seed, number).fill(offset, &mut bytes);
            let home = attribute(seed, 0..40, 0..20_000, near, &bytes);
            prop_assert_eq!(home, Some(Home { number, offset }));
            prop_assert_eq!(attribute(seed, 40..50, 0..20_000, near, &bytes), None);
            bytes[len - 1] ^= 1;
            prop_assert_eq!(attribute(seed, 0..40, 0..20_000, near, &bytes), None);
        }
    }

    #[test]
    fn the_first_few_wrong_bytes_are_traced() {
        let mut tracer = Tracer::new(7, Arc::default());
        tracer.opened(3);
        tracer.opened(1);
        tracer.sent(100_000);
        let (own, mut bytes) = (Stream::new(7, 1), [0; 32]);
        Stream::new(7, 3).fill(70_003, &mut bytes);
        let fault = tracer.fault(own, 500, &bytes, "byte 500");
        assert_eq!(fault.kind, ErrorKind::ForeignBytes);
        assert!(fault.detail.starts_with("byte 500 is 0x"), "{}", fault.detail);
        assert!(fault.detail.ends_with(": these bytes belong to offset 70003 of connection 3"));
        let nobody = tracer.fault(own, 500, &[0; 32], "byte 500");
        assert_eq!(nobody.kind, ErrorKind::WrongBytes);
        let kinds: Vec<_> =
            (2..=SEARCHES_MAX).map(|_| tracer.fault(own, 0, &bytes, "").kind).collect();
        let must = [ErrorKind::ForeignBytes, ErrorKind::ForeignBytes, ErrorKind::WrongBytes];
        assert_eq!(kinds, must, "beyond {SEARCHES_MAX} nothing is searched for");
    }

    #[test]
    fn a_search_ends_however_much_there_is_to_search() {
        let since = std::time::Instant::now();
        assert_eq!(attribute(1, 0..u64::MAX, 0..u64::MAX, u64::MAX / 2, &[0; 16]), None);
        assert_eq!(attribute(1, 0..u64::MAX, 0..64, 0, &[0; 16]), None);
        assert_eq!(attribute(1, 0..1, 0..u64::MAX, 0, &[0; ATTRIBUTED_MIN - 1]), None);
        // Some seconds on a quiet machine; all that there is would take centuries.
        assert!(since.elapsed() < std::time::Duration::from_secs(120), "{:?}", since.elapsed());
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
