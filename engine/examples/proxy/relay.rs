//! The handler: pairs of connections, and the bytes between them.
//!
//! | event on one side | effect on the other |
//! |---|---|
//! | the first bytes | they are sent |
//! | bytes behind them | the engine forwards them, up to the FIN |
//! | FIN | FIN after its output |
//! | reset, or any end that loses bytes | reset |
//! | idle timeout, drain | FIN after its output |
//!
//! Invariant: a pair is in the table until both of its connections have ended and no connect for it
//! is pending. A connect cannot be cancelled, so its tag must stay valid.

use crate::upstreams::Upstreams;
use ringwright::{Connection, ConnectionId, Forwarded, Handler, Local, Origin, Reason, SendStatus};
use slab::Slab;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The time for which a client waits for a place among the connections. A pair's connections do not
/// end at the same moment, so an upstream's can still hold the place of the next one.
const PLACE_PATIENCE: Duration = Duration::from_secs(10);
/// A draining proxy closes a pair on which nothing has happened for this time.
const DRAIN_QUIET: Duration = Duration::from_secs(2);

/// The counters of all shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Clients that were connected to an upstream.
    pub pairs: u64,
    /// Connects that an upstream did not answer, or refused.
    pub connects_failed: u64,
    /// Clients that were reset because no upstream took them.
    pub refused: u64,
    /// Bytes of connections that were reset count up to the first ones only.
    pub bytes_to_upstreams: u64,
    pub bytes_to_clients: u64,
}

#[derive(Clone, Copy)]
enum Side {
    Client,
    Upstream,
}

/// The state of a connection: its place in the table of pairs.
pub struct Member {
    pair: usize,
    side: Side,
}

/// Two connections. Each is `None` after its `closed`.
struct Pair {
    client: Option<ConnectionId>,
    upstream: Option<ConnectionId>,
    /// The number of the upstream of the pending connect.
    connecting: Option<usize>,
    /// Upstreams that have failed for this client.
    failures: usize,
    accepted_at: Duration,
}

/// The handler of a shard.
pub struct Relay {
    upstreams: Upstreams,
    pairs: Slab<Pair>,
    counts: Counts,
    total: Arc<Mutex<Counts>>,
}

impl Relay {
    /// `total` gets the shard's counters when the shard ends.
    pub fn new(upstreams: Upstreams, total: Arc<Mutex<Counts>>) -> Self {
        Self { upstreams, pairs: Slab::new(), counts: Counts::default(), total }
    }

    /// Returns the other connection of a pair, unless it has ended or takes no more output.
    fn other<'a>(&self, member: &Member, shard: &'a mut Local<'_>) -> Option<Connection<'a>> {
        let pair = &self.pairs[member.pair];
        let other = match member.side {
            Side::Client => pair.upstream,
            Side::Upstream => pair.client,
        };
        shard.connection(other?)
    }

    /// Connects the client of a pair to the next upstream.
    fn connect(&mut self, pair: usize, shard: &mut Local<'_>) {
        let number = self.upstreams.choose(shard.now());
        if shard.connect(self.upstreams.address(number), pair as u64) {
            self.pairs[pair].connecting = Some(number);
        } else {
            self.refuse(pair, shard); // the engine drains
        }
    }

    /// Ends a client as a server that does not exist would.
    fn refuse(&mut self, pair: usize, shard: &mut Local<'_>) {
        let client = self.pairs[pair].client;
        if let Some(mut client) = client.and_then(|id| shard.connection(id)) {
            client.abort();
            self.counts.refused += 1;
        }
    }

    fn count(&mut self, member: &Member, bytes: u64) {
        match member.side {
            Side::Client => self.counts.bytes_to_upstreams += bytes,
            Side::Upstream => self.counts.bytes_to_clients += bytes,
        }
    }

    fn forget_if_over(&mut self, number: usize) {
        let pair = &self.pairs[number];
        if pair.client.is_none() && pair.upstream.is_none() && pair.connecting.is_none() {
            self.pairs.remove(number);
        }
    }

    fn connected(&mut self, number: usize, connection: &mut Connection<'_>) {
        let pair = &mut self.pairs[number];
        pair.upstream = Some(connection.id());
        let upstream = pair.connecting.take();
        let client = pair.client;
        self.upstreams.works(upstream.expect("a connect has one result"));
        let mut shard = connection.local();
        match client.and_then(|id| shard.connection(id)) {
            Some(mut client) => {
                client.resume(); // its bytes so far follow
                self.counts.pairs += 1;
            }
            None => connection.abort(), // the client did not wait
        }
    }
}

