//! Runs many scripts at the same time on one thread and records each connection.

pub(super) mod life;
mod sources;
mod story;
#[cfg(test)]
mod tests;
mod together;

use super::dialect::{Dialect, Ending, Key, Limits, Outgoing, Record, Verdict};
use super::script::{Script, Step};
pub use together::walk_together;

use crate::event_loop::EventLoop;
use crate::route::{Header, Route};
use sources::Sources;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use story::Story;

/// The server and the rules for scripts.
pub struct Stage {
    /// The protocol.
    pub dialect: Arc<dyn Dialect>,
    /// The server.
    pub address: SocketAddr,
    /// The limits for waits and judgements.
    pub limits: Limits,
    /// How connections begin.
    pub route: Route,
}

impl Stage {
    /// Returns the header of the connection with `key`.
    pub(super) fn header(&self, key: Key) -> Option<Header> {
        self.route.header(self.address, (key.seed, key.number))
    }

    /// Checks the requests of a script.
    ///
    /// # Errors
    /// The dialect does not know a phrase.
    pub fn check(&self, script: &Script) -> Result<(), String> {
        self.dialect.outgoing(script.key, &script.say)?;
        self.dialect.checker(script.key, &script.say)?;
        Ok(())
    }
}

/// The record of one connection of a script.
#[derive(Debug)]
pub struct Seen {
    /// The bytes that it was to send.
    pub outgoing: Outgoing,
    /// Its actions and observations.
    pub record: Record,
    /// The client's address and port, or the last known one.
    pub local: Option<SocketAddr>,
    /// Bytes that the server's kernel had not acknowledged when the client gave up.
    pub unacknowledged: u64,
}

/// The record of one step.
#[derive(Clone, Copy, Debug)]
pub struct Trace {
    /// The step.
    pub step: Step,
    /// Start, relative to the start of the script.
    pub began: Duration,
    /// Duration.
    pub took: Duration,
    /// Bytes sent on the connection so far.
    pub sent: u64,
    /// Bytes received on the connection so far.
    pub received: u64,
    /// The ending, if the connection ended in this step.
    pub ending: Option<Ending>,
}

/// A script that has run.
#[derive(Debug)]
pub struct Walked {
    /// The tag given to [`Walker::start`].
    pub tag: u64,
    /// The script.
    pub script: Arc<Script>,
    /// Its connections, in order.
    pub lives: Vec<Seen>,
    /// Duration of the script.
    pub took: Duration,
    /// Its steps, if the walker records them.
    pub trace: Vec<Trace>,
    /// The lack of a local resource that ended the script early.
    pub short: Option<io::Error>,
    /// Connections that ended without a packet. The server cannot know that the client is gone.
    pub vanished: u64,
    /// The reason why the fault `vanish` was not played.
    pub unplayed: Option<io::Error>,
}

/// Describes why the fault `vanish` was not played.
#[must_use]
pub fn unplayed_text(error: &io::Error) -> String {
    format!(
        "the kernel does not let this user attach a socket filter to TCP ({error}); run ringload \
         as root or with CAP_NET_ADMIN, or leave the fault out (--faults all,-vanish)"
    )
}

impl Walked {
    /// Judges each connection.
    #[must_use]
    pub fn judge(&self, stage: &Stage) -> Vec<Verdict> {
        let judge = |seen: &Seen| {
            let mut verdict = stage.dialect.judge(&seen.outgoing, &seen.record, &stage.limits);
            if let (Some(finding), 1..) = (&mut verdict.finding, seen.unacknowledged) {
                finding.detail +=
                    &format!("; the server did not acknowledge {} bytes", seen.unacknowledged);
            }
            verdict
        };
        self.lives.iter().map(judge).collect()
    }
}

/// Runs many scripts at the same time.
pub struct Walker {
    stage: Arc<Stage>,
    events: EventLoop<Story>,
    sources: Sources,
    is_tracing: bool,
}

impl Walker {
    /// Creates a walker on `stage`. With `is_tracing`, it records each step.
    ///
    /// # Errors
    /// errno of `epoll_create1(2)`.
    pub fn new(stage: Arc<Stage>, is_tracing: bool) -> io::Result<Self> {
        let sources = Sources::new(stage.address);
        Ok(Self { stage, events: EventLoop::new()?, sources, is_tracing })
    }

    /// Starts a script. [`Walker::turn`] returns its result with `tag`. A script that does not pass
    /// [`Stage::check`] has no connections in its result.
    pub fn start(&mut self, script: Arc<Script>, tag: u64) {
        let story = Story::new(script, self.stage.clone(), tag, self.is_tracing);
        self.events.start(story, &mut self.sources);
    }

    /// Returns the number of running scripts.
    #[must_use]
    pub const fn walking(&self) -> usize {
        self.events.running()
    }

    /// Returns the first lack of a local resource.
    #[must_use]
    pub fn shortage(&self) -> Option<&str> {
        self.sources.shortage()
    }

    /// Runs the scripts for about `time`, or until one ends. Returns the scripts that have ended.
    ///
    /// # Errors
    /// errno of `epoll_wait(2)`.
    pub fn turn(&mut self, time: Duration) -> io::Result<Vec<Walked>> {
        let done = self.events.turn(time, &mut self.sources)?;
        Ok(done.into_iter().map(Story::finish).collect())
    }

    /// Ends all scripts at once and returns their results. Data that is still awaited causes no
    /// finding.
    pub fn abandon(&mut self) -> Vec<Walked> {
        self.events.abandon().into_iter().map(Story::finish).collect()
    }
}
