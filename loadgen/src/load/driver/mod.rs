//! What a shard knows but for its connections: what is due, and how many are open.

mod exchange;

use super::slack::Slack;
use super::{CONNECTING_MAX, Schedule, Shared, Task};
use crate::args::Arrivals;
use crate::protocol::{ErrorKind, Fault, Protocol};
use crate::report::Pacing;
use crate::stats::Stats;
use ringwright::Local;
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// How often a shard publishes what it counted, and tries again what failed.
const PUBLISH_NS: u64 = 100_000_000;
/// A schedule of requests begins when all connections have been tried, or after so long.
const SET_UP_MAX_NS: u64 = 1_000_000_000;

/// One shard's side of a run.
pub struct Driver<P> {
    task: Task,
    shared: Arc<Shared>,
    protocol: P,
    stats: Stats,
    /// The same for all shards once they run.
    start: Instant,
    /// Numbers of this shard's connections: this one, and every `shards`-th after it.
    next_number: u64,
    shards: u64,
    open: usize,
    connecting: usize,
    /// Connections that failed, to be replaced at the next look: a server that refuses is not
    /// asked in a tight loop.
    to_retry: usize,
    connects_failed: usize,
    /// When a connection was last open, as of a look.
    last_open_ns: u64,
    publish_at_ns: u64,
    is_hopeless: bool,
    is_finished: bool,
    schedule: Option<Schedule>,
    /// Requests on schedule that were taken back: when they were to be sent.
    again: VecDeque<u64>,
    /// Of connections on schedule: when there is room for one.
    room: Slack,
}

impl<P: Protocol> Driver<P> {
    /// That of `shard` out of `shards`.
    pub fn new(task: Task, shared: Arc<Shared>, protocol: P, shard: u64, shards: u64) -> Self {
        Self {
            schedule: schedule(&task, shard, shards),
            task,
            shared,
            protocol,
            stats: Stats::new(),
            start: Instant::now(),
            next_number: shard,
            shards,
            open: 0,
            connecting: 0,
            to_retry: 0,
            connects_failed: 0,
            last_open_ns: 0,
            publish_at_ns: PUBLISH_NS,
            is_hopeless: false,
            is_finished: false,
            again: VecDeque::new(),
            room: Slack::ended(),
        }
    }

    /// The shard runs.
    pub fn start(&mut self) {
        self.start = *self.shared.started.get_or_init(Instant::now);
        if self.pacing() == Pacing::Connections {
            let now_ns = self.now_ns();
            self.room.begin(now_ns);
            self.schedule.iter_mut().for_each(|schedule| schedule.begin(now_ns));
        }
    }

    /// Read once per callback: 25 ns of clock against microseconds of request.
    #[inline]
    pub fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    #[inline]
    pub const fn pacing(&self) -> Pacing {
        self.task.pacing
    }

    pub const fn pipeline(&self) -> usize {
        self.task.pipeline
    }

    pub const fn timeout(&self) -> Duration {
        self.task.timeout
    }

    #[inline]
    fn is_stopped(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }

    fn is_interrupted(&self) -> bool {
        self.shared.interrupted.load(Ordering::Relaxed)
    }

    /// Nothing will be due any more.
    #[inline]
    pub fn is_over(&self) -> bool {
        self.is_stopped() || self.is_exhausted()
    }

    fn is_exhausted(&self) -> bool {
        let over = |schedule: &Schedule| schedule.has_begun() && schedule.next().is_none();
        self.again.is_empty() && self.schedule.as_ref().is_some_and(over)
    }

    #[inline]
    fn due_ns(&self) -> Option<u64> {
        let next = || self.schedule.as_ref().and_then(Schedule::next);
        self.again.front().copied().or_else(next)
    }

    /// Something on schedule waits to be sent.
    #[inline]
    pub fn is_due(&self, now_ns: u64) -> bool {
        self.due_ns().is_some_and(|due_ns| due_ns <= now_ns)
    }

    /// Takes what has waited longest; when it was to be sent.
    #[inline]
    pub fn take_due(&mut self, now_ns: u64) -> Option<u64> {
        if self.is_stopped() {
            return None;
        }
        if let Some(due_ns) = self.again.pop_front() {
            return Some(due_ns);
        }
        let due_ns = self.schedule.as_mut()?.take(now_ns)?;
        self.stats.intended += 1;
        Some(due_ns)
    }

