//! The markers of a shard, by connection.

use super::marker::{Marker, MarkerKind};
use super::waiting::Waiting;
use crate::credit::Credit;
use crate::info::SentMarker;
use crate::shard::rare::NONE;
use slab::Slab;

/// The markers of a shard.
#[derive(Default)]
pub struct Markers {
    /// By slot. Empty until the first marker is set.
    queues: Vec<Queue>,
    markers: Slab<Marker>,
    /// Those whose bytes have left and that wait for the peer.
    pub waiting: Waiting,
    /// Credits of streams, each with a marker.
    pub credits: Slab<Credit>,
    /// The markers that the handler will be told of.
    pub reached: Vec<SentMarker>,
}

/// The markers of a connection, in the order of its output.
#[derive(Clone, Copy)]
struct Queue {
    first: u32,
    last: u32,
    /// The bytes up to the last one that have not left.
    unsent_bytes: u64,
}

impl Queue {
    const EMPTY: Self = Self { first: NONE, last: NONE, unsent_bytes: 0 };
}

impl Markers {
    /// A marker has been set on this shard at some time.
    #[inline]
    pub fn are_in_use(&self) -> bool {
        !self.queues.is_empty()
    }

    /// Adds a marker behind so many queued bytes. `None`: they will not leave.
    pub fn push(&mut self, slot: u32, (tag, kind): (u64, MarkerKind), queued_bytes: Option<u64>) {
        let at = slot as usize;
        if at >= self.queues.len() {
            self.queues.resize(at + 1, Queue::EMPTY);
        }
        let queue = &mut self.queues[at];
        let unsent_bytes =
            queued_bytes.map_or(u64::MAX, |bytes| bytes.saturating_sub(queue.unsent_bytes));
        queue.unsent_bytes = queue.unsent_bytes.saturating_add(unsent_bytes);
        let marker = self.markers.insert(Marker { tag, unsent_bytes, next: NONE, kind }) as u32;
        match queue.first {
            NONE => queue.first = marker,
            _ => self.markers[queue.last as usize].next = marker,
        }
        queue.last = marker;
    }

    /// # Panics
    /// If a credit has no marker, or a record of those that wait has none.
    #[cfg(any(test, feature = "testing"))]
    pub fn check(&self) {
        let credits = self.markers.iter().filter(|(_, it)| it.kind == MarkerKind::Credit).count();
        assert_eq!(self.credits.len(), credits, "credits and their markers");
        self.waiting.check();
    }

    /// Takes the first marker of a connection off.
    pub fn pop(&mut self, slot: u32) -> Option<Marker> {
        let queue = self.queues.get_mut(slot as usize)?;
        let marker = self.markers.try_remove(queue.first as usize)?;
        // Such a sum is that of a connection that sends nothing more.
        queue.unsent_bytes = queue.unsent_bytes.saturating_sub(marker.unsent_bytes);
        queue.first = marker.next;
        Some(marker)
    }

    /// Returns whether a marker of a connection is to wait for the peer.
    pub fn has_acknowledged(&self, slot: u32) -> bool {
        let first = self.queues.get(slot as usize).map_or(NONE, |queue| queue.first);
        let mut next = self.markers.get(first as usize);
        while let Some(marker) = next {
            if marker.kind == MarkerKind::Acknowledged {
                return true;
            }
            next = self.markers.get(marker.next as usize);
        }
        false
    }

    /// Forgets `bytes` that will not leave, the last of which would be number `end` of the queue.
    pub fn forget(&mut self, slot: u32, end: u64, bytes: u64) {
        let Some(queue) = self.queues.get_mut(slot as usize) else { return };
        let (mut at, mut before) = (queue.first, 0);
        while let Some(marker) = self.markers.get_mut(at as usize) {
            before += marker.unsent_bytes;
            if before >= end {
                mark!("a marker behind a file that is given up");
                marker.unsent_bytes -= bytes;
                queue.unsent_bytes -= bytes;
                return;
            }
            at = marker.next;
        }
    }

    /// Notes that bytes of a connection have left. Returns how many of them belong behind its first
    /// marker, if that was reached.
    pub fn advance(&mut self, slot: u32, sent_bytes: u64) -> Option<u64> {
        let queue = self.queues.get_mut(slot as usize)?;
        let marker = self.markers.get_mut(queue.first as usize)?;
        let part = sent_bytes.min(marker.unsent_bytes);
        marker.unsent_bytes -= part;
        queue.unsent_bytes -= part;
        (marker.unsent_bytes == 0).then_some(sent_bytes - part)
    }
}
