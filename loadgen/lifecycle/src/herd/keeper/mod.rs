//! Opens and holds the connections, probes them in turn, and records losses.

mod talk;

use super::clock::{Turns, to_ns};
use super::loss::{ConnectFailure, How};
use super::member::{Member, State};
use super::sources::Sources;
use super::tally::{HerdInterval, Phase, Tally};
use super::tongue::Tongue;
use crate::event_loop::Poller;
use crate::route::{CONNECTING_MAX, Route};
use crate::socket::Socket;
use crate::system::{self, Interrupts};
use crate::units::Rate;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// Longest time between two checks for a signal.
const NAP_MAX_NS: u64 = 10_000_000;
/// Interval between two lines of output.
const LINE_NS: u64 = 1_000_000_000;
/// Maximum number of probes sent, and of connects started, per turn.
const BURST_MAX: usize = 128;
/// Size of the read buffer.
const READ_BYTES: usize = 64 << 10;

/// The work to do.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)] // The options of the command line.
pub struct Order {
    pub to: SocketAddr,
    pub sources: Sources,
    pub route: Route,
    pub seed: u64,
    pub connections: u64,
    pub hold: Duration,
    pub probe_every: Duration,
    pub conn_rate: Option<Rate>,
    pub timeout: Duration,
    pub drain_ok: bool,
}

/// The result of a run.
pub struct Kept {
    /// The counters.
    pub tally: Tally,
    /// Time until the last connect succeeded or failed.
    pub ramp: Duration,
    /// Time from the first connect to the end.
    pub elapsed: Duration,
    /// Growth of resident memory during the ramp; `None` if the ramp did not finish.
    pub memory_bytes: Option<u64>,
    /// A signal ended the run.
    pub interrupted: bool,
}

/// Holds all connections, on one thread.
pub struct Keeper {
    order: Order,
    poller: Poller,
    start: Instant,
    members: Vec<Member>,
    tongue: Tongue,
    tally: Tally,
    phase: Phase,
    turns: Turns,
    /// Number of members whose connect has started.
    begun: usize,
    /// Number of connects in progress, and their deadlines.
    connecting: usize,
    connects: VecDeque<(u64, usize)>,
    /// Number of probes in flight, and their deadlines with member and probe count.
    asking: usize,
    probes: VecDeque<(u64, usize, u64)>,
    /// Members with more data to read.
    again: Vec<usize>,
    ramp_ns: u64,
    resident_before: Option<u64>,
    memory_bytes: Option<u64>,
    bytes: Box<[u8]>,
}

impl Keeper {
    /// Creates the keeper.
    ///
    /// # Errors
    /// errno of `epoll_create1(2)`.
    pub fn new(order: Order, tongue: Tongue) -> io::Result<Self> {
        Ok(Self {
            order,
            poller: Poller::new()?,
            start: Instant::now(),
            members: Vec::new(),
            tongue,
            tally: Tally::new(),
            phase: Phase::Ramp,
            turns: Turns::new(0, order.probe_every, order.connections),
            begun: 0,
            connecting: 0,
            connects: VecDeque::new(),
            asking: 0,
            probes: VecDeque::new(),
            again: Vec::new(),
            ramp_ns: 0,
            resident_before: None,
            memory_bytes: None,
            bytes: vec![1; READ_BYTES].into(),
        })
    }

