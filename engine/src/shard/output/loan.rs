//! Bytes of the long receive buffer that are lent to an output queue.

use crate::shard::slots::NONE;
use std::ops::Range;

/// The bytes that may be lent, and the connection that has some of them in its queue.
#[derive(Debug)]
pub struct Loan {
    /// The addresses of the bytes. Empty: nothing is lent.
    addresses: Range<usize>,
    to: u32,
}

impl Default for Loan {
    fn default() -> Self {
        Self { addresses: 0..0, to: NONE }
    }
}

impl Loan {
    /// The next callback may lend these bytes, the first ones of the long buffer.
    pub fn offer(bytes: &[u8]) -> Self {
        let begin = bytes.as_ptr().addr();
        Self { addresses: begin..begin + bytes.len(), to: NONE }
    }

    /// Lends bytes to a connection. Returns the offset in the long buffer, or `None` if the bytes
    /// lie elsewhere or something is lent already.
    pub fn take(&mut self, slot: u32, bytes: &[u8]) -> Option<u32> {
        let Range { start, end } = self.addresses;
        let begin = bytes.as_ptr().addr();
        let is_inside = start <= begin && begin + bytes.len() <= end;
        if !is_inside || self.to != NONE {
            return None;
        }
        self.to = slot;
        Some((begin - start) as u32)
    }

    /// The slot whose queue begins with lent bytes.
    pub fn slot(&self) -> Option<u32> {
        (self.to != NONE).then_some(self.to)
    }
}
