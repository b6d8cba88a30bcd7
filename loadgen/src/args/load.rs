//! How to load a server: the options of `http`, `echo` and `packets`.

use super::CommonArgs;
use crate::units::{parse_count, parse_duration};
use clap::Args;
use std::time::Duration;

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
