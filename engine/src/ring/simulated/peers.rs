//! The other ends: what they send, how they read, and how they go.

use super::faults::Faults;
use super::rng::Rng;
use super::sockets::{Phase, Socket, take};
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};

/// The ring that a peer came to first, and its number there.
pub type Birth = (usize, usize);

/// Never.
pub const NEVER: u64 = u64::MAX;
/// After so long without an answer the kernel gives a connection up.
const GIVE_UP_US: u64 = 120_000_000;
/// The port of a ring's first peer; the n-th has the n-th after it.
const PORT_FIRST: usize = 1024;
/// Ports of one ring: two peers of different rings may share an address, but not its port.
const PORTS: usize = 8192;

/// What a peer does once everything it had to send has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Afterwards {
    /// Waits for our FIN.
    Wait,
    /// Sends FIN and goes on reading.
    Fin,
    /// Closes: sends FIN, and answers anything that still comes with RST.
    Close,
}

/// How a peer behaves. Times in microseconds since it connected.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The last byte of its address.
    pub host: u8,
    /// Connects so long after it was made.
    pub start_after_us: u64,
    /// Most bytes it sends at once.
    pub send_chunk_max: usize,
    /// Most bytes it reads at once.
    pub read_chunk_max: usize,
    /// Most time between two things it does.
    pub pace_us: u64,
    /// Reads nothing before; [`NEVER`]: not until faults stop.
    pub stall_us: u64,
    /// What follows its last byte.
    pub afterwards: Afterwards,
    /// Sends RST then, or [`NEVER`].
    pub reset_us: u64,
    /// Answers nothing any more from then on, or [`NEVER`].
    pub vanish_us: u64,
    /// Is reset before it can be accepted.
    pub stillborn: bool,
}

impl Plan {
    /// The last bytes of all addresses there are.
    pub const HOSTS: [u8; 4] = [1, 2, 3, 4];

    /// Reads and sends without delay, and ends when we do.
    pub const fn plain() -> Self {
        Self {
            host: 1,
            start_after_us: 0,
            send_chunk_max: usize::MAX,
            read_chunk_max: usize::MAX,
            pace_us: 100,
            stall_us: 0,
            afterwards: Afterwards::Wait,
            reset_us: NEVER,
            vanish_us: NEVER,
            stillborn: false,
        }
    }

    /// Any behaviour, the ordinary ones more often.
    pub fn draw(rng: &mut Rng) -> Self {
        let mut time = |one_in: u64, most: u64| {
            if rng.below(one_in) == 0 { rng.below(most) } else { NEVER }
        };
        let (reset_us, vanish_us) = (time(8, 200_000), time(16, 200_000));
        let stall_us = match rng.below(10) {
            0 => NEVER,
            1 | 2 => rng.below(2_000_000),
            _ => 0,
        };
        Self {
            host: rng.pick(&Self::HOSTS),
            start_after_us: rng.below(1_000_000),
            send_chunk_max: rng.pick(&[1, 7, 100, 1000, usize::MAX, usize::MAX]),
            read_chunk_max: rng.pick(&[16, 300, 5000, usize::MAX, usize::MAX, usize::MAX]),
            pace_us: rng.pick(&[10, 300, 3000, 20_000]),
            stall_us,
            afterwards: rng.pick(&[
                Afterwards::Wait,
                Afterwards::Fin,
                Afterwards::Fin,
                Afterwards::Close,
            ]),
            reset_us,
            vanish_us,
            stillborn: rng.below(30) == 0,
        }
    }
}

/// How a peer's connection stands, from its own side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Has not connected yet, or is the other end of a socket that has not.
    Unconnected,
    /// Found nobody listening.
    Refused,
    /// Connected, accepted or not.
    Connected,
    /// Sent RST.
    SentReset,
    /// Got RST.
    GotReset,
    /// Answers nothing any more.
    Vanished,
    /// Has closed its Unix socket and left nothing unread.
    Left,
    /// Our end was handed to another ring, and the peer went with it.
    Elsewhere,
}

