//! The report of a run: what `--json` writes, described in `report.schema.json`.

use crate::protocol::ErrorKind;
use crate::stats::Stats;
use crate::system::{self, CpuTime};
use hdrhistogram::Histogram;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

/// Changes when a field changes its meaning or goes; fields may be added without.
pub const SCHEMA: u32 = 1;
/// Lines per second kept: a day of them.
const INTERVALS_MAX: usize = 24 * 60 * 60;

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
    /// SIGINT or SIGTERM.
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
            Self::Interrupted => 130,
        }
    }

    /// What the counts say of a run.
    #[must_use]
    pub fn of(stats: &Stats, interrupted: bool) -> Self {
        if interrupted {
            Self::Interrupted
        } else if stats.opened == 0 {
            Self::Unreachable
        } else if stats.errors.total() > 0 || stats.replies == 0 {
            Self::Failed
        } else {
            Self::Passed
        }
    }
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
    /// `--timeout`.
    pub timeout_s: f64,
}

/// What it ran on; with the plan, all that is needed to run it again.
#[derive(Clone, Debug, Serialize)]
pub struct Environment {
    /// `uname -r`.
    pub kernel: String,
    /// CPUs this process may use.
    pub cpus: usize,
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
    /// Replies per second.
    pub replies_per_s: f64,
    /// Bytes received per second.
    pub received_bytes_per_s: f64,
    /// Median service time.
    pub p50_us: f64,
    /// 99th percentile of the service time.
    pub p99_us: f64,
    /// Errors within it.
    pub errors: u64,
}

impl Interval {
    /// What `stats` counted in `length` up to `elapsed`.
    #[must_use]
    pub fn of(stats: &Stats, elapsed: Duration, length: Duration) -> Self {
        let times = Times::of(&stats.service_ns);
        let seconds = length.as_secs_f64().max(f64::MIN_POSITIVE);
        Self {
            elapsed_s: elapsed.as_secs_f64(),
            replies: stats.replies,
            replies_per_s: stats.replies as f64 / seconds,
            received_bytes_per_s: stats.bytes_received as f64 / seconds,
            p50_us: times.p50,
            p99_us: times.p99,
            errors: stats.errors.total(),
        }
    }
}

/// Everything of one run.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)] // Described in report.schema.json, where scripts read it.
pub struct Report {
    pub schema: u32,
    pub version: &'static str,
    pub kind: &'static str,
    pub outcome: Outcome,
    pub exit_status: u8,
    pub plan: Plan,
    pub environment: Environment,
    pub elapsed_s: f64,
    pub requests: u64,
    pub replies: u64,
    pub unfinished: u64,
    pub replies_per_s: f64,
    pub received_bytes: u64,
    pub received_bytes_per_s: f64,
    pub sent_bytes: u64,
    pub connections_opened: u64,
    pub requests_per_connection: f64,
    pub service_time_us: Times,
    pub connect_time_us: Times,
    pub statuses: BTreeMap<u16, u64>,
    pub errors_total: u64,
    pub errors: BTreeMap<&'static str, u64>,
    pub first_errors: BTreeMap<&'static str, String>,
    pub cpu_user_s: f64,
    pub cpu_system_s: f64,
    pub intervals: Vec<Interval>,
}

/// What a run leaves behind.
pub struct Run {
    /// Everything counted.
    pub stats: Stats,
    /// Once per second.
    pub intervals: Vec<Interval>,
    /// From the first connect to the last reply.
    pub elapsed: Duration,
    /// CPU time of this process meanwhile.
    pub cpu: CpuTime,
    /// A signal ended it.
    pub interrupted: bool,
}

impl Run {
    /// Keeps an interval, as long as there is room.
    pub fn keep(&mut self, interval: Interval) {
        if self.intervals.len() < INTERVALS_MAX {
            self.intervals.push(interval);
        }
    }

