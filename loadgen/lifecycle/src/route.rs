//! The addresses from which connections come: bound ones, or those that a header of the PROXY
//! protocol names (doc/proxy-protocol.txt of HAProxy).

use crate::random::scramble;
use crate::system;
use clap::ValueEnum;
use serde::{Serialize, Serializer};
use socket2::{Domain, Socket, Type};
use std::fmt;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::ops::Deref;
use std::os::fd::AsFd;
use std::str::FromStr;
use std::time::Duration;

/// Maximum number of connects in progress of one thread. More could overflow the server's backlog,
/// and the kernel repeats a dropped SYN only after a second.
pub const CONNECTING_MAX: usize = 256;
/// The clients of a header if `--clients` names none: addresses for benchmarks (RFC 2544, 5180).
const V4_CLIENTS: Clients = Clients { first: IpAddr::V4(Ipv4Addr::new(198, 18, 0, 0)), bits: 15 };
const V6_CLIENTS: Clients =
    Clients { first: IpAddr::V6(Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 0)), bits: 48 };
/// Maximum length of a header: that of version 1.
const HEADER_BYTES_MAX: usize = 107;
/// Timeout of the trial connect to each address of a name with several addresses.
const TRIAL: Duration = Duration::from_secs(1);
/// First port that a header names.
const PORT_MIN: u16 = 1_024;

crate::named! {
    /// `--proxy-protocol`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
    pub enum ProxyProtocol {
        /// A line of text
        V1 = "v1",
        /// A binary header
        V2 = "v2",
    }
}

/// `--clients`: all addresses that share their first bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clients {
    first: IpAddr,
    bits: u8,
}

impl Clients {
    /// Returns the address of the connection that `key` (seed and number) stands for.
    fn draw(self, (seed, number): (u64, u64)) -> IpAddr {
        let high = scramble(scramble(seed) ^ number);
        let random = u128::from(high) << 64 | u128::from(scramble(high));
        match self.first {
            IpAddr::V4(first) => {
                let mask = u32::MAX.checked_shr(self.bits.into()).unwrap_or_default();
                Ipv4Addr::from(u32::from(first) | (random as u32 & mask)).into()
            }
            IpAddr::V6(first) => {
                let mask = u128::MAX.checked_shr(self.bits.into()).unwrap_or_default();
                Ipv6Addr::from(u128::from(first) | (random & mask)).into()
            }
        }
    }
}

impl FromStr for Clients {
    type Err = String;

    /// Reads `127.1.0.0/16`, `2001:db8::/32`, `192.0.2.7`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
        let wrong = || "expected addresses such as 127.1.0.0/16 or 2001:db8::/32".to_string();
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => bits_max,
            Some(bits) => bits.parse().ok().filter(|it| *it <= bits_max).ok_or_else(wrong)?,
        };
        let first = match address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shr(bits.into()).unwrap_or_default();
                Ipv4Addr::from(u32::from(v4) & !mask).into()
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shr(bits.into()).unwrap_or_default();
                Ipv6Addr::from(u128::from(v6) & !mask).into()
            }
        };
        Ok(Self { first, bits })
    }
}

impl fmt::Display for Clients {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.first, self.bits)
    }
}

impl Serialize for Clients {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How the connections of a run begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// The header with which each one begins.
    pub proxy: Option<ProxyProtocol>,
    /// The clients that the headers name, or else the source addresses.
    pub clients: Option<Clients>,
}

impl Route {
    /// Returns the header with which the connection to `to` begins. `key` is a seed and a number.
    #[must_use]
    pub fn header(&self, to: SocketAddr, key: (u64, u64)) -> Option<Header> {
        let version = self.proxy?;
        let default = if to.is_ipv4() { V4_CLIENTS } else { V6_CLIENTS };
        let address = self.clients.unwrap_or(default).draw(key);
        let ports = u64::from(u16::MAX - PORT_MIN) + 1;
        let port = PORT_MIN + (scramble(key.0 ^ scramble(key.1)) % ports) as u16;
        Some(Header::new(version, SocketAddr::new(address, port), to))
    }

    /// Returns the address to which the connection's socket is bound, with port 0.
    #[must_use]
    pub fn source(&self, key: (u64, u64)) -> Option<SocketAddr> {
        let clients = self.clients.filter(|_| self.proxy.is_none())?;
        Some(SocketAddr::new(clients.draw(key), 0))
    }

