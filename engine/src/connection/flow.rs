//! How a connection's input and output are slowed down, and its timers.

use super::Connection;
use crate::config::milliseconds;
use crate::shard::slots::Pause;
use std::time::Duration;

impl Connection<'_> {
    /// Delays the next call of `received` until `bytes` unused bytes are there. The next call ends
    /// the effect. A number above `message_bytes_max` ends the connection with
    /// [`Reason::MessageTooLong`], because so many bytes are never kept.
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
