//! The parts that reports of all kinds share.

use crate::system;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::time::SystemTime;

/// Resolution of recorded times, nanoseconds.
const TIME_MIN_NS: u64 = 100;
/// Largest recorded time, nanoseconds: an hour. Longer times count as this.
const TIME_MAX_NS: u64 = 3_600_000_000_000;
/// Significant decimal digits of a recorded time.
const DIGITS: u8 = 3;

/// Changes when a field changes its meaning or goes; fields may be added without.
pub const SCHEMA: u32 = 1;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Every reply was right.
    Passed,
    /// Errors were seen, or there was no reply at all.
    Failed,
    /// Nothing could be connected to.
    Unreachable,
    /// Every reply was right, but ringload could not keep to its schedule, or had no local ports:
    /// the times are its own, not the server's.
    Saturated,
    /// SIGINT, SIGTERM or SIGHUP.
    Interrupted,
}

impl Outcome {
    /// The exit status of the process.
    #[must_use]
    pub const fn exit_status(self) -> u8 {
        match self {
            Self::Passed => 0,
            Self::Failed => 1,
            Self::Unreachable => 3,
            Self::Saturated => 4,
            Self::Interrupted => 130,
        }
    }
}

/// The machine and command of a run; with the plan, the run can be repeated.
#[derive(Clone, Debug, Serialize)]
pub struct Environment {
    /// `uname -r`.
    pub kernel: String,
    /// CPUs this process may use.
    pub cpus: usize,
    /// The kernel's name of the first CPU.
    pub cpu_model: String,
    /// The governor of its clock; `None` if the kernel does not name it.
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
    /// Describes this process and its machine now.
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
    /// Makes the distribution of a histogram of nanoseconds.
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

/// Creates an empty histogram of nanoseconds, with the bounds of all histograms.
///
/// # Panics
/// Never: the bounds are constants.
#[must_use]
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(TIME_MIN_NS, TIME_MAX_NS, DIGITS)
        .expect("the bounds are constants that satisfy the crate")
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn times_keep_three_digits_up_to_an_hour() {
        let mut times = histogram();
        for time in [200, 123_456, 98_765_432, TIME_MAX_NS] {
            times.reset();
            times.saturating_record(time);
            let kept = times.max();
            assert!(kept.abs_diff(time) <= (time / 1_000).max(TIME_MIN_NS), "{time} became {kept}");
        }
    }
}
