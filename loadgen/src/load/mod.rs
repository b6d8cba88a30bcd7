//! The load driver: opens connections, sends requests, replaces connections that end, and
//! classifies how they end.
//!
//! There is one [`Load`] per shard. Its [`Pacing`] determines when it sends the next request: after
//! a reply, or on a [`Schedule`]. A request that is due while no connection has room waits in the
//! schedule, and the wait is part of its latency. The [`Protocol`] makes requests and checks
//! replies.

mod driver;
mod flow;
mod schedule;
mod slack;

pub use schedule::Schedule;

use self::driver::Driver;
use self::flow::{Flow, Flows};
use crate::args::Arrivals;
use crate::profile::Profile;
use crate::report::Pacing;
use crate::stats::Stats;
use ringload_lifecycle::clients::Protocol;
use ringload_lifecycle::route::Route;
use ringload_lifecycle::system;
use ringload_lifecycle::units::Rate;
use ringwright::{BoxError, Connection, ConnectionId, Handler, Local, Origin, Reason};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// Maximum number of requests sent in one tick, before replies are handled.
const SENDS_MAX: usize = 128;
/// The shortest delay of a tick.
const AT_ONCE: Duration = Duration::from_micros(1);
/// Shortest delay of a tick for requests that are not due yet. At high rates, one tick sends
/// several requests. A reply that arrives in between also triggers the requests that are due.
const GATHER: Duration = Duration::from_micros(50);

/// The work of one shard.
#[derive(Clone, Debug)]
pub struct Task {
    /// The server.
    pub to: SocketAddr,
    /// Connections to keep open; with `--conn-rate`, the most that may be open at once.
    pub connections: usize,
    /// Requests to send; `None` to send until stopped.
    pub requests: Option<u64>,
    /// Maximum number of requests in flight on a connection.
    pub pipeline: usize,
    /// Requests after which a connection is closed and another opened.
    pub requests_per_connection: u64,
    /// Time between a reply and the next request on its connection.
    pub think: Option<Duration>,
    /// Longest wait for a reply.
    pub timeout: Duration,
    /// The trigger of the next request.
    pub pacing: Pacing,
    /// Rate of the requests or connections of all shards; `None` without a schedule.
    pub rate: Option<Rate>,
    /// The rate of the requests of all shards if it changes; replaces `rate`.
    pub profile: Option<Arc<Profile>>,
    /// Distribution of the schedule over time.
    pub arrivals: Arrivals,
    /// Duration of the run, unless `requests` limits it.
    pub duration: Option<Duration>,
    /// Seed for everything random.
    pub seed: u64,
    /// How connections begin.
    pub route: Route,
    /// The server is expected to drain.
    pub drain_ok: bool,
    /// The server is expected to end connections at any time.
    pub expect_disconnects: bool,
}

/// State shared by the shards and the thread that watches them.
#[derive(Default)]
pub struct Shared {
    /// Set by the first shard that runs.
    pub started: OnceLock<Instant>,
    /// Send no more requests.
    pub stop: AtomicBool,
    /// Time of the stop, nanoseconds since the start; set before `stop`.
    pub ended_ns: AtomicU64,
    /// A signal ended the run; missing replies are not errors.
    pub interrupted: AtomicBool,
    /// At least one connection was established.
    pub connected: AtomicBool,
    /// Number of shards on which as many connects have failed as connections are wanted.
    pub hopeless: AtomicUsize,
    /// Number of shards without open connections that have sent all requests or lost the server.
    pub finished: AtomicUsize,
    /// The counts that the shards have published.
    pub stats: Mutex<Stats>,
}

/// The handler of one shard.
pub struct Load<P: Protocol> {
    flows: Flows<P::State>,
    driver: Driver<P>,
}

impl<P: Protocol> Load<P> {
    /// Creates the handler of `shard` out of `shards`.
    pub fn new(task: Task, shared: Arc<Shared>, protocol: P, shard: usize, shards: usize) -> Self {
        let driver = Driver::new(task, shared, protocol, shard as u64, shards as u64);
        Self { flows: Flows::new(), driver }
    }

    /// Sends requests on a connection that has room; closes a connection that is no longer needed.
    #[inline]
    fn serve(&mut self, index: u32, connection: &mut Connection<'_>, now_ns: u64) {
        let flow = self.flows.get_mut(index);
        if self.driver.pacing() != Pacing::Requests {
            self.driver.ask(flow, connection, now_ns);
        } else if !flow.ending {
            self.serve_on_schedule(index, connection, now_ns);
        }
    }

