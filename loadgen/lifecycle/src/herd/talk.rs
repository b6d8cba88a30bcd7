//! The exchange of probes and answers on one connection of a herd.

use super::loss::How;
use crate::clients::{Answer, Protocol};
use crate::fault::{ErrorKind, Fault};

/// Maximum number of unexpected bytes that a message shows.
const SHOWN_BYTES_MAX: usize = 60;

/// The state of a connection while a probe is in flight or bytes are incomplete.
pub struct Talk<P: Protocol> {
    state: P::State,
    /// Received bytes that the protocol has not consumed.
    unread: Vec<u8>,
    /// The part of a probe, or of the header in front of it, that the socket did not accept.
    pub unsent: Vec<u8>,
    /// Deadline of the answer.
    pub deadline_ns: u64,
}

/// The result of received bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// The answer is incomplete.
    Part,
    /// The answer is complete.
    Answer,
    /// The answer is complete, and the server will close the connection.
    LastAnswer,
}

/// The state of the answer when the server's FIN arrives.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// The FIN ends the answer.
    Answer,
    /// No part of an answer was received.
    Between,
    /// A part of an answer was received.
    InTheMiddle,
}

/// An error in received bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The kind of loss that it causes.
    pub how: How,
    /// The observation, for people.
    pub detail: String,
}

impl From<Fault> for Wrong {
    fn from(Fault { kind, detail }: Fault) -> Self {
        let how = match kind {
            ErrorKind::WrongBytes | ErrorKind::ForeignBytes => How::WrongBytes,
            ErrorKind::BadStatus => How::BadStatus,
            _ => How::Protocol,
        };
        Self { how, detail }
    }
}

impl<P: Protocol> Talk<P> {
    /// Creates the state of connection `number` after `answered` probes.
    #[must_use]
    pub fn new(protocol: &P, number: u64, answered: u64) -> Self {
        let state = protocol.resume(number, answered);
        Self { state, unread: Vec::new(), unsent: Vec::new(), deadline_ns: u64::MAX }
    }

    /// Returns true if the state can be dropped.
    #[must_use]
    pub fn is_idle(&self, protocol: &P) -> bool {
        self.unsent.is_empty() && self.is_between_answers(protocol)
    }

    fn is_between_answers(&self, protocol: &P) -> bool {
        self.unread.is_empty() && protocol.is_between_replies(&self.state)
    }

    /// Prepares the bytes of the next probe.
    pub fn ask(&mut self, protocol: &mut P, deadline_ns: u64) {
        protocol.request(&mut self.state, 1, |bytes| self.unsent.extend_from_slice(bytes));
        self.deadline_ns = deadline_ns;
    }

    /// Handles received bytes; `is_probing` is true if a probe is in flight.
    ///
    /// # Errors
    /// An error that makes the connection unusable.
    pub fn receive(
        &mut self,
        protocol: &mut P,
        is_probing: bool,
        bytes: &[u8],
    ) -> Result<Received, Wrong> {
        self.unread.extend_from_slice(bytes);
        let mut received = Received::Part;
        while !self.unread.is_empty() {
            if !P::MAY_SPEAK_UNASKED && (!is_probing || received != Received::Part) {
                return Err(unasked(&self.unread));
            }
            let step = protocol.receive(&mut self.state, &self.unread).map_err(Wrong::from)?;
            self.unread.drain(..step.used);
            match step.answer {
                Some(answer) => received = self.judge(answer)?,
                None if step.used == 0 => break,
                None => {}
            }
        }
        Ok(received)
    }

    fn judge(&mut self, answer: Answer) -> Result<Received, Wrong> {
        self.deadline_ns = u64::MAX;
        match answer {
            Answer { fault: Some(fault), .. } => Err(Wrong::from(fault)),
            Answer { last: true, .. } => Ok(Received::LastAnswer),
            Answer { .. } => Ok(Received::Answer),
        }
    }

    /// Handles the server's FIN during a probe.
    ///
    /// # Errors
    /// The answer is wrong.
    pub fn end(&mut self, protocol: &mut P) -> Result<Ended, Wrong> {
        let is_between = self.is_between_answers(protocol);
        match protocol.end(&mut self.state) {
            Ok(answer) => self.judge(answer).map(|_| Ended::Answer),
            Err(_) if is_between => Ok(Ended::Between),
            Err(_) => Ok(Ended::InTheMiddle),
        }
    }
}

fn unasked(bytes: &[u8]) -> Wrong {
    let shown = bytes[..bytes.len().min(SHOWN_BYTES_MAX)].escape_ascii();
    let detail = format!("{} bytes without a probe: \"{shown}\"", bytes.len());
    Wrong { how: How::Unasked, detail }
}

#[cfg(test)]
mod tests;
