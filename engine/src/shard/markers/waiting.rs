//! Markers that wait until the peer has acknowledged the bytes before them.
//!
//! The kernel tells how many bytes are not acknowledged: the last ones that have left. A marker is
//! reached when no more of them are left than have left behind it. Nothing is asked when a marker
//! leaves, and a connection without such markers counts nothing.

use super::marker::Marker;
use crate::shard::rare::NONE;
use slab::Slab;
use std::collections::HashMap;

/// The first question follows so long after a marker has left.
const ASK_MIN_MS: u64 = 10;
/// The longest time between two questions.
const ASK_MAX_MS: u64 = 250;
/// A question follows after this part of the time for which the peer has acknowledged no marker.
const ASK_PART: u64 = 8;

/// The markers of a shard that wait for the peer.
#[derive(Default)]
pub struct Waiting {
    lists: HashMap<u32, List>,
    markers: Slab<Marker>,
}

/// The markers of a connection that wait for the peer, in the order of its output.
struct List {
    first: u32,
    last: u32,
    /// The bytes that have left behind the first marker, and behind the last one.
    behind_first_bytes: u64,
    behind_last_bytes: u64,
    /// Since when the first one is the first, and the time of the last question.
    since_ms: u64,
    asked_ms: u64,
    /// Our FIN has left behind them.
    fin_sent: bool,
    /// The bytes that were not acknowledged when the connection was cut.
    lost_bytes: Option<u64>,
}

impl List {
    fn new(now_ms: u64) -> Self {
        Self {
            first: NONE,
            last: NONE,
            behind_first_bytes: 0,
            behind_last_bytes: 0,
            since_ms: now_ms,
            asked_ms: now_ms,
            fin_sent: false,
            lost_bytes: None,
        }
    }
}

impl Waiting {
    /// # Panics
    /// If a list is of no use.
    #[cfg(any(test, feature = "testing"))]
    pub fn check(&self) {
        let is_of_use = |list: &List| list.first != NONE || list.lost_bytes.is_some();
        assert!(self.lists.values().all(is_of_use), "a list without markers");
    }

    /// A marker whose bytes have left waits for the peer.
    pub fn push(&mut self, slot: u32, marker: Marker, now_ms: u64) {
        let list = self.lists.entry(slot).or_insert_with(|| List::new(now_ms));
        let unsent_bytes = list.behind_last_bytes;
        let number = self.markers.insert(Marker { unsent_bytes, next: NONE, ..marker }) as u32;
        match list.first {
            NONE => {
                (list.first, list.behind_first_bytes) = (number, 0);
                (list.since_ms, list.asked_ms) = (now_ms, now_ms);
            }
            _ => self.markers[list.last as usize].next = number,
        }
        (list.last, list.behind_last_bytes) = (number, 0);
    }

    /// More bytes of a connection have left.
    pub fn note_behind(&mut self, slot: u32, bytes: u64) {
        if let Some(list) = self.lists.get_mut(&slot) {
            list.behind_first_bytes += bytes;
            list.behind_last_bytes += bytes;
        }
    }

    /// Our FIN has left behind the markers. The kernel counts it as a byte.
    pub fn note_fin(&mut self, slot: u32) {
        if let Some(list) = self.lists.get_mut(&slot) {
            list.fin_sent = true;
        }
    }

    /// Returns the time of the last question about a connection whose markers wait, and how long
    /// after it the next one follows, in ms.
    pub fn next_question(&self, slot: u32) -> Option<(u64, u64)> {
        let list = self.lists.get(&slot)?;
        let waited_ms = list.asked_ms - list.since_ms;
        Some((list.asked_ms, (waited_ms / ASK_PART).clamp(ASK_MIN_MS, ASK_MAX_MS)))
    }

    /// The peer has not acknowledged the last `bytes` of those that have left. Takes the first
    /// marker off if it was reached.
    pub fn pop_acknowledged(&mut self, slot: u32, bytes: u64, now_ms: u64) -> Option<Marker> {
        let list = self.lists.get_mut(&slot)?;
        list.asked_ms = now_ms;
        if list.first == NONE || bytes > list.behind_first_bytes {
            return None;
        }
        list.since_ms = now_ms;
        let marker = self.pop_waiting(slot).map(|marker| Marker { unsent_bytes: 0, ..marker });
        if self.lists.get(&slot).is_some_and(|list| list.first == NONE) {
            self.lists.remove(&slot);
        }
        marker
    }

    /// Takes the first marker that waits off.
    fn pop_waiting(&mut self, slot: u32) -> Option<Marker> {
        let list = self.lists.get_mut(&slot)?;
        let marker = self.markers.try_remove(list.first as usize)?;
        list.first = marker.next;
        if let Some(next) = self.markers.get(marker.next as usize) {
            list.behind_first_bytes -= next.unsent_bytes;
        }
        Some(marker)
    }

    /// Returns whether no marker of a connection waits.
    pub fn nothing_waits(&self, slot: u32) -> bool {
        self.lists.get(&slot).is_none_or(|list| list.first == NONE)
    }

    /// The connection is cut: the peer has not acknowledged the last `bytes`.
    pub fn note_lost(&mut self, slot: u32, bytes: u64, now_ms: u64) {
        let list = self.lists.entry(slot).or_insert_with(|| List::new(now_ms));
        list.lost_bytes = Some(bytes);
    }

    /// The same when the connection has ended, with the bytes before it that were not acknowledged.
    pub fn pop_lost(&mut self, slot: u32) -> Option<Marker> {
        let list = self.lists.get(&slot)?;
        let behind_bytes = list.behind_first_bytes;
        let mut marker = self.pop_waiting(slot)?;
        let list = self.lists.get_mut(&slot)?;
        let lost_bytes = list.lost_bytes.unwrap_or(0);
        marker.unsent_bytes = lost_bytes.saturating_sub(behind_bytes);
        list.lost_bytes = Some(lost_bytes.min(behind_bytes));
        Some(marker)
    }

    /// Forgets what was known of a connection's output. Returns the bytes behind the last marker
    /// that were not acknowledged.
    pub fn forget_lost(&mut self, slot: u32) -> u64 {
        self.lists.remove(&slot).and_then(|list| list.lost_bytes).unwrap_or(0)
    }

    /// Returns whether our FIN has left behind markers that wait.
    pub fn fin_was_sent(&self, slot: u32) -> bool {
        self.lists.get(&slot).is_some_and(|list| list.fin_sent)
    }
}
