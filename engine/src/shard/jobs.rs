//! Jobs of connections: the jobs in progress, the order of their results, and the connections that
//! wait for a place in the queue.
//!
//! A job carries a ticket: slot, generation and, if it is ordered, its sequence number. Results are
//! delivered in that order. Early results wait in the record of the connection's jobs, which exists
//! only while it has jobs.
//!
//! A job without a place in the queue returns unchanged, and its connection is paused. The queue
//! pauses it until there is a place (first come, first served on each shard), and
//! `jobs_per_connection_max` until one of its results was delivered. Input that the handler left
//! unused is delivered again. A shard looks once more, and asks for a wake-up, right before it
//! sleeps.
//!
//! A job holds neither slot nor permit. Results for a connection that was closed are dropped and
//! counted (`jobs_unclaimed`). A connection with jobs in progress is not at rest: a drain waits for
//! it within its deadline, the peer's FIN alone does not end it, and it is not idle.
//!
//! A hold is a job that runs elsewhere: it takes no place in the queue, and its result comes
//! through the same channel. A job of the shard belongs to no connection. Its result is not
//! ordered, and a drain waits for it within its deadline, also after the last connection. A job
//! that resolves a name belongs to an attempt to connect (`shard/connect.rs`), if it still waits.

mod pending;

pub use pending::Jobs;

use super::Shard;
use super::connect::NameKey;
use super::core::Core;
use super::family::{Family, Vetoes};
use super::rare::Rare;
use super::slots::{NONE, Pause};
use super::turn::Calling;
use crate::handler::Handler;
use crate::panics::discard;
use crate::ring::Ring;
use crate::workers::{
    Finished, Hold, Job, JobDone, OffloadJobError, OffloadJobErrorKind, Shut, TakeHoldError, Ticket,
};
use pending::OfConnection;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

impl Core {
    /// Jobs of a connection that it has not been told of.
    pub fn jobs_under_way(&self, slot: u32) -> u32 {
        match self.slots.rare(slot).jobs() {
            NONE => 0,
            jobs => self.jobs.of_connections[jobs as usize].under_way,
        }
    }

    pub fn offload(&mut self, slot: u32, job: Job) -> Result<(), OffloadJobError> {
        let result = self.try_offload(slot, job);
        self.count_submitted(result.is_ok());
        result
    }

    fn count_submitted(&mut self, accepted: bool) {
        self.counters.jobs_submitted += u64::from(accepted);
        self.counters.jobs_refused += u64::from(!accepted);
    }

    fn try_offload(&mut self, slot: u32, job: Job) -> Result<(), OffloadJobError> {
        let refuse = |job, kind| Err(OffloadJobError { job, kind });
        if !self.hears_of_jobs(slot) {
            return refuse(job, OffloadJobErrorKind::Ending);
        }
        if self.jobs.port.pool.workers() == 0 {
            return refuse(job, OffloadJobErrorKind::NoWorkers);
        }
        if self.has_all_jobs(slot) {
            mark!("as many jobs as a connection may have");
            return refuse(job, OffloadJobErrorKind::Full);
        }
        let ordered = job.is_ordered();
        match self.jobs.port.offload(self.ticket(slot, ordered), job) {
            Ok(()) => _ = self.note_job(slot, ordered),
            Err((job, Shut::NoWorkers)) => return refuse(job, OffloadJobErrorKind::NoWorkers),
            Err((job, Shut::Full)) => {
                mark!("no place in the queue of jobs");
                if self.pause_for_jobs(slot) && !self.slots.rare(slot).waits_for_workers() {
                    self.slots.rare_mut(slot).wait_for_workers(true);
                    self.jobs.waiting.push_back(slot);
                }
                return refuse(job, OffloadJobErrorKind::Full);
            }
        }
        Ok(())
    }

    pub fn hold(&mut self, slot: u32, tag: u64, ordered: bool) -> Result<Hold, TakeHoldError> {
        let result = self.try_hold(slot, tag, ordered);
        self.count_submitted(result.is_ok());
        result
    }

