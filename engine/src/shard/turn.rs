//! The loop of a shard, phase by phase.
//!
//! The loop makes the marks that each phase hands on ([`Submitting`], [`Calling`]).

mod phase;

pub(super) use phase::{Calling, Submitting};

use super::Shard;
use super::bounds::{Full, SENT_AT_ONCE_MAX};
use super::family::{After, Outcome};
use super::teardown::Tells;
use crate::error::BoxError;
use crate::files::Closing;
use crate::handler::Handler;
use crate::panics::Panic;
use crate::ring::{Completion, Descriptor, Errno, Kind, Op, Ring, Token};
use std::time::Duration;

/// A turn that takes so much longer than its wait is a pause: a stopped process, a virtual machine
/// that did not run, or a callback that hung.
const PAUSE_US: u64 = 50_000;

/// Why a shard ended otherwise than by a drain.
pub(crate) enum Failure {
    /// io_uring_enter(2) failed.
    Ring(Errno),
    /// So many operations did not end within the grace after a drain's deadline.
    Hung { operations: u64 },
}

impl<R: Ring, H: Handler> Shard<R, H> {
    /// Runs until a drain is complete.
    ///
    /// # Errors
    /// The ring broke, or operations did not end with the drain.
    pub fn run(&mut self) -> Result<(), Failure> {
        while !self.is_finished() {
            self.turn().map_err(Failure::Ring)?;
            if self.drain_ends_at_ms.is_some_and(|at| at <= self.core.now_ms) {
                let operations = self.in_flight - u64::from(self.wake_armed);
                return Err(Failure::Hung { operations });
            }
        }
        self.finish();
        Ok(())
    }

    /// Gives everything back after a drain.
    pub fn finish(&mut self) {
        self.wind_up(Submitting::begin(), Calling::begin());
    }

    /// Ends everything at once, for a shard that failed. False: operations are left that may still
    /// use the shard's memory.
    pub fn give_up(&mut self, wait: Duration, tells: Tells) -> bool {
        self.tear_down(Submitting::begin(), Calling::begin(), wait, tells)
    }

    /// Tells the handler that its shard is ready. Comes before everything else.
    ///
    /// # Errors
    /// The payload of a panic of the handler, or its error inside.
    pub fn start(&mut self) -> Result<Result<(), BoxError>, Panic> {
        self.core.now_us = self.ring.now_us();
        self.core.now_ms = self.core.now_us / 1000;
        // A turn publishes only what changes.
        self.published.publish(&self.core.counters);
        self.application.started(Calling::begin(), &mut self.core)
    }

    /// One turn of the loop: what is wanted goes in, what has happened comes out.
    pub fn turn(&mut self) -> Result<(), Errno> {
        let (may, call) = (Submitting::begin(), Calling::begin());
        if !bug!("idle-keeps-turn") {
            self.once_armed = 0;
        }
        // Operations that did not fit into the queue or the turn go in next. The shard does not
        // wait for anything else then.
        let flushed = self.flush(may, call).is_ok();
        let has_completions = self.bounds.leaves_something && self.end_flush();
        let (want, timeout) = if flushed {
            self.patience()
        } else {
            self.count_unarmed();
            (0, Duration::ZERO)
        };
        self.account();
        if has_completions {
            self.submit_before_rest();
        } else {
            self.ring.submit_and_wait(want, timeout)?;
            self.pushes_left = self.pushes_max;
        }
        let woke_us = self.ring.now_us();
        self.core.now_us = woke_us;
        self.core.now_ms = woke_us / 1000;
        let turn_us = woke_us - self.woke_us;
        if turn_us > PAUSE_US && turn_us > PAUSE_US + timeout.as_micros() as u64 {
            mark!("the shard was kept from running");
            self.paused_until_ms = self.core.now_ms;
        }
        self.woke_us = woke_us;
        self.batch = 0;
        while let Some(completion) = self.ring.completion() {
            self.dispatch(call, completion);
            self.batch += 1;
            if self.batch & self.bounds.completions_mask == 0 && self.leaves_completions() {
                break;
            }
        }
        self.read_mailbox(call);
        self.core.serve_waiting_for_workers();
        // Before a tick, which may write down what it tells.
        self.report_sent(call);
        self.expire(call);
        self.keep_up(call);
        self.make_room();
        self.admit_waiting(call);
        self.feed_starved();
        Ok(())
    }

