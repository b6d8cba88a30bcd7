//! Verdicts on a run: conditions on its figures (`--fail-if`), and leaks of the server (`--ledger`,
//! `--pid`).
//!
//! A [`Witness`] inspects the server before and after the run. [`judge`] evaluates the conditions.
//! Both write their results into the [`Delivery`].

mod fetch;
mod ledger;
mod process;
mod settle;

use crate::args::CommonArgs;
use crate::condition::{Expression, Judgement};
use fetch::Refusal;
use ledger::Ledger;
use process::Process;
use ringload_lifecycle::delivery::Delivery;
use ringload_lifecycle::failure::Failure;
use ringload_lifecycle::report::Outcome;
use ringload_lifecycle::system::Interrupts;
use serde_json::{Value, json};
use settle::Stays;
use std::fmt::Write;
use std::time::Duration;

/// Note on `--pid`: only a ledger tells a pool from a leak.
const POOLS: &str = "(a pool that the server creates on first use looks like a leak once; run \
                     again: a leak grows with each run)";

/// Note on clients that vanished.
const HELD: &str = "the server still holds connections of clients that vanished without a packet, \
                    which it notices by its own timeouts (tell --deadline, raise --settle, or \
                    leave the fault out: --faults all,-vanish)";

/// The state of the server before the run.
#[derive(Debug)]
pub struct Witness {
    ledger: Option<Ledger>,
    process: Option<Process>,
    settle: Duration,
}

impl Witness {
    /// Inspects the server that `--ledger` or `--pid` names.
    ///
    /// # Errors
    /// The server cannot be inspected, so no comparison would be possible.
    pub fn before(common: &CommonArgs) -> Result<Self, Failure> {
        let ledger = common.ledger.as_ref().map(Ledger::read).transpose();
        let ledger = ledger.map_err(|refusal| match refusal {
            Refusal::Unreachable(what) => Failure::Unresolved(format!("--ledger {what}")),
            Refusal::Wrong(what) => Failure::Usage(format!("--ledger {what}")),
        })?;
        let process = common.pid.map(Process::look).transpose().map_err(Failure::Usage)?;
        Ok(Self { ledger, process, settle: common.settle })
    }

    /// Inspects the server again and writes leaks into `delivery`.
    pub fn after(self, delivery: &mut Delivery, interrupts: &Interrupts) {
        let vanished = Vanished::of(&delivery.report);
        let settle = self.settle + vanished.deadline;
        if let Some(ledger) = &self.ledger {
            let seen = ledger
                .after(settle, interrupts)
                .map(|seen| vanished.excuse(seen, "leaks", ledger::CONNECTIONS, &ledger::ERRORS));
            tell(delivery, "ledger", "balanced; everything was released", seen);
        }
        if let Some(process) = &self.process {
            let seen = process.after(settle, interrupts);
            let seen = seen.map(|seen| vanished.excuse(seen, "stays", process::CONNECTIONS, &[]));
            let rss = |of: &str| {
                let bytes = seen.as_ref().ok()?.0[of]["rss_bytes"].as_f64()?;
                Some(ringload_lifecycle::units::show_bytes(bytes))
            };
            let good = match (rss("before"), rss("after")) {
                (Some(before), Some(after)) => {
                    format!(
                        "everything was released; resident memory {before} before, {after} after"
                    )
                }
                _ => String::new(),
            };
            let stays = matches!(&seen, Ok((_, stays)) if !stays.is_empty());
            tell(delivery, "process", &good, seen);
            if stays {
                row(delivery, "", POOLS);
            }
        }
    }
}

/// The clients of a run that vanished without a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Vanished {
    count: u64,
    /// The server's timeout after which it notices, zero if it is not known.
    deadline: Duration,
}

impl Vanished {
    /// Returns those of a report of `churn`, or of all parts of a plan.
    fn of(report: &Value) -> Self {
        let parts = report["parts"].as_array().into_iter().flatten();
        let reports = || parts.clone().map(|part| &part["report"]).chain([report]);
        let count = reports().filter_map(|report| report["vanished"].as_u64()).sum();
        let deadlines = reports().filter_map(|report| report["plan"]["deadline_s"].as_f64());
        let deadline = deadlines.fold(0.0, f64::max);
        let deadline = if count > 0 { Duration::from_secs_f64(deadline) } else { Duration::ZERO };
        Self { count, deadline }
    }

