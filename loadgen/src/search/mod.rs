//! `ringload search`: finds the highest rate at which a server meets objectives.
//!
//! Each probe is a run of [`run`] with a fixed rate. [`bounds`] chooses the rates.

pub mod bounds;
pub mod report;

use crate::args::{Cli, SearchArgs, Target};
use crate::run;
use bounds::{Bounds, Limit, Probe};
use report::{Objective, ProbeReport, SearchReport};
use ringload_lifecycle::delivery::Delivery;
use ringload_lifecycle::failure::Failure;
use ringload_lifecycle::random::seed_of_the_clock;
use ringload_lifecycle::report::Environment;
use ringload_lifecycle::system::Interrupts;
use serde_json::Value;
use std::time::{Duration, Instant};

/// Each probe takes this fraction of the time, a confirmation twice as long.
const PROBES: u32 = 20;
/// Longest duration of a probe.
const PROBE_MAX: Duration = Duration::from_secs(30);
/// Time in addition to that of a probe: threads start, and the last replies arrive.
const AROUND: Duration = Duration::from_millis(300);
/// The first rate is this fraction of what the server answers in a closed loop.
const FIRST_SHARE: f64 = 0.7;
/// A rate counts as reached if this share of the requests that were due has been answered.
const ANSWERED_MIN: f64 = 0.99;

/// Searches and makes the report.
///
/// # Errors
/// A probe could not start.
pub fn perform(args: &SearchArgs, interrupts: &Interrupts) -> Result<Delivery, Failure> {
    let seed = args.http.load.common.seed.unwrap_or_else(seed_of_the_clock);
    let environment = Environment::of_this_process(Some(seed));
    let mut search = Search { args, interrupts, seed, begun: Instant::now(), probes: Vec::new() };
    let (report, bounds) = search.run()?;
    let elapsed = search.begun.elapsed();
    let report = SearchReport::new(args, environment, (elapsed, report), search.probes, bounds);
    Ok(Delivery::new(&report, report.summary(), report.exit_status))
}

struct Search<'a> {
    args: &'a SearchArgs,
    interrupts: &'a Interrupts,
    seed: u64,
    begun: Instant,
    probes: Vec<ProbeReport>,
}

impl Search<'_> {
    /// Makes all probes. Returns the report of the one that ended the search early or, if none
    /// did, of the first one, in a closed loop.
    fn run(&mut self) -> Result<(Value, Bounds), Failure> {
        let length = self.args.max_time.div_f64(PROBES.into()).min(PROBE_MAX);
        let closed = self.load(None, length)?;
        let closed_per_s = closed["replies_per_s"].as_f64().unwrap_or_default();
        let mut bounds = Bounds::new(closed_per_s * FIRST_SHARE);
        self.note(format_args!("closed loop: {closed_per_s:.0} replies per second"));
        if is_end(&closed) {
            return Ok((closed, bounds));
        }
        loop {
            // A confirmation must still fit.
            let left = self.args.max_time.saturating_sub(self.begun.elapsed());
            let is_late = left < 3 * length + 2 * AROUND;
            let Some(probe) = bounds.next(is_late) else { break };
            let length = if probe.confirms { 2 * length } else { length };
            if left < length + AROUND {
                break;
            }
            let report = self.load(Some(probe.rate), length)?;
            if is_end(&report) {
                return Ok((report, bounds));
            }
            let judged = self.judge(probe, length, &report);
            bounds.take(probe, judged.limit());
            self.note(format_args!("{judged}"));
            self.probes.push(judged);
        }
        bounds.finish();
        Ok((closed, bounds))
    }

    /// Makes one run: with a rate, or in a closed loop.
    fn load(&self, rate: Option<f64>, length: Duration) -> Result<Value, Failure> {
        let mut http = self.args.http.clone();
        http.load.rate = rate.map(|rate| rate.to_string().parse().expect("a rate from 1 to 10M"));
        http.load.duration = length;
        http.load.common.quiet = true;
        http.load.common.seed = Some(self.seed.wrapping_add(self.probes.len() as u64));
        let cli = Cli { target: Target::Http(http) };
        let load = cli.load().expect("http has load options");
        run::perform(&cli, load, self.interrupts).map(|delivery| delivery.report)
    }

    fn judge(&self, probe: Probe, length: Duration, report: &Value) -> ProbeReport {
        let objectives = self.args.slo.iter().map(|slo| {
            let judgement = slo.judge(report);
            Objective {
                expression: slo.to_string(),
                value: judgement.value,
                shown: judgement.shown,
                // A condition of --fail-if "fails" where it is true, or cannot be evaluated.
                met: judgement.value.is_some() && judgement.failed,
            }
        });
        let of = |name: &str| report[name].as_f64().unwrap_or_default();
        ProbeReport {
            rate: probe.rate,
            confirms: probe.confirms,
            length_s: length.as_secs_f64(),
            replies_per_s: of("replies_per_s"),
            is_reached: of("replies") >= ANSWERED_MIN * of("intended"),
            latency_us: report["latency_us"].clone(),
            errors_total: of("errors_total") as u64,
            slos: objectives.collect(),
            bottleneck: report["bottleneck"].as_str().map(String::from),
        }
    }

    fn note(&self, what: std::fmt::Arguments<'_>) {
        if !self.args.http.load.common.quiet {
            ringload_lifecycle::note!("{:6.1} s  {what}", self.begun.elapsed().as_secs_f64());
        }
    }
}

/// Returns true if the search cannot go on after this run.
fn is_end(report: &Value) -> bool {
    ["interrupted", "unreachable"].iter().any(|outcome| report["outcome"] == *outcome)
}

impl ProbeReport {
    /// Returns the reason why the rate is too high, if it is.
    fn limit(&self) -> Option<Limit> {
        // ringload's own delays count as latency. Objectives that are met in spite of them are met.
        let is_met = self.is_reached && self.slos.iter().all(|slo| slo.met);
        let limit = if self.bottleneck.is_some() { Limit::Ringload } else { Limit::Slo };
        (!is_met).then_some(limit)
    }
}
