//! A small file that is asked for again in the same turn is read once: what follows the second time is
//! copied. All who ask had asked before the first of them was answered, so nobody gets bytes that are older
//! than the question.

use crate::ring::{Descriptor, Ring};

/// Of a file, in a turn: within one no descriptor is closed and opened anew.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Range {
    pub file: Descriptor,
    pub offset: u64,
    pub length: u32,
    pub turn: u64,
}

/// The range that was asked for last.
pub struct Again {
    range: Option<Range>,
    /// Holds its bytes.
    filled: bool,
    bytes: Vec<u8>,
}

impl Again {
    /// For ranges of so many bytes at most.
    pub fn new(bytes_max: usize) -> Self {
        Self { range: None, filled: false, bytes: Vec::with_capacity(bytes_max) }
    }

    /// The bytes of a range that was asked for just before; `None`: it was not, or they cannot be read at
    /// once.
    pub fn read(&mut self, ring: &mut dyn Ring, range: Range) -> Option<&[u8]> {
        if self.range != Some(range) {
            (self.range, self.filled) = (Some(range), false);
            return None;
        }
        if !self.filled {
            self.bytes.resize(range.length as usize, 0);
            let address = self.bytes.as_mut_ptr();
            let read = ring.read_cached(range.file, address, range.length, range.offset);
            if read != Ok(range.length) {
                return None;
            }
            mark!("asked for again");
            self.filled = true;
        }
        Some(&self.bytes)
    }
}
