//! The end of a reply: its head is queued, it is counted and logged, and the connection goes on or
//! ends.

use super::exchange::Asked;
use super::{Conversation, Files};
use crate::access_log::{Client, Entry, Texts};
use crate::http::head;
use crate::http::reply::{self, Persistence};
use crate::http::status::Status;
use ringwright::{Connection, Peer, SendStatus};
use std::net::SocketAddr;
use std::time::Duration;

impl Files {
    pub(super) fn send_head(&self, state: &mut Conversation, connection: &mut Connection<'_>) {
        let room = connection.send(&self.scratch);
        state.full = room == SendStatus::Full;
        if room == SendStatus::Refused {
            // A body without its head must not follow.
            connection.abort();
        }
    }

    /// The reply is queued: on to the next request, or to the end.
    pub(super) fn finish(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        asked: &Asked<'_>,
        persistence: Persistence,
        status: Status,
        bytes: u64,
    ) {
        let duration = connection.local().now() - asked.begun;
        asked.site.counters.count(self.shard, asked.request.method, status, duration, bytes);
        if self.log.is_some() {
            let mut named = None;
            if asked.site.spec.real_ip.is_some() {
                let (real, peer) =
                    (self.address(state, connection, asked), state.peer_of(connection));
                let real = real.filter(|real| Some(*real) != peer.ip());
                named = real.map(|real| Peer::Ip(SocketAddr::new(real, 0)));
            }
            let site = asked.site.spec.names.first().map_or("", String::as_str);
            let (texts, begun) = (Texts::of(&asked.request, asked.head), Some(asked.begun));
            let logged = Logged { texts, begun, named, site };
            self.log_reply(state, connection, logged, status, bytes);
        }
        if persistence == Persistence::Close {
            state.close(connection);
        } else {
            state.go_on(connection);
        }
    }

    /// Sends the last reply of a connection, unless the request that cannot be read to its end has
    /// its reply. `unread` begins with the head of that request if the head was not read.
    pub(super) fn send_refusal(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        status: Status,
        unread: &[u8],
    ) {
        if state.is_answered {
            return;
        }
        self.common.refresh(connection.local().now());
        let lines = self.common.lines();
        let is_head = state.incoming.is_head();
        let body = reply::plain(&mut self.scratch, lines, Persistence::Close, status, is_head);
        self.send_head(state, connection);
        if let Some(exchange) = state.exchange.take() {
            let Asked { request, begun, site, .. } = exchange.asked();
            let duration = connection.local().now() - begun;
            site.counters.count(self.shard, request.method, status, duration, body);
            let texts = Texts::of(&exchange.request, &exchange.head);
            let logged = Logged { texts, begun: Some(exchange.begun), named: None, site: "" };
            return self.log_reply(state, connection, logged, status, body);
        }
        state.requests += 1;
        if let Some(site) = self.default_site(state.listener) {
            site.counters.count_unread(self.shard, status, body);
        }
        let texts = Texts::of_part(head::as_far_as_read(unread));
        let logged = Logged { texts, begun: None, named: None, site: "" };
        self.log_reply(state, connection, logged, status, body);
    }

    fn log_reply(
        &mut self,
        state: &mut Conversation,
        connection: &mut Connection<'_>,
        logged: Logged<'_>,
        status: Status,
        bytes: u64,
    ) {
        let Some(log) = &mut self.log else { return };
        let Logged { texts, begun, named, site } = logged;
        let of_request;
        let (client, socket) = match named {
            Some(peer) => {
                of_request = Client::of(peer);
                (&of_request, Some(connection.peer()))
            }
            None => {
                let client = state.logged.get_or_insert_with(|| {
                    Client::of(state.peer.map_or_else(|| connection.peer(), Peer::Ip))
                });
                let named = state.peer.map(Peer::Ip);
                let socket = named.is_some().then(|| connection.peer());
                (&*client, socket.filter(|_| named != socket))
            }
        };
        let now = connection.local().now();
        let entry = Entry {
            seconds: self.common.seconds(),
            client,
            socket,
            site,
            connection: connection.id().get(),
            request: state.requests,
            texts,
            status: status.code(),
        };
        if let Some(tag) = log.begin(&entry, bytes, begun, now) {
            connection.mark_output(tag);
        }
    }
}

/// A request to be logged.
struct Logged<'a> {
    texts: Texts<'a>,
    /// The time at which the head was complete, if it was.
    begun: Option<Duration>,
    /// The client that a field of the request names.
    named: Option<Peer>,
    /// The first name of the site.
    site: &'a str,
}
