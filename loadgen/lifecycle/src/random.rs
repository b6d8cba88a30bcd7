//! The random numbers of a run: SplitMix64, as a sequence and as a hash.

use std::time::SystemTime;

/// A sequence of random numbers that a seed determines.
#[derive(Clone, Copy, Debug)]
pub struct Random(u64);

impl Random {
    /// Creates the sequence number `stream` of a seed.
    #[must_use]
    pub const fn new(seed: u64, stream: u64) -> Self {
        Self(seed.wrapping_add(stream.wrapping_mul(0xA24B_AED4_963E_E407)))
    }

    /// Creates the sequence of connection `number`, which is unlike those of other seeds and
    /// numbers.
    #[must_use]
    pub const fn of_number(seed: u64, number: u64) -> Self {
        Self(Self(seed).next() ^ number.wrapping_mul(0xD6E8_FEB8_6659_FD93))
    }

    /// Returns a number below `most`, or 0 if `most` is 0.
    pub const fn below(&mut self, most: u64) -> u64 {
        if most == 0 { 0 } else { ((self.next() as u128 * most as u128) >> 64) as u64 }
    }

    /// Returns the next number.
    #[inline]
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        scramble(self.0)
    }
}

/// The output function of SplitMix64: a hash of 64 bits.
#[inline]
#[must_use]
pub const fn scramble(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// Returns a seed from the clock, short enough to be typed again.
#[must_use]
pub fn seed_of_the_clock() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| u64::from(since.subsec_nanos()))
}
