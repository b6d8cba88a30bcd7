//! One connection: what we have said on it, what was heard, and how it ended.

use crate::dialect::{Deeds, Ear, Ending, Sight, Speech};
use crate::finding::Finding;
use crate::route::Header;
use crate::socket::{Connecting, Socket};
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

/// Receive buffer of a connection that had a tiny one.
const WINDOW_BYTES: usize = 200 << 10;

/// The result of an attempt to send or to receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moved {
    /// This number of bytes; there may be more.
    Bytes(u64),
    /// None: it would block.
    Nothing,
    /// The connection has ended.
    Over,
}

/// One connection.
pub(crate) struct Life {
    socket: Option<Socket>,
    /// Sent as soon as it is connected. It is not a part of the speech.
    header: Option<Header>,
    speech: Speech,
    ear: Box<dyn Ear>,
    deeds: Deeds,
    heard: u64,
    is_connected: bool,
    finding: Option<Finding>,
    /// When anything was last said, or the connect was done.
    spoke: Instant,
    /// The deed that asks for a reaction.
    asked: Option<Instant>,
    ended: Option<(Ending, Instant)>,
    /// A send has met the server's reset. A receive may then show what had come before, and a
    /// false FIN behind it.
    was_reset: bool,
    unacknowledged: u64,
}

impl Life {
    pub(crate) fn new(
        socket: Socket,
        header: Option<Header>,
        speech: Speech,
        ear: Box<dyn Ear>,
    ) -> Self {
        Self { header, ..Self::of(Some(socket), speech, ear, None) }
    }

    fn of(
        socket: Option<Socket>,
        speech: Speech,
        ear: Box<dyn Ear>,
        ended: Option<(Ending, Instant)>,
    ) -> Self {
        Self {
            socket,
            header: None,
            speech,
            ear,
            deeds: Deeds::default(),
            heard: 0,
            is_connected: false,
            finding: None,
            spoke: Instant::now(),
            asked: None,
            ended,
            was_reset: false,
            unacknowledged: 0,
        }
    }

    /// A connection that did not come about.
    pub(crate) fn unborn(speech: Speech, ear: Box<dyn Ear>, ending: Ending) -> Self {
        Self::of(None, speech, ear, Some((ending, Instant::now())))
    }

    pub(crate) const fn is_over(&self) -> bool {
        self.ended.is_some()
    }

    pub(crate) fn ending(&self) -> Option<Ending> {
        self.ended.map(|(ending, _)| ending)
    }

    pub(crate) const fn said(&self) -> u64 {
        self.deeds.said
    }

    pub(crate) const fn heard(&self) -> u64 {
        self.heard
    }

    pub(crate) fn replies(&self) -> u64 {
        self.ear.replies()
    }

    pub(crate) fn announced_end(&self) -> bool {
        self.ear.is_last()
    }

    /// Returns the number of bytes that are not sent yet.
    pub(crate) const fn unsaid(&self) -> u64 {
        self.speech.bytes.len() as u64 - self.deeds.said
    }

    /// Bytes said that the server's kernel had not acknowledged when it was given up.
    pub(crate) const fn unacknowledged(&self) -> u64 {
        self.unacknowledged
    }

    pub(crate) fn local(&self) -> Option<std::net::SocketAddr> {
        self.socket.as_ref()?.local().ok()
    }

    /// Looks whether the connect is done: true when it is, or when it has failed.
    pub(crate) fn connected(&mut self) -> bool {
        let Some(socket) = self.socket.as_ref().filter(|_| !self.is_connected) else { return true };
        match socket.connecting() {
            Connecting::Pending => return false,
            Connecting::Done => {
                self.is_connected = true;
                self.spoke = Instant::now();
                self.send_header();
            }
            Connecting::Reset => {
                self.is_connected = true;
                self.was_reset = true;
                self.read_out();
            }
            Connecting::Refused => self.end(Ending::Refused),
            Connecting::Timeout => self.end(Ending::ConnectTimeout),
            Connecting::Failed(errno) => self.end(Ending::ConnectFailed(errno)),
        }
        true
    }

    fn send_header(&mut self) {
        let (Some(socket), Some(header)) = (&self.socket, self.header.take()) else { return };
        // A new socket takes all of it.
        if socket.send(&header).is_err() {
            self.was_reset = true;
            self.read_out();
        }
    }

    /// Says the next bytes, at most `most`.
    pub(crate) fn say(&mut self, most: u64) -> Moved {
        let Some(socket) = &self.socket else { return Moved::Over };
        let start = self.deeds.said as usize;
        let bytes = &self.speech.bytes[start..][..most.min(self.unsaid()) as usize];
        if bytes.is_empty() {
            return Moved::Bytes(0);
        }
        match socket.send(bytes) {
            Ok(count) => {
                self.deeds.said += count as u64;
                self.spoken();
                Moved::Bytes(count as u64)
            }
            Err(error) if is_passing(&error) => Moved::Nothing,
            Err(_) => {
                self.was_reset = true;
                self.read_out();
                Moved::Over
            }
        }
    }