/// A peer, with our end of its connection.
#[derive(Debug)]
pub struct Peer {
    /// The ring that it came to first, and its number there.
    pub birth: Birth,
    /// How it behaves. Whoever changes it calls [`super::SimulatedRing::touch`].
    pub plan: Plan,
    /// Its address: what we see when it is accepted, or what we connected to.
    pub address: SocketAddr,
    /// Whether we connected to it.
    pub outgoing: bool,
    /// How it stands.
    pub standing: Standing,
    /// Whether it has been accepted, or our connect has come about.
    pub established: bool,
    /// The how-manieth it was that was accepted.
    pub accepted_as: u64,
    /// Bytes that the simulation has given it to send so far.
    pub given: u64,
    /// What it has still to send.
    pub to_send: VecDeque<u8>,
    /// Bytes it has sent.
    pub sent: u64,
    /// Whether it has sent FIN.
    pub sent_fin: bool,
    /// What it has read.
    pub received: Vec<u8>,
    /// Bytes that its kernel has ever acknowledged, lost by a reset or not.
    pub taken: u64,
    /// Whether it has read our FIN.
    pub got_fin: bool,
    /// When our RST came: what it had not read, or what was still under way, and is lost.
    pub lost_by_reset: usize,
    /// Our end.
    pub socket: Socket,
    /// The listener it connects to; without meaning if `outgoing`.
    pub listener: usize,
    unread: VecDeque<u8>,
    /// The size of its receive buffer in bytes.
    pub unread_capacity: usize,
    connected_us: u64,
    vanished_us: u64,
    closed: bool,
}

impl Peer {
    /// Peer number `number` of a ring.
    pub fn new(
        ring: usize,
        number: usize,
        outgoing: Option<SocketAddr>,
        plan: Plan,
        rng: &mut Rng,
    ) -> Self {
        assert!(number < PORTS, "a simulation has few peers");
        let port = (PORT_FIRST + ring * PORTS + number) as u16;
        let address = (Ipv4Addr::new(10, 0, 0, plan.host), port).into();
        Self {
            birth: (ring, number),
            plan,
            address: outgoing.unwrap_or(address),
            outgoing: outgoing.is_some(),
            standing: Standing::Unconnected,
            established: false,
            accepted_as: 0,
            given: 0,
            to_send: VecDeque::new(),
            sent: 0,
            sent_fin: false,
            received: Vec::new(),
            taken: 0,
            got_fin: false,
            lost_by_reset: 0,
            socket: Socket::new(Phase::Fresh, rng),
            listener: usize::MAX,
            unread: VecDeque::new(),
            unread_capacity: rng.pick(&[256, 4096, 65536, 65536]),
            connected_us: 0,
            vanished_us: NEVER,
            closed: false,
        }
    }

    /// Which peer an accepted connection has, from its address: the ring and its number there.
    pub fn birth_of(address: SocketAddr) -> Birth {
        let at = usize::from(address.port()) - PORT_FIRST;
        (at / PORTS, at % PORTS)
    }

    /// A place holder for a peer on a ring that has handed it out.
    pub fn gone(&self) -> Self {
        Self {
            birth: self.birth,
            plan: self.plan,
            address: self.address,
            outgoing: self.outgoing,
            standing: Standing::Elsewhere,
            established: true,
            accepted_as: self.accepted_as,
            given: self.given,
            to_send: VecDeque::new(),
            sent: self.sent,
            taken: self.taken,
            sent_fin: true,
            received: Vec::new(),
            got_fin: false,
            lost_by_reset: 0,
            socket: self.socket.empty(),
            listener: self.listener,
            unread: VecDeque::new(),
            unread_capacity: 0,
            connected_us: self.connected_us,
            vanished_us: NEVER,
            closed: true,
        }
    }

    /// Returns whether another ring has it.
    pub fn is_elsewhere(&self) -> bool {
        self.standing == Standing::Elsewhere
    }

