//! One connection of a herd: as little as can be kept of it.

use super::tongue::{Ear, Probe};
use crate::socket::Socket;

/// Where a connection is in its life.
#[derive(Debug)]
pub enum State {
    /// Not yet tried.
    Unborn,
    /// The connect is under way.
    Connecting(Socket),
    /// It is there.
    Open(Socket),
    /// It did not come about, or was lost.
    Gone,
}

/// One connection. Times are nanoseconds since the start of the run.
#[derive(Debug)]
pub struct Member {
    /// Where it is in its life.
    pub state: State,
    /// When its connect was intended, and later when it succeeded.
    pub born_ns: u64,
    /// When a byte last came or went.
    pub spoke_ns: u64,
    /// When the probe under way was to be sent; the last one's when there is none.
    pub intended_ns: u64,
    /// When it was sent.
    pub sent_ns: u64,
    /// Probes sent.
    pub asked: u64,
    /// Probes answered.
    pub answered: u64,
    /// Probes whose time has come while another was under way.
    pub waiting: u32,
    /// The last round has come to it: the next answer is its last.
    pub is_last: bool,
    /// What is kept while it is spoken to.
    pub ear: Option<Box<Ear>>,
    /// Of a probe, what the socket did not take at once.
    pub unsent: Vec<u8>,
}

// A million of them are 128 MB.
const _: () = assert!(size_of::<Member>() <= 128);

impl Member {
    /// Not yet tried.
    pub const fn new() -> Self {
        Self {
            state: State::Unborn,
            born_ns: 0,
            spoke_ns: 0,
            intended_ns: 0,
            sent_ns: 0,
            asked: 0,
            answered: 0,
            waiting: 0,
            is_last: false,
            ear: None,
            unsent: Vec::new(),
        }
    }

    /// The probe under way on connection `number`.
    pub const fn probe(&self, number: usize) -> Option<Probe> {
        match self.asked.checked_sub(self.answered + 1) {
            Some(round) => Some(Probe { number: number as u64, round }),
            None => None,
        }
    }
}
