//! Output of a connection: copies and payloads.

use super::Connection;
use crate::Reason;
use crate::credit::Credit;
use crate::error::SendPayloadError;
use crate::info::SendStatus;
use crate::memory::Payload;
use crate::shard::core::Core;

impl Connection<'_> {
    /// Queues a copy of `bytes` and returns whether the queue has room for more.
    ///
    /// On a connection that is ending, and after [`shutdown`](Self::shutdown), it does nothing and
    /// returns [`SendStatus::Closed`].
    /// Beyond `output_bytes_max` queued bytes it queues nothing and returns
    /// [`SendStatus::Refused`].
    #[doc(alias("write", "IORING_OP_SEND"))]
    #[inline]
    pub fn send(&mut self, bytes: &[u8]) -> SendStatus {
        if bytes.is_empty() || !self.takes_output() {
            return self.room();
        }
        if !self.core.fits(self.slot, bytes.len()) {
            return self.core.refuse(self.slot);
        }
        self.core.queue_bytes(self.slot, bytes);
        self.queued()
    }

    /// Queues copies of several slices, all of them or none: they are [`Refused`] together.
    /// Otherwise as [`send`](Self::send) of the slices one after the other.
    ///
    /// ```
    /// # fn reply(connection: &mut ringwright::Connection<'_>, head: &[u8], body: &[u8]) {
    /// let _ = connection.send_vectored([head, b"\r\n", body]);
    /// # }
    /// ```
    ///
    /// [`Refused`]: SendStatus::Refused
    #[doc(alias = "writev")]
    #[inline]
    pub fn send_vectored<'b, I>(&mut self, pieces: I) -> SendStatus
    where
        I: IntoIterator<Item = &'b [u8], IntoIter: Clone>,
    {
        let pieces = pieces.into_iter();
        let bytes = pieces.clone().map(<[u8]>::len).sum();
        if bytes == 0 || !self.takes_output() {
            return self.room();
        }
        if !self.core.fits(self.slot, bytes) {
            return self.core.refuse(self.slot);
        }
        for piece in pieces.filter(|piece| !piece.is_empty()) {
            self.core.queue_bytes(self.slot, piece);
        }
        self.queued()
    }

    /// Queues a payload: bytes that leave from where they lie, without a copy. [`Payload`] has its
    /// kinds. Many connections can send one `Arc<[u8]>`.
    ///
    /// Up to 2 KiB are copied, because that is faster. An `Arc` with other holders is copied only
    /// up to 512 bytes, so that a payload in many queues does not take its memory many times.
    ///
    /// # Errors
    /// The payload comes back inside [`SendPayloadError`] where [`send`](Self::send) returns
    /// [`SendStatus::Refused`] or [`SendStatus::Closed`].
    #[doc(alias("writev", "zero_copy", "send_shared"))]
    pub fn send_payload(
        &mut self,
        payload: impl Into<Payload>,
    ) -> Result<SendStatus, SendPayloadError> {
        self.queue_payload(&[], payload.into())
    }

    /// Queues a copy of `head` and then a payload, both or none. `head` is the length in front of a
    /// packet, or the head of a response. Otherwise as [`send_payload`](Self::send_payload).
    ///
    /// # Errors
    /// As [`send_payload`](Self::send_payload). Nothing of `head` was queued then.
    #[doc(alias = "writev")]
    pub fn send_with_head(
        &mut self,
        head: &[u8],
        payload: impl Into<Payload>,
    ) -> Result<SendStatus, SendPayloadError> {
        self.queue_payload(head, payload.into())
    }

    fn queue_payload(
        &mut self,
        head: &[u8],
        payload: Payload,
    ) -> Result<SendStatus, SendPayloadError> {
        if !self.takes_output() {
            return Err(SendPayloadError { payload, status: SendStatus::Closed });
        }
        let bytes = head.len() + payload.len();
        if !self.core.fits(self.slot, bytes) {
            return Err(SendPayloadError { payload, status: self.core.refuse(self.slot) });
        }
        if bytes == 0 {
            return Ok(self.room());
        }
        if !head.is_empty() {
            self.core.queue_bytes(self.slot, head);
        }
        if !payload.is_empty() {
            self.core.queue_payload(self.slot, payload);
        }
        Ok(self.queued())
    }

    pub(super) fn takes_output(&self) -> bool {
        let slot = &self.core.slots[self.slot];
        slot.state().accepts_output() && !slot.shutdown_wanted()
    }

    /// The answer to a call that queues nothing.
    #[cold]
    pub(super) fn room(&self) -> SendStatus {
        if !self.takes_output() {
            SendStatus::Closed
        } else if self.core.slots[self.slot].is_full() {
            SendStatus::Full
        } else {
            SendStatus::Ready
        }
    }

    pub(super) fn queued(&mut self) -> SendStatus {
        if self.core.queued(self.slot) { SendStatus::Full } else { SendStatus::Ready }
    }
}

impl Core {
    /// Sends to a connection whose handler does not see the answer. Its stream must not have a gap,
    /// so bytes that do not fit end it. `credit` comes back when they have left.
    pub fn send_unasked(&mut self, slot: u32, payload: Payload, credit: Option<Credit>) {
        match Connection::new(self, slot).queue_payload(&[], payload) {
            Ok(_) => {}
            Err(SendPayloadError { status: SendStatus::Refused, .. }) => {
                self.end(slot, Reason::OutputTooLong, true);
            }
            // A credit that is dropped ends its stream.
            Err(_) => return,
        }
        if let Some(credit) = credit {
            self.set_credit(slot, credit);
        }
    }
}