    /// Turns wants into operations, until there are none, or the submission queue is full, or the
    /// turn has lasted long.
    fn flush(&mut self, may: Submitting, call: Calling) -> Result<(), Full> {
        self.flush_shard(may, call)?;
        self.sends_at_once = self.core.touched.len() <= SENT_AT_ONCE_MAX;
        for _ in 0..self.core.touched.len() {
            let Some(slot) = self.core.touched.pop_front() else { break };
            self.core.slots[slot].untouch();
            if let Err(full) = self.walk(slot, may, call) {
                if !bug!("rearm-dropped") {
                    self.core.touch_first(slot);
                }
                return Err(full);
            }
            self.bounds.flush_left -= 1;
            if self.bounds.flush_left <= 0 && self.leaves_flush() {
                return Err(Full);
            }
        }
        Ok(())
    }

    /// Submits the operations of the shard itself, which belong to no connection.
    fn flush_shard(&mut self, may: Submitting, call: Calling) -> Result<(), Full> {
        if self.core.draining && self.core.slots.len() == 0 {
            self.core.empty_file_cache();
        }
        if !self.wake_armed {
            let op = Op::Poll { descriptor: self.mailbox.event(), events: libc::POLLIN as u32 };
            self.push(may, Token::new(Kind::Wake, 0, 0), op)?;
            self.wake_armed = true;
        }
        self.core.files_open.take_dropped(&mut self.core.files_closing);
        for _ in 0..Self::FILES_CLOSED_MAX {
            let Some(closing) = self.core.files_closing.last() else { break };
            let Closing { descriptor, waits } = *closing;
            self.push(
                may,
                Token::new(Kind::CloseFile, 0, descriptor.0 as u32),
                Op::CloseFile { descriptor, waits },
            )?;
            self.core.files_closing.pop();
            self.files_closing += 1;
        }
        self.flush_accept(may, call)?;
        self.flush_connects(may, call)
    }

    pub(super) fn dispatch(&mut self, call: Calling, completion: Completion) {
        // The buffer first: whatever the token turns out to be, it goes back.
        let buffer = completion.buffer().and_then(|number| self.receive_buffers.take(number));
        let Some(kind) = completion.token.kind() else {
            self.core.counters.stale_completions += 1;
            return self.give_back(buffer);
        };
        if !completion.more() {
            self.in_flight -= 1;
        }
        match kind {
            Kind::Accept | Kind::CancelAccept => self.on_accept(call, kind, completion),
            Kind::Wake => self.wake_armed = false,
            Kind::CancelWake => {}
            Kind::CloseFile => self.files_closing -= 1,
            _ => {
                let slot = completion.token.slot();
                let known = self.core.slots.get(slot).is_some()
                    && (bug!("no-generation-check")
                        || completion.token.is_of(self.core.slots.generation(slot)));
                if !known {
                    self.core.counters.stale_completions += 1;
                    if !bug!("stale-keeps-buffer") {
                        self.give_back(buffer);
                    }
                    return self.on_stale(kind, completion);
                }
                if !completion.more() {
                    self.core.slots[slot].ended(kind);
                }
                match self.completed(slot, Outcome { kind, completion, buffer }, call) {
                    After::Walk => self.core.touch(slot),
                    After::Quiet => self.arm_deadline(slot),
                    After::Freed => {}
                }
            }
        }
    }

    /// A completion of a life that is over: close what it brings, touch nothing else.
    fn on_stale(&mut self, kind: Kind, completion: Completion) {
        if kind == Kind::Open && completion.result >= 0 {
            self.ring.close_now(Descriptor(completion.result));
        }
    }

    /// How many completions to wait for, and how long at most.
    pub(super) fn patience(&self) -> (u32, Duration) {
        let busy = !self.core.touched.is_empty()
            || (self.once_armed > 0 && !self.starved.is_empty())
            || (self.core.upkeep && (self.has_rest() || self.core.is_upkeep_due()))
            || !self.core.files_closing.is_empty()
            || self.core.files_open.has_dropped()
            || self.core.jobs.may_be_served()
            || self.core.connects.are_due();
        if busy || self.is_finished() {
            return (0, Duration::ZERO);
        }
        // For one: under load more have come by then anyhow, and waiting for more was measured to
        // cost throughput (DECISIONS.md).
        (1, self.until_due())
    }
}
