//! Spreading new connections over the shards.
//!
//! The kernel assigns a client to a listening socket by a hash, and a socket that all shards share
//! goes to whoever wakes first: of 8 clients, one of two shards gets 6. With
//! [`Balance::Accept`], the shard that has accepted a client hands it to the shard with the fewest
//! connections before it becomes a connection ([`crate::transit`]).
//!
//! A difference that connections even out themselves is left alone: a client is handed over if the
//! difference is above a quarter of the connections that end within a second.

use super::Shard;
use super::turn::Calling;
use super::waiting::Client;
use crate::admission::{Holder, Listening};
use crate::config::{Balance, SharedSettings};
use crate::handler::Handler;
use crate::ring::Ring;
use std::sync::Arc;

/// The time over which ends are averaged, ms.
const WINDOW_MS: u64 = 1_000;
/// The part of the ends within a second that may differ.
const ENDS_PART: u64 = 4;

/// The rate at which connections end, of all shards together.
#[derive(Clone, Copy, Default)]
struct EndRate {
    began_ms: u64,
    /// Those that had ended by then.
    ended: u64,
    /// Those within the time before.
    before: u64,
}

impl EndRate {
    /// Ends within the last second, if `ended` connections have ended so far.
    fn look(&mut self, now_ms: u64, ended: u64) -> u64 {
        let passed_ms = now_ms.saturating_sub(self.began_ms);
        let fresh = ended - self.ended;
        if passed_ms < WINDOW_MS {
            return fresh + self.before * (WINDOW_MS - passed_ms) / WINDOW_MS;
        }
        let rate = fresh * WINDOW_MS / passed_ms;
        *self = Self { began_ms: now_ms, ended, before: rate };
        rate
    }
}

/// A client on its way to another shard, with its listener.
pub(crate) struct Handed {
    client: Client,
    listener: (Arc<Listening>, SharedSettings),
}

impl Handed {
    /// The listener it came to, and its address.
    #[cfg(any(test, feature = "testing"))]
    pub fn origin(&self) -> (u16, Option<std::net::IpAddr>) {
        (self.client.listener, self.client.peer.ip())
    }
}

/// The state of a shard's decisions.
pub(super) struct Balancing {
    is_on: bool,
    ends: EndRate,
}

impl Balancing {
    pub fn new(balance: Balance, shards: usize) -> Self {
        Self { is_on: balance == Balance::Accept && shards > 1, ends: EndRate::default() }
    }
}

impl<R: Ring, H: Handler> Shard<R, H> {
    /// Makes a client a connection, here or on another shard. Its permit is taken.
    pub(super) fn let_in(&mut self, call: Calling, client: Client) {
        if let Some(to) = self.lighter_shard()
            && self.hand_over(to, &client)
        {
            mark!("a client is handed over");
            self.core.counters.handed_over += 1;
            return;
        }
        self.open(call, client);
    }

    /// Returns the shard with the fewest connections, if this one has clearly more.
    fn lighter_shard(&mut self) -> Option<usize> {
        if !self.balancing.is_on {
            return None;
        }
        let transit = &self.transit;
        let lightest = transit.lightest()?;
        let here = transit.connections(self.core.shard);
        let more = here.saturating_sub(transit.connections(lightest));
        if more == 0 {
            return None;
        }
        let ends = self.balancing.ends.look(self.core.now_ms, transit.ended());
        (more > ends / ENDS_PART).then_some(lightest)
    }

    /// Returns whether the other shard takes a client.
    fn hand_over(&mut self, to: usize, client: &Client) -> bool {
        let Self { transit, ring, core, .. } = self;
        transit.hand(to, client.listener, || {
            let listener = core.listeners.hand_over(client.listener);
            let client = Client { descriptor: ring.hand_out(client.descriptor), ..*client };
            Handed { client, listener }
        })
    }

    /// Takes a client of another shard out of the queue: it is a user of its listener here.
    fn take_client(&mut self) -> Option<Client> {
        let Handed { client, listener } = self.transit.take(self.core.shard)?;
        self.core.counters.taken_over += 1;
        self.core.listeners.take_over(listener);
        Some(Client { descriptor: self.ring.take_in(client.descriptor), ..client })
    }

    /// Lets in the next client that another shard has handed over.
    pub(super) fn take_over_next(&mut self, call: Calling) {
        let Some(client) = self.take_client() else { return };
        let settings = &self.core.listeners.settings_of(client.listener).values;
        let is_banned = |ip| self.core.bans.bans.contains(ip) && !settings.is_exempt(ip);
        let counters = &mut self.core.counters;
        if client.peer.ip().is_some_and(is_banned) {
            mark!("banned after it was handed over");
            counters.banned += 1;
        } else if client.is_there(&mut self.ring) {
            return self.open(call, client);
        } else {
            mark!("gone after it was handed over");
            counters.gone_while_waiting += 1;
        }
        self.refuse_client(client);
    }

    /// Closes a client that has a permit.
    fn refuse_client(&mut self, client: Client) {
        self.turn_away(client);
        self.core.admission.give_back(Holder::Accepted);
    }

    /// Lets in all clients that were handed over, before something ends that they came for.
    pub(super) fn take_over_rest(&mut self, call: Calling) {
        if bug!("handed-over-forgotten") {
            return;
        }
        for _ in 0..self.transit.waiting(self.core.shard) {
            self.take_over_next(call);
        }
    }

    /// No client is handed over to this shard any more. Those that were are let in.
    pub(super) fn stop_taking_over(&mut self, call: Calling) {
        self.transit.close(self.core.shard);
        self.take_over_rest(call);
    }

    /// The same, of a shard that has failed: they are turned away.
    pub(super) fn turn_away_handed_over(&mut self) {
        self.transit.close(self.core.shard);
        while let Some(client) = self.take_client() {
            mark!("handed over to a shard that fails");
            self.core.counters.turned_away += 1;
            self.refuse_client(client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_averaged_over_a_second() {
        let mut ends = EndRate { began_ms: 5_000, ended: 100, before: 0 };
        assert_eq!(ends.look(5_000, 100), 0);
        assert_eq!(ends.look(5_500, 150), 50);
        assert_eq!(ends.look(6_000, 200), 100);
        // The second before counts for less and less.
        assert_eq!(ends.look(6_250, 200), 75);
        assert_eq!(ends.look(6_900, 230), 30 + 10);
        // A long rest.
        assert_eq!(ends.look(16_000, 230), 3);
        assert_eq!(ends.look(30_000, 230), 0);
    }
}
