//! One connection of a herd: a task of the event loop that opens it, probes it at its turns, checks
//! the answers, and counts its end.

use super::clock::{Turns, to_ns};
use super::loss::{ConnectFailure, How, Loss, seconds};
use super::order::Order;
use super::talk::{Ended, Received, Talk, Wrong};
use super::tally::{Phase, Tally};
use crate::clients::{Protocol, echo::Echo};
use crate::event_loop::{EventLoop, Task, Turn};
use crate::socket::{Connecting, Socket};
use crate::system;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

/// Maximum number of reads from one connection per turn.
const READS_MAX: usize = 16;
/// Size of the read buffer.
const READ_BYTES: usize = 64 << 10;

/// State that all connections share.
pub struct Herd<P> {
    /// The work to do.
    pub order: Order,
    /// The protocol of all connections.
    pub protocol: P,
    /// The counters.
    pub tally: Tally,
    /// The phase of the run.
    pub phase: Phase,
    /// The schedule of the probes.
    pub turns: Turns,
    /// Number of connects in progress.
    pub connecting: usize,
    /// Number of probes in flight.
    pub probing: usize,
    /// Number of open connections whose turn in the last round has not come.
    pub last_turns_left: u64,
    /// Answers that turned out to be wrong after they had been accepted, by connection.
    pub late: BTreeMap<u64, Wrong>,
    start: Instant,
    bytes: Box<[u8]>,
}

impl<P: Protocol> Herd<P> {
    /// Creates the state of a run that starts now.
    #[must_use]
    pub fn new(order: Order, protocol: P) -> Self {
        Self {
            order,
            protocol,
            tally: Tally::new(),
            phase: Phase::Ramp,
            turns: Turns::new(0, order.probe_every, order.connections),
            connecting: 0,
            probing: 0,
            last_turns_left: 0,
            late: BTreeMap::new(),
            start: Instant::now(),
            bytes: vec![1; READ_BYTES].into(),
        }
    }

    /// Returns the time since the start of the run.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        to_ns(self.start.elapsed())
    }

    fn instant(&self, at_ns: u64) -> Instant {
        self.start + Duration::from_nanos(at_ns)
    }

    /// Collects accepted answers that turned out to be wrong. `is_over` is true at the end of the
    /// run, when no further answer can decide.
    pub fn collect_late(&mut self, is_over: bool) {
        let late = self.protocol.late(is_over).into_iter();
        self.late.extend(late.map(|(number, fault)| (number, Wrong::from(fault))));
    }

    fn connect_failed(&mut self, number: u64, error: &io::Error) {
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
}

/// The socket of a connection.
enum State {
    Unopened,
    Connecting(Socket),
    Open(Socket),
}

/// One connection. Times are nanoseconds since the start of the run.
pub struct Member<P: Protocol> {
    number: u32,
    /// Number of probes sent.
    asked: u32,
    /// Number of probes answered.
    answered: u32,
    /// Number of turns that came while a probe was in flight.
    waiting: u32,
    state: State,
    /// The last round has come to this connection: the next answer is its last.
    is_last: bool,
    /// Scheduled time of the connect, and later the time of its success.
    born_ns: u64,
    /// Time of the last byte in either direction.
    active_ns: u64,
    /// Scheduled time of the probe in flight, or of the last one.
    intended_ns: u64,
    /// Time of the next turn; the deadline during the connect.
    due_ns: u64,
    /// Exists while a probe is in flight or bytes are incomplete.
    talk: Option<Box<Talk<P>>>,
}

// A million connections need 128 MB.
const _: () = assert!(EventLoop::<Member<Echo>>::SLOT_BYTES <= 128);

/// The end of a connection.
pub enum End {
    /// The connect failed.
    Unconnected(io::Error),
    /// The connection was lost.
    Lost(Wrong),
    /// The server closed it cleanly, which `--drain-ok` allows.
    Drained,
}

impl<P: Protocol> Task for Member<P> {
    type Shared = Herd<P>;

    fn go_on(
        &mut self,
        herd: &mut Herd<P>,
        register: &mut dyn FnMut(RawFd) -> io::Result<()>,
    ) -> Turn {
        match self.advance(herd, register) {
            Ok(turn) => turn,
            Err(end) => {
                self.end(herd, end);
                Turn::Over
            }
        }
    }
}

impl<P: Protocol> Member<P> {
    /// Creates connection `number`, which was to be opened at `intended_ns`.
    #[must_use]
    pub const fn new(number: u32, intended_ns: u64) -> Self {
        Self {
            number,
            asked: 0,
            answered: 0,
            waiting: 0,
            state: State::Unopened,
            is_last: false,
            born_ns: intended_ns,
            active_ns: 0,
            intended_ns: 0,
            due_ns: 0,
            talk: None,
        }
    }

