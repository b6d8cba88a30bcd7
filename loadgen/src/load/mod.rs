//! The closed loop: every connection sends its next request when a reply has come.
//!
//! One [`Load`] per shard. It keeps its share of the connections open, replaces those that end,
//! and judges how they end; what the bytes mean is its [`Protocol`]'s business.

use crate::protocol::{Answer, ErrorKind, Fault, Protocol};
use crate::stats::Stats;
use ringwright::{Connection, ConnectionId, Handler, Local, Origin, Reason};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Connects under way on a shard at once: more would overflow the backlog of many a server, and
/// what is dropped there is tried again by the kernel a second later.
pub const CONNECTING_MAX: usize = 256;
/// How often a shard publishes what it counted, and tries again what failed.
const TICK: Duration = Duration::from_millis(100);

/// What one shard has to do.
#[derive(Clone, Debug)]
pub struct Task {
    /// The server.
    pub to: SocketAddr,
    /// Connections to keep open.
    pub connections: usize,
    /// Requests to send; `None`: until stopped.
    pub requests: Option<u64>,
    /// Requests in flight on a connection.
    pub pipeline: usize,
    /// Requests after which a connection is closed and another opened.
    pub requests_per_connection: u64,
    /// Longest wait for a reply.
    pub timeout: Duration,
}

/// What the shards and the thread that watches them share.
#[derive(Default)]
pub struct Shared {
    /// Set by the first shard that runs.
    pub started: OnceLock<Instant>,
    /// Nothing more is to be sent.
    pub stop: AtomicBool,
    /// A signal ended the run: what has no reply by then is nobody's fault.
    pub interrupted: AtomicBool,
    /// A connection has come about.
    pub connected: AtomicBool,
    /// Shards on which every connection has been tried, and none came about.
    pub hopeless: AtomicUsize,
    /// Shards that have sent all their requests, or have lost their server for good, and have no
    /// connection open.
    pub finished: AtomicUsize,
    /// What the shards have published.
    pub stats: Mutex<Stats>,
}

/// One shard's handler.
pub struct Load<P> {
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
    /// Connections that failed, to be replaced at the next tick: a server that refuses is not
    /// asked in a tight loop.
    to_retry: usize,
    connects_failed: usize,
    /// When a connection was last open, as of a tick.
    last_open_ns: u64,
    is_hopeless: bool,
    is_finished: bool,
}

/// One connection.
pub struct Flow<S> {
    state: S,
    number: u64,
    /// When each request without a reply was sent, oldest first; nanoseconds since the start.
    in_flight: VecDeque<u64>,
    sent: u64,
    /// We have ended it; whatever comes now is of no interest.
    ending: bool,
    failed: bool,
}

impl<P: Protocol> Load<P> {
    /// The handler of `shard` out of `shards`.
    pub fn new(task: Task, shared: Arc<Shared>, protocol: P, shard: usize, shards: usize) -> Self {
        Self {
            task,
            shared,
            protocol,
            stats: Stats::new(),
            start: Instant::now(),
            next_number: shard as u64,
            shards: shards as u64,
            open: 0,
            connecting: 0,
            to_retry: 0,
            connects_failed: 0,
            last_open_ns: 0,
            is_hopeless: false,
            is_finished: false,
        }
    }

    /// Read once per callback: 25 ns of clock against microseconds of request.
    fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    fn is_stopped(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }

    /// Opens as many connections as are missing, within the limits.
    fn connect(&mut self, shard: &mut Local<'_>) {
        if self.is_stopped() {
            return;
        }
        let missing = self.task.connections - self.open - self.connecting - self.to_retry;
        let useful = self.task.requests.unwrap_or(u64::MAX).saturating_sub(self.connecting as u64);
        let count = missing.min(CONNECTING_MAX - self.connecting).min(useful as usize);
        for _ in 0..count {
            // The tag is the time of the connect, to know how long it took.
            shard.connect(self.task.to, self.now_ns());
        }
        self.connecting += count;
    }

