//! Workers: threads for work that takes longer than a callback may.
//!
//! A handler gives a [`Job`], which is a closure, to
//! [`Connection::offload`](crate::Connection::offload). A worker thread runs it, and
//! [`Handler::job_done`](crate::Handler::job_done) gets its value as a [`JobDone`].
//! [`Config::workers`](crate::Config::workers) is the number of threads, 0 by default. The page of
//! [`Job`] has an example and the rules.
//!
//! A [`Hold`] is the same for work that no worker does: a task of tokio or any other thread
//! completes it with a value. It needs no workers.

mod gate;
mod hold;
mod pool;

pub(crate) use gate::Shut;
pub use hold::{Hold, TakeHoldError};
#[cfg(any(test, feature = "testing"))]
pub(crate) use pool::Queued;
pub(crate) use pool::{Finished, Pool, Port, Ticket};

use crate::panics::{discard, message_of};
use std::any::Any;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The limit on worker threads.
pub(crate) const WORKERS_MAX: usize = 1_024;

type Output = Box<dyn Any + Send>;

/// A closure to run on a worker thread, for work that takes longer than a callback may.
///
/// [`Connection::offload`](crate::Connection::offload) hands it over.
/// [`Handler::job_done`](crate::Handler::job_done) gets the result, on the connection's shard. The
/// shard never waits for a worker.
///
/// ```
/// use ringwright::workers::{Job, JobDone, OffloadJobErrorKind};
/// use ringwright::{Config, Connection, Engine, Handler, Origin};
///
/// /// Answers every line with the sum of its bytes, computed by a worker.
/// struct Sums;
///
/// impl Handler for Sums {
///     type State = ();
///     fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}
///     fn received(&mut self, _: &mut (), connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
///         let mut used = 0;
///         while let Some(length) = bytes[used..].iter().position(|byte| *byte == b'\n') {
///             let line = bytes[used..used + length].to_vec();
///             let sum = move || line.iter().map(|byte| u64::from(*byte)).sum::<u64>();
///             match connection.offload(Job::new(0, sum)) {
///                 Ok(()) => used += length + 1,
///                 // The engine delivers the unused line again when there is room.
///                 Err(refused) if refused.kind == OffloadJobErrorKind::Full => break,
///                 Err(refused) => {
///                     let _ = connection.send(format!("{refused}\n").as_bytes());
///                     connection.close();
///                     break;
///                 }
///             }
///         }
///         used
///     }
///     fn job_done(&mut self, _: &mut (), connection: &mut Connection<'_>, job: JobDone) {
///         let answer = match job.result::<u64>() {
///             Ok(sum) => format!("{sum}\n"),
///             Err(error) => format!("error: {error}\n"),
///         };
///         let _ = connection.send(answer.as_bytes());
///     }
/// }
///
/// let listeners = vec!["127.0.0.1:0".parse()?];
/// let engine = Engine::start(Config { listeners, workers: 2, ..Config::default() }, |_| Sums)?;
/// # use std::io::{Read, Write};
/// # let mut client = std::net::TcpStream::connect(engine.addresses()[0])?;
/// # client.write_all(b"abc\n")?;
/// # let mut answer = [0; 4];
/// # client.read_exact(&mut answer)?;
/// # assert_eq!(&answer, b"294\n");
/// # engine.handle().drain(std::time::Duration::ZERO);
/// # engine.join()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Order
/// Jobs of a connection may finish in any order. The results of [`Job::new`] still come in the
/// order of the calls of `offload`. A result of [`Job::unordered`] comes as soon as it is there.
///
/// A job may use [`EngineHandle`](crate::EngineHandle). Bytes that it sends to its own connection
/// leave before the output of its `job_done`.
///
/// # Limits
/// All shards share one queue with [`Config::jobs_queued_max`](crate::Config::jobs_queued_max)
/// places. A connection has at most
/// [`Config::jobs_per_connection_max`](crate::Config::jobs_per_connection_max) jobs in progress. At
/// either limit, `offload` refuses with [`OffloadJobErrorKind::Full`] and pauses the connection
/// until there is room.
///
/// # Zero workers
/// The default of [`Config::workers`](crate::Config::workers) is 0: every job is refused with
/// [`OffloadJobErrorKind::NoWorkers`].
/// [`EngineHandle::set_workers`](crate::EngineHandle::set_workers) changes the number at run time.
/// When it becomes 0, running jobs finish and their results are delivered. Queued jobs fail with
/// [`RunJobError::NoWorkers`].
///
/// # The end
/// A connection with jobs in progress is waited for by a drain, until its deadline. When a
/// connection has been closed, its results are dropped and counted in the ledger as
/// `jobs_unclaimed`. After the last shard has ended, no queued job starts.
/// [`Engine::join`](crate::Engine::join) waits three seconds for running jobs and then returns
/// [`Error::JobsRunning`](crate::Error::JobsRunning), because a thread cannot be ended from
/// outside. A long job should check regularly whether it should stop.
pub struct Job {
    run: Box<dyn FnOnce() -> Output + Send>,
    tag: u64,
    ordered: bool,
}

impl Job {
    pub(crate) fn with_tag(mut self, tag: u64) -> Self {
        self.tag = tag;
        self
    }

