//! Text output of `ringload churn`.

use super::report::{BystandersReport, CellReport, ExampleReport, Outcome, Plan, Report};
use crate::cell::{Kind, Point};
use crate::units::{plural, show_count, show_time};
use std::fmt::Write;
use std::time::Duration;

/// Width of the first column of the matrix and of the others.
const WIDTHS: (usize, usize) = (16, 13);
/// Maximum number of outcomes shown; the JSON report has all of them.
const OUTCOMES_MAX: usize = 12;

/// Returns the line that describes the run before it starts.
pub(super) fn opening(plan: &Plan, seed: u64) -> String {
    let until = match (plan.count, plan.duration_s) {
        (Some(count), _) => format!("{} scripts", show_count(count)),
        (None, seconds) => format!("{:?}", Duration::from_secs_f64(seconds.unwrap_or_default())),
    };
    format!(
        "ringload churn {}: {} cells of the fault matrix, {} scripts at a time, {until}, seed \
         {seed}",
        plan.target,
        plan.faults.len(),
        plan.connections,
    )
}

/// Returns the heading of the lines of [`line()`].
pub(super) fn heading() -> String {
    format!(
        "{:>8}  {:>12}  {:>8}  {:>6}  {:>9}",
        "elapsed", "connections", "conn/s", "open", "findings"
    )
}

/// Returns the line of one second.
pub(super) fn line(
    elapsed: Duration,
    connections: u64,
    per_s: f64,
    open: u64,
    findings: u64,
) -> String {
    format!(
        "{:>7.1}s  {:>12}  {:>8}  {:>6}  {:>9}",
        elapsed.as_secs_f64(),
        show_count(connections),
        show_count(per_s as u64),
        show_count(open),
        show_count(findings)
    )
}

/// Returns the summary of a run.
pub(super) fn summary(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write(report, &mut text);
    text
}

fn write(report: &Report, out: &mut String) -> std::fmt::Result {
    let seed = report.environment.seed.unwrap_or_default();
    if report.outcome == Outcome::Unreachable {
        return writeln!(out, "UNREACHABLE: no server answers at {}", report.plan.address);
    }
    writeln!(
        out,
        "\n{} connections of {} scripts in {:.1} s ({}/s), seed {seed}",
        show_count(report.connections),
        show_count(report.scripts),
        report.elapsed_s,
        show_count(report.connections_per_s as u64),
    )?;
    matrix(report, out)?;
    outcomes(report, out)?;
    let reaction = &report.reaction_time_us;
    if reaction.samples > 0 {
        writeln!(
            out,
            "\nreaction time (client's last byte or FIN to the server's FIN or RST): p50 {}, p99 \
             {}, p99.9 {}, max {}",
            us(reaction.p50),
            us(reaction.p99),
            us(reaction.p99_9),
            us(reaction.max)
        )?;
    }
    if let Some(bystanders) = &report.bystanders {
        latencies(bystanders, out)?;
    }
    if report.unfinished > 0 {
        writeln!(
            out,
            "{} scripts were unfinished at the end of the run",
            show_count(report.unfinished)
        )?;
    }
    if let Some(shortage) = &report.shortage {
        writeln!(out, "bottleneck: {shortage}; {} scripts did not run", report.not_walked)?;
    }
    if let Some(why) = &report.not_played_why {
        let count = plural(report.not_played, "script");
        writeln!(out, "vanish was not played in {count}: {why}")?;
    }
    if report.vanished > 0 {
        writeln!(
            out,
            "{} vanished without a packet; the server keeps their connections until its own \
             timeouts (tell --deadline, or raise --settle, for --ledger and --pid)",
            plural(report.vanished, "client"),
        )?;
    }
    findings(report, out)?;
    match report.outcome {
        Outcome::Passed => writeln!(out, "PASSED: the protocol allows every outcome"),
        Outcome::Failed => writeln!(out, "FAILED: {}", plural(report.findings_total, "finding")),
        Outcome::Interrupted => {
            writeln!(out, "INTERRUPTED: {} so far", plural(report.findings_total, "finding"))
        }
        Outcome::Bottleneck => {
            writeln!(out, "INVALID: ringload ran out of ports or descriptors; see above")
        }
        Outcome::Unreachable => Ok(()),
    }
}

