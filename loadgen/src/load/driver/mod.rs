//! The state of a shard other than its connections: the schedule, counters and limits.

mod exchange;

use super::flow::Asked;
use super::slack::Slack;
use super::{Schedule, Shared, Task};
use crate::args::Arrivals;
use crate::report::Pacing;
use crate::stats::Stats;
use ringload_lifecycle::clients::Protocol;
use ringload_lifecycle::fault::{ErrorKind, Fault};
use ringload_lifecycle::route::CONNECTING_MAX;
use ringload_lifecycle::system;
use ringwright::Local;
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// Interval at which a shard publishes its counts and repeats failed connects.
const PUBLISH_NS: u64 = 100_000_000;
/// A schedule of requests starts when all connects have ended, but after this time at the latest.
const SET_UP_MAX_NS: u64 = 1_000_000_000;

/// The driver of one shard.
pub struct Driver<P> {
    task: Task,
    shared: Arc<Shared>,
    protocol: P,
    stats: Stats,
    /// Start of the run, the same on all shards.
    start: Instant,
    /// Number of this shard's next connection; numbers increase by `shards`.
    next_number: u64,
    shards: u64,
    open: usize,
    connecting: usize,
    /// Failed connections to replace at the next [`PUBLISH_NS`], to avoid a tight loop of connects.
    to_retry: usize,
    connects_failed: usize,
    /// Last time at which a connection was seen open.
    last_open_ns: u64,
    publish_at_ns: u64,
    is_hopeless: bool,
    is_finished: bool,
    schedule: Option<Schedule>,
    /// Scheduled times of withdrawn requests.
    again: VecDeque<u64>,
    /// Requests to repeat: the server ended a kept connection before any byte of their replies.
    repeats: VecDeque<Asked>,
    /// Number of these that wait for the first request of a connection that is still to be opened.
    repeats_reserved: usize,
    /// With `--conn-rate`: the time in which another connection was allowed.
    room: Slack,
}