    /// Checks that sockets can be bound to the clients, if they have to be, and then connect to
    /// `to`.
    ///
    /// # Errors
    /// Names the address.
    pub fn check(&self, to: SocketAddr) -> Result<(), String> {
        let Some(source) = self.source((0, 0)) else { return Ok(()) };
        let clients = self.clients.expect("there is a source");
        if source.is_ipv4() != to.is_ipv4() {
            return Err(format!("--clients {clients} and {to} are of different families"));
        }
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None);
        socket.and_then(|socket| socket.bind(&source.into())).map_err(|error| {
            format!(
                "--clients {clients}: cannot use {} as a source address: {error}; use addresses \
                 of this machine (127.1.0.0/16 for a server on loopback), or --proxy-protocol",
                source.ip()
            )
        })
    }

    /// Opens a connection that blocks, and sends its header.
    ///
    /// # Errors
    /// errno of connect(2) and send(2); `TimedOut` after `timeout`.
    pub fn open(
        &self,
        to: SocketAddr,
        key: (u64, u64),
        timeout: Duration,
    ) -> io::Result<TcpStream> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        if let Some(source) = self.source(key) {
            system::bind_no_port(socket.as_fd())?;
            socket.bind(&source.into())?;
        }
        socket.connect_timeout(&to.into(), timeout)?;
        let mut stream = TcpStream::from(socket);
        stream.set_write_timeout(Some(timeout))?;
        stream.write_all(self.header(to, key).as_deref().unwrap_or_default())?;
        Ok(stream)
    }
}

/// A header of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    bytes: [u8; HEADER_BYTES_MAX],
    length: usize,
}

impl Header {
    /// Creates the header of a TCP connection from `source` to `destination`. If their families
    /// differ, both are IPv6 addresses in it.
    #[must_use]
    pub fn new(version: ProxyProtocol, source: SocketAddr, destination: SocketAddr) -> Self {
        let ips = match (source.ip(), destination.ip()) {
            (IpAddr::V4(source), IpAddr::V6(destination)) => {
                (source.to_ipv6_mapped().into(), destination.into())
            }
            (IpAddr::V6(source), IpAddr::V4(destination)) => {
                (source.into(), destination.to_ipv6_mapped().into())
            }
            same => same,
        };
        let ports = (source.port(), destination.port());
        let mut bytes = [0; HEADER_BYTES_MAX];
        let mut rest = &mut bytes[..];
        let written = match version {
            ProxyProtocol::V1 => write_text(&mut rest, ips, ports),
            ProxyProtocol::V2 => write_binary(&mut rest, ips, ports),
        };
        written.expect("the array has room for the longest header");
        let length = HEADER_BYTES_MAX - rest.len();
        Self { bytes, length }
    }
}

