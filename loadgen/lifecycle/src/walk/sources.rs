//! The source addresses of the connections.

use crate::system;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Connects per source address: half of Linux's default ephemeral ports, because ports in TIME_WAIT
/// slow down the search for a free one.
const PER_ADDRESS: u64 = 14_000;
/// Number of source addresses; their last byte counts from 1.
const ADDRESSES: u64 = 250;

/// The source addresses. For a server in 127.0.0.0/8 these are addresses in that range that only
/// this process uses, so that a port can be reused at once. For other servers the kernel chooses.
#[derive(Debug, Default)]
pub struct Sources {
    is_loopback: bool,
    net: [u8; 2],
    count: u64,
    shortage: Option<String>,
}

impl Sources {
    /// Creates the sources for connections to `to`.
    #[must_use]
    pub fn new(to: SocketAddr) -> Self {
        let is_loopback = matches!(to.ip(), IpAddr::V4(ip) if ip.is_loopback());
        let process = std::process::id();
        // Never 127.0.x.x, which other programs use.
        let net = [1 + (process / 250 % 250) as u8, (process % 250) as u8];
        Self { is_loopback, net, count: 0, shortage: None }
    }

    /// Returns the source of the next connection.
    pub(super) const fn next(&mut self) -> Option<SocketAddr> {
        if !self.is_loopback {
            return None;
        }
        let at = self.count / PER_ADDRESS % ADDRESSES;
        self.count += 1;
        let [high, low] = self.net;
        Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, high, low, 1 + at as u8)), 0))
    }

    /// Records that a connection could not be opened for lack of a local resource.
    pub(super) fn short(&mut self, error: &io::Error) {
        if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) {
            self.count = (self.count / PER_ADDRESS + 1) * PER_ADDRESS;
        }
        let what = || match error.raw_os_error() {
            Some(libc::EMFILE) => "ringload has no free file descriptors; raise ulimit -n".into(),
            Some(libc::ENFILE) => {
                "the system has no free file descriptors; raise fs.file-max".into()
            }
            Some(libc::EADDRNOTAVAIL | libc::EADDRINUSE | libc::EAGAIN) => system::no_port(),
            _ => String::from("the kernel has no memory for more sockets; lower --connections"),
        };
        self.shortage.get_or_insert_with(|| format!("{} ({error})", what()));
    }

    /// Returns the first lack of a local resource.
    #[must_use]
    pub fn shortage(&self) -> Option<&str> {
        self.shortage.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_address_is_taken_before_ports_get_short_and_when_they_are() {
        let mut sources = Sources::new(SocketAddr::from(([127, 0, 0, 5], 80)));
        let last = |sources: &mut Sources| match sources.next().expect("one of ours").ip() {
            IpAddr::V4(ip) => ip.octets()[3],
            IpAddr::V6(ip) => panic!("{ip}"),
        };
        assert!((0..PER_ADDRESS).all(|_| last(&mut sources) == 1));
        assert_eq!(last(&mut sources), 2);
        sources.short(&io::Error::from_raw_os_error(libc::EADDRNOTAVAIL));
        assert_eq!(last(&mut sources), 3);
        assert!(sources.shortage().is_some_and(|text| text.contains("ip_local_port_range")));
        assert_eq!(Sources::new(SocketAddr::from(([10, 0, 0, 5], 80))).next(), None);
    }
}
