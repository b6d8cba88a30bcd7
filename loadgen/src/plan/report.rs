//! The report of a plan; `report.schema.json` describes the fields.

use super::conductor::{Conductor, EventRun, PartRun};
use super::schedule::{Schedule, Server};
use super::server::Running;
use super::words;
use ringload_lifecycle::delivery::Delivery;
use ringload_lifecycle::report::{Environment, Outcome, SCHEMA};
use serde::Serialize;
use serde_json::Value;
use std::time::Duration;

/// The plan.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)] // Described in report.schema.json, where scripts read it.
pub struct PlanPlan {
    pub file: String,
    pub length_s: f64,
    pub seed: Option<u64>,
    pub drains: bool,
}

/// One part.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)]
pub struct PartReport {
    pub name: String,
    pub phase: Option<String>,
    pub command: String,
    pub start_s: f64,
    pub length_s: Option<f64>,
    pub started_s: Option<f64>,
    pub ended_s: Option<f64>,
    pub exit_status: Option<i32>,
    pub verdict: &'static str,
    pub error: Option<String>,
    pub report: Value,
    #[serde(skip)]
    pub last_words: Vec<String>,
}

/// One event.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)]
pub struct EventReport {
    pub what: String,
    pub time_s: f64,
    pub done_s: Option<f64>,
    pub exit_status: Option<i32>,
    pub error: Option<String>,
}

/// The server.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)]
pub struct ServerReport {
    pub server: String,
    pub pid: u32,
    pub ready_s: f64,
    pub told: Option<&'static str>,
    pub told_s: Option<f64>,
    pub ended_s: Option<f64>,
    pub drain_s: Option<f64>,
    pub exit_status: Option<i32>,
    pub error: Option<String>,
}

/// The report of one plan.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)]
pub struct PlanReport {
    pub schema: u32,
    pub version: &'static str,
    pub kind: &'static str,
    pub outcome: Outcome,
    pub exit_status: u8,
    pub plan: PlanPlan,
    pub environment: Environment,
    pub elapsed_s: f64,
    pub server: Option<ServerReport>,
    pub parts: Vec<PartReport>,
    pub events: Vec<EventReport>,
}

impl PlanReport {
    /// Makes the report of a plan that has been carried out.
    #[must_use]
    pub fn new(
        (file, schedule): (String, &Schedule),
        environment: Environment,
        elapsed: Duration,
        conductor: &Conductor,
    ) -> Self {
        let server = schedule.server.as_ref().zip(conductor.server.as_ref());
        let mut report = Self {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            kind: "plan",
            outcome: Outcome::Passed,
            exit_status: 0,
            plan: PlanPlan {
                file,
                length_s: schedule.length().as_secs_f64(),
                seed: schedule.seed,
                drains: schedule.is_drained,
            },
            environment,
            elapsed_s: elapsed.as_secs_f64(),
            server: server.map(|(server, running)| ServerReport::new(server, running)),
            parts: conductor.parts.iter().map(PartReport::new).collect(),
            events: conductor.events.iter().map(EventReport::new).collect(),
        };
        report.outcome = report.judge(conductor.interrupted);
        report.exit_status = report.outcome.exit_status();
        report
    }

    /// Marks the plan as failed if the server leaked.
    pub fn settled(&mut self, seen: &Delivery) {
        if seen.exit_status != 0 && self.outcome == Outcome::Passed {
            self.outcome = Outcome::Failed;
            self.exit_status = self.outcome.exit_status();
        }
    }

    fn judge(&self, interrupted: bool) -> Outcome {
        let all = |verdict: &str| self.parts.iter().all(|part| part.verdict == verdict);
        let any = |verdict: &str| self.parts.iter().any(|part| part.verdict == verdict);
        let is_good = |part: &PartReport| matches!(part.verdict, "passed" | "bottleneck");
        let wrong = self.server.as_ref().is_some_and(|server| server.error.is_some())
            || self.events.iter().any(|event| event.error.is_some());
        if interrupted {
            Outcome::Interrupted
        } else if all("unreachable") {
            Outcome::Unreachable
        } else if wrong || !self.parts.iter().all(is_good) {
            Outcome::Failed
        } else if any("bottleneck") {
            Outcome::Saturated
        } else {
            Outcome::Passed
        }
    }
}

impl PartReport {
    fn new(run: &PartRun) -> Self {
        let part = &run.part;
        let exit_status = run.ended.map(|(_, ended)| ended.status());
        Self {
            name: part.name.clone(),
            phase: part.phase.clone(),
            command: format!("ringload {}", words::join(part.words.iter().map(String::as_str))),
            start_s: part.start.as_secs_f64(),
            length_s: part.length.map(|length| length.as_secs_f64()),
            started_s: run.started.map(|at| at.as_secs_f64()),
            ended_s: run.ended.map(|(at, _)| at.as_secs_f64()),
            exit_status,
            verdict: verdict(run.started.is_some(), run.error.is_some(), exit_status),
            error: run.error.clone(),
            report: run.report.clone(),
            last_words: run.last_words.clone(),
        }
    }
}

