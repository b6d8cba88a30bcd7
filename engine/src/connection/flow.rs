//! How a connection's input and output are slowed down, and its timers.

use super::Connection;
use crate::ConnectionId;
use crate::config::milliseconds;
use crate::info::StartForwardError;
use crate::shard::slots::{NONE, Pause};
use std::time::Duration;

impl Connection<'_> {
    /// Delays the next call of `received` until `bytes` unused bytes are there. The next call ends
    /// the effect. A number above `message_bytes_max` ends the connection with
    /// [`Reason::MessageTooLong`](crate::Reason::MessageTooLong), because so many bytes are never
    /// kept.
    #[doc(alias("SO_RCVLOWAT", "read_exact"))]
    pub fn need(&mut self, bytes: usize) {
        self.core.slots[self.slot].set_need(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    /// Stops calls of `received` and `half_closed`, and stops receiving soon after.
    ///
    /// The engine keeps the bytes that arrive until then: one receive buffer's worth, plus what
    /// arrives before the cancelled receive ends. `receive_timeout` does not run during a pause,
    /// but `idle_timeout` does.
    ///
    /// It is [`pause_for(1)`](Self::pause_for).
    #[doc(alias("read_stop", "backpressure"))]
    pub fn pause(&mut self) {
        self.pause_for(1);
    }

    /// Ends a [`pause`](Self::pause). The engine delivers the kept bytes after this callback.
    ///
    /// It is [`resume_for(1)`](Self::resume_for).
    #[doc(alias = "read_start")]
    pub fn resume(&mut self) {
        self.resume_for(1);
    }

    /// Pauses as [`pause`](Self::pause) does, for reasons of which each is a bit of the
    /// application's own choice. The pause lasts until every reason has ended.
    ///
    /// A handler that waits for a rate limit and for a database at the same time thus needs no
    /// count of its own:
    ///
    /// ```
    /// # use ringwright::Connection;
    /// const RATE: u32 = 1 << 1;
    /// const DATABASE: u32 = 1 << 2;
    /// # fn handle(connection: &mut Connection<'_>) {
    /// connection.pause_for(RATE | DATABASE);
    /// connection.resume_for(DATABASE); // still paused
    /// assert_eq!(connection.pauses(), RATE);
    /// # }
    /// ```
    pub fn pause_for(&mut self, reasons: u32) {
        let reasons = self.pauses() | reasons;
        if reasons == 0 {
            return;
        }
        self.core.slots[self.slot].pause_for(Pause::Application);
        // A message cannot be late while nobody reads it.
        self.core.forget_message(self.slot);
        self.set_pauses(reasons);
    }

    /// Ends pauses for these reasons. If no other is left, the engine delivers the kept bytes after
    /// this callback.
    pub fn resume_for(&mut self, reasons: u32) {
        let reasons = self.pauses() & !reasons;
        if reasons == 0 {
            let slot = &mut self.core.slots[self.slot];
            slot.end_pause();
            slot.owe_delivery();
        } else {
            mark!("a pause goes on for another reason");
        }
        self.set_pauses(reasons);
    }

    /// The reasons for which the application has paused the connection, one bit each. A pause that
    /// waits for room for a job does not count.
    #[must_use]
    pub fn pauses(&self) -> u32 {
        let rare = self.core.slots.rare(self.slot);
        match rare.pauses() {
            0 => u32::from(self.core.slots[self.slot].is_paused() && !rare.paused_for_jobs()),
            reasons => reasons,
        }
    }

    /// Records the reasons. From here on, only the application changes the pause.
    fn set_pauses(&mut self, reasons: u32) {
        // The most frequent reason needs no record.
        if reasons > 1 {
            self.core.slots.rare_mut(self.slot).set_pauses(reasons);
        }
        if let Some(rare) = self.core.slots.rare_if_any(self.slot) {
            rare.set_pauses(if reasons == 1 { 0 } else { reasons });
            rare.end_pause_for_jobs();
        }
        self.core.touch(self.slot);
    }

    /// Sets whether the connection receives while its output queue is full. Default: it does not,
    /// so that a client that reads no responses cannot send more requests.
    ///
    /// A relay must turn this on for both of its connections. Otherwise the relay stops in both
    /// directions as soon as both queues are full. It must then pause the source of the output
    /// itself: [`pause`](Self::pause) the other connection on [`SendStatus::Full`], and
    /// [`resume`](Self::resume) it in [`Handler::writable`](crate::Handler::writable).
    ///
    /// [`SendStatus::Full`]: crate::SendStatus::Full
    pub fn receive_while_full(&mut self, on: bool) {
        self.core.receive_while_full(self.slot, on);
    }

    /// Asks for one call of [`Handler::writable`](crate::Handler::writable) when fewer than `bytes`
    /// bytes of output are queued. Files do not count.
    ///
    /// The call comes after the current callback if that is already so. It is independent of the
    /// call at `output_low_bytes`, which needs a queue that was full. A new request replaces the
    /// previous one, and 0 withdraws it. A connection that takes no more output gets no call.
    #[doc(alias("writable", "watermark"))]
    pub fn notify_below(&mut self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        if bytes != self.core.slots.rare(self.slot).notify_below() {
            self.core.slots.rare_mut(self.slot).set_notify_below(bytes);
            self.core.touch(self.slot);
        }
    }

    /// Forwards the next `length` bytes of the stream to the output of another connection of this
    /// shard, or of this one. [`u64::MAX`]: all bytes up to the peer's FIN. The result comes to
    /// [`Handler::forwarded`](crate::Handler::forwarded).
    ///
    /// Inside `received`, the range begins behind the bytes that this call uses. Elsewhere it
    /// begins behind the bytes used so far. Meanwhile the engine does not call `received`, and
    /// [`pause`](Self::pause) does not stop it. Output of the other connection keeps its order:
    /// what is queued there meanwhile goes between the bytes of the range.
    ///
    /// Short messages are copied. A stream of full receive buffers goes from socket to socket
    /// through a pipe by splice(2), and never enters this process's memory. Nothing is received
    /// while the other connection's queue is full, so a slow reader slows the sender.
    ///
    /// A range with an end counts as a file: if none of its bytes come for `transfer_timeout`, the
    /// connection ends with [`Reason::TransferTimeout`](crate::Reason::TransferTimeout). The time
    /// for which the other connection has no room does not count. One without an end
    /// does not keep a connection from being idle, from [`finish`](Self::finish) or from a drain.
    ///
    /// # Errors
    /// [`StartForwardError`]: nothing has changed.
    #[doc(alias("splice", "relay", "proxy", "pipe", "copy_bidirectional"))]
    pub fn forward(&mut self, to: ConnectionId, length: u64) -> Result<(), StartForwardError> {
        let connection = &self.core.slots[self.slot];
        if !connection.state().hears() {
            return Err(StartForwardError::Ending);
        }
        if self.core.slots.takes_a_range(connection) {
            return Err(StartForwardError::InProgress);
        }
        let to = Some(to).filter(|to| to.shard() == self.core.shard);
        let target = to.and_then(|to| self.core.slots.find(to)).filter(|to| {
            let target = &self.core.slots[*to];
            target.state().accepts_output() && !target.shutdown_wanted()
        });
        let target = target.ok_or(StartForwardError::NoTarget)?;
        if self.core.slots.rare(target).forwarded_by() != NONE {
            return Err(StartForwardError::TargetTaken);
        }
        self.core.request_forward(self.slot, target, length);
        Ok(())
    }

    /// Gives a range that is being forwarded up. Returns `false` if there is none.
    ///
    /// [`Handler::forwarded`](crate::Handler::forwarded) follows with ECANCELED. `received` then
    /// gets the bytes behind those that were forwarded. A range that is already complete is
    /// reported as complete.
    pub fn cancel_forward(&mut self) -> bool {
        let number = self.core.slots.rare(self.slot).forward();
        let hears = self.core.slots[self.slot].state().hears();
        let Some(forward) = self.core.forwards.get_mut(number as usize).filter(|_| hears) else {
            return false;
        };
        mark!("a range is given up");
        forward.cancel();
        self.core.touch(self.slot);
        true
    }

    /// Sets timer number `timer` of the connection: [`Handler::timer`](crate::Handler::timer) is
    /// called once with this number, after `after`. A new call replaces the time, and `None` clears
    /// the timer. The resolution is 4 ms. No timer fires after [`close`](Self::close).
    ///
    /// A connection has 256 timers. Those that are set are searched one by one, so an application
    /// with hundreds of deadlines for a connection should keep them in order itself.
    #[doc(alias("timeout", "IORING_OP_TIMEOUT"))]
    pub fn set_timer(&mut self, timer: u8, after: Option<Duration>) {
        self.core.set_timer(self.slot, timer, after.map(milliseconds));
        self.core.touch(self.slot);
    }
}
