//! The options that say how connections reach the server.

use super::parse_address;
use crate::route::{self, Clients, ProxyProtocol, Route};
use clap::Args;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// The options that say how connections reach the server.
#[derive(Clone, Debug, Default, Args)]
pub struct RouteArgs {
    /// Begin every connection with a header of the PROXY protocol, as a proxy in front of the
    /// server does. It names a client from --clients
    #[arg(long, value_name = "VERSION", env = "RINGLOAD_PROXY_PROTOCOL", hide_env = true)]
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Addresses from which clients seem to come, drawn by --seed for each connection: those in the
    /// headers of --proxy-protocol (default 198.18.0.0/15 or 2001:2::/48). idle, churn and replay
    /// without --proxy-protocol: source addresses, such as 127.1.0.0/16 for a server on loopback
    #[arg(long, value_name = "PREFIX", env = "RINGLOAD_CLIENTS", hide_env = true)]
    pub clients: Option<Clients>,
    /// Connect to ADDRESS instead of looking NAME up, for connections to NAME:PORT; repeatable
    #[arg(long, global = true, value_name = "NAME:PORT:ADDRESS")]
    pub resolve: Vec<Resolved>,
}

impl RouteArgs {
    /// Returns the addresses from which connections come.
    #[must_use]
    pub const fn route(&self) -> Route {
        Route { proxy: self.proxy_protocol, clients: self.clients }
    }

    /// Resolves the server, see [`route::resolve`].
    ///
    /// # Errors
    /// The name has no address.
    pub fn address_of(&self, name: &str) -> Result<SocketAddr, String> {
        let is_it = |resolved: &&Resolved| resolved.name.eq_ignore_ascii_case(name);
        match self.resolve.iter().rfind(is_it) {
            Some(resolved) => Ok(resolved.address),
            None => route::resolve(name, self.route()),
        }
    }

    /// Checks the options of a command whose connections cannot be bound to a source address.
    ///
    /// # Errors
    /// The command line has `--clients` without `--proxy-protocol`.
    pub fn check_unbound(&mut self, from_line: impl Fn(&str) -> bool) -> Result<(), String> {
        if self.proxy_protocol.is_none() && self.clients.is_some() {
            if from_line("clients") {
                return Err("--clients needs --proxy-protocol here; only idle, churn and replay \
                            can choose their source addresses"
                    .into());
            }
            // From the environment, for other commands.
            self.clients = None;
        }
        Ok(())
    }
}

/// `--resolve`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// `NAME:PORT`.
    name: String,
    address: SocketAddr,
}

impl fmt::Display for Resolved {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.name, self.address.ip())
    }
}

impl FromStr for Resolved {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once(':').and_then(|(name, rest)| {
            let (port, address) = rest.split_once(':')?;
            let name = parse_address(&format!("{name}:{port}")).ok()?;
            let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
            let address: IpAddr = bare.unwrap_or(address).parse().ok()?;
            Some(Self { name, address: SocketAddr::new(address, port.parse().ok()?) })
        });
        parts.ok_or_else(|| {
            "expected NAME:PORT:ADDRESS, such as example.org:80:127.0.0.1 or a:80:[::1]".into()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_resolved_as_given() {
        let resolve = ["a.test:80:192.0.2.1", "A.test:80:[::1]", "a.test:81:::2"]
            .map(|text| text.parse().expect(text));
        let route = RouteArgs { resolve: resolve.into(), ..RouteArgs::default() };
        let of = |name: &str| route.address_of(name).map(|address| address.to_string());
        assert_eq!(of("a.test:80").as_deref(), Ok("[::1]:80"), "the last one applies");
        assert_eq!(of("A.TEST:81").as_deref(), Ok("[::2]:81"));
        assert_eq!(of("127.0.0.1:82").as_deref(), Ok("127.0.0.1:82"));
        for text in ["", "a", "a:80", "a:80:", "a:80:b", "a::1.2.3.4", ":80:1.2.3.4", "a:0:1.2.3.4"]
        {
            assert!(text.parse::<Resolved>().is_err(), "{text}");
        }
    }
}