    /// Hears what is there, at most `into`.
    pub(crate) fn hear(&mut self, into: &mut [u8]) -> Moved {
        let Some(socket) = &self.socket else { return Moved::Over };
        match socket.recv(into) {
            Ok(0) => {
                if !self.was_reset
                    && let Err(finding) = self.ear.fin()
                {
                    self.finding = Some(finding);
                }
                self.end(if self.was_reset { Ending::Reset } else { Ending::Fin });
                Moved::Over
            }
            Ok(count) => {
                self.heard += count as u64;
                match self.ear.hear(&into[..count], self.deeds.said) {
                    Ok(()) => Moved::Bytes(count as u64),
                    Err(finding) => {
                        self.finding = Some(finding);
                        self.end(Ending::Ours);
                        Moved::Over
                    }
                }
            }
            Err(error) if is_passing(&error) => Moved::Nothing,
            // The kernel has given up sending: that is silence of the other side.
            Err(error) if error.kind() == ErrorKind::TimedOut => {
                self.end(Ending::Silence);
                Moved::Over
            }
            Err(_) => {
                self.end(Ending::Reset);
                Moved::Over
            }
        }
    }

    /// After a reset was met: what had come before it is still there to be heard.
    pub(crate) fn read_out(&mut self) {
        let mut bytes = vec![0; 64 << 10];
        while let Moved::Bytes(_) = self.hear(&mut bytes) {}
        if !self.is_over() && self.was_reset {
            self.end(Ending::Reset);
        }
    }

    pub(crate) fn fin(&mut self) {
        let Some(socket) = &self.socket else { return };
        match socket.fin() {
            Ok(()) => {
                self.deeds.fin = true;
                self.spoken();
            }
            // Nobody but the server can have ended it.
            Err(_) => {
                self.was_reset = true;
                self.read_out();
            }
        }
    }

    pub(crate) fn rst(&mut self) {
        self.notice_ending();
        if let Some(socket) = self.socket.take() {
            self.deeds.gone = true;
            self.end(Ending::Ours);
            socket.reset();
        }
    }

    pub(crate) fn close(&mut self) {
        self.notice_ending();
        if self.socket.is_some() {
            self.deeds.gone = true;
            self.end(Ending::Ours);
        }
    }

    /// Nothing that comes is seen any more. The server owes nothing from now on.
    ///
    /// # Errors
    /// errno of SO_ATTACH_FILTER: what comes is acknowledged, and not read.
    pub(crate) fn turn_deaf(&mut self) -> io::Result<()> {
        self.notice_ending();
        let Some(socket) = &self.socket else { return Ok(()) };
        self.deeds.gone = true;
        socket.turn_deaf()
    }

    /// Closes without a packet; true if that is allowed. Otherwise with a reset.
    pub(crate) fn vanish(&mut self) -> bool {
        let Some(socket) = self.socket.take() else { return false };
        self.end(Ending::Ours);
        socket.vanish()
    }

    /// Reads nothing for a while from now on.
    pub(crate) const fn stall(&mut self) {
        self.deeds.stalled |= self.deeds.said > 0;
    }

    /// Reads on: through a window that is as large as others'.
    pub(crate) fn read_on(&self) {
        if let Some(socket) = &self.socket {
            socket.open_window(WINDOW_BYTES);
        }
    }

    /// The server was waited for, in vain.
    pub(crate) fn give_up(&mut self) {
        match self.is_connected {
            true => {
                self.deeds.read_to_end = true;
                let unacknowledged = self.socket.as_ref().map_or(0, Socket::unacknowledged);
                self.unacknowledged = unacknowledged.saturating_sub(self.deeds.fin.into());
                self.end(Ending::Silence);
            }
            false => self.end(Ending::ConnectTimeout),
        }
    }

    /// Closes the connection and returns its record.
    pub(crate) fn sight(mut self) -> (Speech, Sight) {
        self.close();
        let (ending, at) = self.ended.expect("it was closed");
        let is_theirs = matches!(ending, Ending::Fin | Ending::Reset);
        let sight = Sight {
            deeds: self.deeds,
            heard: self.heard,
            replies: self.ear.replies(),
            announced_end: self.ear.is_last(),
            finding: self.finding,
            ending,
            reaction: self
                .asked
                .filter(|_| is_theirs)
                .map(|asked| at.saturating_duration_since(asked)),
        };
        (self.speech, sight)
    }

    /// The server may have ended it while nobody looked: then it was not us. An ending behind
    /// bytes that were never read stays unknown.
    fn notice_ending(&mut self) {
        match self.socket.as_ref().filter(|_| self.is_connected).map(Socket::peek) {
            None | Some(Ok(1..)) => {}
            Some(Ok(0)) => drop(self.hear(&mut [0])),
            Some(Err(error)) if is_passing(&error) => {}
            Some(Err(_)) => self.end(Ending::Reset),
        }
    }

    fn spoken(&mut self) {
        let now = Instant::now();
        self.note_silence(now);
        self.spoke = now;
        self.asked = (self.deeds.fin || self.unsaid() == 0).then_some(now);
    }

    fn note_silence(&mut self, now: Instant) {
        let silence: Duration = now.saturating_duration_since(self.spoke);
        self.deeds.silent = self.deeds.silent.max(silence);
    }

    fn end(&mut self, ending: Ending) {
        if self.ended.is_none() {
            let now = Instant::now();
            self.note_silence(now);
            self.deeds.read_to_end |= matches!(ending, Ending::Fin | Ending::Reset);
            self.ended = Some((ending, now));
        }
        self.socket = None;
    }
}

/// Nothing has happened. A signal does not interrupt a call that does not block.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