    /// Moves what has grown out of `list` if the clients explain it.
    fn excuse(
        self,
        (mut observed, stays): (Value, Vec<Stays>),
        list: &str,
        connections: &str,
        never: &[&str],
    ) -> (Value, Vec<Stays>) {
        if !settle::is_explained(&stays, self.count, connections, never) {
            return (observed, stays);
        }
        observed["held_for_vanished"] = observed[list].take();
        observed[list] = json!([]);
        (observed, Vec::new())
    }
}

/// Evaluates the conditions of `--fail-if` and writes the results into `delivery`.
pub fn judge(delivery: &mut Delivery, demands: &[Expression]) {
    if demands.is_empty() {
        return;
    }
    let mut verdicts = Vec::new();
    for demand in demands {
        let judgement = demand.judge(&delivery.report);
        let word = match judgement {
            Judgement { value: None, .. } => "not evaluated",
            Judgement { failed: true, .. } => "FAILED",
            Judgement { failed: false, .. } => "passed",
        };
        row(delivery, "fail if", &format!("{demand}: {word}, {}", judgement.shown));
        if judgement.failed {
            fail(delivery);
        }
        verdicts.push(json!({
            "expression": demand.to_string(),
            "value": judgement.value,
            "evaluated": judgement.value.is_some(),
            "failed": judgement.failed,
        }));
    }
    set(delivery, "verdicts", verdicts.into());
}

/// Writes the state of the server after the run into the report as `name` and into the summary.
fn tell(
    delivery: &mut Delivery,
    name: &str,
    good: &str,
    seen: Result<(Value, Vec<Stays>), String>,
) {
    match seen {
        Ok((observed, stays)) => {
            let held = observed["held_for_vanished"].as_array().map(|held| {
                let show = |of: &Value| format!("{}: {}", of["name"].as_str()?, of["after"]).into();
                held.iter().filter_map(show).collect::<Vec<String>>().join(", ")
            });
            set(delivery, name, observed);
            if let Some(held) = held {
                return row(delivery, name, &format!("not judged: {held}; {HELD}"));
            }
            if stays.is_empty() {
                return row(delivery, name, good);
            }
            for stays in &stays {
                row(delivery, name, &format!("FAILED: {}", stays.text()));
            }
        }
        Err(why) => {
            set(delivery, name, json!({ "error": why }));
            row(delivery, name, &format!("FAILED: {why}"));
        }
    }
    fail(delivery);
}

fn row(delivery: &mut Delivery, name: &str, what: &str) {
    writeln!(delivery.summary, "{name:<13} {what}").expect("writing to a string does not fail");
}

fn set(delivery: &mut Delivery, name: &str, value: Value) {
    if let Some(report) = delivery.report.as_object_mut() {
        report.insert(name.into(), value);
    }
}