    /// Sends as many requests as may be in flight; ends a connection that has none to wait for.
    fn ask(&mut self, flow: &mut Flow<P::State>, connection: &mut Connection<'_>, now_ns: u64) {
        if flow.ending {
            return;
        }
        let room = (self.task.pipeline - flow.in_flight.len()) as u64;
        let budget = self.task.requests.unwrap_or(u64::MAX);
        let count = match self.is_stopped() {
            true => 0,
            false => room.min(self.task.requests_per_connection - flow.sent).min(budget),
        };
        if count > 0 {
            self.task.requests = self.task.requests.map(|left| left - count);
            flow.sent += count;
            flow.in_flight.extend(std::iter::repeat_n(now_ns, count as usize));
            self.stats.requests += count;
            self.stats.bytes_sent +=
                self.protocol.request(&mut flow.state, count as usize, |bytes| {
                    // What may be in flight is below the high-water mark: there is room.
                    let _ = connection.send(bytes);
                });
        } else if flow.in_flight.is_empty() {
            flow.ending = true;
            connection.close();
        }
    }

    /// Counts a complete reply to one of the requests in flight.
    fn count(
        &mut self,
        flow: &mut Flow<P::State>,
        connection: &mut Connection<'_>,
        answer: Answer,
        now_ns: u64,
    ) {
        let sent_ns = flow.in_flight.remove(answer.place).unwrap_or(now_ns);
        self.stats.replies += 1;
        self.stats.last_reply_ns = now_ns;
        self.stats.service_ns.saturating_record(now_ns - sent_ns);
        if let Some(status) = answer.status {
            self.stats.count_status(status, 1);
        }
        if let Some(fault) = answer.fault {
            self.stats.errors.count(fault);
        }
        if answer.last {
            // RFC 9112 section 9.6: what was pipelined behind it was not processed. It is taken
            // back, and sent again elsewhere.
            let withdrawn = flow.in_flight.len() as u64;
            flow.in_flight.clear();
            self.stats.withdrawn += withdrawn;
            self.task.requests = self.task.requests.map(|left| left + withdrawn);
            flow.ending = true;
            connection.close();
        }
    }

    /// Ends a connection that is of no use any more.
    #[cold]
    fn fail(&mut self, flow: &mut Flow<P::State>, connection: &mut Connection<'_>, fault: Fault) {
        self.stats.errors.count(fault);
        flow.ending = true;
        flow.failed = true;
        connection.abort();
    }