impl<P: Protocol> Driver<P> {
    /// Creates the driver of `shard` out of `shards`.
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
            repeats: VecDeque::new(),
            repeats_reserved: 0,
            room: Slack::ended(),
        }
    }

    /// Handles the start of the shard.
    pub fn start(&mut self) {
        self.start = *self.shared.started.get_or_init(Instant::now);
        if self.pacing() == Pacing::Connections {
            let now_ns = self.now_ns();
            self.room.begin(now_ns);
            self.schedule.iter_mut().for_each(|schedule| schedule.begin(now_ns));
        }
    }

    /// Returns the time since the start of the run. Costs about 25 ns, so callbacks call it once.
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

    /// Returns true if no further request becomes due.
    #[inline]
    pub fn is_over(&self) -> bool {
        self.is_stopped() || self.is_exhausted()
    }

    fn is_exhausted(&self) -> bool {
        let over = |schedule: &Schedule| schedule.has_begun() && schedule.next().is_none();
        let is_repeating = !self.again.is_empty() || !self.repeats.is_empty();
        !is_repeating && self.schedule.as_ref().is_some_and(over)
    }

    #[inline]
    fn due_ns(&self) -> Option<u64> {
        let next = || self.schedule.as_ref().and_then(Schedule::next);
        self.again.front().copied().or_else(next)
    }

    /// Returns true if a scheduled request is due.
    #[inline]
    pub fn is_due(&self, now_ns: u64) -> bool {
        self.due_ns().is_some_and(|due_ns| due_ns <= now_ns)
    }

    /// Takes the oldest due request and returns its scheduled time.
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

    /// Returns the time of the next tick. `can_send` tells if a due request could be sent.
    pub fn wakes_ns(&self, can_send: bool) -> u64 {
        let due_ns = if can_send && !self.is_stopped() { self.due_ns() } else { None };
        due_ns.map_or(self.publish_at_ns, |due_ns| due_ns.min(self.publish_at_ns))
    }

    /// Publishes the counts and repeats failed connects, once per [`PUBLISH_NS`].
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
        // If the lock is taken, the counts are published at the next interval.
        if let Ok(mut all) = self.shared.stats.try_lock() {
            all.absorb(&mut self.stats);
        }
    }

    fn begin(&mut self, now_ns: u64) {
        self.schedule.iter_mut().for_each(|schedule| schedule.begin(now_ns));
    }

    /// Opens the connections that are missing or due, within the limits.
    pub fn connect(&mut self, shard: &mut Local<'_>) {
        if self.is_stopped() {
            return;
        }
        match self.pacing() {
            Pacing::Closed => {
                let left = self.task.requests.unwrap_or(u64::MAX);
                let left = left.saturating_add(self.repeats.len() as u64);
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
            // The tag is the start of the connect, to measure its duration.
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
            // The tag is the scheduled time, from which all times are measured.
            shard.connect(self.task.to, due_ns);
            self.connecting += 1;
            if !self.may_connect() && self.room.lasts() {
                self.room.end(now_ns);
            }
        }
    }

    /// Returns true if the limits allow another connection.
    pub const fn may_connect(&self) -> bool {
        self.open + self.connecting < self.task.connections && self.connecting < CONNECTING_MAX
    }

    /// Handles an established connection whose connect started, or was due, at `tag_ns`. Returns
    /// its number, state and quota.
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

    /// Handles a failed connect that started, or was due, at `tag_ns`.
    pub fn connect_failed(&mut self, tag_ns: u64, error: &io::Error) {
        self.connecting -= 1;
        let kind = match error.kind() {
            io::ErrorKind::ConnectionRefused => ErrorKind::ConnectRefused,
            io::ErrorKind::AddrNotAvailable => ErrorKind::NoPort,
            _ => ErrorKind::ConnectFailed,
        };
        let is_session = self.pacing() == Pacing::Connections;
        // A refusal is immediate, so its time would only distort the distribution.
        if is_session && kind != ErrorKind::ConnectRefused {
            self.stats.session_ns.saturating_record(self.now_ns() - tag_ns);
        }
        if self.is_stopped() {
            self.stats.unsent += u64::from(is_session);
            return;
        }
        if kind == ErrorKind::ConnectRefused && self.task.drain_ok {
            self.stats.refused += 1;
        } else if error.kind() == io::ErrorKind::ConnectionReset && self.task.expect_disconnects {
            self.stats.disconnects += 1;
        } else {
            let mut detail = format!("connect to {}: {error}", self.task.to);
            // Only the first description is kept, and this one reads files.
            if kind == ErrorKind::NoPort && self.stats.errors.of(kind) == 0 {
                detail = format!("{detail}; {}", system::no_port());
            }
            self.stats.errors.count(Fault::new(kind, detail));
        }
        self.connects_failed += 1;
        match self.pacing() {
            Pacing::Closed => {
                self.to_retry += 1;
                // Counts as one request. Otherwise a run with --count would never end if the server
                // is gone.
                match self.task.requests {
                    Some(_) if self.repeats.pop_front().is_some() => {
                        self.stats.lost += 1;
                        self.repeats_reserved = self.repeats_reserved.saturating_sub(1);
                    }
                    Some(left) => self.task.requests = Some(left.saturating_sub(1)),
                    None => {}
                }
            }
            Pacing::Requests => self.to_retry += 1,
            Pacing::Connections => {
                let quota = self.task.requests_per_connection;
                self.task.requests = self.task.requests.map(|left| left.saturating_sub(quota));
            }
        }
    }

    /// Tells the watching thread when this shard has finished, or when no connect succeeds.
    pub fn settle(&mut self) {
        let limited = self.task.requests.is_some();
        let all_sent = match self.pacing() {
            Pacing::Closed => self.task.requests == Some(0) && self.repeats.is_empty(),
            _ => limited && self.is_exhausted(),
        };
        let sent = all_sent && self.open == 0 && self.connecting == 0;
        // Only a run with --duration waits for the server to return. A run with --count gives up
        // after --timeout.
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

    /// Handles the end of the shard: counts the requests that were due but never sent, and
    /// publishes the counts. `slack` is the time in which a connection was free.
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
        let is_open = self.task.pacing == Pacing::Requests;
        for asked in self.repeats.drain(..) {
            stats.unfinished += 1;
            if is_open {
                times.saturating_record(end_ns.saturating_sub(asked.intended_ns));
            }
        }
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
    if let Some(profile) = task.profile.clone() {
        let random = (task.arrivals == Arrivals::Poisson).then_some(task.seed);
        return Some(Schedule::staged(profile, (shard, shards), random, ends_ns));
    }
    let rate = task.rate?;
    Some(match task.arrivals {
        Arrivals::Uniform => Schedule::uniform(rate, shard, shards, ends_ns, count),
        Arrivals::Poisson => Schedule::poisson(rate, shard, shards, task.seed, ends_ns, count),
    })
}