    fn try_hold(&mut self, slot: u32, tag: u64, ordered: bool) -> Result<Hold, TakeHoldError> {
        if !self.hears_of_jobs(slot) {
            return Err(TakeHoldError::Ending);
        }
        if self.has_all_jobs(slot) {
            mark!("as many holds as a connection may have");
            return Err(TakeHoldError::Full);
        }
        let ticket = self.ticket(slot, ordered);
        let abandoned = self.note_job(slot, ordered).abandoned();
        Ok(self.make_hold(tag, ticket, Some(abandoned)))
    }

    fn make_hold(&mut self, tag: u64, ticket: Ticket, abandoned: Option<Arc<AtomicBool>>) -> Hold {
        self.counters.holds_taken += 1;
        self.jobs.holds_under_way += 1;
        self.jobs.port.hold(tag, ticket, abandoned)
    }

    /// A job that belongs to no connection.
    pub fn offload_for_shard(&mut self, job: Job) -> Result<(), OffloadJobError> {
        let result = self.try_offload_for_shard(job);
        self.count_submitted(result.is_ok());
        result
    }

    fn try_offload_for_shard(&mut self, job: Job) -> Result<(), OffloadJobError> {
        let refuse = |job, kind| Err(OffloadJobError { job, kind });
        match self.shard_takes_job() {
            Err(TakeHoldError::Full) => return refuse(job, OffloadJobErrorKind::Full),
            Err(TakeHoldError::Ending) => return refuse(job, OffloadJobErrorKind::Ending),
            Ok(()) => {}
        }
        match self.jobs.port.offload(Ticket::Shard, job) {
            Ok(()) => self.note_job_of_shard(),
            Err((job, Shut::NoWorkers)) => return refuse(job, OffloadJobErrorKind::NoWorkers),
            Err((job, Shut::Full)) => {
                mark!("no place in the queue for a job of the shard");
                return refuse(job, OffloadJobErrorKind::Full);
            }
        }
        Ok(())
    }

    /// A hold that belongs to no connection.
    pub fn hold_for_shard(&mut self, tag: u64) -> Result<Hold, TakeHoldError> {
        let result = self.shard_takes_job().map(|()| {
            self.note_job_of_shard();
            self.make_hold(tag, Ticket::Shard, None)
        });
        self.count_submitted(result.is_ok());
        result
    }

    /// A job that resolves the name of an attempt to connect. It holds up no drain.
    pub fn offload_name(&mut self, key: NameKey, job: Job) -> Result<(), Shut> {
        let (until_ms, number) = key;
        let offloaded = self.jobs.port.offload(Ticket::Name { until_ms, number }, job);
        self.count_submitted(offloaded.is_ok());
        offloaded.map_err(|(_, shut)| shut)?;
        self.jobs.under_way += 1;
        Ok(())
    }

    fn name_is_resolved(&mut self, key: NameKey, done: JobDone) {
        let Some(attempt) = self.connects.take_name(key) else {
            mark!("a name is resolved for nobody");
            return self.give_up_job(done);
        };
        self.count_delivered(&done);
        self.connects.is_resolved(attempt, done);
    }

    fn shard_takes_job(&self) -> Result<(), TakeHoldError> {
        if self.jobs.ends {
            mark!("a job for a shard that ends");
            return Err(TakeHoldError::Ending);
        }
        if self.jobs.of_shard >= self.jobs.per_shard_max {
            mark!("as many jobs as a shard may have");
            return Err(TakeHoldError::Full);
        }
        Ok(())
    }

    fn note_job_of_shard(&mut self) {
        self.jobs.of_shard += 1;
        self.jobs.under_way += 1;
    }

    /// Returns whether the connection has as many jobs as it may have, and pauses it then.
    fn has_all_jobs(&mut self, slot: u32) -> bool {
        let full = self.jobs_under_way(slot) >= self.jobs.per_connection_max;
        if full {
            self.pause_for_jobs(slot);
        }
        full
    }