    /// A job whose result is delivered after the results of the jobs that its connection offloaded
    /// before. `tag` comes back with the result; the engine does not use it.
    pub fn new<T: Send + 'static>(tag: u64, work: impl FnOnce() -> T + Send + 'static) -> Self {
        Self { run: Box::new(move || Box::new(work())), tag, ordered: true }
    }

    /// A job whose result is delivered as soon as it is there. Otherwise as [`Job::new`].
    pub fn unordered<T: Send + 'static>(
        tag: u64,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Self {
        Self { ordered: false, ..Self::new(tag, work) }
    }

    /// The tag given to [`Job::new`] or [`Job::unordered`].
    #[must_use]
    pub fn tag(&self) -> u64 {
        self.tag
    }

    pub(crate) fn is_ordered(&self) -> bool {
        self.ordered
    }

    /// Runs the job on the calling thread. A panic becomes its error.
    pub(crate) fn run(self) -> JobDone {
        let run = self.run;
        let result = catch_unwind(AssertUnwindSafe(run))
            .map_err(|panic| RunJobError::Panicked(message_of(panic)));
        JobDone { tag: self.tag, result, is_hold: false }
    }

    pub(crate) fn fail(self, error: RunJobError) -> JobDone {
        discard(self.run);
        JobDone { tag: self.tag, result: Err(error), is_hold: false }
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tag, ordered, .. } = self;
        f.debug_struct("Job").field("tag", tag).field("ordered", ordered).finish_non_exhaustive()
    }
}

/// The result of a [`Job`] or of a [`Hold`], for
/// [`Handler::job_done`](crate::Handler::job_done) and
/// [`Handler::shard_job_done`](crate::Handler::shard_job_done).
#[derive(Debug)]
pub struct JobDone {
    tag: u64,
    result: Result<Output, RunJobError>,
    is_hold: bool,
}

impl JobDone {
    pub(crate) fn with_tag(mut self, change: fn(u64) -> u64) -> Self {
        self.tag = change(self.tag);
        self
    }

    /// The tag of the job or hold.
    #[must_use]
    pub fn tag(&self) -> u64 {
        self.tag
    }

    /// The value that the job returned, or with which the hold was completed.
    ///
    /// # Errors
    /// [`RunJobError`] if the job panicked or never ran, or if the hold was dropped.
    ///
    /// # Panics
    /// If the value is something other than a `T`.
    pub fn result<T: 'static>(self) -> Result<T, RunJobError> {
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

    /// Returns whether it is the error of a hold without a value.
    pub(crate) fn was_dropped(&self) -> bool {
        self.result.as_ref().is_err_and(|error| *error == RunJobError::Dropped)
    }

    pub(crate) fn is_hold(&self) -> bool {
        self.is_hold
    }
}

/// The reason why a job or hold has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RunJobError {
    /// The job panicked, with this message.
    Panicked(String),
    /// The number of workers was set to 0 while the job was queued. The job never ran.
    NoWorkers,
    /// The [`Hold`] was dropped without a value, for example by a task that panicked.
    Dropped,
}

impl fmt::Display for RunJobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked(said) => write!(f, "the job panicked ({said})"),
            Self::NoWorkers => f.write_str(
                "the job never ran: the number of workers was set to 0 while it was queued",
            ),
            Self::Dropped => f.write_str("the hold was dropped without a value"),
        }
    }
}

impl std::error::Error for RunJobError {}

/// The error of [`Connection::offload`](crate::Connection::offload) and
/// [`Local::offload`](crate::Local::offload): the job was not accepted.
#[derive(Debug)]
pub struct OffloadJobError {
    /// The job, unchanged.
    pub job: Job,
    /// The reason.
    pub kind: OffloadJobErrorKind,
}

/// The reason why a job was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OffloadJobErrorKind {
    /// The engine has no workers.
    NoWorkers,
    /// The queue is full, or the connection has `jobs_per_connection_max` jobs in progress. The
    /// engine pauses the connection until there is room. Or the shard has `jobs_per_shard_max` jobs
    /// without a connection in progress.
    Full,
    /// The connection, or the shard, is ending and could not get the result.
    Ending,
}

impl fmt::Display for OffloadJobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            OffloadJobErrorKind::NoWorkers => {
                "the engine has no workers; set `workers` in its configuration or call \
                 EngineHandle::set_workers"
            }
            OffloadJobErrorKind::Full => {
                "the job queue is full, or the connection has jobs_per_connection_max or the \
                 shard jobs_per_shard_max jobs in progress; leave the request unread and it is \
                 delivered again when there is room, or raise workers, jobs_queued_max or the limit"
            }
            OffloadJobErrorKind::Ending => {
                "the connection or the shard is ending and could not receive the result"
            }
        })
    }
}

impl std::error::Error for OffloadJobError {}

/// The error of [`EngineHandle::set_workers`](crate::EngineHandle::set_workers).
#[derive(Debug)]
#[non_exhaustive]
pub enum SetWorkersError {
    /// Another thread is changing the number at this moment. Call again.
    Changing,
    /// The number is above 1,024.
    TooMany,
    /// Every shard has ended.
    Ended,
    /// A thread could not be started. The threads started before it stay.
    Thread(io::Error),
}

impl fmt::Display for SetWorkersError {
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

impl std::error::Error for SetWorkersError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        if let Self::Thread(source) = self { Some(source) } else { None }
    }
}
