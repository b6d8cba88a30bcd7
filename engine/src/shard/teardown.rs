//! The end of a shard: at rest after a drain, or all at once when it failed.
//!
//! A shard fails if io_uring_enter(2) or epoll_wait(2) fails, or if its code panics outside a
//! callback. The listeners stop at once, connections are cut, and operations in flight are waited
//! for (100 ms). `Engine::wait` returns, and `join` returns the cause. The other shards continue.
//!
//! Hazard: an entry that is still in the submission queue must not meet a descriptor number that
//! was reused. Descriptors are closed and permits given back only after the wait.

use super::Shard;
use super::bounds::Full;
use super::connect::Attempt;
use super::turn::{Calling, Submitting};
use crate::Reason;
use crate::handler::Handler;
use crate::mailbox::Command;
use crate::memory::Spills;
use crate::panics::discard;
use crate::ring::{Descriptor, Kind, Op, Ring, Shutdown, Token};
use std::io;
use std::time::Duration;

/// Turns that the cancelled wake poll is waited for.
const WAKE_TURNS_MAX: usize = 100;

/// The receiver of the last callbacks of a shard that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tells {
    Handler,
    /// The shard's own code has panicked.
    Nobody,
}

impl<R: Ring, H: Handler> Shard<R, H> {
    /// After a drain: nothing is in flight but the wake poll, which is cancelled, so that the ring
    /// can give its memory back.
    pub(super) fn wind_up(&mut self, may: Submitting, call: Calling) {
        assert_eq!(self.transit.waiting(self.core.shard), 0, "a drain has let in all clients");
        self.core.admission.evictions().leave(self.core.shard);
        // A callback from here on may still ask for a job.
        self.core.jobs.end();
        self.refuse_connects(call);
        self.discard_listeners();
        self.pipes.close_idle(&mut self.ring);
        if self.cancel_wake(may).is_ok() {
            for _ in 0..WAKE_TURNS_MAX {
                if self.in_flight == 0
                    || self.ring.submit_and_wait(1, Duration::from_millis(1)).is_err()
                {
                    break;
                }
                while let Some(completion) = self.ring.completion() {
                    self.dispatch(call, completion);
                }
            }
        }
        self.end_files();
        self.core.abandon_jobs();
        self.application.ended(call, &mut self.core);
        report!(drain_ended(self.core.shard));
        self.publish();
    }

    /// Answers those who asked for a connect in the last moment.
    fn refuse_connects(&mut self, call: Calling) {
        self.mailbox.close();
        while let Some(command) = self.mailbox.next() {
            match command {
                Command::Connect(connect, tag) | Command::KeepConnected(connect, tag, _) => {
                    mark!("a connect is asked for too late");
                    self.core.connects.ask(Attempt::new(*connect, tag, false));
                }
                lost => {
                    if matches!(lost, Command::Post(..) | Command::Run(..)) {
                        mark!("a message comes too late");
                        self.core.counters.messages_unclaimed += 1;
                    }
                    // Its drop is the application's code.
                    discard(lost);
                }
            }
        }
        for attempt in self.core.connects.take() {
            self.fail(call, &attempt, io::Error::other("the shard has ended"));
        }
    }

    fn cancel_wake(&mut self, may: Submitting) -> Result<(), Full> {
        self.pushes_left = 1;
        if self.wake_armed {
            let target = Token::new(Kind::Wake, 0, 0);
            self.push(may, Token::new(Kind::CancelWake, 0, 0), Op::Cancel { target })?;
        }
        Ok(())
    }

