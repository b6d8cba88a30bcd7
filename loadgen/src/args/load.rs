//! How to load a server: the options of `http`, `echo` and `packets`.

use super::{CONNECTIONS_MAX, CommonArgs, DURATION_MAX};
use crate::report::Pacing;
use crate::units::{parse_count, parse_duration};
use clap::{Args, ValueEnum};
use std::time::Duration;

/// Most requests in flight on a connection.
const PIPELINE_MAX: u64 = 1_024;
/// Most bytes in flight on a connection: they are kept in memory until they are sent.
const FLIGHT_BYTES_MAX: u64 = 64 << 20;
/// Most requests or connections per second.
const RATE_MAX: u64 = 10_000_000;

/// How what is on schedule is spread over the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Arrivals {
    /// Evenly
    Uniform,
    /// As independent clients come: at random, seeded by --seed
    Poisson,
}

impl Arrivals {
    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Poisson => "poisson",
        }
    }
}

/// How to load it.
#[derive(Clone, Debug, Args)]
pub struct LoadArgs {
    /// Connections kept open, each with one request in flight at a time (see --pipeline)
    #[arg(short, long, value_name = "COUNT", default_value = "64",
          env = "RINGLOAD_CONNECTIONS", hide_env = true, value_parser = parse_count)]
    pub connections: u64,
    /// Threads, a ring each
    #[arg(short, long, value_name = "COUNT", default_value = "1",
          env = "RINGLOAD_THREADS", hide_env = true, value_parser = parse_count)]
    pub threads: u64,
    /// Length of the run, at most 24h
    #[arg(short, long, value_name = "TIME", default_value = "10s",
          env = "RINGLOAD_DURATION", hide_env = true, value_parser = parse_duration)]
    pub duration: Duration,
    /// Requests to send, instead of a length of time
    #[arg(short = 'n', long, value_name = "COUNT",
          env = "RINGLOAD_REQUESTS", hide_env = true, value_parser = parse_count)]
    pub requests: Option<u64>,
    /// Send so many requests per second in all, on schedule whether replies come or not (open loop):
    /// latency counts from when a request was to be sent
    #[arg(short = 'R', long, value_name = "COUNT",
          env = "RINGLOAD_RATE", hide_env = true, value_parser = parse_count)]
    pub rate: Option<u64>,
    /// Open so many connections per second in all, on schedule, each for --requests-per-connection
    /// (default 1) requests one after another; -c are the most open at once
    #[arg(long, value_name = "COUNT",
          env = "RINGLOAD_CONN_RATE", hide_env = true, value_parser = parse_count)]
    pub conn_rate: Option<u64>,
    /// How the schedule of --rate or --conn-rate is spread over the time
    #[arg(
        long,
        value_name = "HOW",
        default_value = "uniform",
        env = "RINGLOAD_ARRIVALS",
        hide_env = true
    )]
    pub arrivals: Arrivals,
    /// The server is expected to drain: refused connects, and connections that it ends politely
    /// before it has begun a reply, are counted but no errors
    #[arg(long, env = "RINGLOAD_DRAIN_OK", hide_env = true,
          value_parser = clap::builder::FalseyValueParser::new())]
    pub drain_ok: bool,
    /// Requests in flight on a connection
    #[arg(long, value_name = "COUNT", default_value = "1",
          env = "RINGLOAD_PIPELINE", hide_env = true, value_parser = parse_count)]
    pub pipeline: u64,
    /// Close a connection after so many requests and open another
    #[arg(long, value_name = "COUNT",
          env = "RINGLOAD_REQUESTS_PER_CONNECTION", hide_env = true, value_parser = parse_count)]
    pub requests_per_connection: Option<u64>,
    /// Longest wait for a reply, and for a connect
    #[arg(long, global = true, value_name = "TIME", default_value = "10s",
          env = "RINGLOAD_TIMEOUT", hide_env = true, value_parser = parse_duration)]
    pub timeout: Duration,
    /// Pin the first thread to this CPU of those allowed, counted from 0, the next to the next
    #[arg(long, value_name = "CPU", env = "RINGLOAD_PIN_FROM", hide_env = true)]
    pub pin_from: Option<usize>,
    /// What every kind of run has.
    #[command(flatten)]
    pub common: CommonArgs,
}

impl LoadArgs {
    /// What decides when the next request is sent.
    #[must_use]
    pub const fn pacing(&self) -> Pacing {
        match (self.rate, self.conn_rate) {
            (Some(_), _) => Pacing::Requests,
            (None, Some(_)) => Pacing::Connections,
            (None, None) => Pacing::Closed,
        }
    }

    /// Takes back what the environment asked for and the command line knows better, and refuses
    /// what does not fit together. A message has `message_bytes`; `from_line` tells what the command
    /// line gave.
    ///
    /// # Errors
    /// What does not fit, in words.
    pub fn settle(
        &mut self,
        message_bytes: u64,
        from_line: impl Fn(&str) -> bool,
    ) -> Result<(), String> {
        match (from_line("duration"), from_line("requests")) {
            (true, true) => return Err("give either --duration or --requests, not both".into()),
            // The environment asked for a number of requests; the command line knows better.
            (true, false) => self.requests = None,
            (false, _) => {}
        }
        if self.duration > DURATION_MAX || self.timeout > DURATION_MAX {
            return Err("--duration and --timeout are at most 24h".into());
        }
        if self.connections > CONNECTIONS_MAX {
            return Err(format!("--connections is at most {CONNECTIONS_MAX}"));
        }
        if self.threads > self.connections {
            return Err(format!(
                "--threads {} are more than --connections {}: some would have nothing to do",
                self.threads, self.connections
            ));
        }
        self.check_rates(from_line)?;
        if self.pipeline > PIPELINE_MAX {
            return Err(format!("--pipeline is at most {PIPELINE_MAX}"));
        }
        if message_bytes.saturating_mul(self.pipeline) > FLIGHT_BYTES_MAX {
            return Err("--size times --pipeline is at most 64MiB".into());
        }
        Ok(())
    }

    fn check_rates(&mut self, from_line: impl Fn(&str) -> bool) -> Result<(), String> {
        // The environment asked for one; the command line knows better.
        match (from_line("rate"), from_line("conn_rate")) {
            (true, false) => self.conn_rate = None,
            (false, true) => self.rate = None,
            _ => {}
        }
        for (name, rate) in [("--rate", self.rate), ("--conn-rate", self.conn_rate)] {
            if rate.is_some_and(|rate| rate > RATE_MAX) {
                return Err(format!("{name} is at most 10M"));
            }
        }
        if self.rate.is_some() && self.conn_rate.is_some() {
            return Err("give either --rate or --conn-rate, not both".into());
        }
        if from_line("arrivals") && !self.is_on_schedule() {
            return Err("--arrivals is of --rate or --conn-rate".into());
        }
        Ok(())
    }

    /// Requests after which a connection is closed; `None`: it is kept.
    #[must_use]
    pub fn quota(&self) -> Option<u64> {
        let default = matches!(self.pacing(), Pacing::Connections).then_some(1);
        self.requests_per_connection.or(default)
    }

    /// There is a rate.
    #[must_use]
    pub const fn is_on_schedule(&self) -> bool {
        !matches!(self.pacing(), Pacing::Closed)
    }
}
