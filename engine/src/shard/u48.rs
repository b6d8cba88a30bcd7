//! Numbers in six bytes.

/// A number of 48 bits: milliseconds for 8,900 years, where eight bytes would be too many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct U48([u16; 3]);

impl U48 {
    pub const ZERO: Self = Self([0; 3]);
    pub const MAX: u64 = (1 << 48) - 1;

    #[inline]
    pub fn get(self) -> u64 {
        let [low, middle, high] = self.0.map(u64::from);
        low | middle << 16 | high << 32
    }
}

impl From<u64> for U48 {
    #[inline]
    fn from(number: u64) -> Self {
        debug_assert!(number <= Self::MAX, "{number} has more than 48 bits");
        Self([number as u16, (number >> 16) as u16, (number >> 32) as u16])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_as_it_went_in() {
        // 2^32 ms are 49 days: the hour before and after it differ like any other.
        let around = [(1 << 16) - 1, 1 << 16, (1 << 32) - 1, 1 << 32, (1 << 32) + 1, 1 << 47];
        for number in around.into_iter().chain([0, 1, U48::MAX]) {
            assert_eq!(U48::from(number).get(), number);
        }
        assert_eq!((size_of::<U48>(), align_of::<U48>()), (6, 2));
    }
}
