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
        let (mut left, mut said) = (SEARCH_BYTES_MAX, Vec::new());
        for (key, bytes) in own.chain(others) {
            left = left.checked_sub(bytes)?;
            said.resize(bytes as usize, 0);
            Stream::new(key.seed, key.number).fill(0, &mut said);
            if let Some(at) = said.windows(NEEDLE_BYTES).position(|window| window == needle) {
                return Some((key, at as u64));
            }
        }
        None
    }
}

/// Makes the finding for an echo that differs from the data at `start` of connection `key`.
#[cold]
pub fn differs(recent: &Recent, key: Key, start: usize, bytes: &[u8], must: &[u8]) -> Finding {
    let Some(at) = bytes.iter().zip(must).position(|(byte, must)| byte != must) else {
        let detail = format!("ECHOED has {} bytes, but ECHO had {}", bytes.len(), must.len());
        return Finding::new(Rule::WrongBytes, detail);
    };
    let what = format!(
        "byte {at} of an echo (byte {} of the sent data) is {:#04x}, expected {:#04x}",
        start + at,
        bytes[at],
        must[at]
    );
    let found = bytes[at..].first_chunk().and_then(|needle| recent.search(key, *needle));
    match found {
        None => Finding::new(Rule::WrongBytes, what),
        Some((owner, place)) => {
            let whose = if owner == key { "this connection".into() } else { owner.to_string() };
            let detail = format!("{what}: these bytes belong to offset {place} of {whose}");
            Finding::new(Rule::ForeignBytes, detail)
        }
    }
}