    fn ticket(&self, slot: u32, ordered: bool) -> Ticket {
        let jobs = self.slots.rare(slot).jobs();
        let of_connection = self.jobs.of_connections.get(jobs as usize);
        let next = of_connection.map_or(0, |it| it.next);
        let generation = self.slots.generation(slot);
        Ticket::Connection { slot, generation, sequence: ordered.then_some(next) }
    }

    fn note_job(&mut self, slot: u32, ordered: bool) -> &mut OfConnection {
        let rare = self.slots.rare_mut(slot);
        if rare.jobs() == NONE {
            rare.set_jobs(self.jobs.of_connections.insert(OfConnection::default()) as u32);
        }
        let of_connection = &mut self.jobs.of_connections[rare.jobs() as usize];
        of_connection.under_way += 1;
        of_connection.next += u64::from(ordered);
        self.jobs.under_way += 1;
        of_connection
    }

    /// Returns whether the application gets results of jobs of this connection.
    fn hears_of_jobs(&self, slot: u32) -> bool {
        self.slots[slot].state().hears()
    }

    /// Pauses a connection until there is room; false if the application has paused it itself.
    fn pause_for_jobs(&mut self, slot: u32) -> bool {
        if self.slots[slot].is_paused() && !self.slots.rare(slot).paused_for_jobs() {
            return false;
        }
        self.slots[slot].pause_for(Pause::Application);
        let rare = self.slots.rare_mut(slot);
        rare.pause_for_jobs();
        // A message cannot be late while the connection is paused.
        rare.forget_message();
        self.touch(slot);
        true
    }

    fn resume_for_jobs(&mut self, slot: u32) {
        let Some(rare) = self.slots.rare_if_any(slot) else { return };
        if rare.end_pause_for_jobs() {
            let connection = &mut self.slots[slot];
            connection.end_pause();
            connection.owe_delivery();
            self.touch(slot);
        }
    }

    /// Returns the result to deliver next after this one has come. `None` if its turn is later.
    fn on_job(
        &mut self,
        (slot, generation): (u32, u64),
        sequence: Option<u64>,
        done: JobDone,
    ) -> Option<JobDone> {
        let known = self.slots.of_life(slot, generation).is_some();
        if !known || self.slots.rare(slot).jobs() == NONE || !self.hears_of_jobs(slot) {
            mark!("a job of a connection that has gone");
            self.give_up_job(done);
            return None;
        }
        let sequence = if bug!("results-as-they-come") { None } else { sequence };
        let Some(sequence) = sequence else {
            self.tell(slot, &done);
            return Some(done);
        };
        let of_connection = &mut self.jobs.of_connections[self.slots.rare(slot).jobs() as usize];
        let at = (sequence - of_connection.turn) as usize;
        if at > 0 {
            mark!("a job overtakes another");
        }
        if at >= of_connection.known.len() {
            of_connection.known.resize_with(at + 1, || None);
        }
        of_connection.known[at] = Some(done);
        self.next_job(slot)
    }

    /// Returns whether the next result in the connection's order has come.
    fn has_next_job(&self, slot: u32) -> bool {
        let jobs = self.slots.rare(slot).jobs();
        let known =
            |of_connection: &OfConnection| of_connection.known.front().is_some_and(Option::is_some);
        self.jobs.of_connections.get(jobs as usize).is_some_and(known) && self.hears_of_jobs(slot)
    }

    /// The next one in a connection's order, if it is known what came of it.
    fn next_job(&mut self, slot: u32) -> Option<JobDone> {
        if !self.has_next_job(slot) {
            return None;
        }
        let jobs = self.slots.rare(slot).jobs();
        let of_connection = &mut self.jobs.of_connections[jobs as usize];
        let done = of_connection.known.pop_front()??;
        of_connection.turn += 1;
        self.tell(slot, &done);
        Some(done)
    }

