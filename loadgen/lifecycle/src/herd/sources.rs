//! Source addresses of the connections.
//!
//! A TCP connection is identified by both addresses and both ports. One source address therefore
//! allows as many connections to a server as there are ephemeral ports. For a server on loopback,
//! every address in 127.0.0.0/8 can be a source (ip(7)); otherwise there is only one.

use crate::route::Route;
use crate::system;
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The source addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sources {
    /// The address that the kernel chooses.
    Kernel,
    /// This number of addresses from 127.0.0.1 on, round robin.
    Loopback(u32),
    /// Those of `--clients`, drawn by this seed.
    Clients(Route, u64),
}

impl Sources {
    /// Chooses the sources for `connections` to `to` on a machine with `ports` ephemeral ports.
    ///
    /// # Errors
    /// There are too few ports; the message names a remedy.
    pub fn plan(to: SocketAddr, connections: u64, ports: u64) -> Result<Self, String> {
        // The kernel searches long for one of the last free ports, so half of them stay unused.
        let addresses = connections.div_ceil((ports / 2).max(1));
        match to.ip() {
            IpAddr::V4(ip) if ip.is_loopback() && addresses > 1 => {
                let addresses = u32::try_from(addresses).unwrap_or(u32::MAX);
                // 127.0.0.0 and 127.255.255.255 are not host addresses.
                assert!(addresses < (1 << 24) - 2, "--connections has a far lower limit");
                Ok(Self::Loopback(addresses))
            }
            _ if connections > ports => Err(format!(
                "{connections} connections to {to} need as many ephemeral ports, but there are \
                 {ports} ports; widen net.ipv4.ip_local_port_range, let the server listen on \
                 several ports and run once for each, or lower --connections"
            )),
            _ => Ok(Self::Kernel),
        }
    }

    /// Returns the number of addresses of `connections`.
    #[must_use]
    pub fn count(self, connections: u64) -> u32 {
        match self {
            Self::Kernel => 1,
            Self::Loopback(count) => count,
            Self::Clients(..) => {
                let drawn = (0..connections).filter_map(|number| self.of(number as usize));
                drawn.collect::<HashSet<_>>().len() as u32
            }
        }
    }

    /// Returns the source of connection `number`, or `None` if the kernel chooses it.
    #[must_use]
    pub fn of(self, number: usize) -> Option<SocketAddr> {
        match self {
            Self::Kernel => None,
            Self::Clients(route, seed) => route.source((seed, number as u64)),
            Self::Loopback(count) => {
                let first = u32::from(Ipv4Addr::LOCALHOST);
                let place = u32::try_from(number as u64 % u64::from(count)).unwrap_or_default();
                Some(SocketAddr::from((Ipv4Addr::from(first + place), 0)))
            }
        }
    }
}

/// Returns the number of ephemeral ports (`ip_local_port_range`).
#[must_use]
pub fn local_ports() -> u64 {
    let [first, last] = system::ports();
    last - first + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_small_herd_leaves_from_where_the_kernel_likes() {
        for address in ["127.0.0.1:80", "[::1]:80", "192.0.2.1:80"] {
            assert_eq!(Sources::plan(to(address), 1_000, 28_232), Ok(Sources::Kernel));
        }
        assert_eq!(Sources::Kernel.of(7), None);
    }

    #[test]
    fn a_large_one_on_loopback_has_addresses_enough() {
        let sources = Sources::plan(to("127.0.0.1:80"), 100_000, 28_232).expect("loopback is wide");
        assert_eq!(sources, Sources::Loopback(8));
        let seen: HashSet<_> = (0..100).filter_map(|number| sources.of(number)).collect();
        assert_eq!(seen.len(), 8);
        assert!(seen.contains(&to("127.0.0.1:0")) && seen.contains(&to("127.0.0.8:0")));
    }

    #[test]
    fn ports_that_are_not_there_are_refused_with_a_remedy() {
        for address in ["[::1]:80", "192.0.2.1:80"] {
            let error = Sources::plan(to(address), 30_000, 28_232).expect_err("too many");
            assert!(error.contains("28232 ports") && error.contains("--connections"), "{error}");
        }
        assert!(local_ports() > 0);
    }
}