    /// What it means that a connection ended which we had not ended.
    #[cold]
    fn judge(&mut self, flow: &Flow<P::State>, reason: Reason) {
        let kind = match reason {
            Reason::Drained if self.shared.interrupted.load(Ordering::Relaxed) => {
                self.stats.unfinished += flow.in_flight.len() as u64;
                return;
            }
            Reason::Drained => ErrorKind::Timeout,
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
    }

    /// Tells the watching thread when this shard has nothing more to do.
    fn settle(&mut self) {
        let sent = self.task.requests == Some(0) && self.open == 0 && self.connecting == 0;
        // Only a run for a time waits for a server to come back, as long as that.
        let idle = Duration::from_nanos(self.now_ns().saturating_sub(self.last_open_ns));
        let lost = self.task.requests.is_some() && self.open == 0 && idle > self.task.timeout;
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
}

impl<P: Protocol> Handler for Load<P> {
    type State = Flow<P::State>;

    fn started(&mut self, shard: &mut Local<'_>) {
        self.start = *self.shared.started.get_or_init(Instant::now);
        self.connect(shard);
        shard.tick_after(TICK);
    }

    fn tick(&mut self, shard: &mut Local<'_>) {
        if self.open > 0 {
            self.last_open_ns = self.now_ns();
        }
        self.to_retry = 0;
        self.connect(shard);
        self.settle();
        // Not waited for: when it is taken, what was counted is published the next time.
        if let Ok(mut all) = self.shared.stats.try_lock() {
            all.absorb(&mut self.stats);
        }
        shard.tick_after(TICK);
    }

    fn opened(&mut self, connection: &mut Connection<'_>, origin: Origin) -> Self::State {
        let now_ns = self.now_ns();
        if let Origin::Connected(connect_ns) = origin {
            self.stats.connect_ns.saturating_record(now_ns - connect_ns);
        }
        self.connecting -= 1;
        self.open += 1;
        self.stats.opened += 1;
        self.shared.connected.store(true, Ordering::Relaxed);
        let number = self.next_number;
        self.next_number += self.shards;
        let mut flow = Flow {
            state: self.protocol.open(number),
            number,
            in_flight: VecDeque::with_capacity(self.task.pipeline),
            sent: 0,
            ending: false,
            failed: false,
        };
        self.ask(&mut flow, connection, now_ns);
        connection.set_timer(Some(self.task.timeout));
        self.connect(&mut connection.local());
        flow
    }

    fn received(
        &mut self,
        flow: &mut Self::State,
        connection: &mut Connection<'_>,
        bytes: &[u8],
    ) -> usize {
        let now_ns = self.now_ns();
        let mut used = 0;
        while used < bytes.len() {
            if flow.ending {
                return bytes.len();
            }
            if flow.in_flight.is_empty() && !P::MAY_SPEAK_UNASKED {
                let many = bytes.len() - used;
                let fault = Fault::new(
                    ErrorKind::Protocol,
                    format_args!("connection {}: {many} bytes nobody asked for", flow.number),
                );
                self.fail(flow, connection, fault);
                return bytes.len();
            }
            let step = match self.protocol.receive(&mut flow.state, &bytes[used..]) {
                Ok(step) => step,
                Err(fault) => {
                    self.fail(flow, connection, fault);
                    return bytes.len();
                }
            };
            used += step.used;
            self.stats.bytes_received += step.used as u64;
            match step.answer {
                Some(answer) => self.count(flow, connection, answer, now_ns),
                None => {
                    connection.need(step.need);
                    break;
                }
            }
        }
        self.ask(flow, connection, now_ns);
        used
    }

    fn half_closed(&mut self, flow: &mut Self::State, connection: &mut Connection<'_>) {
        if flow.ending {
            connection.close();
            return;
        }
        match self.protocol.end(&mut flow.state) {
            Ok(answer) => {
                let now_ns = self.now_ns();
                self.count(flow, connection, answer, now_ns);
            }
            Err(fault) => self.fail(flow, connection, fault),
        }
    }

    fn timer(&mut self, flow: &mut Self::State, connection: &mut Connection<'_>) {
        let Some(oldest_ns) = flow.in_flight.front() else { return };
        let waited = Duration::from_nanos(self.now_ns() - oldest_ns);
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

    fn draining(&mut self, flow: &mut Self::State, connection: &mut Connection<'_>) {
        let now_ns = self.now_ns();
        self.ask(flow, connection, now_ns);
    }

    fn connect_failed(&mut self, shard: &mut Local<'_>, _tag: u64, error: io::Error) {
        self.connecting -= 1;
        if self.is_stopped() {
            return;
        }
        let kind = match error.kind() {
            io::ErrorKind::ConnectionRefused => ErrorKind::ConnectRefused,
            _ => ErrorKind::ConnectFailed,
        };
        self.stats.errors.count(Fault::new(kind, format_args!("{}: {error}", self.task.to)));
        self.connects_failed += 1;
        self.to_retry += 1;
        // A request that could not even be sent; else a run of so many requests against a server
        // that has gone would never end.
        self.task.requests = self.task.requests.map(|left| left.saturating_sub(1));
        self.connect(shard);
        self.settle();
    }

    fn closed(
        &mut self,
        flow: Self::State,
        shard: &mut Local<'_>,
        _id: ConnectionId,
        reason: Reason,
    ) {
        self.open -= 1;
        if !flow.ending {
            self.judge(&flow, reason);
        }
        if flow.failed || !flow.ending {
            self.to_retry += 1;
        }
        self.connect(shard);
        self.settle();
    }
}

impl<P> Drop for Load<P> {
    /// What was counted since the last tick.
    fn drop(&mut self) {
        let mut all = self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner);
        all.absorb(&mut self.stats);
    }
}
