//! The report of a run: what `--json` writes, described in `report.schema.json`.

mod outcome;
mod parts;
pub mod reading;

pub use outcome::outcome;
pub use parts::{Interval, Pacing, Plan};

use crate::network::Network;
use crate::saturation;
use crate::stats::Stats;
use crate::threads::ThreadUse;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ringload_lifecycle::fault::ErrorKind;
use ringload_lifecycle::report::{Environment, Outcome, SCHEMA, Times};
use ringload_lifecycle::system::CpuTime;
use ringload_lifecycle::timeline::{Timeline, deflated};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// Lines per second kept: a day of them.
const INTERVALS_MAX: usize = 24 * 60 * 60;

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
    pub intended: Option<u64>,
    pub unsent: Option<u64>,
    pub requests: u64,
    pub replies: u64,
    pub unfinished: u64,
    pub lost: u64,
    pub unanswered_at_close: u64,
    pub replies_per_s: f64,
    pub received_bytes: u64,
    pub received_bytes_per_s: f64,
    pub sent_bytes: u64,
    pub connections_opened: u64,
    pub requests_per_connection: f64,
    pub closed_idle: u64,
    pub refused: u64,
    pub repeated: u64,
    pub disconnects: u64,
    pub deviating_bodies: u64,
    pub sessions: Option<u64>,
    pub latency_us: Option<Times>,
    pub service_time_us: Times,
    pub connect_time_us: Times,
    pub first_byte_us: Option<Times>,
    pub session_us: Option<Times>,
    pub schedule_lag_us: Option<Times>,
    pub bottleneck: Option<String>,
    pub statuses: BTreeMap<u16, u64>,
    pub errors_total: u64,
    pub errors: BTreeMap<&'static str, u64>,
    pub first_errors: BTreeMap<&'static str, String>,
    pub cpu_user_s: f64,
    pub cpu_system_s: f64,
    pub threads: Vec<ThreadUse>,
    pub network: BTreeMap<&'static str, u64>,
    pub intervals: Vec<Interval>,
    /// Base64 of the histograms of the whole run, V2 and deflated.
    pub histograms: BTreeMap<&'static str, String>,
}

/// The results of a run.
pub struct Run {
    /// Everything counted.
    pub stats: Stats,
    /// Once per second.
    pub intervals: Vec<Interval>,
    /// The histograms of those seconds.
    pub timeline: Timeline,
    /// From the first connect to the last reply.
    pub elapsed: Duration,
    /// CPU time of this process meanwhile.
    pub cpu: CpuTime,
    /// CPU use of each thread while requests were to be sent.
    pub threads: Vec<ThreadUse>,
    /// Counters of the kernel's TCP meanwhile.
    pub network: Network,
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

    /// Returns the reason why the run measured ringload and not the server, if there is one.
    fn bottleneck(&self, pacing: Pacing) -> Option<String> {
        match (self.stats.errors.of(ErrorKind::NoPort), pacing) {
            (count @ 1.., _) => {
                Some(format!("{count} connects found no free local port; see no_port"))
            }
            (0, Pacing::Closed) => None,
            (0, _) => saturation::judge(&self.stats, &self.threads),
        }
    }

