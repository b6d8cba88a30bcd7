//! The proxies that a configuration believes: addresses, and clients of Unix sockets.

use ringwright::Prefix;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// The word for clients of Unix sockets, which have no address.
const UNIX: &str = "unix";

/// A proxy as a configuration names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proxy {
    /// All clients with an address of this prefix.
    Network(Prefix),
    /// All clients of Unix sockets.
    Unix,
}

impl FromStr for Proxy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == UNIX {
            return Ok(Self::Unix);
        }
        text.parse().map(Self::Network).map_err(|error| format!("{error}, or {UNIX}"))
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(prefix) => prefix.fmt(f),
            Self::Unix => f.write_str(UNIX),
        }
    }
}

/// The proxies of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    networks: Vec<Prefix>,
    unix: bool,
}

impl Proxies {
    /// Returns whether a client is one of them. `None`: a client of a Unix socket. An IPv4-mapped
    /// address is an IPv4 address.
    #[must_use]
    pub fn has(&self, client: Option<IpAddr>) -> bool {
        let Some(ip) = client.map(|ip| ip.to_canonical()) else { return self.unix };
        self.networks.iter().any(|prefix| prefix.contains(ip))
    }

    /// Returns whether nobody is one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && !self.unix
    }

    /// Those that have an address.
    #[must_use]
    pub fn networks(&self) -> &[Prefix] {
        &self.networks
    }
}

impl FromIterator<Proxy> for Proxies {
    fn from_iter<I: IntoIterator<Item = Proxy>>(all: I) -> Self {
        let mut proxies = Self::default();
        for proxy in all {
            match proxy {
                Proxy::Network(prefix) => proxies.networks.push(prefix),
                Proxy::Unix => proxies.unix = true,
            }
        }
        proxies
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_of_unix_sockets_are_believed_only_if_they_are_named() {
        let of =
            |texts: &[&str]| -> Proxies { texts.iter().map(|it| it.parse().unwrap()).collect() };
        let ip = |text: &str| Some(text.parse().unwrap());
        let everybody = of(&["0.0.0.0/0", "::/0"]);
        assert!(everybody.has(ip("192.0.2.1")) && !everybody.has(None));
        let unix = of(&["unix", "192.0.2.0/24"]);
        assert!(unix.has(None) && unix.has(ip("192.0.2.1")) && unix.has(ip("::ffff:192.0.2.1")));
        assert!(!unix.has(ip("198.51.100.1")) && !Proxies::default().has(None));
        assert!("unix:/run/a".parse::<Proxy>().is_err());
        assert_eq!(Proxy::Unix.to_string(), "unix");
    }
}
