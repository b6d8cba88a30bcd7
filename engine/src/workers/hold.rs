//! A hold: the place of a result that some other thread makes.

use super::pool::{Finished, Reply, Ticket};
use super::{JobDone, Output, RunJobError};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The place of a result that is made elsewhere: by a task of tokio, by a thread of a database
/// driver, or from the answer of another process.
///
/// [`Connection::hold`](crate::Connection::hold) returns it. It can be sent to any thread, which
/// calls [`complete`](Self::complete) with the value.
/// [`Handler::job_done`](crate::Handler::job_done) then gets the value, on the connection's shard.
/// [`Local::hold`](crate::Local::hold) returns a hold without a connection, whose value comes to
/// [`Handler::shard_job_done`](crate::Handler::shard_job_done).
///
/// ```
/// use ringwright::workers::{JobDone, TakeHoldError};
/// use ringwright::{Config, Connection, Engine, Handler, Origin};
///
/// /// Answers each line in upper case. A thread of the application makes the answer.
/// struct Elsewhere;
///
/// impl Handler for Elsewhere {
///     type State = ();
///     fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}
///     fn received(&mut self, _: &mut (), connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
///         let mut used = 0;
///         while let Some(length) = bytes[used..].iter().position(|byte| *byte == b'\n') {
///             let line = bytes[used..=used + length].to_vec();
///             match connection.hold(0) {
///                 Ok(hold) => {
///                     std::thread::spawn(move || hold.complete(line.to_ascii_uppercase()));
///                 }
///                 // The engine delivers the unused line again after the next result.
///                 Err(TakeHoldError::Full) => break,
///                 Err(_) => connection.abort(),
///             }
///             used += length + 1;
///         }
///         used
///     }
///     fn job_done(&mut self, _: &mut (), connection: &mut Connection<'_>, job: JobDone) {
///         match job.result::<Vec<u8>>() {
///             Ok(answer) => drop(connection.send(&answer)),
///             Err(_) => connection.abort(), // the thread panicked and dropped the hold
///         }
///     }
/// }
///
/// let listeners = vec!["127.0.0.1:0".parse()?];
/// let engine = Engine::start(Config { listeners, ..Config::default() }, |_shard| Elsewhere)?;
/// # use std::io::{Read, Write};
/// # let mut client = std::net::TcpStream::connect(engine.addresses()[0])?;
/// # client.write_all(b"abc\ndef\n")?;
/// # let mut answers = [0; 8];
/// # client.read_exact(&mut answers)?;
/// # assert_eq!(&answers, b"ABC\nDEF\n");
/// # engine.handle().drain(std::time::Duration::ZERO);
/// # engine.join()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # A hold is a job
/// It counts as a [`Job`](super::Job) of its connection that runs elsewhere, and needs no workers.
/// While it exists, the connection is not idle for `idle_timeout`, does not
/// [`finish`](crate::Connection::finish), and outlives the peer's FIN. A drain waits for it, until
/// its deadline. Jobs and holds of a connection share
/// [`Config::jobs_per_connection_max`](crate::Config::jobs_per_connection_max).
///
/// # Order
/// Holds may be completed in any order. The results of [`Connection::hold`] still come in the order
/// in which jobs were offloaded and holds taken. A result of [`Connection::hold_unordered`] comes
/// as soon as it is there.
///
/// Commands that a thread has sent by [`EngineHandle`](crate::EngineHandle) before `complete` are
/// carried out before the result is delivered. Bytes that it sent to the same connection therefore
/// leave before the output of `job_done`.
///
/// [`Connection::hold`]: crate::Connection::hold
/// [`Connection::hold_unordered`]: crate::Connection::hold_unordered
///
/// # Hazard: a hold that is kept
/// A hold that is dropped without a value delivers [`RunJobError::Dropped`]. A hold that is neither
/// completed nor dropped keeps its connection until a drain's deadline, and the ordered results
/// behind it wait for it. Give the work a deadline of its own.
#[must_use = "a hold that is dropped delivers an error"]
pub struct Hold {
    /// The application's.
    tag: u64,
    /// The tag of the result: it may have the number of a handler as well.
    result_tag: u64,
    ticket: Ticket,
    /// Present until the result is sent.
    reply: Option<Arc<Reply>>,
    /// Set when the connection ends. A hold without a connection has none.
    abandoned: Option<Arc<AtomicBool>>,
}

impl Hold {
    pub(super) fn new(
        tag: u64,
        ticket: Ticket,
        reply: Arc<Reply>,
        abandoned: Option<Arc<AtomicBool>>,
    ) -> Self {
        Self { tag, result_tag: tag, ticket, reply: Some(reply), abandoned }
    }

    /// Shows another tag than that of the result.
    pub(crate) fn shown_as(mut self, tag: u64) -> Self {
        self.tag = tag;
        self
    }

    /// Delivers `value` as the result and wakes the shard. It never waits.
    ///
    /// If the connection or its shard has ended, the value is dropped, on this thread or on the
    /// shard's. The ledger counts it as `jobs_unclaimed`.
    pub fn complete<T: Send + 'static>(mut self, value: T) {
        self.answer(Ok(Box::new(value)));
    }

    /// The tag given to [`Connection::hold`](crate::Connection::hold).
    #[must_use]
    pub fn tag(&self) -> u64 {
        self.tag
    }

    /// Returns whether the connection has ended, or the shard of a hold without a connection.
    /// Nobody gets the value then, so the work can be spared. After `false` it may end at any time.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.abandoned.as_ref().is_some_and(|it| it.load(Ordering::Relaxed))
            || self.reply.as_ref().is_none_or(|reply| reply.has_ended())
    }

    fn answer(&mut self, result: Result<Output, RunJobError>) {
        if let Some(reply) = self.reply.take() {
            let done = JobDone { tag: self.result_tag, result, is_hold: true };
            reply.answer(Finished { ticket: self.ticket, done });
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if !bug!("dropped-hold-untold") {
            self.answer(Err(RunJobError::Dropped));
        }
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold").field("tag", &self.tag).finish_non_exhaustive()
    }
}

/// The error of [`Connection::hold`](crate::Connection::hold) and
/// [`Local::hold`](crate::Local::hold): there is no hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TakeHoldError {
    /// The connection has `jobs_per_connection_max` jobs and holds in progress. The engine pauses
    /// it until there is room. Or the shard has `jobs_per_shard_max` of them without a connection.
    Full,
    /// The connection, or the shard, is ending and could not get the result.
    Ending,
}

impl fmt::Display for TakeHoldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => {
                "the connection has jobs_per_connection_max jobs and holds in progress, or the \
                 shard jobs_per_shard_max; leave the request unread and it is delivered again \
                 when there is room, or raise the limit"
            }
            Self::Ending => "the connection or the shard is ending and could not get the result",
        })
    }
}

impl std::error::Error for TakeHoldError {}
