//! The threads that have holds, and jobs that belong to no connection.
//!
//! A hold is completed or dropped at any moment and in any order, also after its connection or its
//! shard has ended.

use super::actor::{Actor, OnPurpose};
use super::lane::Life;
use super::world::World;
use crate::ring::simulated::Rng;
use crate::workers::{Hold, Job, JobDone, OffloadJobErrorKind, RunJobError, TakeHoldError};
use crate::{ConnectionId, Local};
use std::any::Any;

/// A hold that is dropped without a value, or a job that panics, has this in its tag.
pub const FAILS: u64 = 1 << 61;
/// A hold has this in its tag.
pub const HOLD: u64 = 1 << 60;

/// A hold, and the work that ends it.
pub struct Held {
    pub hold: Hold,
    /// `None`: it belongs to the shard.
    pub connection: Option<ConnectionId>,
    pub tag: u64,
    pub work: Box<dyn FnOnce(Hold)>,
}

/// Other threads, which have the holds.
pub struct Elsewhere {
    held: Vec<Held>,
    rng: Rng,
    /// Every hold ends soon.
    pub hurries: bool,
    /// No hold ends.
    pub rests: bool,
}

impl Elsewhere {
    pub fn new(rng: Rng) -> Self {
        Self { held: Vec::new(), rng, hurries: false, rests: false }
    }

    /// Takes a hold. Now and then it ends at once, in the middle of the callback.
    pub fn take(&mut self, held: Held) {
        self.held.push(held);
        if !self.rests && self.rng.below(8) == 0 {
            self.end_one(self.held.len() - 1);
        }
    }

    /// Works between two turns of shards.
    pub fn work(&mut self) {
        let steps = if self.hurries { 50 } else { self.rng.below(3) };
        (0..steps).for_each(|_| self.step());
    }

    /// Ends a hold.
    pub fn step(&mut self) {
        if !self.rests && !self.held.is_empty() {
            let at = self.rng.below(self.held.len() as u64) as usize;
            self.end_one(at);
        }
    }

    fn end_one(&mut self, at: usize) {
        let Held { hold, tag, work, .. } = self.held.swap_remove(at);
        assert_eq!(hold.tag(), tag, "the tag of a hold");
        if hold.is_abandoned() {
            mark!("a hold is abandoned");
        }
        work(hold);
    }
}

/// A value with which nothing may be done if its hold was abandoned before.
pub struct Value<T> {
    pub value: T,
    pub abandoned: bool,
}

/// Returns the work of a hold: it ends with the value of `work`, or is dropped.
pub fn ends_with<T: Any + Send>(
    tag: u64,
    work: impl FnOnce() -> T + 'static,
) -> Box<dyn FnOnce(Hold)> {
    Box::new(move |hold: Hold| {
        let abandoned = hold.is_abandoned();
        if tag & FAILS == 0 {
            hold.complete(Value { value: work(), abandoned });
        }
    })
}

/// Returns the value of a job or hold, or `None` for an error that its tag announces.
///
/// # Errors
/// A description of a wrong result.
pub fn value_of<T: 'static>(done: JobDone) -> Result<Option<T>, String> {
    let tag = done.tag();
    let (fails, hold) = (tag & FAILS != 0, tag & HOLD != 0);
    match done.result::<Value<T>>() {
        Ok(Value { value, abandoned: false }) if !fails => Ok(Some(value)),
        Err(RunJobError::Panicked(_)) if fails && !hold => Ok(None),
        Err(RunJobError::Dropped) if fails && hold => Ok(None),
        Err(RunJobError::NoWorkers) if !hold => Ok(None),
        Ok(Value { abandoned, .. }) => Err(format!("{tag:x} has a value, abandoned: {abandoned}")),
        Err(error) => Err(format!("{tag:x} has no value: {error}")),
    }
}

