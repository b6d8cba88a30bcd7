//! The report of a transfer: the summary, and the JSON that `report.schema.json` describes.

use super::Moved;
use super::verdict::{Verdict, Verification};
use ringload_lifecycle::report::{Environment, Outcome, SCHEMA};
use ringload_lifecycle::units::{show_bytes, show_count, show_hex, show_text};
use serde::Serialize;
use std::fmt::Write;

/// The options of the transfer.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)] // Described in report.schema.json, where scripts read it.
pub struct TransferPlan {
    pub protocol: &'static str,
    pub direction: &'static str,
    pub target: String,
    pub address: String,
    pub name: String,
    pub file: Option<String>,
    pub replace: bool,
    pub verify: bool,
    pub timeout_s: f64,
}

impl TransferPlan {
    /// Returns the line that describes the transfer before it starts.
    #[must_use]
    pub fn opening(&self) -> String {
        format!("ringload packets {}: {}", self.target, self.what())
    }

    fn what(&self) -> String {
        let Self { direction, name, .. } = self;
        let file = self.file.as_deref().unwrap_or("standard output");
        let preposition = if self.is_put() { "as" } else { "into" };
        let (file, name) = (show_text(file), show_text(name));
        let (from, to) = if self.is_put() { (file, name) } else { (name, file) };
        format!("{direction} {from} {preposition} {to}")
    }

    fn is_put(&self) -> bool {
        self.direction == "put"
    }
}

/// The error that ended the transfer.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)] // Described in report.schema.json, where scripts read it.
pub struct TransferError {
    pub kind: &'static str,
    pub detail: String,
}

/// The report of one transfer.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)] // Described in report.schema.json, where scripts read it.
pub struct TransferReport {
    pub schema: u32,
    pub version: &'static str,
    pub kind: &'static str,
    pub outcome: Outcome,
    pub exit_status: u8,
    pub plan: TransferPlan,
    pub environment: Environment,
    pub size_bytes: Option<u64>,
    pub transferred_bytes: u64,
    pub elapsed_s: f64,
    pub bytes_per_s: f64,
    pub sha256: Option<String>,
    pub server_sha256: Option<String>,
    pub verification: Verification,
    pub error: Option<TransferError>,
    pub cpu_user_s: f64,
    pub cpu_system_s: f64,
    /// The receiver has the whole file, even if a later step failed.
    #[serde(skip)]
    is_complete: bool,
    /// See [`Verdict`].
    #[serde(skip)]
    leaves_part: bool,
}

impl TransferReport {
    /// Makes the report.
    #[must_use]
    pub fn new(
        plan: TransferPlan,
        environment: Environment,
        moved: &Moved,
        verdict: Verdict,
    ) -> Self {
        let seconds = moved.elapsed.as_secs_f64();
        let rate = if seconds > 0.0 { moved.moved_bytes as f64 / seconds } else { 0.0 };
        Self {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            kind: "transfer",
            outcome: verdict.outcome,
            exit_status: verdict.outcome.exit_status(),
            plan,
            environment,
            size_bytes: moved.size_bytes,
            transferred_bytes: moved.moved_bytes,
            elapsed_s: seconds,
            bytes_per_s: rate,
            sha256: verdict.sha256.map(|digest| show_hex(&digest)),
            server_sha256: verdict.server_sha256.map(|digest| show_hex(&digest)),
            verification: verdict.verification,
            error: verdict
                .fault
                .map(|fault| TransferError { kind: fault.kind.name(), detail: fault.detail }),
            cpu_user_s: moved.cpu.user.as_secs_f64(),
            cpu_system_s: moved.cpu.system.as_secs_f64(),
            is_complete: moved.is_complete,
            leaves_part: verdict.leaves_part,
        }
    }