    /// When there is something to do, be it that what is due can be sent.
    pub fn wakes_ns(&self, can_send: bool) -> u64 {
        let due_ns = if can_send && !self.is_stopped() { self.due_ns() } else { None };
        due_ns.map_or(self.publish_at_ns, |due_ns| due_ns.min(self.publish_at_ns))
    }

    /// Now and then: publishes what was counted, and tries again what failed.
    pub fn look_after(&mut self, shard: &mut Local<'_>, now_ns: u64) {
        if now_ns < self.publish_at_ns {
            return;
        }
        self.publish_at_ns = now_ns + PUBLISH_NS;
        if self.open > 0 {
            self.last_open_ns = now_ns;
        }
        self.to_retry = 0;
        self.connect(shard);
        if now_ns > SET_UP_MAX_NS {
            self.begin(now_ns);
        }
        self.settle();
        // Not waited for: when it is taken, what was counted is published the next time.
        if let Ok(mut all) = self.shared.stats.try_lock() {
            all.absorb(&mut self.stats);
        }
    }

    fn begin(&mut self, now_ns: u64) {
        self.schedule.iter_mut().for_each(|schedule| schedule.begin(now_ns));
    }

    /// Opens as many connections as are missing, or due, within the limits.
    pub fn connect(&mut self, shard: &mut Local<'_>) {
        if self.is_stopped() {
            return;
        }
        match self.pacing() {
            Pacing::Closed => {
                let left = self.task.requests.unwrap_or(u64::MAX);
                self.connect_missing(shard, left.saturating_sub(self.connecting as u64));
            }
            Pacing::Requests if self.is_exhausted() => {}
            Pacing::Requests => {
                self.connect_missing(shard, u64::MAX);
                if self.connecting == 0 {
                    self.begin(self.now_ns());
                }
            }
            Pacing::Connections => self.connect_due(shard),
        }
    }

    fn connect_missing(&mut self, shard: &mut Local<'_>, useful: u64) {
        let missing = self.task.connections - self.open - self.connecting - self.to_retry;
        let count = missing.min(CONNECTING_MAX - self.connecting).min(useful as usize);
        for _ in 0..count {
            // The tag is the time of the connect, to know how long it took.
            shard.connect(self.task.to, self.now_ns());
        }
        self.connecting += count;
    }

    fn connect_due(&mut self, shard: &mut Local<'_>) {
        while self.may_connect() {
            let now_ns = self.now_ns();
            let Some(due_ns) = self.take_due(now_ns) else {
                if !self.room.lasts() {
                    self.room.begin(now_ns);
                }
                return;
            };
            self.stats.lag_ns.saturating_record(self.room.lag_ns(due_ns, now_ns));
            // The tag is the time from which everything counts.
            shard.connect(self.task.to, due_ns);
            self.connecting += 1;
            if !self.may_connect() && self.room.lasts() {
                self.room.end(now_ns);
            }
        }
    }

    /// There is room for a connection on schedule.
    pub const fn may_connect(&self) -> bool {
        self.open + self.connecting < self.task.connections && self.connecting < CONNECTING_MAX
    }

    /// A connection has come about, asked for, or due, at `tag_ns`: its number, state and quota.
    pub fn opened(&mut self, tag_ns: u64, now_ns: u64) -> (u64, P::State, u64) {
        self.stats.connect_ns.saturating_record(now_ns - tag_ns);
        self.connecting -= 1;
        self.open += 1;
        self.stats.opened += 1;
        self.shared.connected.store(true, Ordering::Relaxed);
        let number = self.next_number;
        self.next_number += self.shards;
        let mut quota = self.task.requests_per_connection;
        if let (Pacing::Connections, Some(left)) = (self.pacing(), &mut self.task.requests) {
            quota = quota.min(*left);
            *left -= quota;
        }
        (number, self.protocol.open(number), quota)
    }