impl Deref for Header {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

fn write_text(out: &mut &mut [u8], ips: (IpAddr, IpAddr), ports: (u16, u16)) -> io::Result<()> {
    let family = if ips.0.is_ipv4() { "TCP4" } else { "TCP6" };
    write!(out, "PROXY {family} {} {} {} {}\r\n", ips.0, ips.1, ports.0, ports.1)
}

fn write_binary(out: &mut &mut [u8], ips: (IpAddr, IpAddr), ports: (u16, u16)) -> io::Result<()> {
    // Version 2, command PROXY.
    out.write_all(b"\r\n\r\n\0\r\nQUIT\n\x21")?;
    // Family and protocol (TCP), and the length of the addresses.
    out.write_all(if ips.0.is_ipv4() { &[0x11, 0, 12] } else { &[0x21, 0, 36] })?;
    for ip in [ips.0, ips.1] {
        match ip {
            IpAddr::V4(v4) => out.write_all(&v4.octets())?,
            IpAddr::V6(v6) => out.write_all(&v6.octets())?,
        }
    }
    out.write_all(&ports.0.to_be_bytes())?;
    out.write_all(&ports.1.to_be_bytes())
}

/// Resolves the server. If it has several addresses (`localhost` has two), returns the first one
/// that answers to a connection of `route`.
///
/// # Errors
/// The name has no address.
pub fn resolve(name: &str, route: Route) -> Result<SocketAddr, String> {
    let addresses = ringwright_names::resolve(name)
        .map_err(|error| format!("cannot resolve {name}: {error}"))?;
    let answers = |to: &&SocketAddr| route.open(**to, (0, u64::MAX), TRIAL).is_ok();
    match &addresses[..] {
        [only] => Ok(*only),
        all => Ok(*all.iter().find(answers).unwrap_or(&all[0])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn text(header: Header) -> String {
        String::from_utf8(header.to_vec()).expect("text")
    }

    #[test]
    fn headers_are_as_the_specification_says() {
        let (v4, v6) = (("192.168.0.1:56324", "192.168.0.11:443"), ("[2001:db8::1]:1", "[::2]:2"));
        let header = |version, source: &str, destination: &str| {
            Header::new(version, address(source), address(destination))
        };
        assert_eq!(
            text(header(ProxyProtocol::V1, v4.0, v4.1)),
            "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"
        );
        assert_eq!(
            text(header(ProxyProtocol::V1, v6.0, v6.1)),
            "PROXY TCP6 2001:db8::1 ::2 1 2\r\n"
        );
        assert_eq!(
            text(header(ProxyProtocol::V1, v4.0, v6.1)),
            "PROXY TCP6 ::ffff:192.168.0.1 ::2 56324 2\r\n"
        );
        assert_eq!(
            header(ProxyProtocol::V2, v4.0, v4.1)[..],
            *b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\xa8\0\x01\xc0\xa8\0\x0b\xdc\x04\x01\xbb"
        );
        let binary = header(ProxyProtocol::V2, v6.0, v4.1);
        assert_eq!((binary.len(), &binary[12..16]), (52, &[0x21, 0x21, 0, 36][..]));
        assert_eq!(binary[42..], [255, 255, 192, 168, 0, 11, 0, 1, 1, 187]);
        let long = format!("[{}ffff]:65535", "ffff:".repeat(7));
        assert_eq!(header(ProxyProtocol::V1, &long, &long).len(), 104);
    }

    #[test]
    fn clients_are_drawn_from_the_whole_prefix() {
        for (prefix, shown, count) in [
            ("127.1.0.9/29", "127.1.0.8/29", 8),
            ("192.0.2.7", "192.0.2.7/32", 1),
            ("2001:db8::/125", "2001:db8::/125", 8),
            ("::1", "::1/128", 1),
        ] {
            let clients: Clients = prefix.parse().expect(prefix);
            assert_eq!(clients.to_string(), shown);
            let drawn: HashSet<_> = (0..1_000).map(|number| clients.draw((7, number))).collect();
            assert_eq!(drawn.len(), count, "{prefix}");
            let bits = clients.bits;
            let again = |ip: &IpAddr| format!("{ip}/{bits}").parse() == Ok(clients);
            assert!(drawn.iter().all(again), "{drawn:?}");
        }
        let all: Clients = "0.0.0.0/0".parse().expect("all");
        let drawn = |seed| (0..99).map(|number| all.draw((seed, number))).collect::<HashSet<_>>();
        assert!(drawn(1).len() == 99 && drawn(1).is_disjoint(&drawn(2)));
        for text in ["", "127.1", "127.1.0.0/33", "::/129", "127.1.0.0/", "localhost", "[::1]"] {
            assert!(text.parse::<Clients>().is_err(), "{text}");
        }
    }

    #[test]
    fn clients_are_named_or_bound() {
        let to = address("127.0.0.1:80");
        let clients = Some("127.1.0.0/16".parse().expect("a prefix"));
        let bound = Route { proxy: None, clients };
        assert!(bound.header(to, (7, 1)).is_none());
        let source = bound.source((7, 1)).expect("an address");
        assert!(source.to_string().starts_with("127.1.") && source.port() == 0, "{source}");
        let named = Route { proxy: Some(ProxyProtocol::V1), clients };
        assert!(named.source((7, 1)).is_none());
        let header = text(named.header(to, (7, 1)).expect("a header"));
        assert!(header.starts_with(&format!("PROXY TCP4 {} 127.0.0.1 ", source.ip())), "{header}");
        // Without --clients, the addresses are those for benchmarks.
        let plain = Route { clients: None, ..named };
        let header = text(plain.header(to, (7, 1)).expect("a header"));
        let (v4, v6) = (["PROXY TCP4 198.18.", "PROXY TCP4 198.19."], "PROXY TCP6 2001:2:0:");
        assert!(v4.iter().any(|start| header.starts_with(start)), "{header}");
        let header = text(plain.header(address("[::1]:80"), (7, 1)).expect("a header"));
        assert!(header.starts_with(v6), "{header}");
    }

    #[test]
    fn addresses_that_cannot_be_bound_are_refused() {
        let check = |clients: &str, to| {
            let clients = Some(clients.parse().expect("a prefix"));
            Route { proxy: None, clients }.check(address(to))
        };
        assert_eq!(check("127.1.0.0/16", "127.0.0.1:80"), Ok(()));
        let error = check("192.0.2.0/24", "127.0.0.1:80").expect_err("not of this machine");
        assert!(error.contains("as a source address"), "{error}");
        let error = check("127.1.0.0/16", "[::1]:80").expect_err("another family");
        assert!(error.contains("different families"), "{error}");
        assert_eq!(Route::default().check(address("127.0.0.1:80")), Ok(()));
    }

    #[test]
    fn an_address_that_answers_is_preferred() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let to = listener.local_addr().expect("its address");
        assert_eq!(resolve(&to.to_string(), Route::default()), Ok(to));
        assert_eq!(resolve(&format!("localhost:{}", to.port()), Route::default()), Ok(to));
        assert!(resolve("no port", Route::default()).is_err());
    }
}