    /// Returns the summary. The digest is the second word of the line that begins with `sha256`.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut text = String::new();
        let mut row = |name: &str, what: String| {
            writeln!(text, "{name:<13} {what}").expect("writing to a string does not fail");
        };
        row("file", self.plan.what());
        row(
            "bytes",
            format!(
                "{} in {:.2} s ({}/s)",
                show_count(self.transferred_bytes),
                self.elapsed_s,
                show_bytes(self.bytes_per_s)
            ),
        );
        if let Some(sha256) = &self.sha256 {
            row("sha256", format!("{sha256}  {}", self.comparison()));
        }
        if let Some(ring) = &self.environment.ring {
            row("ring", ring.clone());
        }
        if let Some(TransferError { kind, detail }) = &self.error {
            row("error", format!("{kind}: {detail}"));
        }
        if let Some(verdict) = self.verdict() {
            text += &format!("{verdict}{}\n", self.remains());
        }
        text
    }

    fn comparison(&self) -> &'static str {
        match self.verification {
            Verification::Same => "same as the server's",
            Verification::Different => "differs from the server's",
            Verification::NoWorkers => "not compared: the server has no workers to compute it",
            Verification::NotAsked | Verification::NotReached => "not compared",
        }
    }

    fn verdict(&self) -> Option<&'static str> {
        match self.outcome {
            // A transfer has no schedule, so it is never saturated.
            Outcome::Passed | Outcome::Saturated => None,
            Outcome::Failed => Some("FAILED: "),
            Outcome::Unreachable => Some("FAILED: no connection could be established; "),
            Outcome::Interrupted => Some("INTERRUPTED: "),
        }
    }

    /// Describes the state of the target.
    fn remains(&self) -> &'static str {
        match (self.plan.is_put(), self.is_complete, self.leaves_part) {
            (true, true, _) => "the file is on the server.",
            (true, false, _) => "the server has not confirmed the file.",
            (false, _, false) => "no file was written.",
            (false, _, true) => "the data that was written is not the complete file.",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::Check;
    use super::*;
    use ringload_lifecycle::fault::{ErrorKind, Fault};
    use ringload_lifecycle::schema::check_against_schema;
    use ringload_lifecycle::system::CpuTime;
    use std::time::Duration;

    fn report(put: bool, result: Option<Result<Check, Fault>>) -> TransferReport {
        let plan = TransferPlan {
            protocol: "packets",
            direction: if put { "put" } else { "get" },
            target: "localhost:7100".into(),
            address: "127.0.0.1:7100".into(),
            name: "there".into(),
            file: Some("dir/here".into()),
            replace: false,
            verify: true,
            timeout_s: 10.0,
        };
        let moved = Moved {
            is_complete: matches!(result, Some(Ok(_))),
            result,
            size_bytes: Some(5_000_000),
            moved_bytes: 5_000_000,
            elapsed: Duration::from_secs(2),
            cpu: CpuTime::default(),
        };
        let verdict = Verdict::new(&moved, || Ok([0xab; 32]));
        TransferReport::new(plan, Environment::of_this_process(None), &moved, verdict)
    }

    #[test]
    fn the_report_is_what_its_schema_says() {
        for result in [
            Some(Ok(Check::Digest([0xab; 32]))),
            Some(Ok(Check::NoWorkers)),
            Some(Err(Fault::new(ErrorKind::Eof, "closed"))),
            None,
        ] {
            let json = serde_json::to_value(report(true, result)).expect("a report is JSON");
            check_against_schema("transfer", &json);
        }
    }

    #[test]
    fn a_digest_is_shown_with_what_the_server_says_of_it() {
        for (check, status, says) in [
            (Check::Digest([0xab; 32]), 0, "same as the server's"),
            (Check::NoWorkers, 0, "the server has no workers"),
            (Check::NotAsked, 0, "not compared\n"),
            (Check::Digest([0xcd; 32]), 1, "differs from the server's"),
        ] {
            let report = report(true, Some(Ok(check)));
            let text = report.summary();
            assert_eq!(report.exit_status, status, "{text}");
            let line = text.lines().find(|line| line.starts_with("sha256")).expect("a digest");
            assert_eq!(line.split_whitespace().nth(1), Some(&*"ab".repeat(32)));
            assert!(text.contains(says), "{text}");
            assert!(text.contains("put dir/here as there\n"), "{text}");
            assert!(text.contains("5,000,000 in 2.00 s (2.50 MB/s)"), "{text}");
            assert_eq!(text.contains("FAILED: the file is on the server."), status == 1, "{text}");
        }
    }

    #[test]
    fn what_went_wrong_is_said_with_what_remains() {
        let fault = |kind| Some(Err(Fault::new(kind, "words")));
        for (put, result, status, says) in [
            (true, fault(ErrorKind::Eof), 1, "FAILED: the server has not confirmed the file."),
            (false, fault(ErrorKind::Eof), 1, "FAILED: no file was written."),
            (
                false,
                fault(ErrorKind::ConnectRefused),
                3,
                "no connection could be established; no file",
            ),
            (false, None, 130, "INTERRUPTED: no file was written."),
        ] {
            let report = report(put, result);
            let text = report.summary();
            assert_eq!(report.exit_status, status, "{text}");
            assert!(text.contains(says) && !text.contains("sha256"), "{text}");
            assert_eq!(text.contains("words"), status != 130, "{text}");
        }
    }
}
