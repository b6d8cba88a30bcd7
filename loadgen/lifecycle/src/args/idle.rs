//! The options of `idle`.

use super::{CONNECTIONS_MAX, DURATION_MAX, RouteArgs, parse_address};
use crate::http::Url;
use crate::units::{Rate, parse_count, parse_duration};
use clap::{Args, ValueEnum};
use std::time::Duration;

crate::named! {
    /// Protocol of the probes.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
    pub enum HerdProtocol {
        /// Send 32 bytes, which the server must return
        Echo = "echo",
        /// Send a GET; all replies with a status must have the same body, see --vary-ok
        Http = "http",
        /// Send an ECHO packet with 32 bytes, which the server must return
        Packets = "packets",
    }
}

/// The options of `idle`.
#[derive(Clone, Debug, Args)]
pub struct IdleArgs {
    /// The server.
    #[arg(
        value_name = "ADDR",
        help = "The server: HOST:PORT, or http://HOST[:PORT][/PATH] with --protocol http"
    )]
    pub target: String,
    /// Protocol of the probes
    #[arg(
        long,
        value_name = "NAME",
        default_value = "echo",
        env = "RINGLOAD_PROTOCOL",
        hide_env = true
    )]
    pub protocol: HerdProtocol,
    /// Connections to hold
    #[arg(short, long, value_name = "COUNT", default_value = "1k",
          env = "RINGLOAD_CONNECTIONS", hide_env = true, value_parser = parse_count)]
    pub connections: u64,
    /// Time to hold the connections after all are open, at most 24h
    #[arg(long, value_name = "TIME", default_value = "60s",
          env = "RINGLOAD_HOLD", hide_env = true, value_parser = parse_duration)]
    pub hold: Duration,
    /// Interval between two probes of the same connection, at most 24h; the probes of all
    /// connections are spread evenly over it
    #[arg(long, value_name = "TIME", default_value = "10s",
          env = "RINGLOAD_PROBE_EVERY", hide_env = true, value_parser = parse_duration)]
    pub probe_every: Duration,
    /// Connections to open per second. Default: no limit, but at most 256 connects in progress
    #[arg(long, value_name = "RATE", env = "RINGLOAD_CONN_RATE", hide_env = true)]
    pub conn_rate: Option<Rate>,
    /// Longest wait for a connect and for the answer to a probe, at most 24h
    #[arg(long, value_name = "TIME", default_value = "10s",
          env = "RINGLOAD_TIMEOUT", hide_env = true, value_parser = parse_duration)]
    pub timeout: Duration,
    /// Expect the server to drain or restart: refused connects, and connections that it closes
    /// cleanly before the first byte of an answer, are counted but are not losses
    #[arg(long, env = "RINGLOAD_DRAIN_OK", hide_env = true,
          value_parser = clap::builder::FalseyValueParser::new())]
    pub drain_ok: bool,
    /// http: accept that the body differs between replies; status and framing are still checked
    #[arg(long, visible_alias = "bodies-may-vary", env = "RINGLOAD_VARY_OK", hide_env = true,
          value_parser = clap::builder::FalseyValueParser::new())]
    pub vary_ok: bool,
    /// The options that say how connections reach the server.
    #[command(flatten)]
    pub route: RouteArgs,
}

impl IdleArgs {
    /// Returns the unresolved address, and the URL to request with `--protocol http`.
    ///
    /// # Errors
    /// Says which form of address the protocol expects.
    pub fn place(&self) -> Result<(String, Option<Url>), String> {
        match (self.protocol, self.target.contains("://")) {
            (HerdProtocol::Http, true) => {
                let url: Url = self.target.parse()?;
                Ok((url.address.clone(), Some(url)))
            }
            (HerdProtocol::Http, false) => {
                let address = parse_address(&self.target)?;
                let url = format!("http://{address}/").parse()?;
                Ok((address, Some(url)))
            }
            (_, true) => Err("a URL needs --protocol http; otherwise give HOST:PORT".into()),
            (_, false) => parse_address(&self.target).map(|address| (address, None)),
        }
    }

    /// Checks the options.
    ///
    /// # Errors
    /// The address is not valid, or a value is too large.
    pub fn check(&self) -> Result<(), String> {
        self.place().map_err(|wrong| format!("{:?}: {wrong}", self.target))?;
        if self.connections > CONNECTIONS_MAX {
            return Err(format!(
                "--connections {} is too large; the maximum is {CONNECTIONS_MAX}",
                self.connections
            ));
        }
        for (name, time) in
            [("hold", self.hold), ("probe-every", self.probe_every), ("timeout", self.timeout)]
        {
            if time > DURATION_MAX {
                return Err(format!("--{name} must be at most 24h"));
            }
        }
        Ok(())
    }
}