fn matrix(report: &Report, out: &mut String) -> std::fmt::Result {
    let of = |point: Point, kind: Kind| {
        report.cells.iter().find(|it| it.point == point.name() && it.kind == kind.name())
    };
    let has_run = |kind: &Kind| Point::ALL.iter().any(|point| of(*point, *kind).is_some());
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(has_run).collect();
    let (first, other) = WIDTHS;
    write!(out, "\n{:first$}", "scripts")?;
    for kind in &kinds {
        write!(out, "{:>other$}", kind.name())?;
    }
    out.push('\n');
    for point in Point::ALL {
        if kinds.iter().all(|kind| of(point, *kind).is_none()) {
            continue;
        }
        write!(out, "{:first$}", point.name())?;
        for kind in &kinds {
            write!(out, "{:>other$}", of(point, *kind).map_or_else(String::new, cell))?;
        }
        out.push('\n');
    }
    if report.findings_total > 0 {
        writeln!(out, "(412!3 means 412 scripts and 3 findings)")?;
    }
    Ok(())
}

fn cell(cell: &CellReport) -> String {
    match cell.findings.values().sum::<u64>() {
        0 if cell.not_played > 0 && cell.not_played == cell.scripts => "not played".into(),
        0 => show_count(cell.scripts),
        wrong => format!("{}!{wrong}", show_count(cell.scripts)),
    }
}

fn outcomes(report: &Report, out: &mut String) -> std::fmt::Result {
    let mut all = std::collections::BTreeMap::new();
    for (outcome, count) in report.cells.iter().flat_map(|cell| &cell.outcomes) {
        *all.entry(outcome.as_str()).or_insert(0_u64) += count;
    }
    let mut all: Vec<(&str, u64)> = all.into_iter().collect();
    all.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    out.push('\n');
    for (outcome, count) in all.iter().take(OUTCOMES_MAX) {
        writeln!(out, "{:>12}  {outcome}", show_count(*count))?;
    }
    match all.len().saturating_sub(OUTCOMES_MAX) {
        0 => Ok(()),
        more => writeln!(out, "{:>12}  and {more} rarer outcomes", ""),
    }
}

fn latencies(latencies: &BystandersReport, out: &mut String) -> std::fmt::Result {
    writeln!(
        out,
        "\n{:24}{:>10}{:>10}{:>10}{:>10}",
        format!("{} bystanders", latencies.count),
        "p50",
        "p99",
        "p99.9",
        "max"
    )?;
    for (name, it) in
        [("before the faults", &latencies.baseline_us), ("during the faults", &latencies.abuse_us)]
    {
        let times = [it.p50, it.p99, it.p99_9, it.max].map(us);
        let [p50, p99, p99_9, max] = times;
        writeln!(out, "{name:24}{p50:>10}{p99:>10}{p99_9:>10}{max:>10}")?;
    }
    writeln!(
        out,
        "{:24}{:>9.1}×{:>9.1}×{:>9.1}×{:>9.1}×",
        "ratio",
        latencies.ratio_p50,
        latencies.ratio_p99,
        latencies.ratio_p99_9,
        latencies.ratio_max
    )
}

fn findings(report: &Report, out: &mut String) -> std::fmt::Result {
    for (rule, count) in &report.findings {
        writeln!(out, "\n{rule}: {}", plural(*count, "time"))?;
        if let Some(example) = report.examples.iter().find(|it| it.rule == *rule) {
            self::example(example, out)?;
        }
    }
    out.push('\n');
    Ok(())
}

fn example(example: &ExampleReport, out: &mut String) -> std::fmt::Result {
    writeln!(out, "  first at {}/{}: {}", example.point, example.kind, example.detail)?;
    let tries = plural(example.shrink_tries.into(), "attempt");
    match example.seen_again {
        None => {}
        Some("alone") => writeln!(out, "  shrunk to ({tries}):")?,
        Some("together") => {
            let count = example.shrunk.len();
            writeln!(
                out,
                "  fails only with other scripts; shrunk to {count} at the same time ({tries}):"
            )?;
        }
        Some("server_down") => writeln!(
            out,
            "  the server did not survive: well-behaved connections fail now too. Restart it and \
             replay the scripts that were running:"
        )?,
        Some(_) => writeln!(
            out,
            "  not reproduced, neither alone nor with other scripts ({tries}); try --times and \
             --company:"
        )?,
    }
    writeln!(out, "  {}", example.replay)
}

fn us(us: f64) -> String {
    show_time((us * 1e3) as u64)
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::sample;
    use super::*;

    #[test]
    fn the_matrix_and_each_rule_are_told() {
        let text = summary(&sample());
        for part in [
            "asked                     2!2",
            "lost_reply: 2 times",
            "  first at asked/rst: it is lost",
            "shrunk to (9 attempts):\n  ringload replay --timeout 2s",
            "not_served: 6 times\n  first at bystander/none: it waits",
            "3.0×",
            "no ephemeral ports are free",
            "vanish was not played in 2 scripts: the kernel does not let this user",
            "4 clients vanished without a packet",
            "FAILED: 8 findings",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
    }
}
