//! The report of `ringload idle`; `report.schema.json` describes the fields.

use super::keeper::Kept;
use super::loss::{ConnectFailure, How, Loss};
use super::order::Order;
use super::tally::HerdInterval;
use crate::args::IdleArgs;
use crate::report::{Environment, Outcome, SCHEMA, Times};
use crate::route::{Clients, ProxyProtocol};
use crate::system::CpuTime;
use crate::units::Rate;
use serde::Serialize;
use std::collections::BTreeMap;

/// With fewer connections, other memory would distort the memory per connection.
const MEMORY_CONNECTIONS_MIN: u64 = 500;

/// The options of the run.
#[derive(Clone, Debug, Serialize)]
pub struct HerdPlan {
    /// `http`, `echo` or `packets`.
    pub protocol: &'static str,
    /// The URL or address as given.
    pub target: String,
    /// The resolved address.
    pub address: String,
    /// `-c`.
    pub connections: u64,
    /// Number of source addresses.
    pub source_addresses: u32,
    /// `--proxy-protocol`.
    pub proxy_protocol: Option<&'static str>,
    /// `--clients`.
    pub clients: Option<Clients>,
    /// `--hold`.
    pub hold_s: f64,
    /// `--probe-every`.
    pub probe_every_s: f64,
    /// `--conn-rate`.
    pub conn_rate: Option<Rate>,
    /// `--timeout`.
    pub timeout_s: f64,
    /// `--drain-ok`.
    pub drain_ok: bool,
}

impl HerdPlan {
    /// Makes the plan from the command line and the order.
    #[must_use]
    pub fn new(idle: &IdleArgs, order: &Order) -> Self {
        Self {
            protocol: idle.protocol.name(),
            target: idle.target.clone(),
            address: order.to.to_string(),
            connections: order.connections,
            source_addresses: order.sources.count(order.connections),
            proxy_protocol: order.route.proxy.map(ProxyProtocol::name),
            clients: order.route.clients,
            hold_s: order.hold.as_secs_f64(),
            probe_every_s: order.probe_every.as_secs_f64(),
            conn_rate: order.conn_rate,
            timeout_s: order.timeout.as_secs_f64(),
            drain_ok: order.drain_ok,
        }
    }
}

/// The report of one run.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)] // Described in report.schema.json, where scripts read it.
pub struct HerdReport {
    pub schema: u32,
    pub version: &'static str,
    pub kind: &'static str,
    pub outcome: Outcome,
    pub exit_status: u8,
    pub plan: HerdPlan,
    pub environment: Environment,
    pub elapsed_s: f64,
    pub ramp_s: f64,
    pub connected: u64,
    pub connects_per_s: f64,
    pub connect_time_us: Times,
    pub connects_failed_total: u64,
    pub connects_failed: BTreeMap<&'static str, u64>,
    pub first_connects_failed: BTreeMap<&'static str, String>,
    pub probes: u64,
    pub answers: u64,
    pub probe_time_us: Times,
    pub schedule_lag_us: Times,
    pub answered_last: u64,
    pub last_round_time_us: Times,
    pub unfinished: u64,
    pub refused: u64,
    pub drained: u64,
    pub unanswered_at_close: u64,
    pub lost_total: u64,
    pub lost: BTreeMap<&'static str, u64>,
    pub losses: Vec<Loss>,
    pub hint: Option<String>,
    pub memory_bytes_per_connection: Option<u64>,
    pub cpu_user_s: f64,
    pub cpu_system_s: f64,
    pub intervals: Vec<HerdInterval>,
}

impl HerdReport {
    /// Makes the report of a run.
    #[must_use]
    pub fn new(plan: HerdPlan, environment: Environment, kept: &Kept, cpu: CpuTime) -> Self {
        let tally = &kept.tally;
        let outcome = outcome(kept);
        let ramp_s = kept.ramp.as_secs_f64();
        Self {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            kind: "idle",
            outcome,
            exit_status: outcome.exit_status(),
            plan,
            environment,
            elapsed_s: kept.elapsed.as_secs_f64(),
            ramp_s,
            connected: tally.connected,
            connects_per_s: if ramp_s > 0.0 { tally.connected as f64 / ramp_s } else { 0.0 },
            connect_time_us: Times::of(&tally.connect_ns),
            connects_failed_total: tally.failures.total(),
            connects_failed: ConnectFailure::ALL
                .map(|kind| (kind.name(), tally.failures.of(kind)))
                .into(),
            first_connects_failed: ConnectFailure::ALL
                .into_iter()
                .filter_map(|kind| Some((kind.name(), tally.failures.first(kind)?.into())))
                .collect(),
            probes: tally.probes,
            answers: tally.answers,
            probe_time_us: Times::of(&tally.probe_ns),
            schedule_lag_us: Times::of(&tally.lag_ns),
            answered_last: tally.answered_last,
            last_round_time_us: Times::of(&tally.last_ns),
            unfinished: tally.probes
                - tally.answers
                - tally.losses.during_probe()
                - tally.unanswered_at_close,
            refused: tally.refused,
            drained: tally.drained,
            unanswered_at_close: tally.unanswered_at_close,
            lost_total: tally.losses.total(),
            lost: How::ALL.map(|how| (how.name(), tally.losses.of(how))).into(),
            losses: tally.losses.first().to_vec(),
            hint: tally.losses.hint(),
            memory_bytes_per_connection: kept
                .memory_bytes
                .filter(|_| tally.connected >= MEMORY_CONNECTIONS_MIN)
                .map(|bytes| bytes / tally.connected),
            cpu_user_s: cpu.user.as_secs_f64(),
            cpu_system_s: cpu.system.as_secs_f64(),
            intervals: tally.intervals.clone(),
        }
    }
}

