//! What a report consists of.

use crate::load::Stages;
use crate::route::Clients;
use crate::stats::Stats;
use crate::system;
use crate::units::Rate;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::time::{Duration, SystemTime};

/// What decides when the next request is sent.
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

/// What was asked for.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// `http`, `echo` or `packets`.
    pub protocol: &'static str,
    /// The URL or address, as given.
    pub target: String,
    /// What the name in it was resolved to.
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
    /// What decides when the next request is sent.
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

/// What it ran on; with the plan, all that is needed to run it again.
#[derive(Clone, Debug, Serialize)]
pub struct Environment {
    /// `uname -r`.
    pub kernel: String,
    /// CPUs this process may use.
    pub cpus: usize,
    /// What the kernel calls the first of them.
    pub cpu_model: String,
    /// How its clock is governed; none where the kernel does not say.
    pub governor: Option<String>,
    /// Descriptors this process may have open.
    pub descriptors_max: u64,
    /// First and last port that a connect may take by itself.
    pub ports: [u64; 2],
    /// Connections that may wait in a listener's backlog, as far as the kernel goes along.
    pub somaxconn: u64,
    /// Kernel interface of the engine that made the load; none where no engine did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ring: Option<String>,
    /// Seed of the bytes sent; a file has none.
    pub seed: Option<u64>,
    /// The command line.
    pub argv: Vec<String>,
    /// Seconds since 1970 at the start.
    pub started_at_s: u64,
}

impl Environment {
    /// Of this process, now.
    #[must_use]
    pub fn of_this_process(seed: Option<u64>) -> Self {
        Self {
            kernel: system::kernel_release(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            cpu_model: system::cpu_model(),
            governor: system::governor(),
            descriptors_max: system::descriptors_max(),
            ports: system::ports(),
            somaxconn: system::somaxconn(),
            ring: None,
            seed,
            argv: std::env::args_os().map(|part| part.to_string_lossy().into_owned()).collect(),
            started_at_s: SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs()),
        }
    }
}

/// A distribution of times, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[allow(missing_docs)] // The names say it.
pub struct Times {
    pub samples: u64,
    pub mean: f64,
    pub min: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    #[serde(rename = "p99.9")]
    pub p99_9: f64,
    pub max: f64,
}

impl Times {
    /// Of a histogram of nanoseconds.
    #[must_use]
    pub fn of(times: &Histogram<u64>) -> Self {
        let us = |ns: u64| ns as f64 / 1e3;
        // A bucket's value is its upper edge, which may lie beyond the largest value seen.
        let at = |quantile| us(times.value_at_quantile(quantile).min(times.max()));
        Self {
            samples: times.len(),
            mean: times.mean() / 1e3,
            min: if times.is_empty() { 0.0 } else { us(times.min()) },
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            max: us(times.max()),
        }
    }
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
    /// What `stats` counted in `length` up to `elapsed`.
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