    fn serve_on_schedule(&mut self, index: u32, connection: &mut Connection<'_>, now_ns: u64) {
        let Self { flows, driver } = self;
        let slack = flows.slack;
        let flow = flows.get_mut(index);
        driver.repeat(flow, connection, now_ns);
        while driver.has_room(flow)
            && let Some(due_ns) = driver.take_due(now_ns)
        {
            driver.send(flow, connection, due_ns, slack.lag_ns(due_ns, now_ns), now_ns);
        }
        let is_over = driver.is_over();
        if !is_over && driver.has_room(flow) {
            if flows.set_free(index, now_ns) {
                self.arm(&mut connection.local());
            }
        } else if flow.in_flight.is_empty() {
            flow.ending = true;
            connection.close();
        }
        if is_over && self.flows.has_free() {
            connection.local().tick_after(AT_ONCE);
        }
    }

    /// Sends due requests on free connections; closes free connections at the end of the schedule.
    fn send_due(&mut self, shard: &mut Local<'_>) {
        let Self { flows, driver } = self;
        for _ in 0..SENDS_MAX {
            let now_ns = driver.now_ns();
            let (is_over, is_due) = (driver.is_over(), driver.is_due(now_ns));
            if !is_over && !is_due {
                return;
            }
            let slack = flows.slack;
            let Some(index) = flows.take_free(now_ns) else { return };
            let flow = flows.get_mut(index);
            // `None` means that the connection is ending and will be replaced.
            let Some(mut connection) = shard.connection(flow.id) else { continue };
            if flow.ending || !(is_over || driver.has_room(flow)) {
                continue;
            }
            if is_over {
                if flow.in_flight.is_empty() {
                    flow.ending = true;
                    connection.close();
                }
                continue;
            }
            // The run may have ended in between.
            if let Some(due_ns) = driver.take_due(now_ns) {
                let lag_ns = slack.lag_ns(due_ns, now_ns);
                driver.send(flow, &mut connection, due_ns, lag_ns, now_ns);
            }
            if driver.has_room(flow) {
                flows.put_back(index, slack);
            }
        }
    }

    /// Arms the next tick: for the next request that can be sent, or to publish counts.
    fn arm(&self, shard: &mut Local<'_>) {
        // Free connections are closed in batches, one batch per tick.
        let closes = self.driver.pacing() == Pacing::Requests && self.driver.is_over();
        if closes && self.flows.has_free() {
            return shard.tick_after(AT_ONCE);
        }
        let can_send = match self.driver.pacing() {
            Pacing::Closed => false,
            Pacing::Requests => self.flows.has_free(),
            Pacing::Connections => self.driver.may_connect(),
        };
        let now_ns = self.driver.now_ns();
        let left_ns = self.driver.wakes_ns(can_send).saturating_sub(now_ns);
        shard.tick_after(match left_ns {
            0 => AT_ONCE,
            left_ns => Duration::from_nanos(left_ns).max(GATHER),
        });
    }
}

impl<P: Protocol> Handler for Load<P> {
    /// Index of the flow.
    type State = u32;

    fn started(&mut self, shard: &mut Local<'_>) -> Result<(), BoxError> {
        self.driver.start();
        if self.driver.pacing() != Pacing::Closed {
            system::wake_in_time();
        }
        self.driver.connect(shard);
        self.arm(shard);
        Ok(())
    }

    fn tick(&mut self, shard: &mut Local<'_>) {
        let now_ns = self.driver.now_ns();
        self.driver.look_after(shard, now_ns);
        match self.driver.pacing() {
            Pacing::Closed => {}
            Pacing::Requests => self.send_due(shard),
            Pacing::Connections => self.driver.connect(shard),
        }
        self.arm(shard);
    }

