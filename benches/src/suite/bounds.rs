//! The bounds, and the verdict on each.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Results;

/// One demand.
#[derive(Deserialize, JsonSchema, Serialize)]
pub struct Verdict {
    /// The figure and the other server.
    pub measure: String,
    /// The bound.
    pub demanded: String,
    /// The value with its interval, for people.
    pub measured: String,
    /// Median, or the figure itself.
    pub value: f64,
    /// 95 % confidence interval of the median; null: it was counted.
    pub interval: Option<(f64, f64)>,
    /// The value is within the bound.
    pub reached: bool,
}

/// A cell, whom ours is held against, and the ratio that is demanded.
const RATIOS: [(&str, &str, &str, f64); 18] = [
    ("64-byte echo, 64 connections, replies/s", "echo-64B-64", "limit", 0.92),
    ("64-byte echo, 512 connections, replies/s", "echo-64B-512", "limit", 0.92),
    ("64-byte echo, 64 connections, replies/s", "echo-64B-64", "tokio", 1.10),
    ("64-byte echo, 64 connections, replies/s", "echo-64B-64", "monoio", 1.00),
    ("64-byte echo, 64 connections, replies/s", "echo-64B-64", "compio", 1.10),
    ("64-byte echo, 512 connections, replies/s", "echo-64B-512", "tokio", 1.20),
    ("64-byte echo, 512 connections, replies/s", "echo-64B-512", "monoio", 1.10),
    ("64-byte echo, 512 connections, replies/s", "echo-64B-512", "compio", 1.15),
    ("1 KiB GET, 64 connections, replies/s", "http-64", "hyper", 1.20),
    ("1 KiB GET, 64 connections, replies/s", "http-64", "nginx", 1.40),
    ("1 KiB GET, 512 connections, replies/s", "http-512", "hyper", 1.20),
    ("1 KiB GET, 512 connections, replies/s", "http-512", "nginx", 1.40),
    ("pipelined 16, requests per CPU-second", "pipelined-16", "hyper", 2.0),
    ("pipelined 16, requests per CPU-second", "pipelined-16", "nginx", 2.0),
    ("64 KiB files, bytes per CPU-second", "files-64KiB", "nginx", 1.2),
    ("1 MiB files, bytes per CPU-second", "files-1MiB", "nginx", 1.1),
    ("100 MiB files, bytes per CPU-second", "files-100MiB", "nginx", 1.1),
    ("connections per CPU-second", "connections", "nginx", 1.0),
];
/// Cells at half load: ours at most so much of anybody's CPU per reply.
const HALF: [&str; 2] = ["half-echo", "half-http"];
const HALF_MAX: f64 = 1.00;
const GROWTH_MAX: f64 = 1.1;
const INSTRUCTION_SCENARIOS: [&str; 2] = ["echo 32 at a time", "echo 1 at a time"];
const INSTRUCTIONS_MAX: f64 = 1500.0;
const IDLE_BYTES_MAX: f64 = 128.0;

/// Judges the results. A bound whose cell was not measured is left out.
pub fn verdicts(results: &Results) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for (measure, id, other, least) in RATIOS {
        let Some(ratio) = results.ratio(id, other) else { continue };
        verdicts.push(Verdict {
            measure: format!("{measure}, to {other}"),
            demanded: format!("≥ {least:.2}"),
            measured: measured(ratio.spread.median, ratio.interval),
            value: ratio.spread.median,
            interval: Some(ratio.interval),
            reached: ratio.spread.median >= least,
        });
    }
    for cell in results.cells.iter().filter(|cell| HALF.contains(&cell.id.as_str())) {
        for contest in &cell.contests {
            let Some(ratio) = &contest.ratio else { continue };
            // A fixed reply is a bound: a server that reads no file is no peer.
            if cell.protocol == "http" && contest.name == "limit" {
                continue;
            }
            verdicts.push(Verdict {
                measure: format!(
                    "{}, CPU per reply at a fixed rate, to {}",
                    cell.protocol, contest.name
                ),
                demanded: format!("≤ {HALF_MAX:.2}"),
                measured: measured(ratio.spread.median, ratio.interval),
                value: ratio.spread.median,
                interval: Some(ratio.interval),
                reached: ratio.spread.median <= HALF_MAX,
            });
        }
    }
    verdicts.extend(growth(results));
    if let Some(idle) = results.idle.iter().find(|idle| idle.name == "ringwrightd echo") {
        verdicts.push(Verdict {
            measure: "idle connection, user space".into(),
            demanded: format!("≤ {IDLE_BYTES_MAX} B"),
            measured: format!("{:.0} B", idle.user_bytes),
            value: idle.user_bytes,
            interval: None,
            reached: idle.user_bytes <= IDLE_BYTES_MAX,
        });
    }
    let counted: serde_json::Value =
        serde_json::from_str(include_str!("../../instructions.json")).expect("it is JSON");
    for scenario in INSTRUCTION_SCENARIOS {
        let Some(value) = counted["instructions"][scenario].as_f64() else { continue };
        verdicts.push(Verdict {
            measure: format!("user-space instructions, {scenario} (`instructions.json`)"),
            demanded: format!("≤ {INSTRUCTIONS_MAX}"),
            measured: format!("{value:.0}"),
            value,
            interval: None,
            reached: value <= INSTRUCTIONS_MAX,
        });
    }
    verdicts
}

/// Judges the growth of the CPU per reply with the number of connections.
fn growth(results: &Results) -> Option<Verdict> {
    let ratio = |id| results.ratio(id, "limit");
    let (few, many) = (ratio("growth-64")?, ratio("growth-16000")?);
    let value = many.spread.median / few.spread.median;
    // The worst that both intervals allow.
    let interval = (many.interval.0 / few.interval.1, many.interval.1 / few.interval.0);
    Some(Verdict {
        measure: "CPU per reply, 16,000 connections / 64, to the bare ring's own growth".into(),
        demanded: format!("≤ {GROWTH_MAX:.2}"),
        measured: measured(value, interval),
        value,
        interval: Some(interval),
        reached: value <= GROWTH_MAX,
    })
}

fn measured(median: f64, (low, high): (f64, f64)) -> String {
    format!("{median:.3} ({low:.3} – {high:.3})")
}
