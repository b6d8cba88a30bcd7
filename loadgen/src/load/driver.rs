//! What a shard knows but for its connections, and what happens to one of them.

use super::flow::{Asked, Flow};
use super::slack::Slack;
use super::{Answer, CONNECTING_MAX, Schedule, Shared, Task};
use crate::args::Arrivals;
use crate::protocol::{ErrorKind, Fault, Protocol, Step};
use crate::report::Pacing;
use crate::stats::Stats;
use ringwright::{Connection, Local, Reason};
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

    /// Not all that it is for was sent, and one more may be in flight.
    #[inline]
    pub fn has_room(&self, flow: &Flow<P::State>) -> bool {
        flow.in_flight.len() < self.task.pipeline && flow.sent < flow.quota
    }

    /// Sends one request that was due at `due_ns`, and held up by nobody else for `lag_ns`.
    pub fn send(
        &mut self,
        flow: &mut Flow<P::State>,
        connection: &mut Connection<'_>,
        due_ns: u64,
        lag_ns: u64,
        now_ns: u64,
    ) {
        self.stats.lag_ns.saturating_record(lag_ns);
        flow.in_flight.push_back(Asked { intended_ns: due_ns, sent_ns: now_ns });
        self.request(flow, connection, 1);
    }

    /// Without a schedule of requests: sends as many as may be in flight; ends a connection that
    /// has none to wait for.
    #[inline]
    pub fn ask(&mut self, flow: &mut Flow<P::State>, connection: &mut Connection<'_>, now_ns: u64) {
        if flow.ending {
            return;
        }
        let room = (self.task.pipeline - flow.in_flight.len()) as u64;
        let wanted = room.min(flow.quota - flow.sent);
        let count = match self.pacing() {
            // A connection that came on schedule is not cut short by the end of the run.
            Pacing::Connections if self.is_interrupted() => 0,
            Pacing::Connections => wanted,
            _ if self.is_stopped() => 0,
            _ => wanted.min(self.task.requests.unwrap_or(u64::MAX)),
        };
        if count > 0 {
            if self.pacing() == Pacing::Closed {
                self.task.requests = self.task.requests.map(|left| left - count);
            }
            let asked = Asked { intended_ns: now_ns, sent_ns: now_ns };
            flow.in_flight.extend(std::iter::repeat_n(asked, count as usize));
            self.request(flow, connection, count);
        } else if flow.in_flight.is_empty() {
            flow.ending = true;
            connection.close();
        }
    }

    #[inline]
    fn request(&mut self, flow: &mut Flow<P::State>, connection: &mut Connection<'_>, count: u64) {
        flow.sent += count;
        self.stats.requests += count;
        self.stats.bytes_sent += self.protocol.request(&mut flow.state, count as usize, |bytes| {
            // What may be in flight is below the high-water mark: there is room.
            let _ = connection.send(bytes);
        });
    }

    /// The first bytes of a connection have come.
    #[cold]
    pub fn heard(&mut self, flow: &mut Flow<P::State>, now_ns: u64) {
        flow.heard = true;
        if self.pacing() == Pacing::Connections {
            self.stats.first_byte_ns.saturating_record(now_ns - flow.intended_ns);
        }
    }

    /// Shows the protocol what has come.
    #[inline]
    pub fn receive(&mut self, flow: &mut Flow<P::State>, bytes: &[u8]) -> Result<Step, Fault> {
        let step = self.protocol.receive(&mut flow.state, bytes)?;
        self.stats.bytes_received += step.used as u64;
        Ok(step)
    }

    /// Counts a complete reply to one of the requests in flight.
    #[inline]
    pub fn count(
        &mut self,
        flow: &mut Flow<P::State>,
        connection: &mut Connection<'_>,
        answer: Answer,
        now_ns: u64,
    ) {
        let now = Asked { intended_ns: now_ns, sent_ns: now_ns };
        let asked = flow.in_flight.remove(answer.place).unwrap_or(now);
        self.stats.replies += 1;
        self.stats.last_reply_ns = now_ns;
        self.stats.service_ns.saturating_record(now_ns - asked.sent_ns);
        match self.pacing() {
            Pacing::Closed => {}
            Pacing::Requests => {
                self.stats.latency_ns.saturating_record(now_ns - asked.intended_ns);
            }
            Pacing::Connections if flow.sent == flow.quota && flow.in_flight.is_empty() => {
                flow.is_done = true;
                self.stats.sessions += 1;
                self.stats.session_ns.saturating_record(now_ns - flow.intended_ns);
            }
            Pacing::Connections => {}
        }
        if let Some(status) = answer.status {
            self.stats.count_status(status, 1);
        }
        if let Some(fault) = answer.fault {
            self.stats.errors.count(fault);
        }
        if answer.last {
            self.withdraw(flow);
            flow.ending = true;
            connection.close();
        }
    }

    /// RFC 9112 section 9.6: what was pipelined behind the last reply was not processed. It is taken
    /// back, and sent again elsewhere.
    fn withdraw(&mut self, flow: &mut Flow<P::State>) {
        let withdrawn = flow.in_flight.len() as u64;
        self.stats.withdrawn += withdrawn;
        match self.pacing() {
            Pacing::Closed => {
                self.task.requests = self.task.requests.map(|left| left + withdrawn);
            }
            Pacing::Requests => {
                self.again.extend(flow.in_flight.iter().map(|asked| asked.intended_ns));
            }
            // What a connection on schedule was for is not done by another one.
            Pacing::Connections => {}
        }
        flow.in_flight.clear();
    }

    /// The requests in flight will get no reply any more.
    fn lose(&mut self, flow: &mut Flow<P::State>, now_ns: u64) {
        self.stats.lost += flow.in_flight.len() as u64;
        self.note_waits(flow, now_ns);
        flow.in_flight.clear();
    }

    /// They have waited so long at least.
    fn note_waits(&mut self, flow: &Flow<P::State>, now_ns: u64) {
        if self.pacing() == Pacing::Requests {
            for asked in &flow.in_flight {
                self.stats.latency_ns.saturating_record(now_ns - asked.intended_ns);
            }
        }
    }

    /// Ends a connection that is of no use any more.
    #[cold]
    pub fn fail(
        &mut self,
        flow: &mut Flow<P::State>,
        connection: &mut Connection<'_>,
        fault: Fault,
    ) {
        self.stats.errors.count(fault);
        self.lose(flow, self.now_ns());
        flow.ending = true;
        flow.retry_later = true;
        connection.abort();
    }

    /// The peer has sent its FIN, and we had not ended it.
    pub fn ended_by_peer(
        &mut self,
        flow: &mut Flow<P::State>,
        connection: &mut Connection<'_>,
        now_ns: u64,
    ) {
        let has_begun = flow.partial || !self.protocol.is_between_replies(&flow.state);
        let owed = flow.in_flight.len() as u64;
        if !has_begun && owed > 0 {
            self.stats.unanswered_at_close += owed;
        }
        if !has_begun && (owed == 0 || self.task.drain_ok) {
            self.stats.closed_idle += u64::from(owed == 0);
            self.lose(flow, now_ns);
            flow.ending = true;
            // One that never answered anything might go on like this.
            flow.retry_later = !flow.heard;
            connection.close();
            return;
        }
        match self.protocol.end(&mut flow.state) {
            Ok(answer) => self.count(flow, connection, answer, now_ns),
            Err(fault) => self.fail(flow, connection, fault),
        }
    }

    /// The time of a connection's timer has come.
    pub fn check_timeout(&mut self, flow: &mut Flow<P::State>, connection: &mut Connection<'_>) {
        let Some(oldest) = flow.in_flight.front() else {
            // Whatever is sent meanwhile is looked after then.
            return connection.set_timer(Some(self.task.timeout));
        };
        let waited = Duration::from_nanos(self.now_ns() - oldest.sent_ns);
        // Set once and then for what is left: a timer per request would be the dearest part of it.
        match self.task.timeout.checked_sub(waited) {
            Some(left) if !left.is_zero() => connection.set_timer(Some(left)),
            _ => {
                let fault = Fault::new(
                    ErrorKind::Timeout,
                    format_args!("connection {}: no reply for {waited:.1?}", flow.number),
                );
                self.fail(flow, connection, fault);
            }
        }
    }

    /// A connect did not come about that was asked for, or due, at `tag_ns`.
    pub fn connect_failed(&mut self, tag_ns: u64, error: &io::Error) {
        self.connecting -= 1;
        let is_session = self.pacing() == Pacing::Connections;
        if is_session {
            self.stats.session_ns.saturating_record(self.now_ns() - tag_ns);
        }
        if self.is_stopped() {
            self.stats.unsent += u64::from(is_session);
            return;
        }
        let kind = match error.kind() {
            io::ErrorKind::ConnectionRefused => ErrorKind::ConnectRefused,
            _ => ErrorKind::ConnectFailed,
        };
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

    /// A connection is gone.
    pub fn closed(&mut self, mut flow: Flow<P::State>, reason: Reason, now_ns: u64) {
        self.open -= 1;
        let ended_by_us = flow.ending;
        if !ended_by_us {
            self.judge(&mut flow, reason, now_ns);
        }
        match self.pacing() {
            Pacing::Connections if !flow.is_done => {
                self.stats.session_ns.saturating_record(now_ns - flow.intended_ns);
            }
            Pacing::Connections => {}
            _ => self.to_retry += usize::from(flow.retry_later || !ended_by_us),
        }
    }

    /// What it means that a connection ended which we had not ended.
    #[cold]
    fn judge(&mut self, flow: &mut Flow<P::State>, reason: Reason, now_ns: u64) {
        let kind = match reason {
            Reason::Drained | Reason::Stopped if self.is_interrupted() => {
                self.stats.unfinished += flow.in_flight.len() as u64;
                return self.note_waits(flow, now_ns);
            }
            Reason::Drained | Reason::Stopped => ErrorKind::Timeout,
            Reason::PeerReset | Reason::BrokenPipe => ErrorKind::Reset,
            Reason::PeerFin => ErrorKind::Eof,
            _ => ErrorKind::Other,
        };
        self.stats.errors.count(Fault::new(
            kind,
            format_args!(
                "connection {}: {} with {} of {} requests unanswered",
                flow.number,
                reason.name(),
                flow.in_flight.len(),
                flow.sent
            ),
        ));
        self.lose(flow, now_ns);
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
    pub fn end(&mut self) {
        let end_ns = self.shared.ended_ns.load(Ordering::Relaxed);
        let stats = &mut self.stats;
        let times = match self.task.pacing {
            Pacing::Connections => &mut stats.session_ns,
            _ => &mut stats.latency_ns,
        };
        let mut unsent = |due_ns: u64, many: u64| {
            stats.unsent += many;
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
