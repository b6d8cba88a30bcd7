//! The report of a run of the matrix: kind `churn` of `report.schema.json`.

use super::replay_options;
use super::tally::{CellTally, Example, Tally};
use crate::args::ChurnArgs;
use crate::bystander::{Latencies, RATE};
use crate::cell::Cell;
use crate::finding::Rule;
use crate::report::{Environment, SCHEMA, Times};
use crate::route::{Clients, ProxyProtocol};
use crate::script::{Script, Target};
use crate::shrink::Again;
use crate::system::CpuTime;
use crate::units::Rate;
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All oracles hold.
    Passed,
    /// One does not.
    Failed,
    /// Nothing could be connected to.
    Unreachable,
    /// Our own ports or descriptors were the limit: some scripts were not walked.
    Bottleneck,
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
            Self::Bottleneck => 4,
            Self::Interrupted => 130,
        }
    }
}

/// The results of a run.
pub(super) struct Run {
    pub(super) tally: Tally,
    pub(super) latencies: Option<Latencies>,
    pub(super) elapsed: Duration,
    pub(super) cpu: CpuTime,
    pub(super) shortage: Option<String>,
    pub(super) is_there: bool,
    pub(super) was_interrupted: bool,
}

impl Run {
    /// Makes the results of a run without a server.
    pub(super) fn unreachable() -> Self {
        Self {
            tally: Tally::default(),
            latencies: None,
            elapsed: Duration::ZERO,
            cpu: CpuTime::default(),
            shortage: None,
            is_there: false,
            was_interrupted: false,
        }
    }

    fn outcome(&self) -> Outcome {
        if self.was_interrupted {
            Outcome::Interrupted
        } else if !self.is_there {
            Outcome::Unreachable
        } else if self.tally.findings_total() > 0 {
            Outcome::Failed
        } else if self.tally.not_walked > 0 {
            Outcome::Bottleneck
        } else {
            Outcome::Passed
        }
    }
}

/// The options of the run.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)] // Described in report.schema.json, where scripts read it.
pub struct Plan {
    pub protocol: String,
    pub target: String,
    pub address: String,
    pub faults: Vec<String>,
    pub connections: u64,
    pub duration_s: Option<f64>,
    pub count: Option<u64>,
    pub conn_rate_per_s: Option<Rate>,
    pub patience_s: f64,
    pub deadline_s: Option<f64>,
    pub may_reject: bool,
    pub bystanders: u64,
    pub proxy_protocol: Option<&'static str>,
    pub clients: Option<Clients>,
    #[serde(skip)]
    pub(super) replay_options: String,
}

impl Plan {
    pub(super) fn new(args: &ChurnArgs, target: &Target, to: SocketAddr, cells: &[Cell]) -> Self {
        Self {
            protocol: target.scheme.clone(),
            target: target.to_string(),
            address: to.to_string(),
            faults: cells.iter().map(Cell::to_string).collect(),
            connections: args.connections,
            duration_s: args.count.is_none().then_some(args.duration.as_secs_f64()),
            count: args.count,
            conn_rate_per_s: args.conn_rate,
            patience_s: args.oracle.patience.as_secs_f64(),
            deadline_s: args.oracle.deadline.map(|it| it.as_secs_f64()),
            may_reject: args.oracle.may_reject,
            bystanders: args.bystanders,
            proxy_protocol: args.oracle.route.proxy_protocol.map(ProxyProtocol::name),
            clients: args.oracle.route.clients,
            replay_options: replay_options(&args.oracle),
        }
    }
}

/// The counts of a cell of the matrix.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)] // Described in report.schema.json.
pub struct CellReport {
    pub point: &'static str,
    pub kind: &'static str,
    pub scripts: u64,
    pub not_played: u64,
    pub connections: u64,
    pub outcomes: BTreeMap<String, u64>,
    pub findings: BTreeMap<&'static str, u64>,
    pub reaction_time_us: Times,
}

impl CellReport {
    /// The row of those who behaved well beside the matrix.
    pub const BYSTANDER: &'static str = "bystander";

    fn of(cell: Option<Cell>, tally: &CellTally) -> Self {
        Self {
            point: cell.map_or(Self::BYSTANDER, |it| it.point.name()),
            kind: cell.map_or("none", |it| it.kind.name()),
            scripts: tally.scripts,
            not_played: tally.not_played,
            connections: tally.connections,
            outcomes: tally.outcomes.clone(),
            findings: by_name(&tally.findings),
            reaction_time_us: Times::of(&tally.reaction_ns),
        }
    }
}

/// One finding.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)] // Described in report.schema.json.
pub struct ExampleReport {
    pub rule: &'static str,
    pub point: &'static str,
    pub kind: &'static str,
    pub detail: String,
    pub script: String,
    pub company: Vec<String>,
    pub shrunk: Vec<String>,
    pub shrink_tries: u32,
    pub seen_again: Option<&'static str>,
    pub replay: String,
}

