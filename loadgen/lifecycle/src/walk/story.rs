//! One running script: its current step, and the condition that it waits for.

mod steps;

use super::life::Life;
use super::sources::Sources;
use super::{Seen, Stage, Trace, Walked};
use crate::event_loop::{Task, Turn};
use crate::script::{Connect, Kind, Recv, Script, Step};
use crate::socket::{Socket, ending_of, is_ours};
use std::io;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Wait before a retry after a lack of a local resource.
const SHORT_PAUSE: Duration = Duration::from_millis(10);

/// The result of one attempt at a step.
enum Pace {
    /// The step is done.
    Next,
    /// The connection has ended.
    Ended,
    /// As [`Turn`].
    Until(Instant),
    /// As [`Turn`].
    Again,
}

/// One running script.
pub(super) struct Story {
    pub(super) tag: u64,
    script: Arc<Script>,
    stage: Arc<Stage>,
    /// The current step.
    at: usize,
    /// Begin of the step, and time of the last progress in it.
    began: Instant,
    moved: Instant,
    /// Bytes moved by the step.
    count: u64,
    is_begun: bool,
    /// The sums of all `recv=N` and `recv=reply` so far.
    due_bytes: u64,
    due_replies: u64,
    connects: u64,
    /// The connection has a small receive buffer.
    is_narrow: bool,
    life: Option<Life>,
    last_local: Option<SocketAddr>,
    lives: Vec<Seen>,
    start: Instant,
    trace: Option<Vec<Trace>>,
    short: Option<io::Error>,
    vanished: u64,
    unplayed: Option<io::Error>,
}

impl Task for Story {
    type Shared = Sources;

    fn go_on(
        &mut self,
        sources: &mut Sources,
        register: &mut dyn FnMut(RawFd) -> io::Result<()>,
    ) -> Turn {
        while let Some(step) = self.script.steps.get(self.at).copied() {
            if !self.is_begun {
                (self.is_begun, self.count) = (true, 0);
                self.began = Instant::now();
                self.moved = self.began;
                self.begin(step);
            }
            let pace = match step {
                Step::Connect(connect) => self.connect(connect, sources, register),
                Step::Crowd(count, kind) => self.crowd(count, kind, sources),
                _ => self.step(step),
            };
            match pace {
                Pace::Next => {
                    self.note(step);
                    self.next();
                }
                Pace::Ended => {
                    self.note(step);
                    self.part();
                    self.skip_to_connect();
                }
                Pace::Until(until) => return Turn::Until(until),
                Pace::Again => return Turn::Again,
            }
        }
        self.part();
        Turn::Over
    }
}

impl Story {
    pub(super) fn new(script: Arc<Script>, stage: Arc<Stage>, tag: u64, is_traced: bool) -> Self {
        let now = Instant::now();
        Self {
            tag,
            script,
            stage,
            at: 0,
            began: now,
            moved: now,
            count: 0,
            is_begun: false,
            due_bytes: 0,
            due_replies: 0,
            connects: 0,
            is_narrow: false,
            life: None,
            last_local: None,
            lives: Vec::new(),
            start: now,
            trace: is_traced.then(Vec::new),
            short: None,
            vanished: 0,
            unplayed: None,
        }
    }

    /// Ends the script and returns its record. Data that is still awaited causes no finding.
    pub(super) fn finish(mut self) -> Walked {
        self.part();
        Walked {
            tag: self.tag,
            script: self.script,
            lives: self.lives,
            took: self.start.elapsed(),
            trace: self.trace.unwrap_or_default(),
            short: self.short,
            vanished: self.vanished,
            unplayed: self.unplayed,
        }
    }

    /// Adds the wait of this step to the waits of the steps before it.
    fn begin(&mut self, step: Step) {
        if self.is_narrow && matches!(step, Step::Recv(_)) {
            self.read_on();
        }
        match step {
            Step::Recv(Recv::Bytes(bytes)) => self.due_bytes += bytes,
            Step::Recv(Recv::Reply) => self.due_replies += 1,
            Step::Wait(_) | Step::Flood(_) | Step::Dribble { .. } => {
                if let Some(life) = &mut self.life {
                    life.stall();
                }
            }
            _ => {}
        }
    }

    /// Opens the window of a connection with a small buffer.
    pub(super) fn read_on(&mut self) {
        if let Some(life) = self.life.as_ref().filter(|_| self.is_narrow) {
            life.read_on();
            self.is_narrow = false;
        }
    }

    fn next(&mut self) {
        self.at += 1;
        self.is_begun = false;
    }

    fn skip_to_connect(&mut self) {
        self.next();
        let is_on = |step: &Step| matches!(step, Step::Connect(_) | Step::Crowd(..));
        while self.script.steps.get(self.at).is_some_and(|step| !is_on(step)) {
            self.at += 1;
        }
    }

    /// Ends the connection, if there is one.
    fn part(&mut self) {
        if let Some(life) = self.life.take() {
            let unacknowledged = life.unacknowledged();
            let (outgoing, record) = life.record();
            self.lives.push(Seen { outgoing, record, local: self.last_local, unacknowledged });
        }
    }