    /// Takes one off the connection's jobs, right before it is told of it.
    fn tell(&mut self, slot: u32, done: &JobDone) {
        let jobs = self.slots.rare(slot).jobs();
        let of_connection = &mut self.jobs.of_connections[jobs as usize];
        of_connection.under_way -= 1;
        if of_connection.under_way == 0 {
            self.jobs.of_connections.remove(jobs as usize);
            self.slots.rare_mut(slot).set_jobs(NONE);
        }
        self.count_delivered(done);
        // A connection that waited for a result was not idle.
        self.slots[slot].note_activity(self.now_ms);
        if !self.slots.rare(slot).waits_for_workers() {
            self.resume_for_jobs(slot);
        }
    }

    /// Takes one off the shard's jobs, right before its handler is told of it.
    fn tell_shard(&mut self, done: &JobDone) {
        mark!("a job of the shard is delivered");
        self.jobs.of_shard -= 1;
        self.count_delivered(done);
    }

    fn count_delivered(&mut self, done: &JobDone) {
        self.jobs.is_over(done);
        if done.was_dropped() {
            mark!("a hold was dropped");
            self.counters.holds_dropped += 1;
        }
        if done.has_failed() {
            self.counters.jobs_failed += 1;
        } else {
            self.counters.jobs_done += 1;
        }
    }

    /// Nobody is told of this result.
    fn give_up_job(&mut self, done: JobDone) {
        self.jobs.is_over(&done);
        self.counters.jobs_unclaimed += 1;
        discard(done);
    }

    /// The connection ends: it hears of nothing any more, and what is known and untold is dropped.
    pub fn forget_jobs(&mut self, slot: u32) {
        let Some(rare) = self.slots.rare_if_any(slot) else { return };
        let jobs = rare.take_jobs();
        let waited = rare.wait_for_workers(false);
        if jobs != NONE {
            let of_connection = self.jobs.of_connections.remove(jobs as usize);
            for done in of_connection.abandon() {
                mark!("told of no more");
                self.give_up_job(done);
            }
        }
        if waited {
            self.jobs.waiting.retain(|waiting| *waiting != slot);
        }
    }

    /// The shard ends: nobody is told of anything any more.
    pub fn abandon_jobs(&mut self) {
        self.counters.jobs_unclaimed += std::mem::take(&mut self.jobs.under_way);
        (self.jobs.holds_under_way, self.jobs.of_shard) = (0, 0);
    }

    /// Lets those that wait for a place in the queue try again, oldest first and no more than there
    /// are places.
    #[inline]
    pub fn serve_waiting_for_workers(&mut self) {
        if !self.jobs.waiting.is_empty() {
            self.serve_those_that_wait();
        }
    }

    #[inline(never)]
    fn serve_those_that_wait(&mut self) {
        let mut room = self.jobs.port.room();
        while room > 0
            && let Some(slot) = self.jobs.waiting.pop_front()
        {
            let rare = self.slots.rare_mut(slot);
            rare.wait_for_workers(false);
            room -= usize::from(rare.paused_for_jobs());
            mark!("there is room for a job");
            self.resume_for_jobs(slot);
            // A parked connection may give its record back.
            self.touch(slot);
        }
    }
}

/// The family of jobs. Their results come from the workers, and not by operations.
pub(super) struct JobResults;

impl Family for JobResults {
    type Due = Infallible;

    #[inline]
    fn record_vetoes(rare: &Rare) -> Vetoes {
        Vetoes::ALL.when(rare.jobs() != NONE)
    }

    fn release<R: Ring, H: Handler>(shard: &mut Shard<R, H>, slot: u32) {
        shard.core.forget_jobs(slot);
    }
}

