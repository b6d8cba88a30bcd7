//! Markers in the output of connections: a handler learns when the bytes before a marker have left,
//! and a stream of another thread gets its credit back.
//!
//! A marker counts bytes and is no chunk of the output queue: sends are as long as without it. A
//! shard whose handler has set none compares one length per send.
//!
//! Invariant: each marker is reported once, when its bytes have left or its connection has ended.

mod queues;

pub use queues::Markers;

use super::core::Core;
use super::slots::NONE;
use crate::credit::Credit;
use crate::info::SentMarker;
use crate::reason::Reason;
use queues::Marker;
use std::time::Duration;

impl Core {
    /// Sets a marker behind the queued output.
    pub fn set_marker(&mut self, slot: u32, tag: u64) {
        self.push_marker(slot, tag, false);
    }

    /// Sets a marker at which a credit goes back.
    #[cold]
    pub fn set_credit(&mut self, slot: u32, credit: Credit) {
        let tag = self.markers.credits.insert(credit) as u64;
        self.push_marker(slot, tag, true);
    }

    fn push_marker(&mut self, slot: u32, tag: u64, is_credit: bool) {
        // Output of a connection that is being cut will not leave.
        let sends = self.slots[slot].state().sends();
        let queued_bytes = sends.then(|| self.queued_with_files(slot));
        self.markers.push(slot, (tag, is_credit), queued_bytes);
        if queued_bytes == Some(0) {
            self.advance_markers(slot, 0);
        }
    }

    /// Notes that bytes of a connection have left.
    #[cold]
    #[inline(never)]
    pub fn advance_markers(&mut self, slot: u32, sent_bytes: u32) {
        let mut left = u64::from(sent_bytes);
        while let Some(rest) = self.markers.advance(slot, left) {
            let marker = self.markers.pop(slot).expect("the first marker was reached");
            self.report_marker(slot, &marker, None);
            left = rest;
        }
    }

    /// The connection has ended, and with it what was queued.
    #[cold]
    #[inline(never)]
    pub fn end_markers(&mut self, slot: u32, reason: Reason) {
        let (mut cut, mut of_credits) = (None, 0_u64);
        while let Some(mut marker) = self.markers.pop(slot) {
            // A marker without bytes of its own has not been reached behind unsent ones.
            cut = cut.or((marker.unsent_bytes > 0).then_some(reason));
            // A handler hears of its own markers only: the bytes before a credit are those before
            // the next marker of the handler.
            if marker.is_credit {
                of_credits = marker.unsent_bytes.saturating_add(of_credits);
            } else {
                let before = std::mem::take(&mut of_credits);
                marker.unsent_bytes = marker.unsent_bytes.saturating_add(before);
            }
            self.report_marker(slot, &marker, cut);
        }
    }

    fn report_marker(&mut self, slot: u32, marker: &Marker, reason: Option<Reason>) {
        let Marker { tag, unsent_bytes, is_credit, .. } = *marker;
        if is_credit {
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