    /// Returns the number of the connection.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number.into()
    }

    /// Moves an open connection into the last round. Returns the time of its turn.
    pub fn begin_last_round(&mut self, herd: &Herd<P>) -> Instant {
        if matches!(self.state, State::Open(_)) {
            self.due_ns = herd.turns.due_ns(self.number(), 0);
        }
        herd.instant(self.due_ns)
    }

    const fn is_probing(&self) -> bool {
        self.asked > self.answered
    }

    fn advance(
        &mut self,
        herd: &mut Herd<P>,
        register: &mut dyn FnMut(RawFd) -> io::Result<()>,
    ) -> Result<Turn, End> {
        if matches!(self.state, State::Unopened) {
            let source = herd.order.sources.of(self.number as usize);
            let socket = Socket::connect(herd.order.to, source, None).and_then(|socket| {
                register(socket.as_raw_fd())?;
                Ok(socket)
            });
            self.state = State::Connecting(socket.map_err(End::Unconnected)?);
            self.due_ns = herd.now_ns() + to_ns(herd.order.timeout);
            herd.connecting += 1;
        }
        if let State::Connecting(socket) = &self.state {
            let error = match socket.connecting() {
                Connecting::Done => None,
                Connecting::Pending if herd.now_ns() < self.due_ns => {
                    return Ok(Turn::Until(herd.instant(self.due_ns)));
                }
                Connecting::Pending | Connecting::Timeout => Some(libc::ETIMEDOUT),
                Connecting::Reset => Some(libc::ECONNRESET),
                Connecting::Refused => Some(libc::ECONNREFUSED),
                Connecting::Failed(errno) => Some(errno),
            };
            herd.connecting -= 1;
            if let Some(errno) = error {
                return Err(End::Unconnected(io::Error::from_raw_os_error(errno)));
            }
            self.opened(herd);
        }
        self.take_turns(herd);
        let deadline_ns = self.talk.as_ref().map_or(u64::MAX, |talk| talk.deadline_ns);
        if self.is_probing() && herd.now_ns() >= deadline_ns {
            return Err(self.unanswered(herd));
        }
        self.send(herd)?;
        let has_more = self.read(herd)?;
        // An answer may have started the next probe.
        let deadline_ns = self.talk.as_ref().map_or(u64::MAX, |talk| talk.deadline_ns);
        self.talk.take_if(|talk| self.asked == self.answered && talk.is_idle(&herd.protocol));
        match has_more {
            true => Ok(Turn::Again),
            false => Ok(Turn::Until(herd.instant(self.due_ns.min(deadline_ns)))),
        }
    }

    fn opened(&mut self, herd: &mut Herd<P>) {
        let now_ns = herd.now_ns();
        let State::Connecting(socket) = std::mem::replace(&mut self.state, State::Unopened) else {
            return;
        };
        self.state = State::Open(socket);
        herd.tally.connect_ns.saturating_record(now_ns - self.born_ns);
        (self.born_ns, self.active_ns) = (now_ns, now_ns);
        herd.tally.connected += 1;
        herd.tally.open += 1;
        self.due_ns = herd.turns.next_ns(self.number(), now_ns);
        let key = (herd.order.seed, self.number());
        if let Some(header) = herd.order.route.header(herd.order.to, key) {
            self.talk(herd).unsent = header.to_vec();
        }
    }

    /// Returns the state of the exchange, and creates it if there is none.
    fn talk(&mut self, herd: &Herd<P>) -> &mut Talk<P> {
        let (number, answered) = (self.number(), self.answered.into());
        self.talk.get_or_insert_with(|| Box::new(Talk::new(&herd.protocol, number, answered)))
    }

    /// Starts the probes that are due.
    fn take_turns(&mut self, herd: &mut Herd<P>) {
        while self.due_ns <= herd.now_ns() {
            let due_ns = self.due_ns;
            if herd.phase == Phase::LastRound {
                self.is_last = true;
                herd.last_turns_left -= 1;
                self.due_ns = u64::MAX;
            } else {
                self.due_ns += to_ns(herd.order.probe_every);
            }
            if !self.is_probing() {
                herd.tally.lag_ns.saturating_record(herd.now_ns() - due_ns);
                self.ask(herd, due_ns);
            } else if !self.is_last {
                self.waiting += 1;
            }
        }
    }

    /// Prepares a probe that was scheduled for `intended_ns`.
    fn ask(&mut self, herd: &mut Herd<P>, intended_ns: u64) {
        assert!(!self.is_probing(), "one probe at a time");
        let deadline_ns = herd.now_ns() + to_ns(herd.order.timeout);
        self.intended_ns = intended_ns;
        self.talk(herd).ask(&mut herd.protocol, deadline_ns);
        self.asked += 1;
        herd.tally.probes += 1;
        herd.probing += 1;
    }

    /// Sends unsent bytes until the socket is full.
    fn send(&mut self, herd: &mut Herd<P>) -> Result<(), End> {
        let now_ns = herd.now_ns();
        while let (State::Open(socket), Some(talk)) = (&self.state, &mut self.talk)
            && !talk.unsent.is_empty()
        {
            match socket.send(&talk.unsent) {
                Ok(count) => {
                    self.active_ns = now_ns;
                    talk.unsent.drain(..count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // Data received before the failure may explain it.
                    self.read(herd)?;
                    return Err(lost(How::Reset, format!("send failed: {error}")));
                }
            }
        }
        Ok(())
    }

    /// Reads until the socket is empty. Returns true if there may be more data.
    fn read(&mut self, herd: &mut Herd<P>) -> Result<bool, End> {
        for _ in 0..READS_MAX {
            let State::Open(socket) = &self.state else { return Ok(false) };
            match socket.recv(&mut herd.bytes) {
                Ok(0) => return Err(self.end_of_stream(herd)),
                Ok(count) => self.receive(herd, count)?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(lost(How::Reset, format!("receive failed: {error}"))),
            }
        }
        Ok(true)
    }

    fn receive(&mut self, herd: &mut Herd<P>, count: usize) -> Result<(), End> {
        let now_ns = herd.now_ns();
        self.active_ns = now_ns;
        let is_probing = self.is_probing();
        self.talk(herd);
        let talk = self.talk.as_mut().expect("it was created");
        match talk
            .receive(&mut herd.protocol, is_probing, &herd.bytes[..count])
            .map_err(End::Lost)?
        {
            Received::Part => return Ok(()),
            Received::Answer => self.answered(herd, now_ns)?,
            Received::LastAnswer => {
                self.waiting = 0;
                self.answered(herd, now_ns)?;
                if herd.order.drain_ok {
                    return Err(End::Drained);
                }
                let detail =
                    "the server announced the end of the connection (Connection: close)".into();
                return Err(lost(How::Fin, detail));
            }
        }
        Ok(())
    }

    fn answered(&mut self, herd: &mut Herd<P>, now_ns: u64) -> Result<(), End> {
        self.answered += 1;
        herd.probing -= 1;
        herd.tally.answer(now_ns - self.intended_ns, self.is_last);
        herd.collect_late(false);
        if !self.is_last
            && let Some(waiting) = self.waiting.checked_sub(1)
        {
            self.waiting = waiting;
            self.ask(herd, self.intended_ns + to_ns(herd.order.probe_every));
            self.send(herd)?;
        }
        Ok(())
    }

    /// Handles the server's FIN.
    fn end_of_stream(&mut self, herd: &mut Herd<P>) -> End {
        let now_ns = herd.now_ns();
        let is_probing = self.is_probing();
        let ended = match &mut self.talk {
            Some(talk) if is_probing => talk.end(&mut herd.protocol),
            Some(talk) if !talk.is_idle(&herd.protocol) => Ok(Ended::InTheMiddle),
            _ => Ok(Ended::Between),
        };
        match ended {
            Err(wrong) => End::Lost(wrong),
            Ok(Ended::Answer) => {
                self.waiting = 0;
                // Without a further probe this cannot fail.
                let _ = self.answered(herd, now_ns);
                lost(How::Fin, "closed by the server at the end of an answer".into())
            }
            Ok(Ended::Between) if herd.order.drain_ok => End::Drained,
            Ok(_) => {
                let when = if is_probing { "before an answer" } else { "while idle" };
                lost(How::Fin, format!("closed by the server {when}"))
            }
        }
    }

    fn unanswered(&self, herd: &Herd<P>) -> End {
        let is_unsent = self.talk.as_ref().is_some_and(|talk| !talk.unsent.is_empty());
        let unsent = if is_unsent { "; the socket did not accept all of it" } else { "" };
        let (probe, timeout) = (self.asked - 1, herd.order.timeout);
        let detail = format!("probe {probe} was not answered within {timeout:?}{unsent}");
        lost(How::Unanswered, detail)
    }

    /// Counts the end of the connection.
    pub fn end(&mut self, herd: &mut Herd<P>, end: End) {
        if let End::Unconnected(error) = &end {
            return herd.connect_failed(self.number(), error);
        }
        if herd.phase == Phase::LastRound && !self.is_last {
            herd.last_turns_left -= 1;
        }
        let during_probe = self.is_probing();
        herd.probing -= usize::from(during_probe);
        herd.tally.open -= 1;
        let End::Lost(Wrong { how, detail }) = end else {
            if during_probe {
                herd.tally.unanswered_at_close += 1;
            } else if self.is_last && self.answered > 0 {
                // The connection was counted in the last round; take it back.
                herd.tally.answered_last -= 1;
            }
            herd.tally.drained += 1;
            return;
        };
        let now_ns = herd.now_ns();
        herd.tally.losses.count(Loss {
            connection: self.number(),
            how,
            at_s: seconds(now_ns),
            age_s: seconds(now_ns - self.born_ns),
            silent_s: seconds(now_ns - self.active_ns),
            answers: self.answered.into(),
            during_probe,
            detail,
        });
    }
}

const fn lost(how: How, detail: String) -> End {
    End::Lost(Wrong { how, detail })
}
