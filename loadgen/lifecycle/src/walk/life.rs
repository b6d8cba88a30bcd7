//! One connection: its sent and received bytes, and its ending.

use crate::dialect::{Actions, Checker, Ending, Outgoing, Record};
use crate::finding::Finding;
use crate::route::Header;
use crate::socket::{Connecting, Socket};
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

/// Size of the receive buffer after a small one.
const WINDOW_BYTES: usize = 200 << 10;

/// The result of an attempt to send or to receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moved {
    /// This number of bytes; there may be more.
    Bytes(u64),
    /// No bytes: the call would block.
    Nothing,
    /// The connection has ended.
    Over,
}

/// One connection.
pub(crate) struct Life {
    socket: Option<Socket>,
    /// Header of the connection, sent before the requests.
    header: Option<Header>,
    outgoing: Outgoing,
    checker: Box<dyn Checker>,
    actions: Actions,
    received: u64,
    is_connected: bool,
    finding: Option<Finding>,
    /// Time of the last sending, or of the connect.
    last_sent: Instant,
    /// Time of the action that demands a reaction.
    asked: Option<Instant>,
    ended: Option<(Ending, Instant)>,
    /// A send has failed because of the server's reset. A receive may then return earlier bytes,
    /// followed by a false FIN.
    was_reset: bool,
    unacknowledged: u64,
}

impl Life {
    pub(crate) fn new(
        socket: Socket,
        header: Option<Header>,
        outgoing: Outgoing,
        checker: Box<dyn Checker>,
    ) -> Self {
        Self { header, ..Self::of(Some(socket), outgoing, checker, None) }
    }

    fn of(
        socket: Option<Socket>,
        outgoing: Outgoing,
        checker: Box<dyn Checker>,
        ended: Option<(Ending, Instant)>,
    ) -> Self {
        Self {
            socket,
            header: None,
            outgoing,
            checker,
            actions: Actions::default(),
            received: 0,
            is_connected: false,
            finding: None,
            last_sent: Instant::now(),
            asked: None,
            ended,
            was_reset: false,
            unacknowledged: 0,
        }
    }

    /// Creates a connection whose connect failed.
    pub(crate) fn unborn(outgoing: Outgoing, checker: Box<dyn Checker>, ending: Ending) -> Self {
        Self::of(None, outgoing, checker, Some((ending, Instant::now())))
    }

    pub(crate) const fn is_over(&self) -> bool {
        self.ended.is_some()
    }

    pub(crate) fn ending(&self) -> Option<Ending> {
        self.ended.map(|(ending, _)| ending)
    }

    pub(crate) const fn sent(&self) -> u64 {
        self.actions.sent
    }

    pub(crate) const fn received(&self) -> u64 {
        self.received
    }

    pub(crate) fn replies(&self) -> u64 {
        self.checker.replies()
    }

    pub(crate) fn announced_end(&self) -> bool {
        self.checker.is_last()
    }

    /// Returns the number of bytes that are not sent yet.
    pub(crate) const fn unsent(&self) -> u64 {
        self.outgoing.bytes.len() as u64 - self.actions.sent
    }

    /// Bytes sent that the server's kernel had not acknowledged when it was given up.
    pub(crate) const fn unacknowledged(&self) -> u64 {
        self.unacknowledged
    }

    pub(crate) fn local(&self) -> Option<std::net::SocketAddr> {
        self.socket.as_ref()?.local().ok()
    }

