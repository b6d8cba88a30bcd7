//! Resolves `HOST:PORT` without getaddrinfo(3), which loads shared libraries even into a program
//! that is linked statically.
//!
//! An IP address is taken as it is. A name is looked up in /etc/hosts (hosts(5)), then by the name
//! servers of /etc/resolv.conf (resolv.conf(5)). `localhost` and the names below it never leave
//! this machine (RFC 6761 section 6.3). nsswitch.conf(5) is not read.

mod dns;
mod error;
mod hosts;
mod literal;

use dns::Servers;
pub use error::Error;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

const HOSTS: &str = "/etc/hosts";
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// The longest time that the name servers of one name get, all retries included.
const PATIENCE: Duration = Duration::from_secs(5);

/// Returns the addresses of `HOST:PORT`: at least one, each once, the best ones first. Blocks for
/// at most 5 seconds.
///
/// # Errors
/// The text is not `HOST:PORT`, or the name has no address.
///
/// # Examples
/// ```
/// let address = "[::1]:80".parse()?;
/// assert_eq!(ringwright_names::resolve("[::1]:80")?, [address]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn resolve(text: &str) -> Result<Vec<SocketAddr>, Error> {
    // Missing files are empty ones, as for the C library.
    let read = |path: &str| fs::read(path).unwrap_or_default();
    resolve_by(text, &read(HOSTS), || Servers::new(&read(RESOLV_CONF), PATIENCE))
}

fn resolve_by(
    text: &str,
    hosts: &[u8],
    servers: impl FnOnce() -> Servers,
) -> Result<Vec<SocketAddr>, Error> {
    if let Ok(address) = text.parse() {
        return Ok(vec![address]);
    }
    let (host, port) = text.rsplit_once(':').ok_or(Error::Form)?;
    let port = port.parse().map_err(|_| Error::Form)?;
    if let Some(address) = literal::address(host, port) {
        return Ok(vec![address]);
    }
    if host.is_empty() || host.contains([':', '[', ']', '%', '/', ' ']) {
        return Err(Error::Form);
    }
    let mut found = hosts::addresses(&String::from_utf8_lossy(hosts), host, port);
    if found.is_empty() && is_localhost(host) {
        let (v4, v6) = (Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
        found = vec![SocketAddr::from((v6, port)), SocketAddr::from((v4, port))];
    }
    if found.is_empty() {
        let addresses = servers().addresses(host)?;
        found = addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect();
    }
    Ok(ordered(found))
}

fn is_localhost(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let top = host.rsplit('.').next();
    top.is_some_and(|label| label.eq_ignore_ascii_case("localhost"))
}

/// Each address once: those to which this machine has a route first, then IPv6 before IPv4. These
/// are the rules 1 and 6 of RFC 6724 section 6, which getaddrinfo(3) follows.
fn ordered(found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let mut all: Vec<SocketAddr> = Vec::new();
    for address in found {
        if !all.contains(&address) {
            all.push(address);
        }
    }
    if all.len() > 1 {
        all.sort_by_cached_key(|address| (!has_route(*address), address.is_ipv4()));
    }
    all
}

/// connect(2) of a UDP socket looks up the route and sends nothing.
fn has_route(address: SocketAddr) -> bool {
    dns::local_socket(address).and_then(|socket: UdpSocket| socket.connect(address)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTS_FILE: &[u8] = b"127.0.0.1 both.test\n::1 both.test\n192.0.2.7 Alias.test other\n";

    fn no_servers() -> Servers {
        panic!("no name server is asked")
    }

    fn resolved(text: &str) -> Vec<String> {
        let found = resolve_by(text, HOSTS_FILE, no_servers);
        found.expect(text).iter().map(SocketAddr::to_string).collect()
    }

    #[test]
    fn addresses_and_names_of_this_machine_ask_no_server() {
        for (text, expected) in [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("[::1]:80", "[::1]:80"),
            ("::1:80", "[::1]:80"),
            ("127.1:80", "127.0.0.1:80"),
            ("0:80", "0.0.0.0:80"),
            ("alias.TEST:1", "192.0.2.7:1"),
            ("other.:1", "192.0.2.7:1"),
        ] {
            assert_eq!(resolved(text), [expected], "{text}");
        }
    }

    #[test]
    fn localhost_needs_no_file() {
        for name in ["localhost", "LocalHost.", "www.localhost"] {
            let mut found = resolved(&format!("{name}:80"));
            found.sort_unstable();
            assert_eq!(found, ["127.0.0.1:80", "[::1]:80"], "{name}");
        }
        let hosts = b"192.0.2.9 localhost";
        let found = resolve_by("localhost:80", hosts, no_servers).expect("the file has it");
        assert_eq!(found, ["192.0.2.9:80".parse().expect("an address")]);
    }

    #[test]
    fn every_address_of_a_name_is_found_once() {
        let mut found = resolved("both.test:80");
        found.sort_unstable();
        assert_eq!(found, ["127.0.0.1:80", "[::1]:80"]);
        let twice = vec!["192.0.2.9:1".parse().expect("an address"); 2];
        assert_eq!(ordered(twice).len(), 1);
    }

    #[test]
    fn an_address_with_a_route_comes_first() {
        // No machine has an interface with this number.
        let [nowhere, here] = ["[fe80::1%4294967295]:80", "127.0.0.1:80"]
            .map(|text| text.parse::<SocketAddr>().expect("an address"));
        assert_eq!(ordered(vec![nowhere, here]), [here, nowhere]);
    }

    #[test]
    fn anything_but_a_host_and_a_port_is_refused() {
        for text in
            ["", "localhost", "localhost:", ":80", "localhost:x", "localhost:65536", "::1", "[a]:1"]
        {
            let error = resolve_by(text, HOSTS_FILE, no_servers).expect_err(text);
            assert!(matches!(error, Error::Form), "{text}: {error}");
        }
    }
}