    /// A connect did not come about that was asked for, or due, at `tag_ns`.
    pub fn connect_failed(&mut self, tag_ns: u64, error: &io::Error) {
        self.connecting -= 1;
        let kind = match error.kind() {
            io::ErrorKind::ConnectionRefused => ErrorKind::ConnectRefused,
            _ => ErrorKind::ConnectFailed,
        };
        let is_session = self.pacing() == Pacing::Connections;
        // A refusal comes at once: as a time it would only make the others look good.
        if is_session && kind != ErrorKind::ConnectRefused {
            self.stats.session_ns.saturating_record(self.now_ns() - tag_ns);
        }
        if self.is_stopped() {
            self.stats.unsent += u64::from(is_session);
            return;
        }
        if kind == ErrorKind::ConnectRefused && self.task.drain_ok {
            self.stats.refused += 1;
        } else {
            self.stats.errors.count(Fault::new(kind, format_args!("{}: {error}", self.task.to)));
        }
        self.connects_failed += 1;
        match self.pacing() {
            Pacing::Closed => {
                self.to_retry += 1;
                // A request that could not even be sent; else a run of so many requests against a
                // server that has gone would never end.
                self.task.requests = self.task.requests.map(|left| left.saturating_sub(1));
            }
            Pacing::Requests => self.to_retry += 1,
            Pacing::Connections => {
                let quota = self.task.requests_per_connection;
                self.task.requests = self.task.requests.map(|left| left.saturating_sub(quota));
            }
        }
    }

    /// Tells the watching thread when this shard has nothing more to do.
    pub fn settle(&mut self) {
        let limited = self.task.requests.is_some();
        let all_sent = match self.pacing() {
            Pacing::Closed => self.task.requests == Some(0),
            _ => limited && self.is_exhausted(),
        };
        let sent = all_sent && self.open == 0 && self.connecting == 0;
        // Only a run for a time waits for a server to come back, as long as that.
        let idle = Duration::from_nanos(self.now_ns().saturating_sub(self.last_open_ns));
        let keeps = self.pacing() != Pacing::Connections;
        let lost = limited && keeps && self.open == 0 && idle > self.task.timeout;
        if (sent || lost) && !self.is_finished {
            self.is_finished = true;
            self.shared.finished.fetch_add(1, Ordering::Relaxed);
        }
        let hopeless = self.connects_failed >= self.task.connections;
        if hopeless && !self.is_hopeless {
            self.is_hopeless = true;
            self.shared.hopeless.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The shard has ended: counts what was due and never sent, and publishes what was counted.
    /// `slack`: when a connection was free for requests.
    pub fn end(&mut self, slack: Slack) {
        let end_ns = self.shared.ended_ns.load(Ordering::Relaxed);
        let stats = &mut self.stats;
        let slack = match self.task.pacing {
            Pacing::Connections => self.room,
            _ => slack,
        };
        let times = match self.task.pacing {
            Pacing::Connections => &mut stats.session_ns,
            _ => &mut stats.latency_ns,
        };
        let mut unsent = |due_ns: u64, many: u64| {
            stats.unsent += many;
            stats.lag_ns.saturating_record_n(slack.lag_ns(due_ns, end_ns), many);
            times.saturating_record_n(end_ns.saturating_sub(due_ns), many);
        };
        self.again.drain(..).for_each(|due_ns| unsent(due_ns, 1));
        if let Some(schedule) = &mut self.schedule {
            schedule.give_up(end_ns, |due_ns, many| {
                unsent(due_ns, many);
                stats.intended += many;
            });
        }
        let mut all = self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner);
        all.absorb(&mut self.stats);
    }
}

fn schedule(task: &Task, shard: u64, shards: u64) -> Option<Schedule> {
    let count = match (task.pacing, task.requests) {
        (Pacing::Closed, _) => return None,
        (_, None) => u64::MAX,
        (Pacing::Requests, Some(requests)) => requests,
        (Pacing::Connections, Some(requests)) => requests.div_ceil(task.requests_per_connection),
    };
    let ends_ns = task.duration.map_or(u64::MAX, |length| length.as_nanos() as u64);
    Some(match task.arrivals {
        Arrivals::Uniform => Schedule::uniform(task.rate, shard, shards, ends_ns, count),
        Arrivals::Poisson => Schedule::poisson(task.rate, shard, shards, task.seed, ends_ns, count),
    })
}
