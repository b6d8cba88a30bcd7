//! Jobs and holds of connections: those that ask for them, and whether all are accounted for.

use super::actor::{Actor, OnPurpose, Talk};
use super::elsewhere::{FAILS, HOLD, Held, Value, ends_with, value_of};
use super::world::World;
use crate::Connection;
use crate::ring::simulated::stretch;
use crate::workers::{Job, JobDone, OffloadJobErrorKind, TakeHoldError};
use std::sync::Arc;

/// Tags of jobs and holds whose results come in no order have this.
const UNORDERED: u64 = 1 << 62;

/// Content so long is found in one place only.
const TELLING_BYTES_MIN: usize = 24;

/// Whoever waits for a place in the queue hears of one within so long: a wake may be late.
const ROOM_US_MAX: u64 = 300_000;

impl World {
    /// The number of workers changes.
    pub(super) fn change_workers(&mut self) {
        self.shift.borrow_mut().resize();
    }

    /// Looks which shards should hear that there is room for a job.
    pub(super) fn note_room(&mut self) {
        let now_us = self.now_us();
        for lane in &mut self.lanes {
            let Some(shard) = lane.shard() else { continue };
            let core = shard.parts().1;
            if core.jobs.is_late() {
                // A hold takes no place in the queue.
                let submitted = core.counters.jobs_submitted - core.counters.holds_taken;
                lane.room_since_us.get_or_insert((now_us, submitted));
            }
        }
    }

    /// Every job is somewhere: queued, running, held elsewhere, on its way back, or waiting for its
    /// turn. And the shard that just acted did not sleep though there was room.
    pub(super) fn check_jobs(&mut self, at: usize) {
        let lane = &mut self.lanes[at];
        let (since_us, submitted) = lane.room_since_us.take().unwrap_or((u64::MAX, 0));
        let slept_us = lane.now_us().saturating_sub(since_us);
        // What it took itself before it slept was no room any more.
        let shard = lane.shard();
        let took = shard.is_some_and(|it| {
            let counters = &it.parts().1.counters;
            counters.jobs_submitted - counters.holds_taken > submitted
        });
        let slept_us = if took { 0 } else { slept_us };
        assert!(slept_us < ROOM_US_MAX, "nobody said for {slept_us} us that there is room");
        let unfinished = self.shift.borrow().unfinished() + self.holds();
        let (mut under_way, mut known, mut failed) = (0, 0, false);
        for lane in &mut self.lanes {
            match lane.shard() {
                Some(shard) => {
                    let jobs = &shard.parts().1.jobs;
                    under_way += jobs.under_way();
                    known += jobs.known();
                }
                None => failed = true,
            }
        }
        // What a shard that has ended offloaded may still be queued.
        assert!(failed || unfinished + known == under_way, "{unfinished} {known} {under_way}");
        assert!(unfinished + known >= under_way, "{under_way} jobs, {unfinished} and {known}");
    }

    /// Every shard has ended: nobody works any more, and nothing is left.
    pub(super) fn judge_jobs(&mut self) {
        self.shift.borrow_mut().end();
        assert_eq!(self.ledger().sum.jobs_under_way, 0, "jobs in the ledger");
    }
}

/// The result of a simulated job: the bytes to echo, and what it has sent before.
struct Stretch {
    offset: u64,
    bytes: usize,
    sent: Option<Arc<[u8]>>,
}

impl Actor {
    /// Has jobs and holds say which bytes to echo. Returns how many of them were taken care of.
    pub(super) fn offload(
        &self,
        talk: &mut Talk,
        connection: &mut Connection<'_>,
        length: usize,
    ) -> usize {
        let mut used = 0;
        while used < length {
            let bytes = talk.rng.up_to(length - used);
            let held = talk.rng.below(2) == 0;
            match self.offload_one(talk, connection, bytes, held) {
                Err(OffloadJobErrorKind::Full) => break,
                Err(OffloadJobErrorKind::NoWorkers) | Ok(()) => {}
                Err(refusal) => self.fail(talk.id, &format!("is shown bytes, but {refusal:?}")),
            }
            talk.used += bytes as u64;
            used += bytes;
        }
        used
    }

