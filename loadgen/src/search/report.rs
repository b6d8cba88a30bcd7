//! The report of `ringload search`; `report.schema.json` describes the fields.

use super::bounds::{Bounds, Limit};
use crate::args::SearchArgs;
use ringload_lifecycle::report::{Environment, Outcome, SCHEMA};
use ringload_lifecycle::rows::Rows;
use ringload_lifecycle::units::{show_count, show_text, show_us};
use serde::Serialize;
use serde_json::Value;
use std::fmt;
use std::time::Duration;

/// The report of one search.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)] // Described in report.schema.json, where scripts read it.
pub struct SearchReport {
    pub schema: u32,
    pub version: &'static str,
    pub kind: &'static str,
    pub outcome: Outcome,
    pub exit_status: u8,
    pub plan: SearchPlan,
    pub environment: Environment,
    pub elapsed_s: f64,
    pub search: Found,
}

/// The options of a search.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)]
pub struct SearchPlan {
    pub protocol: &'static str,
    pub target: String,
    pub connections: u64,
    pub threads: u64,
    pub max_time_s: f64,
    pub slos: Vec<String>,
}

/// The result of a search.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)]
pub struct Found {
    pub rate: Option<f64>,
    pub low: f64,
    pub high: Option<f64>,
    pub limited_by: Option<&'static str>,
    pub closed_loop_replies_per_s: f64,
    pub probes: Vec<ProbeReport>,
}

/// One probe.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)]
pub struct ProbeReport {
    pub rate: f64,
    pub confirms: bool,
    pub length_s: f64,
    pub replies_per_s: f64,
    pub is_reached: bool,
    pub latency_us: Value,
    pub errors_total: u64,
    pub slos: Vec<Objective>,
    pub bottleneck: Option<String>,
}

/// An objective of a probe.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)]
pub struct Objective {
    pub expression: String,
    pub value: Option<f64>,
    #[serde(skip)]
    pub shown: String,
    pub met: bool,
}

impl SearchReport {
    /// Makes the report of a search. `last` is the report of the run that ended it early, or the
    /// one of the closed loop.
    #[must_use]
    pub fn new(
        args: &SearchArgs,
        environment: Environment,
        (elapsed, last): (Duration, Value),
        probes: Vec<ProbeReport>,
        bounds: Bounds,
    ) -> Self {
        let (low, high) = (bounds.low(), bounds.high());
        let outcome = match (low, high) {
            _ if last["outcome"] == "interrupted" => Outcome::Interrupted,
            _ if last["outcome"] == "unreachable" => Outcome::Unreachable,
            (_, Some((_, Limit::Ringload))) => Outcome::Saturated,
            (Some(_), _) => Outcome::Passed,
            (None, _) => Outcome::Failed,
        };
        let load = &args.http.load;
        let closed = last["plan"]["rate"].is_null();
        Self {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            kind: "search",
            outcome,
            exit_status: outcome.exit_status(),
            plan: SearchPlan {
                protocol: "http",
                target: args.http.url.to_string(),
                connections: load.connections,
                threads: load.threads,
                max_time_s: args.max_time.as_secs_f64(),
                slos: args.slo.iter().map(ToString::to_string).collect(),
            },
            environment,
            elapsed_s: elapsed.as_secs_f64(),
            search: Found {
                rate: low,
                low: low.unwrap_or_default(),
                high: high.map(|(rate, _)| rate),
                limited_by: high.map(|(_, limit)| limit.name()),
                closed_loop_replies_per_s: last["replies_per_s"]
                    .as_f64()
                    .filter(|_| closed)
                    .unwrap_or_default(),
                probes,
            },
        }
    }

    /// Returns the summary.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut rows = Rows::default();
        rows.add("objectives", self.plan.slos.join(", "));
        let (count, seconds) = (self.search.probes.len(), self.elapsed_s);
        rows.add("probes", format_args!("{count} in {seconds:.1} s"));
        let of = |rate: f64| {
            self.search.probes.iter().rfind(|probe| probe.rate.total_cmp(&rate).is_eq())
        };
        rows.add_some("rate", self.search.rate.and_then(of));
        rows.add_some("too high", self.search.high.and_then(of));
        rows.text() + &self.conclusion() + "\n"
    }

    fn conclusion(&self) -> String {
        let per_s = |rate: f64| show_rate(rate) + " requests per second";
        match (self.outcome, self.search.rate) {
            (Outcome::Interrupted, _) => "INTERRUPTED".into(),
            (Outcome::Unreachable, _) => "UNREACHABLE: no connection was established".into(),
            (Outcome::Saturated, rate) => format!(
                "INVALID: ringload was the limit; the server meets the objectives up to {} at \
                 least",
                per_s(rate.unwrap_or_default())
            ),
            (_, None) => "FAILED: no rate meets the objectives".into(),
            (_, Some(rate)) => format!("{} meet all objectives", per_s(rate)),
        }
    }
}