impl Actor {
    /// Now and then asks for a job or a hold that belongs to no connection.
    pub(super) fn employ(&mut self, shard: &mut Local<'_>) {
        if !self.habits.employs || self.rng.below(4) > 0 {
            return;
        }
        let mut book = self.book.borrow_mut();
        book.shard_jobs_made += 1;
        let (hold, fails) = (self.rng.below(2) == 0, self.rng.below(6) == 0);
        let mut tag = book.shard_jobs_made;
        tag |= if hold { HOLD } else { 0 };
        tag |= if fails { FAILS } else { 0 };
        let work = move || tag + 1;
        let result = if hold {
            shard.hold(tag).map(|hold| {
                let work = ends_with(tag, work);
                let held = Held { hold, connection: None, tag, work };
                self.elsewhere.borrow_mut().take(held);
            })
        } else {
            let job = Job::new(tag, move || {
                if fails {
                    std::panic::panic_any(OnPurpose);
                }
                Value { value: work(), abandoned: false }
            });
            match shard.offload(job).map_err(|refused| refused.kind) {
                Err(OffloadJobErrorKind::Ending) => Err(TakeHoldError::Ending),
                Err(_) => Err(TakeHoldError::Full),
                Ok(()) => Ok(()),
            }
        };
        match result {
            Ok(()) => _ = book.shard_jobs.insert((shard.shard(), tag)),
            Err(TakeHoldError::Full) => {}
            Err(TakeHoldError::Ending) => book.shards_that_end.push(shard.shard()),
        }
    }

    /// Checks the result of a job or hold of the shard: it is under way, and comes once.
    pub(super) fn hear_of_shard_job(&mut self, shard: &mut Local<'_>, done: JobDone) {
        let tag = done.tag();
        let mut book = self.book.borrow_mut();
        if !book.shard_jobs.remove(&(shard.shard(), tag)) {
            book.failures.push(format!("{tag:x} is no job of shard {}", shard.shard()));
        }
        match value_of::<u64>(done) {
            Ok(value) if value.is_none_or(|value| value == tag + 1) => {}
            wrong => book.failures.push(format!("a job of the shard: {wrong:?}")),
        }
        drop(book);
        self.employ(shard);
        if self.rng.below(16) == 0 {
            self.book.borrow_mut().panics += 1;
            std::panic::panic_any(OnPurpose);
        }
    }
}

impl World {
    /// Checks the holds, and the jobs of the shard that has just acted.
    pub(super) fn check_holds(&mut self, at: usize) {
        for held in &self.elsewhere.borrow().held {
            let Some(id) = held.connection else { continue };
            let closed = self.book.borrow_mut().record(id).expect("it was opened").closed;
            let shard = self.lanes[id.shard()].shard();
            let hears = shard.is_some_and(|shard| {
                let slots = &shard.parts().1.slots;
                slots.find(id).is_some_and(|slot| slots[slot].state().hears())
            });
            let abandoned = held.hold.is_abandoned();
            assert!(abandoned || closed.is_none(), "a hold of {id:?} is not abandoned");
            assert!(!abandoned || !hears, "a hold of {id:?} is abandoned too early");
        }
        let is_past_drain = self.is_past_drain(at);
        let mut book = self.book.borrow_mut();
        let life = self.lanes[at].life;
        if life == Life::Finished && !is_past_drain {
            let left: Vec<_> = book.shard_jobs.iter().filter(|(shard, _)| *shard == at).collect();
            assert!(left.is_empty(), "the drain of shard {at} has left jobs: {left:x?}");
        }
        if life != Life::Runs {
            book.shard_jobs.retain(|(shard, _)| *shard != at);
        }
        for shard in std::mem::take(&mut book.shards_that_end) {
            let ends = life != Life::Runs || is_past_drain;
            assert!(shard == at && ends, "shard {shard} refuses a job as if it ended");
        }
    }

    /// No job and no hold ends while `rests` holds.
    #[cfg(test)]
    pub(super) fn rest(&mut self, rests: bool) {
        self.shift.borrow_mut().rests = rests;
        self.elsewhere.borrow_mut().rests = rests;
    }

    /// The number of holds that are neither completed nor dropped.
    pub(super) fn holds(&self) -> u64 {
        self.elsewhere.borrow().held.len() as u64
    }

    /// Every shard has ended: the holds that are left are abandoned, and end as any other.
    pub(super) fn judge_holds(&mut self) {
        let held = std::mem::take(&mut self.elsewhere.borrow_mut().held);
        for Held { hold, work, .. } in held {
            mark!("a hold outlives its shard");
            assert!(hold.is_abandoned(), "{hold:?} outlives its shard");
            work(hold);
        }
        assert!(self.book.borrow().shard_jobs.is_empty(), "jobs of shards are left");
    }
}