    /// The handshake is through.
    pub const fn connect(&mut self, now_us: u64) {
        self.standing = Standing::Connected;
        self.connected_us = now_us;
        self.socket.phase = Phase::Connected;
    }

    /// Sends RST: what waits here is lost, what waits at our end perhaps.
    pub fn reset(&mut self, rng: &mut Rng) {
        if self.standing != Standing::Connected {
            return;
        }
        if self.socket.is_unix {
            return self.leave();
        }
        self.standing = Standing::SentReset;
        self.to_send.clear();
        self.unread.clear();
        if self.socket.phase == Phase::Connected {
            // tcp_reset(): EPIPE in CLOSE_WAIT.
            self.socket.die(if self.socket.peer_finished { libc::EPIPE } else { libc::ECONNRESET });
            if rng.below(2) == 0 {
                self.socket.inbound.clear();
            }
        }
    }

    /// `unix_release_sock`: our end hangs up at once, with ECONNRESET if this one leaves something
    /// unread. What our end has not read stays.
    fn leave(&mut self) {
        let leaves_bytes = !self.unread.is_empty() || !self.socket.outbound.is_empty();
        self.standing = if leaves_bytes { Standing::SentReset } else { Standing::Left };
        self.to_send.clear();
        self.unread.clear();
        self.socket.die(if leaves_bytes { libc::ECONNRESET } else { 0 });
    }

    /// Our RST comes.
    pub fn get_reset(&mut self) {
        if self.standing != Standing::Connected || (self.got_fin && self.sent_fin) {
            return;
        }
        self.standing = Standing::GotReset;
        self.lost_by_reset = self.unread.len() + self.socket.outbound.len();
        self.unread.clear();
        self.to_send.clear();
    }

    /// From now on nothing is read, sent or acknowledged.
    pub const fn vanish(&mut self, now_us: u64) {
        if matches!(self.standing, Standing::Connected) {
            self.standing = Standing::Vanished;
            self.vanished_us = now_us;
        }
    }

    /// Faults are over: reads and sends swiftly, and stays.
    pub fn behave(&mut self) {
        let plan = Plan { host: self.plan.host, stillborn: false, ..Plan::plain() };
        self.plan = Plan { afterwards: self.plan.afterwards, ..plan };
        self.unread_capacity = self.unread_capacity.max(65536);
        self.socket.inbound_capacity = self.socket.inbound_capacity.max(65536);
        self.socket.outbound_capacity = self.socket.outbound_capacity.max(65536);
    }

    /// Does what it can at this moment.
    pub fn step(&mut self, now_us: u64, faults: &Faults, rng: &mut Rng) {
        match self.standing {
            Standing::Connected => {}
            Standing::Vanished if now_us >= self.vanished_us.saturating_add(GIVE_UP_US) => {
                if self.socket.phase == Phase::Connected {
                    // Somebody kills a process that does nothing.
                    let is_unix = self.socket.is_unix;
                    self.socket.die(if is_unix { libc::ECONNRESET } else { libc::ETIMEDOUT });
                }
                return;
            }
            _ => return,
        }
        // The clocks of two rings differ.
        let age_us = now_us.saturating_sub(self.connected_us);
        if self.plan.stillborn || age_us >= self.plan.reset_us || rng.per_mille(faults.peer_reset) {
            return self.reset(rng);
        }
        if age_us >= self.plan.vanish_us || rng.per_mille(faults.peer_vanish) {
            return self.vanish(now_us);
        }
        self.acknowledge(rng);
        if age_us >= self.plan.stall_us {
            self.read();
        }
        self.send(rng);
    }

