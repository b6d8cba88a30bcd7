//! The state of a connection between callbacks; it decides when more may be read.

use super::exchange::Exchange;
use crate::access_log::Client;
use crate::http::head::Request;
use crate::http::incoming::Incoming;
use crate::http::reply::Persistence;
use ringwright::{Connection, Peer};
use std::net::SocketAddr;
use std::time::Duration;

/// Files queued on a connection before more requests are read: each may be a descriptor of its own.
/// Those that were read into its output at once are bytes like any other, and not counted. One, if
/// the shard is short of files.
const FILES_QUEUED_MAX: u32 = 8;

/// The state of a connection between callbacks.
#[derive(Default)]
pub struct Conversation {
    /// The number of its listener.
    pub(super) listener: u16,
    /// The client that a proxy has named.
    pub(super) peer: Option<SocketAddr>,
    /// The client as lines of the access log have it. `None` before the first line.
    pub(super) logged: Option<Client>,
    /// The time in which a request must be complete.
    pub(super) request_timeout: Option<Duration>,
    pub(super) incoming: Incoming,
    /// The request whose body is being read or whose file is being opened.
    pub(super) exchange: Option<Box<Exchange>>,
    /// The request whose body is being read has its reply. The body is read to find the next
    /// request.
    pub(super) is_answered: bool,
    pub(super) opening: bool,
    pub(super) files_queued: u32,
    /// The shard was short of files when the last one was queued.
    files_are_short: bool,
    pub(super) paused: bool,
    /// The send queue was full when last looked at.
    pub(super) full: bool,
    /// Bytes were left unread by the last look at them.
    pub(super) unread: bool,
    pub(super) half_closed: bool,
    pub(super) draining: bool,
    pub(super) closing: bool,
    pub(super) timer_set: bool,
    pub(super) requests: u64,
}

impl Conversation {
    /// A new connection of this listener, of a client that a proxy may have named.
    #[must_use]
    pub fn on(listener: u16, peer: Option<SocketAddr>, request_timeout: Option<Duration>) -> Self {
        Self { listener, peer, request_timeout, ..Self::default() }
    }

    /// The client: the peer, unless that is a proxy and has named another one.
    pub(super) fn peer_of(&self, connection: &Connection<'_>) -> Peer {
        self.peer.map_or_else(|| connection.peer(), Peer::Ip)
    }

    pub(super) fn may_read_on(&self) -> bool {
        let files_max = if self.files_are_short { 1 } else { FILES_QUEUED_MAX };
        !self.opening && !self.full && !self.closing && self.files_queued < files_max
    }

    /// A file is queued that leaves as a file.
    pub(super) fn note_file(&mut self, connection: &mut Connection<'_>) {
        self.files_queued += 1;
        self.files_are_short = connection.local().is_short_of_files();
    }

    /// A request was begun, and its rest is the client's to send.
    pub(super) fn awaits_rest(&self) -> bool {
        self.may_read_on() && (self.unread || !self.incoming.is_between_requests())
    }

    /// In a drain the last of the requests that have come ends the connection.
    pub(super) const fn persistence(&self, request: &Request) -> Persistence {
        match request {
            _ if (self.draining && !self.unread) || !request.keep_alive => Persistence::Close,
            Request { is_http_1_1: true, .. } => Persistence::Implied,
            _ => Persistence::Stated,
        }
    }

    /// Reads the next request, if there may be one and it may be read; ends the connection if
    /// there will be none.
    pub(super) fn go_on(&mut self, connection: &mut Connection<'_>) {
        if !self.may_read_on() || self.exchange.is_some() {
            return;
        }
        if self.half_closed && !self.unread {
            self.close(connection);
        } else if std::mem::take(&mut self.paused) {
            connection.resume();
        }
    }

    /// Nothing more is read for the time being: what has come and is not read is no late request.
    pub(super) fn hold(&mut self, connection: &mut Connection<'_>) {
        if !self.closing && !self.full && !self.paused {
            self.paused = true;
            connection.pause();
        }
    }

    /// Ends the connection after its queued output; nothing more is read.
    pub(super) fn close(&mut self, connection: &mut Connection<'_>) {
        self.closing = true;
        connection.close();
    }
}