impl<R: Ring, H: Handler> Shard<R, H> {
    /// Tells the application what came of the next job that is over.
    pub(super) fn read_result(&mut self, call: Calling) {
        if let Some((slot, generation)) = self.core.jobs.ready.take() {
            if self.core.slots.of_life(slot, generation).is_some() {
                let done = self.core.next_job(slot);
                self.deliver_result(call, slot, done);
            }
            // Otherwise no other result takes its turn: it was counted later than the commands.
            return;
        }
        let Some(Finished { ticket, done }) = self.core.jobs.port.finished() else { return };
        match ticket {
            Ticket::Connection { slot, generation, sequence } => {
                let done = self.core.on_job((slot, generation), sequence, done);
                self.deliver_result(call, slot, done);
            }
            Ticket::Shard => {
                self.core.tell_shard(&done);
                self.application.shard_job_done(call, &mut self.core, done);
            }
            Ticket::Name { until_ms, number } => {
                self.core.name_is_resolved((until_ms, number), done);
            }
        }
    }

    /// Delivers a result, if it is its turn. The one behind it in the order of the connection may
    /// have waited for it: it comes next, in this turn or in the following one.
    fn deliver_result(&mut self, call: Calling, slot: u32, done: Option<JobDone>) {
        let Some(done) = done else { return };
        self.application.job_done(call, &mut self.core, slot, done);
        self.core.touch(slot);
        if self.core.has_next_job(slot) {
            mark!("a job waited for another");
            self.core.jobs.ready = Some((slot, self.core.slots.generation(slot)));
            self.commands.expect_result();
        }
    }
}

#[cfg(any(test, feature = "testing"))]
impl Jobs {
    /// Returns whether a connection waits for a place and there is one.
    pub fn is_late(&self) -> bool {
        !self.waiting.is_empty() && self.port.room() > 0
    }

    /// Jobs that belong to no connection.
    pub fn of_shard(&self) -> u32 {
        self.of_shard
    }

    /// Jobs that are over and not told of.
    pub fn known(&self) -> u64 {
        let waiting = self.of_connections.iter().map(|(_, it)| it.known.iter().flatten().count());
        (waiting.sum::<usize>() + self.results_waiting()) as u64
    }
}

#[cfg(any(test, feature = "testing"))]
impl Core {
    /// # Panics
    /// If jobs do not add up, or somebody waits for what does not come.
    pub fn check_jobs(&self) {
        let (mut of_connections, mut under_way, mut waiting) = (0, 0, 0);
        for (slot, connection) in self.slots.iter() {
            let (jobs, rare) = (self.jobs_under_way(slot), self.slots.rare(slot));
            of_connections += usize::from(rare.jobs() != NONE);
            // A connection that ends does not count results that it will not get.
            under_way += if self.hears_of_jobs(slot) { u64::from(jobs) } else { 0 };
            waiting += usize::from(rare.waits_for_workers());
            assert!(jobs <= self.jobs.per_connection_max, "slot {slot}: {jobs} jobs");
            assert_eq!(jobs > 0, rare.jobs() != NONE, "slot {slot}: jobs");
            let ready = self.jobs.ready == Some((slot, self.slots.generation(slot)));
            assert!(ready || !self.has_next_job(slot), "slot {slot}: a result is forgotten");
            let comes = rare.waits_for_workers() || jobs > 0 || connection.state().is_over();
            assert!(comes || !rare.paused_for_jobs(), "slot {slot} is paused for nothing");
            assert!(connection.is_paused() || !rare.paused_for_jobs(), "slot {slot}: paused");
            let listed = self.jobs.waiting.contains(&slot);
            assert_eq!(listed, rare.waits_for_workers(), "slot {slot}: the list");
        }
        assert_eq!(self.jobs.of_connections.len(), of_connections, "jobs of nobody");
        assert_eq!(self.jobs.waiting.len(), waiting, "somebody waits twice");
        under_way += u64::from(self.jobs.of_shard);
        assert!(under_way <= self.jobs.under_way, "{under_way} of {} jobs", self.jobs.under_way);
        assert!(self.jobs.holds_under_way <= self.jobs.under_way, "more holds than jobs");
        assert!(self.jobs.of_shard <= self.jobs.per_shard_max, "{} jobs", self.jobs.of_shard);
    }
}
