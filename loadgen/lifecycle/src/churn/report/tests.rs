//! Tests of the printed churn report.

use super::*;
use crate::args::tests::read;
use crate::cell::{Kind, Point};
use crate::dialect::Ending;
use crate::finding::Finding;
use crate::oracle::tests::seen;
use crate::oracle::wrong;
use crate::schema::check_against_schema;
use crate::shrink::Shrunk;
use crate::walk::{Seen, Walked};
use std::sync::Arc;

fn walked(number: u64) -> Walked {
    let script = format!("echo://127.0.0.1:1 seed=7 number={number} say=64 connect send=all rst");
    let mut record = seen(64, 0, Ending::Reset);
    record.reaction = Some(Duration::from_millis(3));
    let seen = Seen { outgoing: Default::default(), record, local: None, unacknowledged: 0 };
    Walked {
        tag: number,
        script: Arc::new(script.parse().expect("a script")),
        lives: vec![seen],
        took: Duration::from_millis(5),
        trace: Vec::new(),
        short: None,
        vanished: 2,
        unplayed: Some(std::io::Error::from_raw_os_error(libc::EPERM)),
    }
}

fn run(found: bool) -> Run {
    let mut run = Run { is_there: true, elapsed: Duration::from_secs(2), ..Run::unreachable() };
    let cell = Cell { point: Point::Asked, kind: Kind::Rst };
    // The later one comes first, as it may.
    for number in [5, 3] {
        let walked = walked(number);
        let mut verdict = wrong("no echo, reset", Finding::new(Rule::LostReply, "it is lost"));
        verdict.finding = verdict.finding.filter(|_| found);
        run.tally.take(Some(cell), &walked, &[verdict], vec![walked.script.clone()]);
    }
    run
}

/// A report with something in every field.
pub(in crate::churn) fn sample() -> Report {
    let line = "127.0.0.1:1 --timeout 2s --deadline 3s --may-reject --vary-ok -n 5 \
                --proxy-protocol v2 --clients 192.0.2.0/24 --resolve a:1:127.0.0.1";
    let args: &ChurnArgs = &read(&line.split_whitespace().collect::<Vec<_>>());
    let mut run = run(true);
    let first = &mut run.tally.examples[0];
    let scripts = vec![(*first.script).clone()];
    first.shrunk = Some(Shrunk { scripts, again: Again::Alone, tries: 9 });
    run.shortage = Some("no ephemeral ports are free".into());
    let mut latencies = Latencies::nothing();
    latencies.connections = 4;
    latencies.baseline_ns.saturating_record(1_000_000);
    latencies.abuse_ns.saturating_record(3_000_000);
    let script = (*walked(9).script).clone();
    latencies.findings.insert(Rule::NotServed, 6);
    latencies.examples.push((Finding::new(Rule::NotServed, "it waits"), script));
    run.tally.add_bystanders(&latencies);
    run.latencies = Some(latencies);
    let target = args.target().expect("an address");
    let to = SocketAddr::from(([127, 0, 0, 1], 1));
    let cell = Cell { point: Point::Asked, kind: Kind::Rst };
    let plan = Plan::new(args, &target, to, &[cell]);
    Report::new(run, plan, Environment::of_this_process(Some(7)))
}

#[test]
fn the_report_is_what_its_schema_says() {
    check_against_schema("churn", &serde_json::to_value(sample()).expect("a report is JSON"));
}

#[test]
fn findings_are_counted_and_the_earliest_is_shown() {
    let report = sample();
    assert_eq!((report.outcome, report.exit_status), (Outcome::Failed, 1));
    assert_eq!((report.findings_total, report.findings["lost_reply"]), (8, 2));
    assert_eq!((report.scripts, report.connections), (2, 2));
    let first = report.examples.iter().find(|it| it.rule == "lost_reply").expect("one");
    assert!(first.script.contains("number=3"), "{}", first.script);
    assert_eq!(
        first.replay,
        format!(
            "ringload replay --timeout 2s --deadline 3s --may-reject --vary-ok --proxy-protocol v2 \
             --clients 192.0.2.0/24 --resolve a:1:127.0.0.1 '{}'",
            first.script
        )
    );
    let bystanders = report.bystanders.expect("there were some");
    assert!((bystanders.ratio_p99 - 3.0).abs() < 0.01 && bystanders.findings == 6);
}

#[test]
fn outcomes_follow_the_counts() {
    let outcome = |run: &Run| run.outcome().exit_status();
    assert_eq!(outcome(&Run::unreachable()), 3);
    assert_eq!((outcome(&run(true)), outcome(&run(false))), (1, 0));
    let mut short = run(false);
    short.tally.not_walked = 1;
    assert_eq!(outcome(&short), 4);
    short.was_interrupted = true;
    assert_eq!(outcome(&short), 130);
}
