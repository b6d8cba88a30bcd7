//! Our end of a connection, as `tcp_recvmsg`, `tcp_poll` and `tcp_disconnect` treat it.

use super::super::calls::TcpOptions;
use super::rng::Rng;
use std::collections::VecDeque;

/// `POLLIN` and its like, as the poll operation reports them.
pub const IN: u32 = libc::POLLIN as u32;
/// Room to send, or a send would fail at once.
pub const OUT: u32 = libc::POLLOUT as u32;
/// An error waits.
pub const ERR: u32 = libc::POLLERR as u32;
/// Both halves are over.
pub const HUP: u32 = libc::POLLHUP as u32;
/// The peer's half is over.
pub const RDHUP: u32 = libc::POLLRDHUP as u32;

/// Events that a poll reports whatever it asked for.
pub const ALWAYS: u32 = ERR | HUP | RDHUP;

/// How far a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Neither connected nor connecting.
    Fresh,
    /// SYN sent.
    Connecting,
    /// Connected; either half may be over.
    Connected,
    /// Reset by either side, or timed out.
    Dead,
}

/// Our end.
#[derive(Debug)]
pub struct Socket {
    /// How far it is.
    pub phase: Phase,
    /// Received and not read.
    pub inbound: VecDeque<u8>,
    /// Bytes that may wait in it.
    pub inbound_capacity: usize,
    /// Sent and not acknowledged.
    pub outbound: VecDeque<u8>,
    /// Bytes that may wait in it.
    pub outbound_capacity: usize,
    /// Sent and not acknowledged when the connection died, with one for our FIN.
    pub lost: u32,
    /// The peer's FIN has come (`SOCK_DONE`).
    pub peer_finished: bool,
    /// Our FIN has reached the peer.
    pub fin_delivered: bool,
    /// `sk_err`: told once, then forgotten. 0: none.
    pub error: i32,
    /// `RCV_SHUTDOWN` by our own doing, or by a reset.
    pub shut_read: bool,
    /// `SEND_SHUTDOWN`.
    pub shut_write: bool,
    /// Neither a descriptor nor an operation refers to it any more.
    pub released: bool,
    /// A Unix socket: [`Socket::die`] is what close(2) of its peer does.
    pub is_unix: bool,
    /// The options that were set, or inherited from a listener that had got others.
    pub options: Option<TcpOptions>,
}

impl Socket {
    /// A socket with buffers of some size, now and then a tiny one.
    pub fn new(phase: Phase, rng: &mut Rng) -> Self {
        Self {
            phase,
            inbound: VecDeque::new(),
            inbound_capacity: rng.pick(&[64, 1024, 4096, 16384, 65536]),
            outbound: VecDeque::new(),
            outbound_capacity: rng.pick(&[16, 512, 4096, 16384, 65536, 65536]),
            lost: 0,
            peer_finished: false,
            fin_delivered: false,
            error: 0,
            shut_read: false,
            shut_write: false,
            released: false,
            is_unix: false,
            options: None,
        }
    }

    /// A place holder for a socket that was handed out.
    pub fn empty(&self) -> Self {
        Self {
            phase: Phase::Fresh,
            inbound: VecDeque::new(),
            inbound_capacity: 0,
            outbound: VecDeque::new(),
            outbound_capacity: 0,
            peer_finished: false,
            fin_delivered: false,
            lost: self.lost,
            error: 0,
            shut_read: false,
            shut_write: false,
            released: true,
            is_unix: self.is_unix,
            options: None,
        }
    }

    /// Whether a receive has something to say.
    pub fn is_readable(&self) -> bool {
        !self.inbound.is_empty()
            || self.peer_finished
            || self.shut_read
            || self.error != 0
            || matches!(self.phase, Phase::Dead | Phase::Fresh)
    }

    /// What a receive answers when nothing is left to read.
    pub fn end_of_input(&mut self) -> i32 {
        if self.peer_finished {
            0
        } else if self.error != 0 {
            -std::mem::take(&mut self.error)
        } else if self.shut_read {
            0
        } else {
            -libc::ENOTCONN
        }
    }

    /// `tcp_inq_hint`: something is there, and a FIN counts.
    pub fn is_nonempty(&self) -> bool {
        !self.inbound.is_empty() || self.peer_finished
    }

    /// Bytes a send may add.
    pub fn room(&self) -> usize {
        self.outbound_capacity.saturating_sub(self.outbound.len())
    }

    /// Why nothing more can be sent: a negated errno, told once where the kernel tells it once.
    pub fn send_failure(&mut self) -> Option<i32> {
        if self.error != 0 {
            Some(-std::mem::take(&mut self.error))
        } else if self.shut_write || self.phase != Phase::Connected {
            Some(-libc::EPIPE)
        } else {
            None
        }
    }

    /// Whether [`Socket::send_failure`] would answer.
    pub fn is_unsendable(&self) -> bool {
        self.error != 0 || self.shut_write || self.phase != Phase::Connected
    }

    /// `tcp_poll`.
    pub fn poll_mask(&self) -> u32 {
        let mut mask = 0;
        let hung_up = self.peer_finished || self.shut_read;
        if self.error != 0 {
            mask |= ERR;
        }
        if matches!(self.phase, Phase::Fresh | Phase::Dead) || (hung_up && self.shut_write) {
            mask |= HUP;
        }
        if hung_up {
            mask |= IN | RDHUP;
        }
        if !self.inbound.is_empty() {
            mask |= IN;
        }
        // Writable from a third of the buffer on (`sk_stream_is_writeable`).
        let room = self.room();
        let writable = self.phase == Phase::Connected && room > 0;
        if self.shut_write || self.error != 0 || (writable && room * 3 >= self.outbound_capacity) {
            mask |= OUT;
        }
        mask
    }

    /// A reset has come, or the last retransmission has gone unanswered.
    pub fn die(&mut self, error: i32) {
        let fin = self.shut_write && !self.fin_delivered;
        self.lost = self.outbound.len() as u32 + u32::from(fin);
        self.phase = Phase::Dead;
        self.error = error;
        self.shut_read = true;
        self.shut_write = true;
        self.outbound.clear();
    }

    /// connect(`AF_UNSPEC`): `tcp_disconnect` clears the shutdowns along with the queues.
    pub fn disconnect(&mut self, error: i32) {
        if self.phase != Phase::Dead {
            self.phase = Phase::Dead;
            self.error = error;
        }
        self.shut_read = false;
        self.shut_write = false;
        self.peer_finished = false;
        self.lost = 0;
        self.inbound.clear();
        self.outbound.clear();
    }

    /// Both FINs are through: the state is CLOSE or TIME_WAIT.
    pub const fn is_finished(&self) -> bool {
        self.peer_finished && self.fin_delivered
    }
}

/// Moves the first `count` bytes of a queue to the end of `to`.
pub fn take(from: &mut VecDeque<u8>, count: usize, to: &mut impl Extend<u8>) {
    let (front, back) = from.as_slices();
    let first = front.len().min(count);
    to.extend(front[..first].iter().copied());
    to.extend(back[..count - first].iter().copied());
    from.drain(..count);
}