    /// Runs all phases; calls `line` once per second.
    ///
    /// # Errors
    /// errno of `epoll_wait(2)`.
    pub fn keep(
        mut self,
        interrupts: &Interrupts,
        mut line: impl FnMut(&HerdInterval),
    ) -> io::Result<Kept> {
        self.resident_before = system::resident_bytes();
        self.members.extend((0..self.order.connections).map(|_| Member::new()));
        self.start = Instant::now();
        let mut next_line_ns = LINE_NS;
        let interrupted = loop {
            if interrupts.wait(Duration::ZERO) {
                break true;
            }
            self.begin_connects();
            self.take_turns();
            self.give_up();
            let now_ns = self.now_ns();
            if now_ns >= next_line_ns {
                line(&self.tally.interval(now_ns, self.phase));
                next_line_ns = now_ns - now_ns % LINE_NS + LINE_NS;
            }
            if self.is_over(now_ns) {
                break false;
            }
            let nap_ns = self.wake_ns(now_ns).min(next_line_ns).saturating_sub(now_ns);
            let events = self.poller.wait(Duration::from_nanos(nap_ns))?;
            for number in std::mem::take(&mut self.again) {
                self.read(number);
            }
            events.into_iter().for_each(|ready| self.wake(ready));
        };
        self.lose_late(true);
        let elapsed_ns = self.now_ns();
        // An interval of less than a tenth of a second is not reported.
        if elapsed_ns + LINE_NS - next_line_ns > LINE_NS / 10 {
            self.tally.interval(elapsed_ns, self.phase);
        }
        let ramp_ns = if self.phase == Phase::Ramp { elapsed_ns } else { self.ramp_ns };
        Ok(Kept {
            tally: self.tally,
            ramp: Duration::from_nanos(ramp_ns),
            elapsed: Duration::from_nanos(elapsed_ns),
            memory_bytes: self.memory_bytes,
            interrupted,
        })
    }

    fn now_ns(&self) -> u64 {
        to_ns(self.start.elapsed())
    }

    /// Returns the time at which the next turn must start without an event.
    fn wake_ns(&self, now_ns: u64) -> u64 {
        if !self.again.is_empty() {
            return now_ns;
        }
        let connect_ns = match self.may_begin() {
            true => self.connect_due_ns(),
            false => u64::MAX,
        };
        let turn_ns = match self.phase == Phase::LastRound && self.turns.is_round_over() {
            true => u64::MAX,
            false => self.turns.due_ns(),
        };
        let times = [
            connect_ns,
            turn_ns,
            self.connects.front().map_or(u64::MAX, |(deadline_ns, _)| *deadline_ns),
            self.probes.front().map_or(u64::MAX, |(deadline_ns, ..)| *deadline_ns),
            now_ns + NAP_MAX_NS,
        ];
        times.into_iter().min().unwrap_or_default()
    }

    /// Moves to the next phase when it is due. Returns true after the last phase.
    fn is_over(&mut self, now_ns: u64) -> bool {
        match self.phase {
            Phase::Ramp => {
                // The server is unreachable; further connects would fail too.
                let failed = self.tally.failures.total() + self.tally.refused;
                if self.tally.connected == 0 && failed >= CONNECTING_MAX as u64 {
                    return true;
                }
                if self.begun == self.members.len() && self.connecting == 0 {
                    self.phase = Phase::Hold;
                    self.ramp_ns = now_ns;
                    self.memory_bytes = system::resident_bytes()
                        .zip(self.resident_before)
                        .map(|(now, before)| now.saturating_sub(before));
                }
            }
            Phase::Hold => {
                if now_ns >= self.ramp_ns + to_ns(self.order.hold) {
                    self.phase = Phase::LastRound;
                    let members = self.members.len() as u64;
                    self.turns = Turns::last_round(now_ns, self.order.probe_every, members);
                }
            }
            Phase::LastRound => {
                return self.turns.is_round_over() && self.asking == 0;
            }
        }
        self.phase != Phase::Ramp && self.tally.open == 0
    }

    fn may_begin(&self) -> bool {
        self.begun < self.members.len() && self.connecting < CONNECTING_MAX
    }

    /// Returns the scheduled time of the next connect.
    fn connect_due_ns(&self) -> u64 {
        self.order.conn_rate.map_or(0, |rate| rate.due_ns(self.begun as u64))
    }

    fn begin_connects(&mut self) {
        for _ in 0..BURST_MAX {
            let now_ns = self.now_ns();
            let due_ns = self.connect_due_ns();
            if !self.may_begin() || due_ns > now_ns {
                return;
            }
            let number = self.begun;
            self.begun += 1;
            // Without a rate, the scheduled time is now.
            let intended_ns = if self.order.conn_rate.is_some() { due_ns } else { now_ns };
            match self.connect(number) {
                Ok(stream) => {
                    let member = &mut self.members[number];
                    member.born_ns = intended_ns;
                    member.state = State::Connecting(stream);
                    self.connecting += 1;
                    self.connects.push_back((now_ns + to_ns(self.order.timeout), number));
                }
                Err(error) => self.never_was(number, &error),
            }
        }
    }

