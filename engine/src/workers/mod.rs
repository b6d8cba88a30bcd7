//! Work that takes longer than a callback may: jobs on threads of their own, and what came of them
//! back on the connection's shard.
//!
//! # Order
//! What came of a connection's jobs is told in the order in which they were offloaded, whatever
//! order they finish in; [`Job::unordered`] asks for as soon as possible instead.
//!
//! # Zero workers
//! Zero is the default and legal: then [`Connection::offload`](crate::Connection::offload) refuses.
//! When the number falls to zero, jobs that run go on to their end and are told of; those still
//! queued end with [`JobError::NoWorkers`] at once.
//!
//! # The end
//! A job under way keeps its connection from being at rest, so that a drain waits for it within its
//! deadline. A connection that has gone, or was closed, hears of no job any more; it is not kept
//! for one either. When the last shard has ended nobody starts a job any more, and
//! [`Engine::join`](crate::Engine::join) waits for those that run, but not for ever.

mod gate;
mod pool;

pub(crate) use gate::Shut;
#[cfg(test)]
pub(crate) use pool::Queued;
pub(crate) use pool::{Finished, Pool, Port, Ticket};

use std::any::Any;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Workers at most.
pub(crate) const WORKERS_MAX: usize = 1_024;

type Output = Box<dyn Any + Send>;

/// Something to be done on a worker.
pub struct Job {
    run: Box<dyn FnOnce() -> Output + Send>,
    tag: u64,
    ordered: bool,
}

impl Job {
    /// What is told of it comes after what is told of the jobs that its connection offloaded
    /// before it. `tag` comes back with it and means nothing to the engine.
    pub fn new<T: Send + 'static>(tag: u64, work: impl FnOnce() -> T + Send + 'static) -> Self {
        Self { run: Box::new(move || Box::new(work())), tag, ordered: true }
    }

    /// The same, but told of as soon as it has finished.
    pub fn unordered<T: Send + 'static>(
        tag: u64,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Self {
        Self { ordered: false, ..Self::new(tag, work) }
    }

    /// The tag it was given.
    #[must_use]
    pub fn tag(&self) -> u64 {
        self.tag
    }

    pub(crate) fn is_ordered(&self) -> bool {
        self.ordered
    }

    /// Runs it on the calling thread; a panic is its error.
    pub(crate) fn run(self) -> JobDone {
        let run = self.run;
        let result = catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
            let said = crate::engine::message_of(panic.as_ref());
            discard(panic);
            JobError::Panicked(said)
        });
        JobDone { tag: self.tag, result }
    }

    pub(crate) fn fail(self, error: JobError) -> JobDone {
        discard(self.run);
        JobDone { tag: self.tag, result: Err(error) }
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tag, ordered, .. } = self;
        f.debug_struct("Job").field("tag", tag).field("ordered", ordered).finish_non_exhaustive()
    }
}

/// What came of a [`Job`].
#[derive(Debug)]
pub struct JobDone {
    tag: u64,
    result: Result<Output, JobError>,
}

impl JobDone {
    /// The tag of its job.
    #[must_use]
    pub fn tag(&self) -> u64 {
        self.tag
    }

    /// What the job returned.
    ///
    /// # Errors
    /// It panicked, or never ran.
    ///
    /// # Panics
    /// If the job returned something other than a `T`.
    pub fn result<T: 'static>(self) -> Result<T, JobError> {
        let tag = self.tag;
        self.result.map(|output| match output.downcast() {
            Ok(output) => *output,
            Err(other) => {
                discard(other);
                panic!("job {tag} did not return a {}", std::any::type_name::<T>())
            }
        })
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.result.is_err()
    }
}

/// Why nothing came of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JobError {
    /// It panicked, saying this.
    Panicked(String),
    /// The number of workers was set to zero while it was queued: it never ran.
    NoWorkers,
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked(said) => write!(f, "the job panicked ({said})"),
            Self::NoWorkers => f.write_str(
                "the job never ran: the number of workers was set to 0 while it was queued",
            ),
        }
    }
}

impl std::error::Error for JobError {}

/// A job that was not taken.
#[derive(Debug)]
pub struct Refused {
    /// It, as it was.
    pub job: Job,
    /// Why.
    pub why: Refusal,
}

/// Why a job was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// There are no workers.
    NoWorkers,
    /// The queue is full, or the connection has `jobs_per_connection_max` jobs under way. It is
    /// paused until there is room.
    Full,
    /// The connection is ending: it would not hear what comes of it.
    Ending,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.why {
            Refusal::NoWorkers => {
                "the engine has no workers; set `workers` in its configuration or call \
                 Remote::set_workers"
            }
            Refusal::Full => {
                "the job queue is full or the connection has jobs_per_connection_max jobs in \
                 progress; leave the request unread and it is delivered again when there is room, \
                 or raise workers, jobs_queued_max or jobs_per_connection_max"
            }
            Refusal::Ending => "the connection is ending and could not receive the result",
        })
    }
}

impl std::error::Error for Refused {}

/// Why the number of workers was not changed.
#[derive(Debug)]
#[non_exhaustive]
pub enum WorkersFailed {
    /// Somebody else changes it at this moment: call again.
    Changing,
    /// More than 1,024.
    TooMany,
    /// Every shard has ended.
    Ended,
    /// A thread could not be started; those that could are there.
    Thread(io::Error),
}

impl fmt::Display for WorkersFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changing => {
                f.write_str("another thread is changing the number of workers; try again")
            }
            Self::TooMany => write!(f, "the number of workers must be 0 to {WORKERS_MAX}"),
            Self::Ended => f.write_str("every shard has ended; no worker is needed"),
            Self::Thread(source) => write!(f, "cannot start a worker thread: {source}"),
        }
    }
}

impl std::error::Error for WorkersFailed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        if let Self::Thread(source) = self { Some(source) } else { None }
    }
}

/// Drops what is the application's own; that may panic.
pub(crate) fn discard<T>(value: T) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        // Dropping what a panicking drop said can panic in its turn.
        std::mem::forget(panic);
    }
}
