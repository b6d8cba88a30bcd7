//! The commands that read JSON reports: `report`, `merge`, `compare`.

use super::compare::{self, Side};
use super::{merge, show};
use crate::args::Reports;
use crate::report::reading;
use ringload_lifecycle::delivery::Delivery;
use ringload_lifecycle::failure::Failure;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Runs the command.
///
/// # Errors
/// A file is not a report, or the reports cannot be merged or compared.
pub fn perform(reports: &Reports) -> Result<Delivery, Failure> {
    match reports {
        Reports::Report { files, .. } => again(files),
        Reports::Merge { files, .. } => {
            let merged = merge::merge(&read_all(files)?).map_err(Failure::Usage)?;
            let summary = show::summary(&merged);
            let status = status(&merged);
            Ok(Delivery::new(&merged, summary, status))
        }
        Reports::Compare { a, b, .. } => {
            let name = |files: &[PathBuf]| {
                let names: Vec<_> = files.iter().map(|file| file.to_string_lossy()).collect();
                names.join(",")
            };
            let (name_a, name_b) = (name(a), name(b));
            let (a, b) = (read_all(a)?, read_all(b)?);
            let (a, b) = (Side { name: &name_a, runs: a }, Side { name: &name_b, runs: b });
            let (report, text) = compare::compare(&a, &b).map_err(Failure::Usage)?;
            Ok(Delivery::new(&report, text, 0))
        }
    }
}

/// Prints the summaries. The report of a failed run does not fail this command.
fn again(files: &[PathBuf]) -> Result<Delivery, Failure> {
    let reports = read_all(files)?;
    let summaries: Vec<String> = reports.iter().map(show::summary).collect();
    let report = reports.into_iter().next().unwrap_or_else(|| json!({}));
    Ok(Delivery::new(&report, summaries.join("\n"), 0))
}

fn read_all(files: &[PathBuf]) -> Result<Vec<Value>, Failure> {
    let all = files.iter().map(|file| reading::read(file)).collect::<Result<_, _>>();
    all.map_err(Failure::Usage)
}

/// Returns the exit status of a merged report.
fn status(report: &Value) -> u8 {
    report["exit_status"].as_u64().and_then(|status| u8::try_from(status).ok()).unwrap_or(1)
}
