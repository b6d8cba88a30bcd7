//! Walks many scripts at once, on one thread, and tells what was seen of each connection.

pub(super) mod life;
mod sources;
mod story;
#[cfg(test)]
mod tests;
mod together;

use super::dialect::{Dialect, Ending, Limits, Sight, Speech, Verdict};
use super::script::{Script, Step};
pub use together::walk_together;

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

/// Events taken from the kernel at a time.
const EVENTS: usize = 1_024;

/// Where scripts are walked.
pub struct Stage {
    /// What is spoken.
    pub dialect: Arc<dyn Dialect>,
    /// The server.
    pub address: SocketAddr,
    /// How long it is waited for, and how it is judged.
    pub limits: Limits,
}

impl Stage {
    /// Whether the dialect knows what the script says.
    ///
    /// # Errors
    /// The phrase that it does not know.
    pub fn check(&self, script: &Script) -> Result<(), String> {
        self.dialect.speech(script.key, &script.say)?;
        self.dialect.ear(script.key, &script.say)?;
        Ok(())
    }
}

/// What was seen of one connection of a script.
#[derive(Debug)]
pub struct Seen {
    /// What it was to say.
    pub speech: Speech,
    /// What it did and saw.
    pub sight: Sight,
    /// Our address and port; the last one that was known, where none was given.
    pub local: Option<SocketAddr>,
    /// Bytes of ours that the server's kernel had not acknowledged when it was given up.
    pub unacknowledged: u64,
}

/// One step, as it was walked.
#[derive(Clone, Copy, Debug)]
pub struct Trace {
    /// Which.
    pub step: Step,
    /// Since the script began.
    pub began: Duration,
    /// How long it took.
    pub took: Duration,
    /// Bytes said on the connection so far.
    pub said: u64,
    /// Bytes heard.
    pub heard: u64,
    /// The connection ended in it.
    pub ending: Option<Ending>,
}

/// A script that was walked.
#[derive(Debug)]
pub struct Walked {
    /// What [`Walker::start`] was told.
    pub tag: u64,
    /// The script.
    pub script: Arc<Script>,
    /// Its connections, in order.
    pub lives: Vec<Seen>,
    /// From its beginning to its end.
    pub took: Duration,
    /// Its steps, if the walker traces.
    pub trace: Vec<Trace>,
    /// What there was too little of on our side, so that it could not be walked to its end.
    pub short: Option<io::Error>,
}

impl Walked {
    /// What the dialect makes of each connection.
    #[must_use]
    pub fn judge(&self, stage: &Stage) -> Vec<Verdict> {
        let judge = |seen: &Seen| {
            let mut verdict = stage.dialect.judge(&seen.speech, &seen.sight, &stage.limits);
            if let (Some(finding), 1..) = (&mut verdict.finding, seen.unacknowledged) {
                finding.detail +=
                    &format!(" ({} bytes of ours were not even acknowledged)", seen.unacknowledged);
            }
            verdict
        };
        self.lives.iter().map(judge).collect()
    }
}

/// Walks many scripts at once.
pub struct Walker {
    stage: Arc<Stage>,
    poll: Poll,
    events: Events,
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    /// When to look at which slot; what is outdated is skipped.
    timers: BinaryHeap<Reverse<(Instant, usize)>>,
    /// To be looked at once more at once.
    again: Vec<usize>,
    sources: Sources,
    done: Vec<Walked>,
    is_tracing: bool,
}

struct Slot {
    story: Story,
    /// When it is to be looked at.
    wake: Instant,
    /// The earliest of its timers.
    timer: Option<Instant>,
}

impl Walker {
    /// On `stage`; with `is_tracing`, what is walked tells each step.
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

    /// Begins a script; [`Walker::turn`] will tell of it with `tag`. Of one that does not pass
    /// [`Stage::check`] there will be nothing to tell.
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

    /// Scripts on their way.
    #[must_use]
    pub const fn walking(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// What there was first too little of, on our side.
    #[must_use]
    pub fn shortage(&self) -> Option<&str> {
        self.sources.shortage()
    }

    /// Goes on with all that can, for about `time`, or until one is over; returns those that are.
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

    /// Ends all that is on its way, at once: what was seen so far. Nothing that was waited for is
    /// held against the server.
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

    /// Sees to it that the slot is looked at when it wants to be. A wait that is prolonged with
    /// each byte does not cost a timer each time: the one there is runs, and then the next.
    fn arm(&mut self, at: usize) {
        let Some(slot) = &mut self.slots[at] else { return };
        if slot.timer.is_none_or(|timer| timer > slot.wake) {
            slot.timer = Some(slot.wake);
            self.timers.push(Reverse((slot.wake, at)));
        }
    }
}
