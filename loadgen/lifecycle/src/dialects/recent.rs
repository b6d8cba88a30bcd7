//! Recent connections, to attribute wrong bytes.

use crate::dialect::Key;
use crate::finding::{Finding, Rule};
use crate::stream::Stream;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// Maximum number of recent connections.
const RECENT_MAX: usize = 4_096;
/// Maximum number of bytes searched for one wrong byte: some tens of milliseconds.
const SEARCH_BYTES_MAX: u64 = 16 << 20;
/// Minimum number of bytes for an attribution; a shorter match may be chance.
const NEEDLE_BYTES: usize = 8;

/// Recent connections.
#[derive(Debug, Default)]
pub struct Recent(Mutex<VecDeque<(Key, u64)>>);

impl Recent {
    /// Adds a connection that sends `bytes`. Returns true if it was added before.
    pub fn remember(&self, key: Key, bytes: u64) -> bool {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_again = recent.iter().any(|(before, _)| *before == key);
        if recent.len() == RECENT_MAX {
            recent.pop_front();
        }
        recent.push_back((key, bytes));
        is_again
    }

    /// Searches the bytes in the data of `key`, then in that of the most recent connections.
    fn search(&self, key: Key, needle: [u8; NEEDLE_BYTES]) -> Option<(Key, u64)> {
        let recent: Vec<_> = {
            let recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            recent.iter().rev().copied().collect()
        };
        let own = recent.iter().copied().filter(|(other, _)| *other == key).take(1);
        let others = recent.iter().copied().filter(|(other, _)| *other != key);
        let (mut left, mut sent) = (SEARCH_BYTES_MAX, Vec::new());
        for (key, bytes) in own.chain(others) {
            left = left.checked_sub(bytes)?;
            sent.resize(bytes as usize, 0);
            Stream::new(key.seed, key.number).fill(0, &mut sent);
            if let Some(at) = position(&sent, needle) {
                return Some((key, at as u64));
            }
        }
        None
    }

    /// Makes the finding for wrong bytes of connection `key`; `what` describes the first one.
    #[cold]
    pub fn attribute(&self, key: Key, bytes: &[u8], what: &str) -> Finding {
        let found = bytes.first_chunk().and_then(|needle| self.search(key, *needle));
        let Some((owner, place)) = found else {
            let detail = format!("{what}; no recent connection sent these bytes");
            return Finding::new(Rule::WrongBytes, detail);
        };
        let whose = if owner == key { "this connection".into() } else { owner.to_string() };
        let detail = format!("{what}: these bytes belong to offset {place} of {whose}");
        Finding::new(Rule::ForeignBytes, detail)
    }
}

/// Returns the first position of the needle. Shifts a word along, because comparing slices at each
/// byte is slow.
fn position(bytes: &[u8], needle: [u8; NEEDLE_BYTES]) -> Option<usize> {
    let needle = u64::from_be_bytes(needle);
    let mut word = 0;
    for (at, byte) in bytes.iter().enumerate() {
        word = (word << 8) | u64::from(*byte);
        if word == needle && at + 1 >= NEEDLE_BYTES {
            return Some(at + 1 - NEEDLE_BYTES);
        }
    }
    None
}
