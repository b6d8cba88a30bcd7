//! Who a connection is, and since when: what is seldom looked at.

use super::u48::U48;
use crate::address::Peer;
use crate::admission::Cell;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};

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
    family: Family,
    /// `draining` was called.
    pub told_of_drain: bool,
}

/// The kind of the peer's address.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Family {
    V4,
    V6,
    /// It has none.
    Unix,
}

impl Identity {
    pub fn new(peer: Peer, listener: u16, opened_ms: U48) -> Self {
        let mut address = [0; 16];
        let (family, port) = match peer {
            Peer::Ip(SocketAddr::V4(peer)) => {
                address[..4].copy_from_slice(&peer.ip().octets());
                (Family::V4, peer.port())
            }
            Peer::Ip(SocketAddr::V6(peer)) => {
                address = peer.ip().octets();
                (Family::V6, peer.port())
            }
            Peer::Unix => (Family::Unix, 0),
        };
        Self { cell: Cell::NONE, address, port, listener, opened_ms, family, told_of_drain: false }
    }

    /// The peer's address, with what is not kept here.
    pub fn peer(&self, flow: u32, scope: u32) -> Peer {
        let [a, b, c, d, ..] = self.address;
        let address = match self.family {
            Family::V4 => SocketAddr::from(([a, b, c, d], self.port)),
            Family::V6 => {
                let ip = Ipv6Addr::from(self.address);
                SocketAddrV6::new(ip, self.port, flow, scope).into()
            }
            Family::Unix => return Peer::Unix,
        };
        Peer::Ip(address)
    }

    /// Returns whether it is a connection of a Unix socket.
    #[inline]
    pub fn is_unix(&self) -> bool {
        self.family == Family::Unix
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
            let identity = Identity::new(peer.into(), 7, U48::ZERO);
            assert_eq!(identity.peer(flow, scope), peer.into());
        };
        same("192.0.2.1:80".parse().unwrap());
        same("0.0.0.0:0".parse().unwrap());
        same("[2001:db8::1]:65535".parse().unwrap());
        // One of IPv4 that came in by IPv6 stays what it is.
        same("[::ffff:192.0.2.1]:80".parse().unwrap());
        same(SocketAddrV6::new("fe80::1".parse().unwrap(), 80, 5, 3).into());
        let unix = Identity::new(Peer::Unix, 7, U48::ZERO);
        assert!(unix.is_unix() && unix.peer(0, 0) == Peer::Unix);
    }

    #[test]
    fn an_identity_stays_small() {
        assert_eq!(size_of::<Identity>(), 32);
    }
}