impl fmt::Display for ProbeReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} per second", show_rate(self.rate))?;
        if self.confirms {
            write!(out, ", confirmation")?;
        }
        let p99 = self.latency_us["p99"].as_f64().unwrap_or_default();
        write!(out, ": {} answered, p99 {}", show_rate(self.replies_per_s), show_us(p99))?;
        if !self.is_reached {
            write!(out, "; fewer requests are answered than are due")?;
        }
        for slo in self.slos.iter().filter(|slo| !slo.met) {
            write!(out, "; {} is not met: {}", slo.expression, slo.shown)?;
        }
        match &self.bottleneck {
            Some(why) if self.limit().is_some() => write!(out, "; {}", show_text(why)),
            _ => Ok(()),
        }
    }
}

fn show_rate(rate: f64) -> String {
    match rate {
        ..100.0 => format!("{}", (rate * 100.0).round() / 100.0),
        _ => show_count(rate.round() as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::super::bounds::Probe;
    use super::*;
    use crate::args::{Cli, Target};
    use ringload_lifecycle::schema::check_against_schema;
    use serde_json::json;

    fn probe(rate: f64, bottleneck: Option<&str>, met: bool) -> ProbeReport {
        let latency = json!({ "samples": 1, "mean": 1.0, "min": 1.0, "p50": 1.0, "p90": 1.0,
                              "p99": 4_000.0, "p99.9": 1.0, "max": 1.0 });
        ProbeReport {
            rate,
            confirms: false,
            length_s: 1.0,
            replies_per_s: rate,
            is_reached: true,
            latency_us: latency,
            errors_total: 0,
            slos: vec![Objective {
                expression: "p99<5ms".into(),
                value: Some(4_000.0),
                shown: "4.00 ms".into(),
                met,
            }],
            bottleneck: bottleneck.map(String::from),
        }
    }

    /// The report of a search with these probes.
    fn report(outcome: &str, probes: Vec<ProbeReport>) -> SearchReport {
        let line = "ringload search http://h/ --slo p99<5ms";
        let Target::Search(args) = Cli::read(line.split(' ')).expect(line).target else {
            panic!("{line}")
        };
        let mut bounds = Bounds::new(1_000.0);
        for made in &probes {
            let probe = Probe { rate: made.rate, confirms: false };
            bounds.take(probe, made.limit());
        }
        let last = json!({ "outcome": outcome, "replies_per_s": 5_000.0, "plan": {} });
        let environment = Environment::of_this_process(Some(7));
        SearchReport::new(&args, environment, (Duration::from_secs(9), last), probes, bounds)
    }

    #[test]
    fn the_outcome_follows_the_bounds() {
        let met = || probe(1_000.0, None, true);
        let missed = |bottleneck| [0, 1].map(|_| probe(1_500.0, bottleneck, false));
        let all = |probes: [ProbeReport; 2]| [met()].into_iter().chain(probes).collect::<Vec<_>>();
        for (outcome, probes, status, limit, says) in [
            ("passed", all(missed(None)), 0, Some("slo"), "1,000 requests per second meet all"),
            ("failed", vec![met()], 0, None, "1,000 requests per second meet all"),
            ("passed", missed(None).to_vec(), 1, Some("slo"), "no rate meets the objectives"),
            ("passed", all(missed(Some("late"))), 4, Some("ringload"), "up to 1,000 requests"),
            ("passed", missed(Some("late")).to_vec(), 4, Some("ringload"), "ringload was"),
            ("interrupted", all(missed(None)), 130, Some("slo"), "INTERRUPTED"),
            ("unreachable", Vec::new(), 3, None, "UNREACHABLE"),
        ] {
            let report = report(outcome, probes);
            let text = report.summary();
            assert_eq!((report.exit_status, report.search.limited_by), (status, limit), "{text}");
            assert!(text.contains(says), "{text}");
            check_against_schema("search", &json!(report));
        }
    }

    #[test]
    fn a_rate_that_is_met_in_spite_of_ringload_is_met() {
        assert_eq!(probe(1.0, Some("late"), true).limit(), None);
        assert_eq!(probe(1.0, Some("late"), false).limit(), Some(Limit::Ringload));
        let unreached = ProbeReport { is_reached: false, ..probe(1.0, None, true) };
        assert_eq!(unreached.limit(), Some(Limit::Slo));
        let text = unreached.to_string();
        assert_eq!(
            text,
            "1 per second: 1 answered, p99 4.00 ms; fewer requests are answered than are due"
        );
        let text = probe(1_500.0, Some("it was late"), false).to_string();
        assert!(text.ends_with("; p99<5ms is not met: 4.00 ms; it was late"), "{text}");
    }
}
