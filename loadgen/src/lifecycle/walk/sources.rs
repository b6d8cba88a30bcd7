//! The addresses on our side.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Connects from one address before the next is taken: half the ports that Linux gives out by
/// default, so that those in TIME_WAIT do not make the search for a free one long.
const PER_ADDRESS: u64 = 14_000;
/// Addresses used, the last byte from 1.
const ADDRESSES: u64 = 250;

/// From where connections come. To 127.0.0.0/8 they may come from all of it: from addresses that
/// are this process's alone, so that a port can be taken again at once, one after the other; to
/// elsewhere the kernel chooses.
#[derive(Debug, Default)]
pub struct Sources {
    is_loopback: bool,
    net: [u8; 2],
    count: u64,
    shortage: Option<String>,
}

impl Sources {
    /// For connections to `to`.
    #[must_use]
    pub fn new(to: SocketAddr) -> Self {
        let is_loopback = matches!(to.ip(), IpAddr::V4(ip) if ip.is_loopback());
        let process = std::process::id();
        // Never 127.0.x.x, where everybody else is.
        let net = [1 + (process / 250 % 250) as u8, (process % 250) as u8];
        Self { is_loopback, net, count: 0, shortage: None }
    }

    /// From where the next one comes.
    pub(super) const fn next(&mut self) -> Option<SocketAddr> {
        if !self.is_loopback {
            return None;
        }
        let at = self.count / PER_ADDRESS % ADDRESSES;
        self.count += 1;
        let [high, low] = self.net;
        Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, high, low, 1 + at as u8)), 0))
    }

    /// One could not be opened for want of something here.
    pub(super) fn short(&mut self, error: &io::Error) {
        if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) {
            self.count = (self.count / PER_ADDRESS + 1) * PER_ADDRESS;
        }
        let what = match error.raw_os_error() {
            Some(libc::EMFILE) => "our descriptors are used up; raise ulimit -n",
            Some(libc::ENFILE) => "the system's descriptors are used up; raise fs.file-max",
            Some(libc::EADDRNOTAVAIL | libc::EADDRINUSE | libc::EAGAIN) => {
                "our ports are used up; widen net.ipv4.ip_local_port_range"
            }
            _ => "the kernel has no memory for our sockets",
        };
        self.shortage.get_or_insert_with(|| format!("{what} ({error})"));
    }

    /// What there was first too little of, on our side.
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