    /// The report of it.
    #[must_use]
    pub fn report(self, plan: Plan, environment: Environment) -> Report {
        let stats = &self.stats;
        let outcome = Outcome::of(stats, self.interrupted);
        let seconds = self.elapsed.as_secs_f64();
        let requests = stats.requests - stats.withdrawn;
        let per = |count: u64, by: f64| if by > 0.0 { count as f64 / by } else { 0.0 };
        Report {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            kind: "load",
            outcome,
            exit_status: outcome.exit_status(),
            plan,
            environment,
            elapsed_s: seconds,
            requests,
            replies: stats.replies,
            unfinished: stats.unfinished,
            replies_per_s: per(stats.replies, seconds),
            received_bytes: stats.bytes_received,
            received_bytes_per_s: per(stats.bytes_received, seconds),
            sent_bytes: stats.bytes_sent,
            connections_opened: stats.opened,
            requests_per_connection: per(requests, stats.opened as f64),
            service_time_us: Times::of(&stats.service_ns),
            connect_time_us: Times::of(&stats.connect_ns),
            statuses: stats.statuses.iter().copied().collect(),
            errors_total: stats.errors.total(),
            errors: ErrorKind::ALL.map(|kind| (kind.name(), stats.errors.of(kind))).into(),
            first_errors: ErrorKind::ALL
                .iter()
                .filter_map(|kind| Some((kind.name(), stats.errors.first(*kind)?.to_string())))
                .collect(),
            cpu_user_s: self.cpu.user.as_secs_f64(),
            cpu_system_s: self.cpu.system.as_secs_f64(),
            intervals: self.intervals,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::protocol::Fault;
    use serde_json::Value;

    /// A report with something in every field.
    pub(crate) fn sample() -> Report {
        let mut stats = Stats::new();
        (stats.requests, stats.withdrawn) = (1_001_005, 5);
        (stats.replies, stats.unfinished) = (1_000_000, 3);
        (stats.bytes_sent, stats.bytes_received, stats.opened) = (40_000_000, 230_000_000, 70);
        stats.service_ns.saturating_record_n(412_000, 999);
        stats.service_ns.saturating_record(2_000_000);
        stats.connect_ns.saturating_record(90_000);
        stats.count_status(200, 999_990);
        stats.count_status(404, 10);
        stats.errors.count(Fault::new(ErrorKind::Eof, "connection 3: closed"));
        (0..10).for_each(|_| stats.errors.count(Fault::new(ErrorKind::BadStatus, "status 404")));
        let second = Duration::from_secs(1);
        let interval = Interval::of(&stats, second, second);
        let mut run = Run {
            stats,
            intervals: Vec::new(),
            elapsed: Duration::from_secs(10),
            cpu: CpuTime { user: second, system: 5 * second },
            interrupted: false,
        };
        run.keep(interval);
        let plan = Plan {
            protocol: "http",
            target: "http://127.0.0.1:8080/".into(),
            address: "127.0.0.1:8080".into(),
            connections: 64,
            threads: 1,
            duration_s: Some(10.0),
            requests: None,
            pipeline: 1,
            requests_per_connection: None,
            size_bytes: None,
            digest_every: None,
            timeout_s: 10.0,
        };
        run.report(plan, Environment::of_this_process(Some(7)))
    }

    /// Where `value` is not what `schema` says; the part of JSON Schema that ours uses.
    fn violations(schema: &Value, value: &Value, path: &str) -> Vec<String> {
        let types: Vec<&str> = match &schema["type"] {
            Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
            one => one.as_str().into_iter().collect(),
        };
        let actual = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_u64() => "integer",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let fits = types.contains(&actual) || (actual == "integer" && types.contains(&"number"));
        let mut found = Vec::new();
        if !fits {
            found.push(format!("{path} is {actual}, not {types:?}"));
        }
        if let Some(allowed) = schema["enum"].as_array()
            && !allowed.contains(value)
        {
            found.push(format!("{path} is {value}, not one of {allowed:?}"));
        }
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if value.is_object() && value.get(name).is_none() {
                found.push(format!("{path}/{name} is missing"));
            }
        }
        for (name, inner) in value.as_object().into_iter().flatten() {
            match schema["properties"].get(name).or(schema.get("additionalProperties")) {
                Some(Value::Bool(false)) | None => found.push(format!("{path}/{name} is unknown")),
                Some(schema) => found.extend(violations(schema, inner, &format!("{path}/{name}"))),
            }
        }
        for (at, inner) in value.as_array().into_iter().flatten().enumerate() {
            found.extend(violations(&schema["items"], inner, &format!("{path}/{at}")));
        }
        found
    }

    /// Asserts that a report is what the schema says of its kind, and that no field may be missing.
    pub(crate) fn check_against_schema(kind: &str, report: &Value) {
        let schema: Value = serde_json::from_str(include_str!("../report.schema.json"))
            .expect("the schema is JSON");
        let reference = serde_json::json!({ "$ref": format!("#/$defs/{kind}") });
        assert!(schema["oneOf"].as_array().expect("kinds of reports").contains(&reference));
        let schema = &schema["$defs"][kind];
        assert_eq!(violations(schema, report, ""), [""; 0]);
        for field in report.as_object().expect("an object").keys() {
            let mut without = report.clone();
            without.as_object_mut().expect("an object").remove(field);
            assert_eq!(violations(schema, &without, ""), [format!("/{field} is missing")]);
        }
    }

    #[test]
    fn the_report_is_what_its_schema_says() {
        check_against_schema("load", &serde_json::to_value(sample()).expect("a report is JSON"));
    }

    #[test]
    fn figures_are_computed_from_the_counts() {
        let report = sample();
        assert_eq!((report.outcome, report.exit_status), (Outcome::Failed, 1));
        assert_eq!(report.replies_per_s, 100_000.0);
        assert_eq!(report.received_bytes_per_s, 23e6);
        assert_eq!(report.requests_per_connection, 14_300.0);
        assert!((report.service_time_us.p50 - 412.0).abs() < 0.5);
        assert!((report.service_time_us.max - 2_000.0).abs() < 2.0);
        assert_eq!((report.errors["eof"], report.errors["bad_status"]), (1, 10));
        assert_eq!((report.errors["reset"], report.errors_total), (0, 11));
        assert_eq!(report.first_errors["bad_status"], "status 404");
    }

    #[test]
    fn outcomes_follow_the_counts() {
        let mut stats = Stats::new();
        assert_eq!(Outcome::of(&stats, false), Outcome::Unreachable);
        stats.opened = 1;
        assert_eq!(Outcome::of(&stats, false), Outcome::Failed, "no reply is no success");
        stats.replies = 1;
        assert_eq!(Outcome::of(&stats, false), Outcome::Passed);
        stats.errors.count(Fault::new(ErrorKind::Reset, ""));
        assert_eq!(Outcome::of(&stats, false), Outcome::Failed);
        assert_eq!(Outcome::of(&stats, true), Outcome::Interrupted);
    }

    #[test]
    fn no_times_are_all_zero() {
        let none = Times::of(&Stats::new().service_ns);
        assert_eq!((none.samples, none.min, none.p99, none.max), (0, 0.0, 0.0, 0.0));
        assert_eq!(none.mean, 0.0);
    }
}
