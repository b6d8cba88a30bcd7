//! Connections counted by address, as JSON. Nothing in an address needs escaping.

use crate::clients::Clients;
use ringwright::{ConnectionInfo, Peer};
use std::collections::{BTreeMap, HashMap};
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
pub struct Counts(HashMap<Address, Count>);

#[derive(Debug, Default)]
struct Count {
    connections: u64,
    /// Those that came from proxies, by the address of the proxy.
    by_proxy: BTreeMap<Address, u64>,
}

impl Counts {
    /// Counts these connections by their clients.
    pub fn add(&mut self, connections: &[ConnectionInfo], clients: &Clients) {
        for connection in connections {
            let client = clients.of(connection);
            let count = self.0.entry(Address::of(client)).or_default();
            count.connections += 1;
            if client != connection.peer {
                *count.by_proxy.entry(Address::of(connection.peer)).or_default() += 1;
            }
        }
    }

    /// The `limit` addresses with the most connections, and how many there are of both.
    #[must_use]
    pub fn to_json(&self, limit: usize) -> String {
        let mut all: Vec<(&Address, &Count)> = self.0.iter().collect();
        all.sort_unstable_by_key(|(address, count)| (u64::MAX - count.connections, *address));
        let connections: u64 = all.iter().map(|(_, count)| count.connections).sum();
        let mut json = "{\"addresses\":[".to_owned();
        for (at, (address, count)) in all.iter().take(limit).enumerate() {
            let comma = if at == 0 { "" } else { "," };
            let Count { connections, by_proxy } = count;
            let _ =
                write!(json, "{comma}{{\"address\":\"{address}\",\"connections\":{connections}");
            if !by_proxy.is_empty() {
                let sockets = by_proxy.iter().map(|(proxy, count)| {
                    format!("{{\"address\":\"{proxy}\",\"connections\":{count}}}")
                });
                let sockets = sockets.collect::<Vec<_>>().join(",");
                let _ = write!(json, ",\"sockets\":[{sockets}]");
            }
            json.push('}');
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

    fn connection(peer: &str) -> ConnectionInfo {
        numbered(0, peer)
    }

    fn numbered(number: u64, peer: &str) -> ConnectionInfo {
        let peer = peer.parse().map_or(Peer::Unix, Peer::Ip);
        ConnectionInfo::new(ConnectionId::from_number(number), peer, Origin::Listener(0))
    }

    #[test]
    fn the_most_frequent_come_first() {
        let (mut counts, none) = (Counts::default(), Clients::default());
        counts.add(&[connection("192.0.2.7:1"), connection("192.0.2.9:1")], &none);
        let others = [
            connection("[2001:db8::1]:5"),
            connection("[2001:db8::ff:1]:5"),
            connection("[2001:db8:0:1::1]:5"),
            connection("[::ffff:192.0.2.9]:3"),
            connection("192.0.2.9:2"),
            connection("unix:"),
        ];
        counts.add(&others, &none);
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

    #[test]
    fn clients_behind_proxies_are_counted_by_their_own_address() {
        let (mut counts, clients) = (Counts::default(), Clients::default());
        for (number, client) in [(1, "192.0.2.7:1"), (2, "192.0.2.7:2"), (3, "[2001:db8::1]:1")] {
            clients.add(ConnectionId::from_number(number), client.parse().unwrap());
        }
        counts.add(
            &[
                numbered(1, "10.0.0.1:5"),
                numbered(2, "10.0.0.2:5"),
                numbered(3, "unix:"),
                numbered(4, "192.0.2.7:9"),
                numbered(5, "10.0.0.1:6"),
            ],
            &clients,
        );
        let one = |address, count| json!({"address": address, "connections": count});
        let through = |address, count, sockets: &[Value]| json!({"address": address, "connections": count, "sockets": sockets});
        let expected = [
            through("192.0.2.7", 3, &[one("10.0.0.1", 1), one("10.0.0.2", 1)]),
            one("10.0.0.1", 1),
            through("2001:db8::/64", 1, &[one("unix:", 1)]),
        ];
        let found: Value = serde_json::from_str(&counts.to_json(9)).unwrap();
        assert_eq!(found, json!({"addresses": expected, "total": 3, "connections": 5}));
    }
}
