//! Who a connection is, and since when: what is seldom looked at.

use super::u48::U48;
use crate::admission::Cell;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Of the connection in a slot, beside the fields that each request needs.
#[repr(C)]
pub struct Identity {
    /// Where it is counted by its address.
    pub cell: Cell,
    /// The peer's; one of IPv4 in its first four bytes.
    address: [u8; 16],
    port: u16,
    /// The listener it came from, unless it was made by us.
    pub listener: u16,
    /// When it was opened, ms.
    pub opened_ms: U48,
    is_v6: bool,
    /// `draining` was called.
    pub told_of_drain: bool,
}

impl Identity {
    pub fn new(peer: SocketAddr, listener: u16, opened_ms: U48) -> Self {
        let mut address = [0; 16];
        match peer.ip() {
            IpAddr::V4(ip) => address[..4].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => address = ip.octets(),
        }
        Self {
            cell: Cell::NONE,
            address,
            port: peer.port(),
            listener,
            opened_ms,
            is_v6: peer.is_ipv6(),
            told_of_drain: false,
        }
    }

    /// The peer's address, with what is not kept here.
    pub fn peer(&self, flow: u32, scope: u32) -> SocketAddr {
        if self.is_v6 {
            let ip = Ipv6Addr::from(self.address);
            return SocketAddrV6::new(ip, self.port, flow, scope).into();
        }
        let [a, b, c, d, ..] = self.address;
        SocketAddr::from(([a, b, c, d], self.port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_comes_back_as_it_came() {
        let same = |peer: SocketAddr| {
            let (flow, scope) = match peer {
                SocketAddr::V4(_) => (0, 0),
                SocketAddr::V6(peer) => (peer.flowinfo(), peer.scope_id()),
            };
            assert_eq!(Identity::new(peer, 7, U48::ZERO).peer(flow, scope), peer);
        };
        same("192.0.2.1:80".parse().unwrap());
        same("0.0.0.0:0".parse().unwrap());
        same("[2001:db8::1]:65535".parse().unwrap());
        // One of IPv4 that came in by IPv6 stays what it is.
        same("[::ffff:192.0.2.1]:80".parse().unwrap());
        same(SocketAddrV6::new("fe80::1".parse().unwrap(), 80, 5, 3).into());
    }

    #[test]
    fn an_identity_stays_small() {
        assert_eq!(size_of::<Identity>(), 32);
    }
}