    fn connect(&self, number: usize) -> io::Result<Socket> {
        let socket = Socket::connect(self.order.to, self.order.sources.of(number), None)?;
        self.poller.register(socket.as_raw_fd(), number)?;
        Ok(socket)
    }

    fn never_was(&mut self, number: usize, error: &io::Error) {
        self.members[number].state = State::Gone;
        let kind = ConnectFailure::of(error);
        if self.order.drain_ok && kind == ConnectFailure::Refused {
            self.tally.refused += 1;
            return;
        }
        self.tally.failures.count(kind, || {
            let remedy = match kind {
                ConnectFailure::NoPort => format!("; {}", system::no_port()),
                _ => String::new(),
            };
            format!("connection {number}: connect: {error}{remedy}")
        });
    }

    /// Sends the probes that are due.
    fn take_turns(&mut self) {
        if self.phase == Phase::LastRound && self.turns.is_round_over() {
            return;
        }
        let mut sent = 0;
        while sent < BURST_MAX
            && let Some((number, due_ns)) = self.turns.take(self.now_ns())
        {
            let member = &mut self.members[number];
            if matches!(member.state, State::Open(_)) {
                member.is_last = self.phase == Phase::LastRound;
                if member.probe(number).is_none() {
                    self.tally.lag_ns.saturating_record(to_ns(self.start.elapsed()) - due_ns);
                    self.ask(number, due_ns);
                    sent += 1;
                } else if !member.is_last {
                    member.waiting += 1;
                }
            }
            if self.phase == Phase::LastRound && self.turns.is_round_over() {
                return;
            }
        }
    }

    /// Times out connects and probes.
    fn give_up(&mut self) {
        let now_ns = self.now_ns();
        while let Some((_, number)) = pop_if(&mut self.connects, |(due_ns, _)| *due_ns <= now_ns) {
            if matches!(self.members[number].state, State::Connecting(_)) {
                self.connecting -= 1;
                self.never_was(number, &io::Error::from(io::ErrorKind::TimedOut));
            }
        }
        while let Some((_, number, asked)) =
            pop_if(&mut self.probes, |(due_ns, ..)| *due_ns <= now_ns)
        {
            let member = &self.members[number];
            if member.asked == asked && member.probe(number).is_some() {
                let unsent = if member.unsent.is_empty() {
                    ""
                } else {
                    "; the socket did not accept all of it"
                };
                let detail = format!(
                    "probe {} was not answered within {:?}{unsent}",
                    asked - 1,
                    self.order.timeout
                );
                self.lose(number, How::Unanswered, detail);
            }
        }
    }
}

fn pop_if<T>(queue: &mut VecDeque<T>, is_due: impl Fn(&T) -> bool) -> Option<T> {
    if queue.front().is_some_and(is_due) { queue.pop_front() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::mpsc;
    use std::thread;

    #[test]
    fn a_large_herd_leaves_from_several_addresses() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let to = listener.local_addr().expect("its address");
        let (sender, peers) = mpsc::channel();
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let peer = stream.peer_addr().expect("it is connected");
                sender.send(peer.ip()).expect("the test waits");
                thread::spawn(move || {
                    let mut bytes = [0; 64];
                    while let Ok(count @ 1..) = stream.read(&mut bytes) {
                        stream.write_all(&bytes[..count]).expect("it is read");
                    }
                });
            }
        });
        let order = Order {
            to,
            sources: Sources::Loopback(3),
            route: Route::default(),
            seed: 7,
            connections: 9,
            hold: Duration::from_millis(20),
            probe_every: Duration::from_millis(10),
            conn_rate: None,
            timeout: Duration::from_secs(10),
            drain_ok: false,
        };
        let keeper = Keeper::new(order, Tongue::echo(7, 9)).expect("epoll");
        let interrupts = Interrupts::block().expect("blocking signals needs no right");
        let kept = keeper.keep(&interrupts, |_| ()).expect("epoll");
        assert_eq!((kept.tally.connected, kept.tally.answered_last), (9, 9));
        let seen: HashSet<_> = peers.try_iter().map(|peer| peer.to_string()).collect();
        assert_eq!(seen, ["127.0.0.1", "127.0.0.2", "127.0.0.3"].map(String::from).into());
    }
}
