//! Connections counted by address, as JSON. Nothing in an address needs escaping.

use ringwright::{ConnectionInfo, Peer};
use std::collections::HashMap;
use std::fmt::{self, Display, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IPv4 address or an IPv6 /64, which --max-per-ip counts as one client; or all clients of Unix
/// sockets, which have no such limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Address {
    V4(Ipv4Addr),
    /// The first address of the /64.
    V6(Ipv6Addr),
    Unix,
}

impl Address {
    fn of(peer: Peer) -> Self {
        match peer.ip().map(|ip| ip.to_canonical()) {
            Some(IpAddr::V4(address)) => Self::V4(address),
            Some(IpAddr::V6(address)) => {
                Self::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64))
            }
            None => Self::Unix,
        }
    }
}

impl Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(address) => write!(f, "{address}"),
            Self::V6(address) => write!(f, "{address}/64"),
            Self::Unix => Peer::Unix.fmt(f),
        }
    }
}

/// The number of connections of each address.
#[derive(Debug, Default)]
pub struct Counts(HashMap<Address, u64>);

impl Counts {
    /// Counts these connections.
    pub fn add(&mut self, connections: &[ConnectionInfo]) {
        for connection in connections {
            *self.0.entry(Address::of(connection.peer)).or_default() += 1;
        }
    }

    /// The `limit` addresses with the most connections, and how many there are of both.
    #[must_use]
    pub fn to_json(&self, limit: usize) -> String {
        let mut all: Vec<(Address, u64)> = self.0.iter().map(|(it, count)| (*it, *count)).collect();
        all.sort_unstable_by_key(|(address, count)| (u64::MAX - count, *address));
        let connections: u64 = all.iter().map(|(_, count)| count).sum();
        let mut json = "{\"addresses\":[".to_owned();
        for (at, (address, count)) in all.iter().take(limit).enumerate() {
            let comma = if at == 0 { "" } else { "," };
            let _ = write!(json, "{comma}{{\"address\":\"{address}\",\"connections\":{count}}}");
        }
        let _ = write!(json, "],\"total\":{},\"connections\":{connections}}}", all.len());
        json
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringwright::{ConnectionId, Origin};
    use serde_json::{Value, json};
    use std::time::Duration;

    fn connection(peer: &str) -> ConnectionInfo {
        ConnectionInfo {
            id: ConnectionId::from_number(0),
            peer: peer.parse().map_or(Peer::Unix, Peer::Ip),
            origin: Origin::Listener(0),
            state: "open",
            age: Duration::ZERO,
            idle: Duration::ZERO,
            queued_bytes: 0,
        }
    }

    #[test]
    fn the_most_frequent_come_first() {
        let mut counts = Counts::default();
        counts.add(&[connection("192.0.2.7:1"), connection("192.0.2.9:1")]);
        counts.add(&[
            connection("[2001:db8::1]:5"),
            connection("[2001:db8::ff:1]:5"),
            connection("[2001:db8:0:1::1]:5"),
            connection("[::ffff:192.0.2.9]:3"),
            connection("192.0.2.9:2"),
            connection("unix:"),
        ]);
        let parsed = |limit| serde_json::from_str::<Value>(&counts.to_json(limit)).unwrap();
        let one = |address, count| json!({"address": address, "connections": count});
        let all = [
            one("192.0.2.9", 3),
            one("2001:db8::/64", 2),
            one("192.0.2.7", 1),
            one("2001:db8:0:1::/64", 1),
            one("unix:", 1),
        ];
        assert_eq!(parsed(5), json!({"addresses": all, "total": 5, "connections": 8}));
        assert_eq!(parsed(2), json!({"addresses": all[..2], "total": 5, "connections": 8}));
        let none: Value = serde_json::from_str(&Counts::default().to_json(9)).unwrap();
        assert_eq!(none, json!({"addresses": [], "total": 0, "connections": 0}));
    }
}