    fn opened(&mut self, connection: &mut Connection<'_>, origin: Origin) -> u32 {
        let now_ns = self.driver.now_ns();
        let Origin::Connected(tag_ns) = origin else { unreachable!("there is no listener") };
        let (number, state, quota) = self.driver.opened(tag_ns, now_ns);
        self.driver.send_header(number, connection);
        let index = self.flows.insert(Flow {
            state,
            number,
            id: connection.id(),
            in_flight: VecDeque::with_capacity(self.driver.pipeline()),
            sent: 0,
            repeats: 0,
            is_careful: false,
            quota,
            intended_ns: tag_ns,
            has_received: false,
            partial: false,
            is_free: false,
            is_done: false,
            ending: false,
            is_thinking: false,
            retry_later: false,
        });
        self.serve(index, connection, now_ns);
        connection.set_timer(0, Some(self.driver.timeout()));
        self.driver.connect(&mut connection.local());
        // This connection may have started the schedule.
        if self.driver.pacing() == Pacing::Requests {
            self.arm(&mut connection.local());
        }
        index
    }

    fn received(
        &mut self,
        index: &mut u32,
        connection: &mut Connection<'_>,
        bytes: &[u8],
    ) -> usize {
        let now_ns = self.driver.now_ns();
        let Self { flows, driver } = self;
        let flow = flows.get_mut(*index);
        if !flow.has_received {
            driver.first_bytes(flow, now_ns);
        }
        let mut used = 0;
        while used < bytes.len() {
            if flow.ending {
                return bytes.len();
            }
            let is_unasked = flow.in_flight.is_empty() && !P::MAY_SPEAK_UNASKED;
            if is_unasked && !P::MAY_SAY_GOODBYE {
                driver.refuse_unasked(flow, connection, bytes.len() - used);
                return bytes.len();
            }
            let step = match driver.receive(flow, &bytes[used..]) {
                Ok(step) => step,
                Err(fault) => {
                    driver.fail(flow, connection, fault);
                    return bytes.len();
                }
            };
            used += step.used;
            match step.answer {
                Some(answer) if is_unasked && P::is_goodbye(&answer) => {
                    driver.leave_idle(flow, connection);
                }
                Some(_) if is_unasked => {
                    driver.refuse_unasked(flow, connection, step.used);
                    return bytes.len();
                }
                // It was sent before the request arrived (RFC 9110 section 15.5.9).
                Some(answer) if P::is_goodbye(&answer) && driver.repeat_later(flow, now_ns) => {
                    driver.leave_idle(flow, connection);
                }
                Some(answer) => driver.count(flow, connection, answer, now_ns),
                None => {
                    connection.need(step.need);
                    break;
                }
            }
        }
        flow.partial = used < bytes.len();
        self.serve(*index, connection, now_ns);
        used
    }

    fn half_closed(&mut self, index: &mut u32, connection: &mut Connection<'_>) {
        let now_ns = self.driver.now_ns();
        let flow = self.flows.get_mut(*index);
        if flow.ending {
            connection.close();
        } else {
            self.driver.ended_by_peer(flow, connection, now_ns);
        }
    }

    fn timer(&mut self, index: &mut u32, connection: &mut Connection<'_>, _: u8) {
        let flow = self.flows.get_mut(*index);
        if !std::mem::take(&mut flow.is_thinking) {
            return self.driver.check_timeout(flow, connection);
        }
        let now_ns = self.driver.now_ns();
        self.serve(*index, connection, now_ns);
        connection.set_timer(0, Some(self.driver.timeout()));
    }

    fn draining(&mut self, index: &mut u32, connection: &mut Connection<'_>) {
        let now_ns = self.driver.now_ns();
        self.serve(*index, connection, now_ns);
    }

    fn connect_failed(&mut self, shard: &mut Local<'_>, tag: u64, error: io::Error) {
        self.driver.connect_failed(tag, &error);
        self.driver.connect(shard);
        self.driver.settle();
        if self.driver.pacing() != Pacing::Closed {
            self.arm(shard);
        }
    }

    fn closed(
        &mut self,
        index: Option<u32>,
        shard: &mut Local<'_>,
        _id: ConnectionId,
        reason: Reason,
    ) {
        // None after a panic in `opened`, which has counted nothing as open.
        let Some(index) = index else { return };
        let now_ns = self.driver.now_ns();
        let flow = self.flows.remove(index, now_ns);
        self.driver.closed(flow, reason, now_ns);
        self.driver.connect(shard);
        self.driver.settle();
        // There is room for a connection, or withdrawn requests wait.
        if self.driver.pacing() != Pacing::Closed {
            self.arm(shard);
        }
    }
}

impl<P: Protocol> Drop for Load<P> {
    /// Publishes the remaining counts and the requests that were never sent.
    fn drop(&mut self) {
        self.driver.end(self.flows.slack);
    }
}
