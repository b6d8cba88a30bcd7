//! A small file that is asked for again and again in the same turn is read twice: from then on its
//! bytes are copied. All who ask had asked before the first of them was answered, so nobody gets
//! bytes that are older than the question.

use crate::ring::Descriptor;

/// Of a file, in a turn: within one no descriptor is closed and opened anew.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Range {
    pub file: Descriptor,
    pub offset: u64,
    pub length: u32,
    pub turn: u64,
}

/// The range that was read last.
pub struct Again {
    range: Option<Range>,
    /// Its bytes, once it was read twice; empty before.
    bytes: Vec<u8>,
}

impl Again {
    /// For ranges of so many bytes at most.
    pub fn new(bytes_max: usize) -> Self {
        Self { range: None, bytes: Vec::with_capacity(bytes_max) }
    }

    /// The bytes of a range that was read twice.
    #[inline]
    pub fn bytes(&self, range: Range) -> Option<&[u8]> {
        (self.range == Some(range) && !self.bytes.is_empty()).then_some(&self.bytes[..])
    }

    /// A range was read; whoever asks for it alone in its turn costs no copy.
    pub fn note_read(&mut self, range: Range, bytes: &[u8]) {
        if self.range == Some(range) {
            mark!("asked for again");
            self.bytes.extend_from_slice(bytes);
        } else {
            self.range = Some(range);
            self.bytes.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_kept_from_the_second_time_on_and_for_one_turn() {
        let mut again = Again::new(8);
        let range = Range { file: Descriptor(3), offset: 1, length: 2, turn: 9 };
        again.note_read(range, b"ab");
        assert_eq!(again.bytes(range), None);
        again.note_read(range, b"ab");
        assert_eq!(again.bytes(range), Some(&b"ab"[..]));
        let next = Range { turn: 10, ..range };
        assert_eq!(again.bytes(next), None);
        again.note_read(next, b"cd");
        again.note_read(next, b"cd");
        assert_eq!((again.bytes(next), again.bytes(range)), (Some(&b"cd"[..]), None));
    }
}
