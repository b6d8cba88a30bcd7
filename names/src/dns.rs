//! A client of the name servers that resolv.conf(5) names.

mod exchange;

use crate::Error;
pub use exchange::local_socket;
use exchange::{Failure, Kind, ask};
use resolv_conf::{Config, ScopedIp};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::time::{Duration, Instant};

/// Limits of resolv.conf(5).
const SERVERS_MAX: usize = 3;
const SEARCH_MAX: usize = 6;
const ATTEMPTS_MAX: u32 = 5;

/// The name servers and the way to ask them.
pub struct Servers {
    servers: Vec<SocketAddr>,
    search: Vec<String>,
    /// A name with fewer dots is first looked up in the search domains.
    ndots: usize,
    attempts: u32,
    attempt_timeout: Duration,
    patience: Duration,
    over_tcp: bool,
}

impl Servers {
    /// Takes the settings of a resolv.conf file. Wrong lines are ignored, as by the C library.
    pub fn new(resolv_conf: &[u8], patience: Duration) -> Self {
        let (config, _) = Config::parse_with_errors(resolv_conf);
        let servers = config.get_nameservers_or_local();
        let search = config.get_last_search_or_domain();
        Self {
            servers: servers.iter().filter_map(server).take(SERVERS_MAX).collect(),
            search: search.take(SEARCH_MAX).cloned().collect(),
            ndots: config.ndots as usize,
            attempts: config.attempts.clamp(1, ATTEMPTS_MAX),
            attempt_timeout: Duration::from_secs(u64::from(config.timeout.max(1))),
            patience,
            over_tcp: config.use_vc,
        }
    }

    /// Returns the addresses of a name.
    pub fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, Error> {
        let begun = Instant::now();
        let mut worst = Error::Invalid;
        for candidate in self.candidates(name) {
            match self.addresses_of(&candidate, begun) {
                Ok(found) => return Ok(found),
                // A failure says more than an answer that a name of the search list is unknown.
                Err(error) if rank(&error) >= rank(&worst) => worst = error,
                Err(_) => {}
            }
            if begun.elapsed() >= self.patience {
                break;
            }
        }
        Err(worst)
    }

    /// The full names to ask for, in their order.
    fn candidates(&self, name: &str) -> Vec<String> {
        if let Some(full) = name.strip_suffix('.') {
            return vec![full.to_owned()];
        }
        let below = self.search.iter().map(|domain| domain.trim_matches('.'));
        let below = below.filter(|domain| !domain.is_empty());
        let mut all: Vec<String> = below.map(|domain| format!("{name}.{domain}")).collect();
        let is_full = name.matches('.').count() >= self.ndots;
        all.insert(if is_full { 0 } else { all.len() }, name.to_owned());
        all
    }

    fn addresses_of(&self, name: &str, begun: Instant) -> Result<Vec<IpAddr>, Error> {
        let (mut found, server) = self.ask_all(name, Kind::V4, begun)?;
        // Some name servers never answer this question. It must not hide the IPv4 addresses.
        match self.ask_all(name, Kind::V6, begun) {
            Ok((more, _)) => found.extend(more),
            Err(error) if found.is_empty() => return Err(error),
            Err(_) => {}
        }
        if found.is_empty() { Err(Error::NoAddress { server }) } else { Ok(found) }
    }

    /// Asks one server after the other until one answers, and returns which one.
    fn ask_all(
        &self,
        name: &str,
        kind: Kind,
        begun: Instant,
    ) -> Result<(Vec<IpAddr>, SocketAddr), Error> {
        let mut failures: Vec<(SocketAddr, String)> = Vec::new();
        let rounds = (0..self.attempts).flat_map(|_| &self.servers);
        for (done, server) in rounds.enumerate() {
            let left = self.patience.saturating_sub(begun.elapsed());
            let tries_left = (self.attempts as usize * self.servers.len() - done) as u32;
            let timeout = self.attempt_timeout.min(left / tries_left);
            let why = match ask(*server, name, kind, timeout, self.over_tcp) {
                Ok(found) => return Ok((found, *server)),
                Err(Failure::Unknown) => return Err(Error::Unknown { server: *server }),
                Err(Failure::Invalid) => return Err(Error::Invalid),
                Err(Failure::NoAnswer(why)) => why,
            };
            failures.retain(|(failed, _)| failed != server);
            failures.push((*server, why));
        }
        Err(Error::NoAnswer { failures, elapsed: begun.elapsed() })
    }
}

/// The error of several names is the one with the highest rank.
fn rank(error: &Error) -> u8 {
    match error {
        Error::Form | Error::Invalid => 0,
        Error::Unknown { .. } => 1,
        Error::NoAddress { .. } => 2,
        Error::NoAnswer { .. } => 3,
    }
}

fn server(ip: &ScopedIp) -> Option<SocketAddr> {
    const PORT: u16 = 53;
    match ip {
        ScopedIp::V4(ip) => Some((*ip, PORT).into()),
        ScopedIp::V6(ip, None) => Some((*ip, PORT).into()),
        ScopedIp::V6(ip, Some(scope)) => {
            let scope = crate::literal::interface(scope)?;
            Some(SocketAddrV6::new(*ip, PORT, 0, scope).into())
        }
    }
}

#[cfg(test)]
mod tests;