    /// Ends everything at once, for a shard that failed: no completion will tell of any end. Cuts
    /// the connections off, waits a while for what is in flight, and only then closes descriptors:
    /// what still lies in the submission queue must not meet a number that is somebody else's by
    /// then. Tells the application and gives the permits back. False: operations are left that may
    /// still use the shard's memory.
    pub(super) fn tear_down(
        &mut self,
        may: Submitting,
        call: Calling,
        wait: Duration,
        tells: Tells,
    ) -> bool {
        // Whoever connects again when it hears of an end is told that nothing comes of it.
        self.core.draining = true;
        self.core.jobs.end();
        self.core.admission.evictions().leave(self.core.shard);
        self.core.links.end();
        self.turn_away_handed_over();
        self.abandon_listeners(may);
        self.end_waiting();
        let slots: Vec<u32> = self.slots().iter().map(|(slot, _)| slot).collect();
        for slot in &slots {
            let connection = &self.core.slots[*slot];
            if !connection.in_flight().has(Kind::Close) {
                let descriptor = connection.descriptor();
                if !connection.is_cut() {
                    self.note_traffic(*slot);
                    self.note_lost(*slot);
                }
                let _ = self.ring.shutdown(descriptor, Shutdown::Both);
            }
        }
        let at_rest = self.settle_operations(wait);
        self.discard_listeners();
        for slot in self.pipe_holders.clone() {
            self.put_pipe_back(slot);
        }
        for slot in &slots {
            self.put_incoming_pipe_back(*slot);
        }
        self.pipes.close_idle(&mut self.ring);
        for slot in slots {
            let connection = &mut self.core.slots[slot];
            connection.give_reason(Reason::ShardFailed);
            // A close that was submitted may have been carried out though nobody said so: the
            // number may be somebody else's by now.
            if !connection.in_flight().has(Kind::Close) {
                self.ring.close_now(connection.descriptor());
            }
            self.report_end(call, slot);
            self.report_connect(call, slot);
            self.core.forget_jobs(slot);
            self.core.forget_client(slot);
            self.core.admission.forget_address(self.core.slots.identity(slot).cell);
            self.core.admission.give_back(self.core.slots.holder(slot));
        }
        self.report_sent(call);
        self.refuse_connects(call);
        if !at_rest {
            mark!("memory is left to the kernel");
            // A send or a write may still read what is kept on the heap, an open its path.
            std::mem::forget(std::mem::take(&mut self.core.chunks));
            std::mem::forget(std::mem::replace(&mut self.core.spills, Spills::new(1)));
            std::mem::forget(std::mem::take(&mut self.core.opens));
            std::mem::forget(std::mem::take(&mut self.core.incoming));
            std::mem::forget(std::mem::take(&mut self.core.namings));
        }
        self.core.incoming.clear();
        self.core.forwards.clear();
        self.core.namings.clear();
        self.end_files();
        self.core.abandon_jobs();
        if tells == Tells::Handler {
            self.application.ended(call, &mut self.core);
        }
        self.publish_end();
        at_rest
    }

    /// Closes what is left to close. Who holds a file from here on closes it himself.
    fn end_files(&mut self) {
        self.core.empty_file_cache();
        self.core.files_open.end();
        self.core.files_open.take_dropped(&mut self.core.files_closing);
        for file in std::mem::take(&mut self.core.files_closing) {
            self.ring.close_now(file.descriptor);
        }
    }

    /// Answers a connect that was under way.
    fn report_connect(&mut self, call: Calling, slot: u32) {
        if let Some(attempt) = self.core.connects.with_slot.remove(&slot) {
            mark!("a connect ends with its shard");
            self.fail(call, &attempt, io::Error::other("the shard has failed"));
        }
    }

    /// Waits for what is in flight. False: something still is, or the ring no longer works.
    fn settle_operations(&mut self, wait: Duration) -> bool {
        let until_ms = self.ring.now_ms() + wait.as_millis() as u64;
        while self.in_flight > u64::from(self.wake_armed) && self.ring.now_ms() < until_ms {
            if self.ring.submit_and_wait(1, Duration::from_millis(1)).is_err() {
                mark!("a ring that fails again");
                return false;
            }
            while let Some(completion) = self.ring.completion() {
                mark!("a completion after a failure");
                self.in_flight -= u64::from(!completion.more());
                let (kind, result) = (completion.token.kind(), completion.result);
                match kind {
                    Some(Kind::Wake) => self.wake_armed = false,
                    Some(Kind::Accept | Kind::Open) if result >= 0 => {
                        mark!("a descriptor that comes after a failure");
                        self.ring.close_now(Descriptor(result));
                    }
                    _ => {}
                }
            }
        }
        self.in_flight <= u64::from(self.wake_armed)
    }
}