fn outcome(kept: &Kept) -> Outcome {
    let tally = &kept.tally;
    if kept.interrupted {
        Outcome::Interrupted
    } else if tally.connected == 0 {
        Outcome::Unreachable
    } else if tally.failures.total() > 0 || tally.losses.total() > 0 {
        Outcome::Failed
    } else {
        let there = tally.connected - tally.drained;
        assert_eq!(tally.answered_last, there, "every connection that is not lost has answered");
        Outcome::Passed
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::tally::{Phase, Tally};
    use super::*;
    use crate::schema::check_against_schema;
    use std::time::Duration;

    pub(in super::super) fn plan() -> HerdPlan {
        HerdPlan {
            protocol: "http",
            target: "http://localhost:8080/".into(),
            address: "127.0.0.1:8080".into(),
            connections: 10_000,
            source_addresses: 2,
            proxy_protocol: None,
            clients: None,
            hold_s: 60.0,
            probe_every_s: 10.0,
            conn_rate: Some(1_000.into()),
            timeout_s: 10.0,
            drain_ok: true,
        }
    }

    /// A run with 9,990 connections, ten failed connects and two losses.
    pub(in super::super) fn kept() -> Kept {
        let mut tally = Tally::new();
        (tally.connected, tally.open, tally.answered_last) = (9_990, 9_987, 9_987);
        (tally.probes, tally.answers) = (60_000, 59_998);
        (tally.refused, tally.drained) = (4, 1);
        tally.connect_ns.saturating_record(90_000);
        tally.probe_ns.saturating_record_n(412_000, 50_000);
        tally.last_ns.saturating_record(2_000_000);
        tally.lag_ns.saturating_record(60_000);
        (0..10).for_each(|_| {
            tally.failures.count(ConnectFailure::Refused, || "connection 5: refused".into());
        });
        for during_probe in [false, true] {
            tally.losses.count(Loss {
                connection: 17,
                how: How::Reset,
                at_s: 31.5,
                age_s: 30.25,
                silent_s: 4.0,
                answers: 3,
                during_probe,
                detail: "receive: reset".into(),
            });
        }
        tally.interval(1_000_000_000, Phase::Ramp);
        Kept {
            tally,
            ramp: Duration::from_secs(10),
            elapsed: Duration::from_secs(71),
            memory_bytes: Some(1_998_000),
            interrupted: false,
        }
    }

    pub(in super::super) fn report(kept: &Kept) -> HerdReport {
        HerdReport::new(plan(), Environment::of_this_process(Some(7)), kept, CpuTime::default())
    }

    #[test]
    fn the_report_is_what_its_schema_says() {
        let json = serde_json::to_value(report(&kept())).expect("a report is JSON");
        check_against_schema("idle", &json);
    }

    #[test]
    fn figures_are_computed_from_the_counts() {
        let report = report(&kept());
        assert_eq!((report.outcome, report.exit_status), (Outcome::Failed, 1));
        assert_eq!((report.connects_failed_total, report.connects_failed["refused"]), (10, 10));
        assert_eq!((report.lost_total, report.lost["reset"], report.lost["fin"]), (2, 2, 0));
        assert_eq!(report.unfinished, 1, "two were not answered, one of them is lost");
        assert_eq!(report.connects_per_s, 999.0);
        assert_eq!(report.memory_bytes_per_connection, Some(200));
    }

    #[test]
    fn outcomes_follow_the_counts() {
        let mut none = kept();
        none.tally = Tally::new();
        assert_eq!(report(&none).exit_status, 3);
        (none.tally.connected, none.tally.answered_last) = (1, 1);
        assert_eq!(report(&none).exit_status, 0);
        assert_eq!(report(&none).memory_bytes_per_connection, None, "of one it says nothing");
        none.interrupted = true;
        assert_eq!(report(&none).exit_status, 130);
    }
}