impl ExampleReport {
    fn of(example: &Example, options: &str) -> Self {
        let print = |script: &Script| script.to_string();
        let shrunk = example.shrunk.as_ref();
        let scripts: Vec<String> = match shrunk {
            Some(shrunk) if shrunk.again == Again::Alone || shrunk.again == Again::Together => {
                shrunk.scripts.iter().map(print).collect()
            }
            // The whole company may be long; but with less it is not known to fail.
            Some(shrunk) if shrunk.again == Again::ServerDown => {
                shrunk.scripts.iter().map(print).collect()
            }
            _ => vec![example.script.to_string()],
        };
        let quoted: Vec<String> = scripts.iter().map(|script| format!("'{script}'")).collect();
        Self {
            rule: example.rule.name(),
            point: example.cell.map_or(CellReport::BYSTANDER, |it| it.point.name()),
            kind: example.cell.map_or("none", |it| it.kind.name()),
            detail: example.detail.clone(),
            script: example.script.to_string(),
            company: example.company.iter().map(|script| script.to_string()).collect(),
            shrunk: shrunk.map(|it| it.scripts.iter().map(print).collect()).unwrap_or_default(),
            shrink_tries: shrunk.map_or(0, |it| it.tries),
            seen_again: shrunk.map(|it| it.again.name()),
            replay: format!("ringload replay{options} {}", quoted.join(" ")),
        }
    }
}

/// The latencies of the bystanders.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)] // Described in report.schema.json.
pub struct BystandersReport {
    pub count: u64,
    pub rate_per_s: u32,
    pub connections: u64,
    pub findings: u64,
    pub baseline_us: Times,
    pub abuse_us: Times,
    pub ratio_p50: f64,
    pub ratio_p99: f64,
    #[serde(rename = "ratio_p99.9")]
    pub ratio_p99_9: f64,
    pub ratio_max: f64,
}

impl BystandersReport {
    fn of(latencies: &Latencies, count: u64) -> Self {
        let (baseline, abuse) = (Times::of(&latencies.baseline_ns), Times::of(&latencies.abuse_ns));
        let ratio = |abuse: f64, baseline: f64| if baseline > 0.0 { abuse / baseline } else { 0.0 };
        Self {
            count,
            rate_per_s: RATE,
            connections: latencies.connections,
            findings: latencies.findings.values().sum(),
            baseline_us: baseline,
            abuse_us: abuse,
            ratio_p50: ratio(abuse.p50, baseline.p50),
            ratio_p99: ratio(abuse.p99, baseline.p99),
            ratio_p99_9: ratio(abuse.p99_9, baseline.p99_9),
            ratio_max: ratio(abuse.max, baseline.max),
        }
    }
}

/// Everything of one run.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)] // Described in report.schema.json.
pub struct Report {
    pub schema: u32,
    pub version: &'static str,
    pub kind: &'static str,
    pub outcome: Outcome,
    pub exit_status: u8,
    pub plan: Plan,
    pub environment: Environment,
    pub elapsed_s: f64,
    pub scripts: u64,
    pub connections: u64,
    pub connections_per_s: f64,
    pub unfinished: u64,
    pub not_walked: u64,
    pub not_played: u64,
    pub not_played_why: Option<String>,
    pub vanished: u64,
    pub shortage: Option<String>,
    pub findings_total: u64,
    pub findings: BTreeMap<&'static str, u64>,
    pub cells: Vec<CellReport>,
    pub reaction_time_us: Times,
    pub examples: Vec<ExampleReport>,
    pub bystanders: Option<BystandersReport>,
    pub cpu_user_s: f64,
    pub cpu_system_s: f64,
}

impl Report {
    pub(super) fn new(run: Run, plan: Plan, environment: Environment) -> Self {
        let (outcome, tally) = (run.outcome(), &run.tally);
        let seconds = run.elapsed.as_secs_f64();
        let example = |it: &Example| ExampleReport::of(it, &plan.replay_options);
        Self {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            kind: "churn",
            outcome,
            exit_status: outcome.exit_status(),
            environment,
            elapsed_s: seconds,
            scripts: tally.scripts,
            connections: tally.connections,
            connections_per_s: if seconds > 0.0 { tally.connections as f64 / seconds } else { 0.0 },
            unfinished: tally.unfinished,
            not_walked: tally.not_walked,
            not_played: tally.not_played.0,
            not_played_why: tally.not_played.1.clone(),
            vanished: tally.vanished,
            shortage: run.shortage.clone(),
            findings_total: tally.findings_total(),
            findings: by_name(&tally.findings()),
            cells: tally.cells.iter().map(|(cell, it)| CellReport::of(*cell, it)).collect(),
            reaction_time_us: Times::of(&tally.reaction_ns),
            examples: tally.examples.iter().map(example).collect(),
            bystanders: run.latencies.as_ref().map(|it| BystandersReport::of(it, plan.bystanders)),
            cpu_user_s: run.cpu.user.as_secs_f64(),
            cpu_system_s: run.cpu.system.as_secs_f64(),
            plan,
        }
    }
}

fn by_name(findings: &BTreeMap<Rule, u64>) -> BTreeMap<&'static str, u64> {
    findings.iter().map(|(rule, count)| (rule.name(), *count)).collect()
}

#[cfg(test)]
pub(super) mod tests;
