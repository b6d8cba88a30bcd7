//! The parts of a report.

use crate::profile::Stages;
use crate::stats::Stats;
use ringload_lifecycle::report::Times;
use ringload_lifecycle::route::Clients;
use ringload_lifecycle::units::Rate;
use serde::Serialize;
use std::time::Duration;

/// The trigger of the next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Pacing {
    /// The reply to the one before it.
    Closed,
    /// A schedule of requests (`--rate`).
    Requests,
    /// A schedule of connections (`--conn-rate`), each with its requests one after another.
    Connections,
}

/// The options of the run.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// `http`, `echo` or `packets`.
    pub protocol: &'static str,
    /// The URL or address, as given.
    pub target: String,
    /// The resolved address.
    pub address: String,
    /// `-c`.
    pub connections: u64,
    /// `-t`.
    pub threads: u64,
    /// `-d`, unless a number of requests was asked for.
    pub duration_s: Option<f64>,
    /// `-n`.
    pub requests: Option<u64>,
    /// `--pipeline`.
    pub pipeline: u64,
    /// `--requests-per-connection`.
    pub requests_per_connection: Option<u64>,
    /// `--size`, of echo and packets.
    pub size_bytes: Option<u64>,
    /// `--digest-every`, of packets.
    pub digest_every: Option<u64>,
    /// `--think`.
    pub think_s: Option<f64>,
    /// `--timeout`.
    pub timeout_s: f64,
    /// The trigger of the next request.
    pub pacing: Pacing,
    /// `--rate`, requests per second, if it does not change.
    pub rate: Option<Rate>,
    /// The stages of a `--rate` that changes, or of `--stages`.
    pub stages: Option<Stages>,
    /// `--conn-rate`, connections per second.
    pub conn_rate: Option<Rate>,
    /// `--arrivals`, where there is a rate.
    pub arrivals: Option<&'static str>,
    /// `--drain-ok`.
    pub drain_ok: bool,
    /// `--expect-disconnects`.
    pub expect_disconnects: bool,
    /// `--vary-ok`, of http.
    pub vary_ok: bool,
    /// `--proxy-protocol`.
    pub proxy_protocol: Option<&'static str>,
    /// `--clients`.
    pub clients: Option<Clients>,
    /// `--method`, of http without `--urls`.
    pub method: Option<String>,
    /// Size of `--body`, of http.
    pub body_bytes: Option<u64>,
    /// Number of requests in `--urls`, of http.
    pub urls: Option<u64>,
    /// `--expect-status`, of http.
    pub expect_status: Option<String>,
}

/// One line of the output while running.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Interval {
    /// End of the interval, since the start of the run.
    pub elapsed_s: f64,
    /// Replies within it.
    pub replies: u64,
    /// Requests sent within it.
    pub requests: u64,
    /// Replies per second.
    pub replies_per_s: f64,
    /// Bytes received per second.
    pub received_bytes_per_s: f64,
    /// Median of the latency, or of the session, of a run on schedule; else of the service time.
    pub p50_us: f64,
    /// 99th percentile of the same.
    pub p99_us: f64,
    /// Longest of the same.
    pub max_us: f64,
    /// 99th percentile of the schedule lag; none without a schedule.
    pub lag_p99_us: Option<f64>,
    /// Errors within it.
    pub errors: u64,
}

impl Interval {
    /// Makes the interval of `length` up to `elapsed` from its counts.
    #[must_use]
    pub fn of(stats: &Stats, pacing: Pacing, elapsed: Duration, length: Duration) -> Self {
        let times = Times::of(match pacing {
            Pacing::Closed => &stats.service_ns,
            Pacing::Requests => &stats.latency_ns,
            Pacing::Connections => &stats.session_ns,
        });
        let lag_p99_us = (pacing != Pacing::Closed).then(|| Times::of(&stats.lag_ns).p99);
        let seconds = length.as_secs_f64().max(f64::MIN_POSITIVE);
        Self {
            elapsed_s: elapsed.as_secs_f64(),
            replies: stats.replies,
            requests: stats.requests,
            replies_per_s: stats.replies as f64 / seconds,
            received_bytes_per_s: stats.bytes_received as f64 / seconds,
            p50_us: times.p50,
            p99_us: times.p99,
            max_us: times.max,
            lag_p99_us,
            errors: stats.errors.total(),
        }
    }
}
