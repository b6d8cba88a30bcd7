//! Where chance comes from, and bytes that say where they belong.

/// splitmix64: small, fast, and the same on every machine.
#[derive(Clone, Debug)]
pub struct Rng(u64);

/// One step of splitmix64's output function.
const fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

impl Rng {
    /// The generator of a seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 random bits.
    pub const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// 0 ≤ answer < `limit`; 0 if `limit` is 0.
    pub const fn below(&mut self, limit: u64) -> u64 {
        ((self.bits() as u128 * limit as u128) >> 64) as u64
    }

    /// 1 ≤ answer ≤ `most`.
    pub const fn up_to(&mut self, most: usize) -> usize {
        self.below(most as u64) as usize + 1
    }

    /// True so many times in a thousand. Draws nothing for 0.
    pub const fn per_mille(&mut self, probability: u16) -> bool {
        probability > 0 && self.below(1000) < probability as u64
    }

    /// One of them; there must be one.
    pub const fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

/// Byte number `offset` of the endless stream called `key`: a byte out of place, repeated, or of
/// another stream shows.
#[cfg(test)]
pub const fn stream_byte(key: u64, offset: u64) -> u8 {
    (stream_word(key, offset / 8) >> (offset % 8 * 8)) as u8
}

const fn stream_word(key: u64, number: u64) -> u64 {
    mix(key
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(number.wrapping_mul(0xd1b5_4a32_d192_ed03)))
}

/// So many bytes of that stream from `offset` on.
pub fn stretch(key: u64, offset: u64, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 8);
    let (mut number, skipped) = (offset / 8, (offset % 8) as usize);
    let first = stream_word(key, number).to_le_bytes();
    bytes.extend_from_slice(&first[skipped..]);
    while bytes.len() < length {
        number += 1;
        bytes.extend_from_slice(&stream_word(key, number).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Whether these are the bytes of that stream from `offset` on.
pub fn is_stretch(key: u64, offset: u64, bytes: &[u8]) -> bool {
    let (number, skipped) = (offset / 8, (offset % 8) as usize);
    let first = &stream_word(key, number).to_le_bytes()[skipped..];
    let (head, rest) = bytes.split_at(first.len().min(bytes.len()));
    let (words, tail) = rest.as_chunks::<8>();
    let tail_number = number + 1 + words.len() as u64;
    head == &first[..head.len()]
        && (number + 1..)
            .zip(words)
            .all(|(at, word)| u64::from_le_bytes(*word) == stream_word(key, at))
        && tail == &stream_word(key, tail_number).to_le_bytes()[..tail.len()]
}

/// The bytes of that stream from `offset` on, one by one.
#[cfg(test)]
pub fn stream(key: u64, offset: u64) -> impl Iterator<Item = u8> {
    let mut at = offset;
    let mut word = stream_word(key, at / 8);
    std::iter::from_fn(move || {
        if at.is_multiple_of(8) {
            word = stream_word(key, at / 8);
        }
        let byte = (word >> (at % 8 * 8)) as u8;
        at += 1;
        Some(byte)
    })
}