impl Handler for Relay {
    type State = Member;

    fn opened(&mut self, connection: &mut Connection<'_>, origin: Origin) -> Member {
        // Each side is the source of the other's output. If full output kept it from being read,
        // both could be full, and neither would ever be read again.
        connection.receive_while_full(true);
        match origin {
            Origin::Listener(_) => {
                connection.pause();
                let accepted_at = connection.local().now();
                let client = Some(connection.id());
                let pair =
                    Pair { client, upstream: None, connecting: None, failures: 0, accepted_at };
                let pair = self.pairs.insert(pair);
                self.connect(pair, &mut connection.local());
                Member { pair, side: Side::Client }
            }
            Origin::Connected(tag) => {
                let pair = tag as usize;
                self.connected(pair, connection);
                Member { pair, side: Side::Upstream }
            }
        }
    }

    fn received(
        &mut self,
        member: &mut Member,
        connection: &mut Connection<'_>,
        bytes: &[u8],
    ) -> usize {
        let sent = self
            .other(member, &mut connection.local())
            .map(|mut other| (other.id(), other.send(bytes)));
        let to = match sent {
            Some((to, SendStatus::Ready | SendStatus::Full)) => to,
            Some((_, SendStatus::Refused)) => {
                connection.pause(); // until `writable` of the other
                return 0;
            }
            // The other side ends, and this one will follow.
            Some((_, SendStatus::Closed)) | None => return bytes.len(),
        };
        self.count(member, bytes.len() as u64);
        // A proxy that wants to know the protocol would look at these first bytes. Those behind
        // them go past this handler, up to the FIN. If that is refused, they come here.
        let _ = connection.forward(to, u64::MAX);
        bytes.len()
    }

    fn forwarded(&mut self, member: &mut Member, _: &mut Connection<'_>, forwarded: Forwarded) {
        self.count(member, forwarded.bytes);
    }

    fn writable(&mut self, member: &mut Member, connection: &mut Connection<'_>) {
        if let Some(mut source) = self.other(member, &mut connection.local()) {
            source.resume();
        }
    }

    fn half_closed(&mut self, member: &mut Member, connection: &mut Connection<'_>) {
        if let Some(mut other) = self.other(member, &mut connection.local()) {
            other.shutdown();
        }
    }

    fn draining(&mut self, member: &mut Member, connection: &mut Connection<'_>) {
        // The upstream's connection follows the client's.
        if matches!(member.side, Side::Client) {
            connection.finish(DRAIN_QUIET);
        }
    }

    fn connect_failed(&mut self, shard: &mut Local<'_>, tag: u64, error: io::Error) {
        let number = tag as usize;
        let pair = &mut self.pairs[number];
        let upstream = pair.connecting.take().expect("a connect has one result");
        let now = shard.now();
        // An error without an errno is a limit of the engine. It says nothing about the upstream.
        // The engine delays the next connect, so this does not spin.
        let retries = if error.raw_os_error().is_none() {
            now < pair.accepted_at + PLACE_PATIENCE
        } else {
            pair.failures += 1;
            self.counts.connects_failed += 1;
            self.upstreams.failed(upstream, now);
            pair.failures < self.upstreams.count()
        };
        let client = pair.client;
        if client.is_none_or(|id| shard.connection(id).is_none()) {
            self.forget_if_over(number); // the client did not wait
        } else if retries {
            self.connect(number, shard);
        } else {
            self.refuse(number, shard);
        }
    }

    fn closed(
        &mut self,
        member: Option<Member>,
        shard: &mut Local<'_>,
        _: ConnectionId,
        reason: Reason,
    ) {
        let Some(member) = member else { return };
        if let Some(mut other) = self.other(&member, shard) {
            match reason {
                // With `PeerFin`, both FINs were passed on, or a drain has closed this side.
                Reason::PeerFin | Reason::LocalClose | Reason::Drained | Reason::IdleTimeout => {
                    other.close();
                }
                _ => other.abort(),
            }
        }
        let pair = &mut self.pairs[member.pair];
        match member.side {
            Side::Client => pair.client = None,
            Side::Upstream => pair.upstream = None,
        }
        self.forget_if_over(member.pair);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let mut total = self.total.lock().unwrap_or_else(PoisonError::into_inner);
        total.pairs += self.counts.pairs;
        total.connects_failed += self.counts.connects_failed;
        total.refused += self.counts.refused;
        total.bytes_to_upstreams += self.counts.bytes_to_upstreams;
        total.bytes_to_clients += self.counts.bytes_to_clients;
    }
}