    /// Its kernel takes what ours has sent.
    fn acknowledge(&mut self, rng: &mut Rng) {
        if self.standing != Standing::Connected {
            return;
        }
        if self.closed && !self.socket.outbound.is_empty() {
            return self.reset(rng);
        }
        let room = self.unread_capacity.saturating_sub(self.unread.len());
        let count = self.socket.outbound.len().min(room);
        take(&mut self.socket.outbound, count, &mut self.unread);
        self.taken += count as u64;
        if self.socket.shut_write
            && self.socket.phase == Phase::Connected
            && self.socket.outbound.is_empty()
        {
            self.socket.fin_delivered = true;
        }
    }

    /// Bytes that its kernel has acknowledged.
    pub fn acknowledged(&self) -> u64 {
        (self.received.len() + self.unread.len()) as u64
    }

    fn read(&mut self) {
        let count = self.unread.len().min(self.plan.read_chunk_max);
        take(&mut self.unread, count, &mut self.received);
        self.got_fin |= self.unread.is_empty() && self.socket.fin_delivered;
    }

    fn send(&mut self, rng: &mut Rng) {
        if self.sent_fin || self.standing != Standing::Connected {
            return;
        }
        let socket = &mut self.socket;
        if !self.to_send.is_empty() {
            // Nobody there to read it any more: RST (TCPABORTONDATA, TCPABORTONCLOSE).
            let unwanted = socket.released || (socket.shut_read && socket.shut_write);
            if unwanted && socket.is_unix {
                // EPIPE. What was sent to it can still be read.
                self.to_send.clear();
                return;
            }
            if unwanted {
                self.get_reset();
                self.socket.die(libc::ECONNRESET);
                return;
            }
            let room = socket.inbound_capacity.saturating_sub(socket.inbound.len());
            let most = self.to_send.len().min(room).min(self.plan.send_chunk_max);
            if most > 0 {
                let count = if rng.below(2) == 0 { most } else { rng.up_to(most) };
                take(&mut self.to_send, count, &mut socket.inbound);
                self.sent += count as u64;
            }
        }
        let over = self.got_fin || self.plan.afterwards != Afterwards::Wait;
        if self.to_send.is_empty() && over {
            self.sent_fin = true;
            self.socket.peer_finished = true;
            if self.plan.afterwards == Afterwards::Close && !self.got_fin {
                if self.socket.is_unix {
                    return self.leave();
                }
                self.closed = true;
                if !self.unread.is_empty() {
                    self.reset(rng);
                }
            }
        }
    }

    /// When it acts next, [`NEVER`] if only we can change that.
    pub fn next_us(&self, now_us: u64, rng: &mut Rng) -> u64 {
        match self.standing {
            Standing::Connected => {}
            Standing::Vanished if self.socket.phase == Phase::Connected => {
                return self.vanished_us.saturating_add(GIVE_UP_US).max(now_us + 1);
            }
            _ => return NEVER,
        }
        if self.got_fin && self.sent_fin {
            return NEVER;
        }
        let socket = &self.socket;
        let stall_until_us = self.connected_us.saturating_add(self.plan.stall_us);
        let can_take = !socket.outbound.is_empty()
            && (self.closed || self.unread.len() < self.unread_capacity);
        let fin_due = socket.shut_write && socket.outbound.is_empty() && !socket.fin_delivered;
        let to_read = !self.unread.is_empty() || (socket.fin_delivered && !self.got_fin);
        let unwanted = socket.released || (socket.shut_read && socket.shut_write);
        let can_send = if self.to_send.is_empty() {
            !self.sent_fin && (self.got_fin || self.plan.afterwards != Afterwards::Wait)
        } else {
            unwanted || socket.inbound.len() < socket.inbound_capacity
        };
        let mut next_us = self.connected_us.saturating_add(self.plan.reset_us);
        next_us = next_us.min(self.connected_us.saturating_add(self.plan.vanish_us));
        if can_take || fin_due || can_send || (to_read && now_us >= stall_until_us) {
            next_us = next_us.min(now_us + 1 + rng.below(self.plan.pace_us));
        } else if to_read {
            next_us = next_us.min(stall_until_us);
        }
        next_us.max(now_us + 1)
    }
}