/// Marks a passed run as failed. An unreachable, interrupted or saturated run keeps its outcome.
fn fail(delivery: &mut Delivery) {
    if delivery.exit_status == Outcome::Passed.exit_status() {
        delivery.exit_status = Outcome::Failed.exit_status();
        set(delivery, "exit_status", delivery.exit_status.into());
        if delivery.report["outcome"] == json!(Outcome::Passed) {
            set(delivery, "outcome", json!(Outcome::Failed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::sample;
    use ringload_lifecycle::schema::check_against_schema;

    fn delivery(exit_status: u8) -> Delivery {
        let report = json!({
            "kind": "load", "outcome": "passed", "exit_status": exit_status,
            "errors_total": 0, "replies_per_s": 10.0,
        });
        Delivery { report, exit_status, ..Delivery::new(&(), String::new(), 0) }
    }

    fn demands(texts: &[&str]) -> Vec<Expression> {
        texts.iter().map(|text| text.parse().expect("an expression")).collect()
    }

    #[test]
    fn a_demand_that_is_not_met_fails_the_run() {
        let mut good = delivery(0);
        judge(&mut good, &demands(&["errors>0"]));
        assert_eq!((good.exit_status, &good.report["outcome"]), (0, &"passed".into()));
        assert_eq!(good.summary, "fail if       errors>0: passed, 0\n");
        let mut bad = delivery(0);
        judge(&mut bad, &demands(&["errors>0", "replies_per_s<1k"]));
        assert_eq!((bad.exit_status, &bad.report["outcome"]), (1, &"failed".into()));
        assert_eq!(bad.report["exit_status"], 1);
        assert_eq!(
            bad.report["verdicts"],
            json!([
                { "expression": "errors>0", "value": 0.0, "evaluated": true, "failed": false },
                { "expression": "replies_per_s<1k", "value": 10.0, "evaluated": true,
                  "failed": true },
            ])
        );
        assert!(bad.summary.ends_with("fail if       replies_per_s<1k: FAILED, 10\n"));
    }

    #[test]
    fn vanished_clients_are_waited_for_and_are_no_leak() {
        let report = json!({ "vanished": 3, "plan": { "deadline_s": 2.5 } });
        let vanished = Vanished::of(&report);
        assert_eq!(vanished, Vanished { count: 3, deadline: Duration::from_millis(2_500) });
        let plan = json!({ "parts": [{ "report": report }, { "report": report }, {}] });
        assert_eq!(Vanished::of(&plan).count, 6);
        let none = json!({ "vanished": 0, "plan": { "deadline_s": 2.5 } });
        assert_eq!(Vanished::of(&none), Vanished { count: 0, deadline: Duration::ZERO });
        for (open, fails) in [(2, false), (4, true)] {
            let stays = vec![Stays::new(ledger::CONNECTIONS, 0, open).expect("it is more")];
            let observed = json!({ "url": "http://a/", "before": {}, "after": {}, "leaks": &stays,
                               "settled_s": 0.5 });
            let seen =
                vanished.excuse((observed, stays), "leaks", ledger::CONNECTIONS, &ledger::ERRORS);
            let report = json!(sample());
            let mut delivery = Delivery { report, ..delivery(0) };
            tell(&mut delivery, "ledger", "", Ok(seen));
            check_against_schema("load", &delivery.report);
            assert_eq!(delivery.exit_status, u8::from(fails), "{}", delivery.summary);
            assert_eq!(delivery.summary.contains("not judged: connections.open: 2;"), !fails);
        }
    }

    #[test]
    fn nothing_is_not_evaluated() {
        let mut none = delivery(3);
        none.report["outcome"] = "unreachable".into();
        none.report["latency_us"] = json!({ "samples": 9, "p99": 1.0 });
        judge(&mut none, &demands(&["p99>5ms", "replies_per_s<1k", "errors>0"]));
        let text = "p99>5ms: not evaluated, no connection could be established";
        assert!(none.summary.contains(text), "{}", none.summary);
        assert!(none.summary.contains("replies_per_s<1k: not evaluated"), "{}", none.summary);
        assert!(none.summary.contains("errors>0: passed, 0"), "{}", none.summary);
        assert_eq!(
            (none.exit_status, &none.report["verdicts"][0]["evaluated"]),
            (3, &false.into())
        );
        let mut some = delivery(0);
        judge(&mut some, &demands(&["p99>5ms"]));
        assert!(some.summary.contains("p99>5ms: not evaluated, this report"), "{}", some.summary);
        assert_eq!(some.exit_status, 1);
    }

    #[test]
    fn what_counts_more_is_not_masked() {
        for status in [1, 2, 3, 4, 130] {
            let mut delivery = delivery(status);
            judge(&mut delivery, &demands(&["errors==0"]));
            assert_eq!(delivery.exit_status, status);
            assert_eq!(delivery.report["exit_status"], status);
        }
    }

    #[test]
    fn what_is_written_into_a_report_is_what_its_schema_says() {
        let report = json!(sample());
        let mut delivery = Delivery { report, ..delivery(0) };
        judge(&mut delivery, &demands(&["errors>0", "findings>0"]));
        let process = Process::look(std::process::id()).expect("this process");
        let interrupts = Interrupts::block().expect("blocking signals needs no right");
        let seen = process.after(Duration::ZERO, &interrupts);
        tell(&mut delivery, "process", "", seen);
        let stays = Stays::new("connections.open", 0, 2).expect("it is more");
        let ledger = json!({
            "url": "http://a/", "before": {}, "after": {}, "leaks": [&stays], "settled_s": 0.5,
        });
        tell(&mut delivery, "ledger", "", Ok((ledger, vec![stays])));
        check_against_schema("load", &delivery.report);
        let text = &delivery.summary;
        assert!(
            text.contains("ledger        FAILED: connections.open: 2, before the run 0"),
            "{text}"
        );
        assert_eq!(delivery.exit_status, 1);
        tell(&mut delivery, "ledger", "", Err("gone".into()));
        check_against_schema("load", &delivery.report);
    }
}
