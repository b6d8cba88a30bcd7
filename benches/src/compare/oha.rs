//! oha, and what it says: JSON of its own form.

use std::collections::BTreeMap;
use std::process::Command;

use serde::Deserialize;

use super::generator::{Loaded, Request, Times};
use super::subject::PAYLOAD;

/// oha's name for requests that the end of its run cut off.
const CUT_OFF: &str = "aborted due to deadline";
const OK: &str = "200";

/// In a closed loop, or at a rate: then its latency counts from when a request was to be sent.
pub fn arguments(request: &Request, command: &mut Command) {
    let milliseconds = request.duration.as_millis();
    command.args(["--no-tui", "--output-format", "json"]);
    command.args(["-c", &request.connections.to_string(), "-z", &format!("{milliseconds}ms")]);
    if let Some(rate) = request.work.rate {
        command.args(["-q", &rate.to_string(), "--latency-correction"]);
    }
    command.arg(format!("http://{}/{PAYLOAD}", request.server.address));
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    summary: Summary,
    /// Seconds.
    latency_percentiles: BTreeMap<String, f64>,
    status_code_distribution: BTreeMap<String, u64>,
    error_distribution: BTreeMap<String, u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    /// Length of the run, seconds.
    total: f64,
    /// Seconds.
    slowest: f64,
    total_data: u64,
}

/// Reads it; errors that it met are one.
pub fn parse(text: &str) -> Result<Loaded, String> {
    let report: Report = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let Report { summary, latency_percentiles, status_code_distribution, error_distribution } =
        report;
    for (what, count) in &error_distribution {
        if what != CUT_OFF {
            return Err(format!("errors: {what}, {count} times"));
        }
    }
    for (status, count) in &status_code_distribution {
        if status != OK {
            return Err(format!("errors: status {status}, {count} times"));
        }
    }
    let at = |name: &str| {
        let seconds = latency_percentiles.get(name).ok_or(format!("the output has no {name}"))?;
        Ok::<_, String>(seconds * 1e6)
    };
    let latency = Times {
        p50: at("p50")?,
        p90: at("p90")?,
        p99: at("p99")?,
        p99_9: at("p99.9")?,
        max: summary.slowest * 1e6,
    };
    Ok(Loaded {
        replies: status_code_distribution.get(OK).copied().unwrap_or(0),
        elapsed_s: summary.total,
        received_bytes: Some(summary.total_data),
        connections_opened: None,
        latency_us: Some(latency),
        server_cpu_s: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The output of oha 1.16 without the fields that are not read.
    const GOOD: &str = r#"{
  "summary": { "successRate": 1.0, "total": 1.0012, "slowest": 0.012,
    "totalData": 20480, "sizePerRequest": 1024 },
  "latencyPercentiles": { "p10": 0.0001, "p50": 0.0002, "p90": 0.0003, "p99": 0.004,
    "p99.9": 0.005 },
  "statusCodeDistribution": { "200": 20 },
  "errorDistribution": { "aborted due to deadline": 64 }
}"#;

    #[test]
    fn what_it_counted_is_found() {
        let loaded = parse(GOOD).unwrap();
        assert_eq!((loaded.replies, loaded.elapsed_s), (20, 1.0012));
        assert_eq!(loaded.received_bytes, Some(20_480));
        let times = loaded.latency_us.unwrap();
        let rounded = [times.p50, times.p90, times.p99, times.p99_9, times.max].map(f64::round);
        assert_eq!(rounded, [200.0, 300.0, 4000.0, 5000.0, 12_000.0]);
    }

    #[test]
    fn its_errors_are_errors_and_what_it_does_not_say_is_not_assumed() {
        for (from, to, named) in [
            ("\"aborted due to deadline\"", "\"connection refused\"", "connection refused, 64"),
            ("\"200\"", "\"404\"", "status 404, 20"),
            ("\"p99.9\"", "\"p99.8\"", "p99.9"),
            ("\"total\"", "\"all\"", "total"),
            ("}\n}", "}", "EOF"),
        ] {
            let error = parse(&GOOD.replace(from, to)).err().unwrap();
            assert!(error.contains(named), "{named}: {error}");
        }
    }
}