    /// Makes the report.
    #[must_use]
    pub fn report(self, plan: Plan, environment: Environment) -> Report {
        let stats = &self.stats;
        let pacing = plan.pacing;
        let bottleneck = self.bottleneck(pacing);
        let outcome = self::outcome(stats, self.interrupted, bottleneck.is_some());
        let open = pacing != Pacing::Closed;
        let sessions = pacing == Pacing::Connections;
        let seconds = self.elapsed.as_secs_f64();
        let requests = stats.requests - stats.withdrawn - stats.repeated;
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
            intended: open.then_some(stats.intended),
            unsent: open.then_some(stats.unsent),
            requests,
            replies: stats.replies,
            unfinished: stats.unfinished,
            lost: stats.lost,
            unanswered_at_close: stats.unanswered_at_close,
            replies_per_s: per(stats.replies, seconds),
            received_bytes: stats.bytes_received,
            received_bytes_per_s: per(stats.bytes_received, seconds),
            sent_bytes: stats.bytes_sent,
            connections_opened: stats.opened,
            requests_per_connection: per(requests, stats.opened as f64),
            closed_idle: stats.closed_idle,
            refused: stats.refused,
            repeated: stats.repeated,
            disconnects: stats.disconnects,
            deviating_bodies: stats.deviating_bodies,
            sessions: sessions.then_some(stats.sessions),
            latency_us: (pacing == Pacing::Requests).then(|| Times::of(&stats.latency_ns)),
            service_time_us: Times::of(&stats.service_ns),
            connect_time_us: Times::of(&stats.connect_ns),
            first_byte_us: sessions.then(|| Times::of(&stats.first_byte_ns)),
            session_us: sessions.then(|| Times::of(&stats.session_ns)),
            schedule_lag_us: open.then(|| Times::of(&stats.lag_ns)),
            bottleneck,
            statuses: stats.statuses.iter().copied().collect(),
            errors_total: stats.errors.total(),
            errors: ErrorKind::ALL.map(|kind| (kind.name(), stats.errors.of(kind))).into(),
            first_errors: ErrorKind::ALL
                .iter()
                .filter_map(|kind| Some((kind.name(), stats.errors.first(*kind)?.to_string())))
                .collect(),
            cpu_user_s: self.cpu.user.as_secs_f64(),
            cpu_system_s: self.cpu.system.as_secs_f64(),
            threads: self.threads,
            network: self.network.counts().clone(),
            intervals: self.intervals,
            histograms: stats
                .histograms()
                .into_iter()
                .filter(|(_, times)| !times.is_empty())
                .map(|(name, times)| (name, STANDARD.encode(deflated(times))))
                .collect(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::profile::Stages;
    use ringload_lifecycle::fault::Fault;
    use ringload_lifecycle::schema::check_against_schema;

    /// A report with something in every field.
    pub(crate) fn sample() -> Report {
        sample_of(Pacing::Closed)
    }

    /// The same of a run of that pacing.
    pub(crate) fn sample_of(pacing: Pacing) -> Report {
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
        if pacing != Pacing::Closed {
            (stats.intended, stats.unsent, stats.lost, stats.sessions) = (1_001_010, 10, 997, 69);
            stats.lag_ns.saturating_record(60_000);
            stats.latency_ns.saturating_record_n(512_000, 1_000);
            stats.first_byte_ns.saturating_record(700_000);
            stats.session_ns.saturating_record(900_000);
        }
        let second = Duration::from_secs(1);
        let interval = Interval::of(&stats, pacing, second, second);
        let mut run = Run {
            stats,
            intervals: Vec::new(),
            timeline: Timeline::default(),
            elapsed: Duration::from_secs(10),
            cpu: CpuTime { user: second, system: 5 * second },
            threads: vec![ThreadUse::new("shard-0", 10 * second, 6 * second, second)],
            network: Network::default(),
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
            think_s: None,
            timeout_s: 10.0,
            pacing,
            rate: (pacing == Pacing::Requests).then_some(100_101.into()),
            stages: None,
            conn_rate: (pacing == Pacing::Connections).then_some(7.into()),
            arrivals: (pacing != Pacing::Closed).then_some("uniform"),
            drain_ok: false,
            expect_disconnects: false,
            vary_ok: false,
            proxy_protocol: None,
            clients: None,
            method: None,
            body_bytes: None,
            urls: None,
            expect_status: None,
        };
        run.report(plan, Environment::of_this_process(Some(7)))
    }

    #[test]
    fn the_report_is_what_its_schema_says() {
        for pacing in [Pacing::Closed, Pacing::Requests, Pacing::Connections] {
            let report = serde_json::to_value(sample_of(pacing)).expect("a report is JSON");
            check_against_schema("load", &report);
            assert_eq!(report["latency_us"].is_null(), pacing != Pacing::Requests);
            assert_eq!(report["session_us"].is_null(), pacing != Pacing::Connections);
            assert_eq!(report["schedule_lag_us"].is_null(), pacing == Pacing::Closed);
        }
    }

    #[test]
    fn stages_are_in_the_report() {
        let mut report = sample_of(Pacing::Requests);
        let length = Duration::from_secs(30);
        report.plan.stages = Some(Stages::one(length, "1k:20k".parse().expect("a ramp")));
        let report = serde_json::to_value(report).expect("a report is JSON");
        check_against_schema("load", &report);
        let stage = serde_json::json!({ "length_s": 30.0, "from": 1_000, "to": 20_000 });
        assert_eq!(report["plan"]["stages"], serde_json::json!([stage]));
    }

    #[test]
    fn histograms_are_in_the_report_as_they_are() {
        use hdrhistogram::serialization::Deserializer;
        let report = sample();
        assert_eq!(report.histograms.keys().collect::<Vec<_>>(), [&"connect_ns", &"service_ns"]);
        let bytes = STANDARD.decode(&report.histograms["service_ns"]).expect("base64");
        let read: hdrhistogram::Histogram<u64> =
            Deserializer::new().deserialize(&mut &bytes[..]).expect("a histogram");
        assert_eq!(Times::of(&read), report.service_time_us);
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
    fn no_times_are_all_zero() {
        let none = Times::of(&Stats::new().service_ns);
        assert_eq!((none.samples, none.min, none.p99, none.max), (0, 0.0, 0.0, 0.0));
        assert_eq!(none.mean, 0.0);
    }
}