    fn connect(
        &mut self,
        connect: Connect,
        sources: &mut Sources,
        register: &mut dyn FnMut(RawFd) -> io::Result<()>,
    ) -> Pace {
        if self.count == 0 {
            self.part();
            let key = self.script.key.of_connect(self.connects);
            let client = (key.seed, key.number);
            let from = match (connect.again, connect.from) {
                (true, _) => self.last_local,
                (false, Some(from)) => Some(SocketAddr::new(from, 0)),
                (false, None) => self.stage.route.source(client).or_else(|| sources.next()),
            };
            let socket = Socket::connect(self.stage.address, from, connect.rcvbuf).and_then(|it| {
                register(std::os::fd::AsRawFd::as_raw_fd(&it))?;
                Ok(it)
            });
            // The phrases were checked before the script started.
            let (Ok(outgoing), Ok(checker)) = (
                self.stage.dialect.outgoing(key, &self.script.say),
                self.stage.dialect.checker(key, &self.script.say),
            ) else {
                return Pace::Ended;
            };
            match socket {
                Ok(socket) => {
                    let life = Life::new(socket, self.stage.header(key), outgoing, checker);
                    self.last_local = life.local();
                    self.life = Some(life);
                }
                Err(error) if is_ours(&error) => return self.short_of(error, sources),
                Err(error) => {
                    self.life = Some(Life::unborn(outgoing, checker, ending_of(&error)));
                    self.connects += 1;
                    return Pace::Ended;
                }
            }
            (self.count, self.connects) = (1, self.connects + 1);
            (self.due_bytes, self.due_replies) = (0, 0);
            self.is_narrow = connect.rcvbuf.is_some();
        }
        let life = self.life.as_mut().expect("it is on its way");
        if connect.nowait {
            return Pace::Next;
        }
        match life.connected() {
            true if life.is_over() => Pace::Ended,
            true => Pace::Next,
            false => self.patiently(self.stage.limits.connect_patience()),
        }
    }

    /// Retries after a pause. After the patience the script ends without a finding.
    fn short_of(&mut self, error: io::Error, sources: &mut Sources) -> Pace {
        sources.short(&error);
        if self.began.elapsed() < self.stage.limits.patience {
            return Pace::Until(Instant::now() + SHORT_PAUSE);
        }
        self.short = Some(error);
        Pace::Ended
    }

    fn crowd(&mut self, count: u64, kind: Kind, sources: &mut Sources) -> Pace {
        let mut crowd = Vec::new();
        for place in 1..=count {
            let key = self.script.key.of_connect(self.connects);
            let client = (key.seed, key.number.wrapping_add(place << u32::BITS));
            let from = self.stage.route.source(client).or_else(|| sources.next());
            match Socket::connect(self.stage.address, from, None) {
                Ok(socket) => crowd.push(socket),
                Err(error) if is_ours(&error) => {
                    drop(crowd);
                    return self.short_of(error, sources);
                }
                // Other scripts check that connects are not refused.
                Err(_) => {}
            }
        }
        for socket in crowd {
            match kind {
                // A connection that was reset needs no FIN.
                Kind::Fin => drop(socket.fin()),
                Kind::Rst => socket.reset(),
                Kind::Close => drop(socket),
            }
        }
        Pace::Next
    }

    fn step(&mut self, step: Step) -> Pace {
        let Some(life) = &mut self.life else { return Pace::Ended };
        // After `nowait` the connect must be done before bytes are sent, but not before a step that
        // ends the connection.
        let leaves = matches!(step, Step::Rst | Step::Close | Step::Vanish(_) | Step::Wait(_));
        if !leaves && !life.connected() {
            return self.patiently(self.stage.limits.connect_patience());
        }
        if life.is_over() {
            return Pace::Ended;
        }
        match step {
            Step::Send(much) => self.send(much),
            Step::Dribble { bytes, every } => self.dribble(bytes, every),
            Step::Flood(time) => self.flood(time),
            Step::Recv(what) => self.recv(what),
            Step::Wait(time) => self.time(time),
            Step::Fin => {
                life.fin();
                if life.is_over() { Pace::Ended } else { Pace::Next }
            }
            Step::Rst => {
                life.rst();
                Pace::Ended
            }
            Step::Close => {
                life.close();
                Pace::Ended
            }
            Step::Vanish(time) => {
                if self.count == 0 {
                    self.count = 1;
                    if let Err(error) = life.turn_deaf() {
                        self.unplayed.get_or_insert(error);
                    }
                }
                match self.time(time) {
                    Pace::Next => {
                        let life = self.life.as_mut().expect("it is there");
                        self.vanished += u64::from(life.vanish());
                        Pace::Ended
                    }
                    other => other,
                }
            }
            Step::Connect(_) | Step::Crowd(..) => unreachable!("they are no steps of a connection"),
        }
    }

    fn note(&mut self, step: Step) {
        let Some(trace) = &mut self.trace else { return };
        let life = self.life.as_ref();
        trace.push(Trace {
            step,
            began: self.began - self.start,
            took: self.began.elapsed(),
            sent: life.map_or(0, Life::sent),
            received: life.map_or(0, Life::received),
            ending: life.and_then(Life::ending),
        });
    }
}
