//! Markers in the output of connections: a handler learns when the bytes before a marker have left,
//! and a stream of another thread gets its credit back.
//!
//! A marker counts bytes and is no chunk of the output queue: sends are as long as without it. A
//! shard whose handler has set none compares one length per send.
//!
//! A marker may also wait until the peer has acknowledged the bytes before it. When they have left,
//! it moves to a list of its own (`waiting.rs`), and the family `Delivery` asks the kernel.
//!
//! Invariant: each marker is reported once, when it was reached or its connection has ended.

mod marker;
mod queues;
mod waiting;

pub use marker::MarkerKind;
pub use queues::Markers;

use super::core::Core;
use super::slots::NONE;
use crate::credit::Credit;
use crate::info::SentMarker;
use crate::reason::Reason;
use marker::Marker;
use std::time::Duration;

impl Core {
    /// Sets a marker behind the queued output.
    pub fn set_marker(&mut self, slot: u32, tag: u64, kind: MarkerKind) {
        // Output of a connection that is being cut will not leave.
        let leaves = !self.slots[slot].state().is_over();
        let queued_bytes = leaves.then(|| self.queued_with_files(slot));
        self.markers.push(slot, (tag, kind), queued_bytes);
        if queued_bytes == Some(0) {
            self.advance_markers(slot, 0);
        }
    }

    /// Sets a marker at which a credit goes back.
    #[cold]
    pub fn set_credit(&mut self, slot: u32, credit: Credit) {
        let tag = self.markers.credits.insert(credit) as u64;
        self.set_marker(slot, tag, MarkerKind::Credit);
    }

    /// Notes that bytes of a connection have left.
    #[cold]
    #[inline(never)]
    pub fn advance_markers(&mut self, slot: u32, sent_bytes: u32) {
        let mut left = u64::from(sent_bytes);
        while let Some(rest) = self.markers.advance(slot, left) {
            self.markers.waiting.note_behind(slot, left - rest);
            let marker = self.markers.pop(slot).expect("the first marker was reached");
            let waits = marker.kind == MarkerKind::Acknowledged
                && !self.slots.identity(slot).is_unix()
                && !bug!("sent-counts-as-acknowledged");
            if waits {
                self.wait_for_peer(slot, marker);
            } else {
                self.report_marker(slot, &marker, None);
            }
            left = rest;
        }
        self.markers.waiting.note_behind(slot, left);
    }

    fn wait_for_peer(&mut self, slot: u32, marker: Marker) {
        self.markers.waiting.push(slot, marker, self.now_ms);
        self.slots.rare_mut(slot).set_markers_wait(true);
        // Its deadline has changed.
        self.touch(slot);
    }

    /// The peer has not acknowledged the last `bytes` of those that have left.
    pub fn acknowledge_markers(&mut self, slot: u32, bytes: u64) {
        while let Some(marker) = self.markers.waiting.pop_acknowledged(slot, bytes, self.now_ms) {
            mark!("a marker was acknowledged");
            self.report_marker(slot, &marker, None);
        }
        let waits = !self.markers.waiting.nothing_waits(slot);
        if let Some(rare) = self.slots.rare_if_any(slot) {
            rare.set_markers_wait(waits);
        }
    }

    /// Returns whether the end of a connection has to be told to a marker that waits for the peer,
    /// now or when its bytes have left.
    pub fn asks_for_acknowledgement(&self, slot: u32) -> bool {
        let asks = !self.markers.waiting.nothing_waits(slot) || self.markers.has_acknowledged(slot);
        asks && !self.slots.identity(slot).is_unix()
    }

    /// The connection has ended, and with it what was queued.
    #[cold]
    #[inline(never)]
    pub fn end_markers(&mut self, slot: u32, reason: Reason) {
        while let Some(marker) = self.markers.waiting.pop_lost(slot) {
            mark!("a marker is not acknowledged at the end");
            self.report_marker(slot, &marker, Some(reason));
        }
        // A handler hears of its own markers only, and of those of each kind by themselves: the
        // bytes before another marker are those before the next one of the kind.
        let (mut sent, mut acknowledged) = (0_u64, self.markers.waiting.forget_lost(slot));
        let mut cut = None;
        while let Some(mut marker) = self.markers.pop(slot) {
            // A marker without bytes of its own has not been reached behind unsent ones.
            cut = cut.or((marker.unsent_bytes > 0).then_some(reason));
            sent = sent.saturating_add(marker.unsent_bytes);
            acknowledged = acknowledged.saturating_add(marker.unsent_bytes);
            match marker.kind {
                MarkerKind::Sent => marker.unsent_bytes = std::mem::take(&mut sent),
                MarkerKind::Acknowledged => {
                    marker.unsent_bytes = std::mem::take(&mut acknowledged);
                }
                MarkerKind::Credit => {}
            }
            self.report_marker(slot, &marker, cut);
        }
    }

    fn report_marker(&mut self, slot: u32, marker: &Marker, reason: Option<Reason>) {
        let Marker { tag, unsent_bytes, kind, .. } = *marker;
        if kind == MarkerKind::Credit {
            let credit = self.markers.credits.remove(tag as usize);
            return match reason {
                Some(reason) => credit.end(reason),
                None => credit.give_back(),
            };
        }
        let at = Duration::from_millis(self.now_ms);
        let connection = self.id(slot);
        self.markers.reached.push(SentMarker { tag, connection, at, unsent_bytes, reason });
    }

    /// Forgets bytes before the markers that will not leave: the last of them would be byte number
    /// `end` of the queue.
    pub fn forget_marked(&mut self, slot: u32, end: u64, bytes: u64) {
        self.markers.forget(slot, end, bytes);
        self.advance_markers(slot, 0);
    }

    /// The queued bytes, with those of files.
    fn queued_with_files(&self, slot: u32) -> u64 {
        let mut bytes = 0;
        let mut at = self.slots[slot].output_head();
        while at != NONE {
            let chunk = &self.chunks[at as usize];
            bytes += chunk.body.bytes();
            at = chunk.next;
        }
        bytes
    }
}