    /// Returns true if the connect is done or has failed.
    pub(crate) fn connected(&mut self) -> bool {
        let Some(socket) = self.socket.as_ref().filter(|_| !self.is_connected) else { return true };
        match socket.connecting() {
            Connecting::Pending => return false,
            Connecting::Done => {
                self.is_connected = true;
                self.last_sent = Instant::now();
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
        // The buffer of a new socket has room for the header.
        if socket.send(&header).is_err() {
            self.was_reset = true;
            self.read_out();
        }
    }

    /// Sends the next bytes, at most `most`.
    pub(crate) fn say(&mut self, most: u64) -> Moved {
        let Some(socket) = &self.socket else { return Moved::Over };
        let start = self.actions.sent as usize;
        let bytes = &self.outgoing.bytes[start..][..most.min(self.unsent()) as usize];
        if bytes.is_empty() {
            return Moved::Bytes(0);
        }
        match socket.send(bytes) {
            Ok(count) => {
                self.actions.sent += count as u64;
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

    /// Receives available bytes, at most `into`.
    pub(crate) fn receive(&mut self, into: &mut [u8]) -> Moved {
        let Some(socket) = &self.socket else { return Moved::Over };
        match socket.recv(into) {
            Ok(0) => {
                if !self.was_reset
                    && let Err(finding) = self.checker.fin()
                {
                    self.finding = Some(finding);
                }
                self.end(if self.was_reset { Ending::Reset } else { Ending::Fin });
                Moved::Over
            }
            Ok(count) => {
                self.received += count as u64;
                match self.checker.receive(&into[..count], self.actions.sent) {
                    Ok(()) => Moved::Bytes(count as u64),
                    Err(finding) => {
                        self.finding = Some(finding);
                        self.end(Ending::Ours);
                        Moved::Over
                    }
                }
            }
            Err(error) if is_passing(&error) => Moved::Nothing,
            // The kernel has given up sending because the server is silent.
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

    /// Receives the bytes that arrived before a reset.
    pub(crate) fn read_out(&mut self) {
        let mut bytes = vec![0; 64 << 10];
        while let Moved::Bytes(_) = self.receive(&mut bytes) {}
        if !self.is_over() && self.was_reset {
            self.end(Ending::Reset);
        }
    }

    pub(crate) fn fin(&mut self) {
        let Some(socket) = &self.socket else { return };
        match socket.fin() {
            Ok(()) => {
                self.actions.fin = true;
                self.spoken();
            }
            // The server has ended the connection.
            Err(_) => {
                self.was_reset = true;
                self.read_out();
            }
        }
    }

    pub(crate) fn rst(&mut self) {
        self.notice_ending();
        if let Some(socket) = self.socket.take() {
            self.actions.gone = true;
            self.end(Ending::Ours);
            socket.reset();
        }
    }

    pub(crate) fn close(&mut self) {
        self.notice_ending();
        if self.socket.is_some() {
            self.actions.gone = true;
            self.end(Ending::Ours);
        }
    }

    /// Received data is ignored from now on. The server need not send anything from now on.
    ///
    /// # Errors
    /// errno of SO_ATTACH_FILTER. Packets are then acknowledged, but not read.
    pub(crate) fn turn_deaf(&mut self) -> io::Result<()> {
        self.notice_ending();
        let Some(socket) = &self.socket else { return Ok(()) };
        self.actions.gone = true;
        socket.turn_deaf()
    }

    /// Closes without a packet; true if that is allowed. Otherwise with a reset.
    pub(crate) fn vanish(&mut self) -> bool {
        let Some(socket) = self.socket.take() else { return false };
        self.end(Ending::Ours);
        socket.vanish()
    }

    /// Records that the client stops reading for a while.
    pub(crate) const fn stall(&mut self) {
        self.actions.stalled |= self.actions.sent > 0;
    }

    /// Resumes reading with a window of the usual size.
    pub(crate) fn read_on(&self) {
        if let Some(socket) = &self.socket {
            socket.open_window(WINDOW_BYTES);
        }
    }

    /// Ends the connection after a wait in vain.
    pub(crate) fn give_up(&mut self) {
        match self.is_connected {
            true => {
                self.actions.read_to_end = true;
                let unacknowledged = self.socket.as_ref().map_or(0, Socket::unacknowledged);
                self.unacknowledged = unacknowledged.saturating_sub(self.actions.fin.into());
                self.end(Ending::Silence);
            }
            false => self.end(Ending::ConnectTimeout),
        }
    }

    /// Closes the connection and returns its record.
    pub(crate) fn record(mut self) -> (Outgoing, Record) {
        self.close();
        let (ending, at) = self.ended.expect("it was closed");
        let is_theirs = matches!(ending, Ending::Fin | Ending::Reset);
        let record = Record {
            actions: self.actions,
            received: self.received,
            replies: self.checker.replies(),
            announced_end: self.checker.is_last(),
            finding: self.finding,
            ending,
            reaction: self
                .asked
                .filter(|_| is_theirs)
                .map(|asked| at.saturating_duration_since(asked)),
        };
        (self.outgoing, record)
    }

    /// Records an ending by the server that was not noticed yet. An ending behind unread bytes
    /// stays unknown.
    fn notice_ending(&mut self) {
        match self.socket.as_ref().filter(|_| self.is_connected).map(Socket::peek) {
            None | Some(Ok(1..)) => {}
            Some(Ok(0)) => drop(self.receive(&mut [0])),
            Some(Err(error)) if is_passing(&error) => {}
            Some(Err(_)) => self.end(Ending::Reset),
        }
    }

    fn spoken(&mut self) {
        let now = Instant::now();
        self.note_silence(now);
        self.last_sent = now;
        self.asked = (self.actions.fin || self.unsent() == 0).then_some(now);
    }

    fn note_silence(&mut self, now: Instant) {
        let silence: Duration = now.saturating_duration_since(self.last_sent);
        self.actions.silent = self.actions.silent.max(silence);
    }

    fn end(&mut self, ending: Ending) {
        if self.ended.is_none() {
            let now = Instant::now();
            self.note_silence(now);
            self.actions.read_to_end |= matches!(ending, Ending::Fin | Ending::Reset);
            self.ended = Some((ending, now));
        }
        self.socket = None;
    }
}

/// Returns true if the call had no effect. A signal does not interrupt a call that does not block.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
