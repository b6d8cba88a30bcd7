//! Runs many scripts at the same time on one thread and records each connection.

pub(super) mod life;
mod sources;
mod story;
#[cfg(test)]
mod tests;
mod together;

use super::dialect::{Dialect, Ending, Key, Limits, Sight, Speech, Verdict};
use super::script::{Script, Step};
pub use together::walk_together;

use crate::route::{Header, Route};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use sources::Sources;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use story::{Story, Turn};

/// Maximum number of epoll events per turn.
const EVENTS: usize = 1_024;

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
        self.dialect.speech(script.key, &script.say)?;
        self.dialect.ear(script.key, &script.say)?;
        Ok(())
    }
}

/// The record of one connection of a script.
#[derive(Debug)]
pub struct Seen {
    /// The bytes that it was to send.
    pub speech: Speech,
    /// Its actions and observations.
    pub sight: Sight,
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
    pub said: u64,
    /// Bytes received on the connection so far.
    pub heard: u64,
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
            let mut verdict = stage.dialect.judge(&seen.speech, &seen.sight, &stage.limits);
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
    poll: Poll,
    events: Events,
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    /// Deadlines of the slots; outdated entries are skipped.
    timers: BinaryHeap<Reverse<(Instant, usize)>>,
    /// Slots with more to do at once.
    again: Vec<usize>,
    sources: Sources,
    done: Vec<Walked>,
    is_tracing: bool,
}

struct Slot {
    story: Story,
    /// Time of its next turn.
    wake: Instant,
    /// The earliest of its timers.
    timer: Option<Instant>,
}

impl Walker {
    /// Creates a walker on `stage`. With `is_tracing`, it records each step.
    ///
    /// # Errors
    /// errno of `epoll_create1(2)`.
    pub fn new(stage: Arc<Stage>, is_tracing: bool) -> io::Result<Self> {
        let sources = Sources::new(stage.address);
        Ok(Self {
            stage,
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS),
            slots: Vec::new(),
            free: Vec::new(),
            timers: BinaryHeap::new(),
            again: Vec::new(),
            sources,
            done: Vec::new(),
            is_tracing,
        })
    }

    /// Starts a script. [`Walker::turn`] returns its result with `tag`. A script that does not pass
    /// [`Stage::check`] has no connections in its result.
    pub fn start(&mut self, script: Arc<Script>, tag: u64) {
        let story = Story::new(script, self.stage.clone(), tag, self.is_tracing);
        let slot = Slot { story, wake: Instant::now(), timer: None };
        let at = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[at] = Some(slot);
        self.go_on(at);
    }

    /// Returns the number of running scripts.
    #[must_use]
    pub const fn walking(&self) -> usize {
        self.slots.len() - self.free.len()
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
        for at in std::mem::take(&mut self.again) {
            self.go_on(at);
        }
        let now = Instant::now();
        let nap = match self.timers.peek() {
            _ if !self.again.is_empty() || !self.done.is_empty() => Duration::ZERO,
            Some(Reverse((next, _))) => next.saturating_duration_since(now).min(time),
            None => time,
        };
        match self.poll.poll(&mut self.events, Some(nap)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        let ready: Vec<usize> = self.events.iter().map(|event| event.token().0).collect();
        ready.into_iter().for_each(|at| self.go_on(at));
        let now = Instant::now();
        while let Some(Reverse((when, at))) = self.timers.peek().copied()
            && when <= now
        {
            self.timers.pop();
            let Some(slot) = &mut self.slots[at] else { continue };
            if slot.timer != Some(when) {
                continue;
            }
            slot.timer = None;
            match slot.wake <= now {
                true => self.go_on(at),
                false => self.arm(at),
            }
        }
        Ok(std::mem::take(&mut self.done))
    }

    /// Ends all scripts at once and returns their results. Data that is still awaited causes no
    /// finding.
    pub fn abandon(&mut self) -> Vec<Walked> {
        let slots = std::mem::take(&mut self.slots);
        self.free.clear();
        self.timers.clear();
        self.again.clear();
        self.done.extend(slots.into_iter().flatten().map(|slot| slot.story.finish()));
        std::mem::take(&mut self.done)
    }

    fn go_on(&mut self, at: usize) {
        let Some(slot) = &mut self.slots[at] else { return };
        let registry = self.poll.registry();
        let mut register = |socket| {
            let interest = Interest::READABLE | Interest::WRITABLE;
            registry.register(&mut SourceFd(&socket), Token(at), interest)
        };
        match slot.story.go_on(&mut self.sources, &mut register) {
            Turn::Until(until) => {
                slot.wake = until;
                self.arm(at);
            }
            Turn::Again => self.again.push(at),
            Turn::Over => {
                let slot = self.slots[at].take().expect("it was there");
                self.free.push(at);
                self.done.push(slot.story.finish());
            }
        }
    }

    /// Arms the timer of a slot. A deadline that moves with each byte needs no new timer each time:
    /// the existing one expires first and is then armed again.
    fn arm(&mut self, at: usize) {
        let Some(slot) = &mut self.slots[at] else { return };
        if slot.timer.is_none_or(|timer| timer > slot.wake) {
            slot.timer = Some(slot.wake);
            self.timers.push(Reverse((slot.wake, at)));
        }
    }
}