/// Translates an exit status.
const fn verdict(started: bool, is_wrong: bool, exit_status: Option<i32>) -> &'static str {
    match (exit_status, is_wrong) {
        _ if !started => "not started",
        (Some(0), false) => "passed",
        (Some(2), _) => "refused",
        (Some(3), _) => "unreachable",
        (Some(4), false) => "bottleneck",
        (Some(130), false) => "interrupted",
        _ => "failed",
    }
}

impl EventReport {
    fn new(run: &EventRun) -> Self {
        Self {
            what: run.event.deed.show(),
            time_s: run.event.time.as_secs_f64(),
            done_s: run.done.map(|at| at.as_secs_f64()),
            exit_status: run.ended.map(super::child::Ended::status),
            error: run.error.clone(),
        }
    }
}

impl ServerReport {
    fn new(server: &Server, running: &Running) -> Self {
        let ended = running.ended.and_then(|(_, ended)| ended);
        Self {
            server: server.show(),
            pid: running.id(),
            ready_s: running.ready.as_secs_f64(),
            told: running.end_signal.map(|end| end.signal.name),
            told_s: running.end_signal.map(|end| end.at.as_secs_f64()),
            ended_s: running.ended.map(|(at, _)| at.as_secs_f64()),
            drain_s: running.drained_in().map(|time| time.as_secs_f64()),
            exit_status: ended.map(super::child::Ended::status),
            error: running.error.clone(),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::report::tests::sample;
    use ringload_lifecycle::schema::check_against_schema;

    fn part(name: &str, exit_status: Option<i32>) -> PartReport {
        PartReport {
            name: name.into(),
            phase: Some("storm".into()),
            command: format!("ringload http http://127.0.0.1:8080/ # {name}"),
            start_s: 0.0,
            length_s: Some(10.0),
            started_s: Some(0.01),
            ended_s: Some(10.2),
            exit_status,
            verdict: verdict(true, false, exit_status),
            error: None,
            report: serde_json::to_value(sample()).expect("a report is JSON"),
            last_words: vec!["FAILED: errors were seen.".into()],
        }
    }

    /// A plan whose two parts ended with `statuses`.
    pub(in super::super) fn report(statuses: [i32; 2]) -> PlanReport {
        let mut report = PlanReport {
            schema: SCHEMA,
            version: "1.2.3",
            kind: "plan",
            outcome: Outcome::Passed,
            exit_status: 0,
            plan: PlanPlan {
                file: "drain.toml".into(),
                length_s: 10.0,
                seed: Some(7),
                drains: true,
            },
            environment: Environment::of_this_process(Some(7)),
            elapsed_s: 10.25,
            server: Some(ServerReport {
                server: "ringwrightd http".into(),
                pid: 42,
                ready_s: 0.05,
                told: Some("TERM"),
                told_s: Some(5.0),
                ended_s: Some(5.5),
                drain_s: Some(0.5),
                exit_status: Some(0),
                error: None,
            }),
            parts: vec![part("one", Some(statuses[0])), part("other", Some(statuses[1]))],
            events: vec![EventReport {
                what: "signal TERM".into(),
                time_s: 5.0,
                done_s: Some(5.003),
                exit_status: None,
                error: None,
            }],
        };
        report.outcome = report.judge(false);
        report.exit_status = report.outcome.exit_status();
        report
    }

    #[test]
    fn the_report_is_what_its_schema_says() {
        check_against_schema("plan", &serde_json::to_value(report([0, 1])).expect("JSON"));
    }

    #[test]
    fn the_outcome_is_the_worst_of_the_parts() {
        for (statuses, exit_status) in [
            ([0, 0], 0),
            ([0, 1], 1),
            ([4, 0], 4),
            ([4, 1], 1),
            ([3, 3], 3),
            ([0, 3], 1),
            ([0, 2], 1),
            ([0, 137], 1),
            ([0, 130], 1),
        ] {
            assert_eq!(report(statuses).exit_status, exit_status, "{statuses:?}");
        }
    }

    #[test]
    fn what_the_server_or_an_event_did_wrong_fails_the_plan() {
        let mut wrong = report([0, 0]);
        assert_eq!(wrong.judge(true), Outcome::Interrupted);
        wrong.events[0].error = Some("it ended with status 1".into());
        assert_eq!(wrong.judge(false), Outcome::Failed);
        let mut wrong = report([0, 0]);
        wrong.server.as_mut().expect("a server").error = Some("it stayed".into());
        assert_eq!(wrong.judge(false), Outcome::Failed);
    }

    #[test]
    fn a_part_that_did_not_end_by_itself_has_not_passed() {
        assert_eq!(verdict(false, false, None), "not started");
        assert_eq!(verdict(true, true, Some(0)), "failed");
        assert_eq!(verdict(true, true, None), "failed");
    }
}