    /// Offloads a job, or takes a hold.
    pub(super) fn offload_one(
        &self,
        talk: &mut Talk,
        connection: &mut Connection<'_>,
        bytes: usize,
        held: bool,
    ) -> Result<(), OffloadJobErrorKind> {
        let offset = talk.used;
        let (unordered, fails) = (talk.rng.below(4) == 0, talk.rng.below(8) == 0);
        let number = talk.jobs_made;
        let mut tag = number;
        tag |= if unordered { UNORDERED } else { 0 };
        tag |= if fails { FAILS } else { 0 };
        tag |= if held { HOLD } else { 0 };
        let to_send: Option<Arc<[u8]>> =
            (talk.rng.below(8) == 0).then(|| self.book.borrow_mut().blob(TELLING_BYTES_MIN).into());
        let (handle, id) = (connection.local().engine().clone(), talk.id);
        let work = move || {
            let sent = to_send.filter(|bytes| handle.send(id, bytes.clone()).is_ok());
            Stretch { offset, bytes, sent }
        };
        let before = connection.jobs_under_way();
        let result = if held {
            self.take_hold(connection, tag, work)
        } else {
            self.give_job(connection, tag, work)
        };
        let taken = usize::from(result.is_ok());
        if connection.jobs_under_way() != before + taken || before != talk.jobs.len() {
            self.fail(talk.id, "jobs under way do not add up");
        }
        if result.is_ok() {
            talk.jobs_made += 1;
            talk.jobs.push(tag);
        }
        result
    }

    fn give_job(
        &self,
        connection: &mut Connection<'_>,
        tag: u64,
        work: impl FnOnce() -> Stretch + Send + 'static,
    ) -> Result<(), OffloadJobErrorKind> {
        let work = move || {
            if tag & FAILS != 0 {
                std::panic::panic_any(OnPurpose);
            }
            Value { value: work(), abandoned: false }
        };
        let unordered = tag & UNORDERED != 0;
        let job = if unordered { Job::unordered(tag, work) } else { Job::new(tag, work) };
        connection.offload(job).map_err(|refused| {
            if refused.job.tag() != tag {
                self.fail(connection.id(), "another job comes back");
            }
            refused.kind
        })
    }

    fn take_hold(
        &self,
        connection: &mut Connection<'_>,
        tag: u64,
        work: impl FnOnce() -> Stretch + 'static,
    ) -> Result<(), OffloadJobErrorKind> {
        let unordered = tag & UNORDERED != 0;
        let hold = if unordered { connection.hold_unordered(tag) } else { connection.hold(tag) };
        let hold = hold.map_err(|refused| match refused {
            TakeHoldError::Full => OffloadJobErrorKind::Full,
            TakeHoldError::Ending => OffloadJobErrorKind::Ending,
        })?;
        let (connection, work) = (Some(connection.id()), ends_with(tag, work));
        self.elsewhere.borrow_mut().take(Held { hold, connection, tag, work });
        Ok(())
    }

    /// What came of a job: is it its turn, and is it that job's?
    pub(super) fn hear_of_job(
        &self,
        talk: &mut Talk,
        connection: &mut Connection<'_>,
        done: JobDone,
    ) {
        let tag = done.tag();
        let in_turn = |other: &u64| *other == tag || (other | tag) & UNORDERED != 0;
        let at = talk.jobs.iter().position(|other| *other == tag);
        if !at.is_some_and(|at| tag & UNORDERED != 0 || talk.jobs[..at].iter().all(in_turn)) {
            self.fail(talk.id, &format!("job {tag:x} is out of turn: {:x?}", talk.jobs));
        }
        talk.jobs.retain(|other| *other != tag);
        match value_of(done) {
            Ok(Some(Stretch { offset, bytes, sent })) => {
                let key = talk.key;
                let _ = self.say(talk, connection, key, offset, bytes);
                if let Some(sent) = sent.filter(|_| bytes >= TELLING_BYTES_MIN) {
                    let then = stretch(key, offset, bytes).into();
                    self.book.borrow_mut().records[talk.record].in_order.push([sent, then]);
                }
            }
            Ok(None) => {}
            Err(wrong) => self.fail(talk.id, &format!("job {wrong}")),
        }
        if talk.rng.below(8) == 0 {
            // Of no bytes; whatever comes of it.
            let held = talk.rng.below(2) == 0;
            let _ = self.offload_one(talk, connection, 0, held);
        }
    }
}
