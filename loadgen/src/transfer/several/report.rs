//! The report of several files: the summary, and the JSON that `report.schema.json` describes.

use crate::args::{LoadArgs, Transfer};
use crate::transfer::Sha;
use crate::transfer::client::Check;
use crate::transfer::report::TransferError;
use crate::transfer::verdict::Verification;
use ringload_lifecycle::fault::{ErrorKind, Fault};
use ringload_lifecycle::report::{Environment, Outcome, SCHEMA};
use ringload_lifecycle::units::{show_bytes, show_count, show_hex, show_text};
use serde::Serialize;
use std::fmt::Write;
use std::time::Duration;

/// The options of the transfers.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)] // Described in report.schema.json, where scripts read it.
pub struct FilesPlan {
    pub protocol: &'static str,
    pub direction: &'static str,
    pub target: String,
    pub address: String,
    pub replace: bool,
    pub resume: bool,
    pub verify: bool,
    pub timeout_s: f64,
}

/// The report of one of the files.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)] // Described in report.schema.json, where scripts read it.
pub struct FileReport {
    pub name: String,
    pub size_bytes: Option<u64>,
    pub resumed_from_bytes: u64,
    pub transferred_bytes: u64,
    pub sha256: Option<String>,
    pub server_sha256: Option<String>,
    pub verification: Verification,
    pub error: Option<TransferError>,
    #[serde(skip)]
    is_unreachable: bool,
}

/// The bytes of a transfer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moved {
    pub size_bytes: Option<u64>,
    pub resumed_from: u64,
    pub transferred_bytes: u64,
}

/// The report of several files.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)] // Described in report.schema.json, where scripts read it.
pub struct FilesReport {
    pub schema: u32,
    pub version: &'static str,
    pub kind: &'static str,
    pub outcome: Outcome,
    pub exit_status: u8,
    pub plan: FilesPlan,
    pub environment: Environment,
    pub files: Vec<FileReport>,
    pub transferred_bytes: u64,
    pub elapsed_s: f64,
    pub bytes_per_s: f64,
}

impl FilesPlan {
    pub fn new(load: &LoadArgs, target: &str, address: &str, transfer: &Transfer) -> Self {
        let (direction, replace, resume, no_verify) = match transfer {
            Transfer::Put { replace, resume, no_verify, .. } => {
                ("put", *replace, *resume, *no_verify)
            }
            Transfer::Get { resume, no_verify, .. } => ("get", false, *resume, *no_verify),
            Transfer::List => ("list", false, false, true),
        };
        Self {
            protocol: "packets",
            direction,
            target: target.into(),
            address: address.into(),
            replace,
            resume,
            verify: !no_verify,
            timeout_s: load.timeout.as_secs_f64(),
        }
    }
}

impl FileReport {
    fn new(name: &[u8]) -> Self {
        Self {
            name: String::from_utf8_lossy(name).into_owned(),
            size_bytes: None,
            resumed_from_bytes: 0,
            transferred_bytes: 0,
            sha256: None,
            server_sha256: None,
            verification: Verification::NotReached,
            error: None,
            is_unreachable: false,
        }
    }

    /// Of a file in a list.
    pub fn listed(name: &[u8], size: u64) -> Self {
        let verification = Verification::NotAsked;
        Self { size_bytes: Some(size), verification, ..Self::new(name) }
    }

    /// Of a file that was not transferred.
    pub fn failed(name: &[u8], fault: Fault) -> Self {
        let mut report = Self::new(name);
        report.fail(&fault);
        report
    }

    /// Of a file that was transferred.
    pub fn checked(name: &[u8], moved: Moved, own: Sha, check: Check) -> Self {
        let mut report = Self { sha256: Some(show_hex(&own)), ..Self::new(name) };
        report.moved(moved);
        report.verification = match check {
            Check::NotAsked => Verification::NotAsked,
            Check::NoWorkers => Verification::NoWorkers,
            Check::Digest(theirs) if theirs == own => Verification::Same,
            Check::Digest(_) => Verification::Different,
        };
        if let Check::Digest(theirs) = check {
            report.server_sha256 = Some(show_hex(&theirs));
            if theirs != own {
                let why = format!(
                    "the SHA-256 of the transferred data is {}, \
                     but that of the server's file is {}",
                    show_hex(&own),
                    show_hex(&theirs)
                );
                report.fail(&Fault::new(ErrorKind::WrongBytes, why));
            }
        }
        report
    }

    pub fn moved(&mut self, moved: Moved) {
        self.size_bytes = moved.size_bytes;
        self.resumed_from_bytes = moved.resumed_from;
        self.transferred_bytes = moved.transferred_bytes;
    }

    pub fn fail(&mut self, fault: &Fault) {
        self.is_unreachable =
            matches!(fault.kind, ErrorKind::ConnectRefused | ErrorKind::ConnectFailed);
        self.error = Some(TransferError { kind: fault.kind.name(), detail: fault.detail.clone() });
    }

    /// A line about the file.
    fn line(&self, direction: &str) -> String {
        let name = show_text(&self.name);
        if let Some(TransferError { kind, detail }) = &self.error {
            return format!("{:<13} {name}: {kind}: {detail}", "FAILED");
        }
        let size = show_count(self.size_bytes.unwrap_or_default());
        if direction == "list" {
            return format!("{size:>19}  {name}");
        }
        let resumed = match self.resumed_from_bytes {
            0 => String::new(),
            from => format!(", resumed from {}", show_count(from)),
        };
        let compared = match self.verification {
            Verification::Same => "same as the server's",
            Verification::NoWorkers => "not compared: the server has no workers to compute it",
            _ => "not compared",
        };
        let sha256 = self.sha256.as_deref().unwrap_or_default();
        format!("{direction:<13} {name}: {size} bytes{resumed}\nsha256        {sha256}  {compared}")
    }
}

impl FilesReport {
    pub fn new(
        plan: FilesPlan,
        environment: Environment,
        files: Vec<FileReport>,
        (transferred_bytes, elapsed): (u64, Duration),
        is_interrupted: bool,
    ) -> Self {
        let elapsed_s = elapsed.as_secs_f64();
        let failed = files.iter().any(|file| file.error.is_some());
        let outcome = if is_interrupted && failed {
            Outcome::Interrupted
        } else if files.iter().any(|file| file.is_unreachable) {
            Outcome::Unreachable
        } else if failed {
            Outcome::Failed
        } else {
            Outcome::Passed
        };
        Self {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            kind: "transfers",
            outcome,
            exit_status: outcome.exit_status(),
            plan,
            environment,
            transferred_bytes: files.iter().map(|file| file.transferred_bytes).sum(),
            files,
            elapsed_s,
            bytes_per_s: transferred_bytes as f64 / elapsed_s.max(f64::MIN_POSITIVE),
        }
    }

    /// Returns the summary: a line for each file, and the totals.
    pub fn summary(&self) -> String {
        let mut text = String::new();
        for file in &self.files {
            writeln!(text, "{}", file.line(self.plan.direction)).expect("it is a string");
        }
        let failed = self.files.iter().filter(|file| file.error.is_some()).count();
        if self.plan.direction != "list" {
            let total = format!(
                "{:<13} {} files, {} bytes in {:.2} s ({}/s)",
                "total",
                self.files.len(),
                show_count(self.transferred_bytes),
                self.elapsed_s,
                show_bytes(self.bytes_per_s)
            );
            writeln!(text, "{total}").expect("it is a string");
        }
        match self.outcome {
            Outcome::Passed | Outcome::Saturated => {}
            Outcome::Interrupted => text += "INTERRUPTED\n",
            Outcome::Unreachable => text += "FAILED: no connection could be established.\n",
            Outcome::Failed => {
                let of = self.files.len();
                writeln!(text, "FAILED: {failed} of {of}").expect("it is a string");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringload_lifecycle::schema::check_against_schema;

    fn report(files: Vec<FileReport>, is_interrupted: bool) -> FilesReport {
        let plan = FilesPlan {
            protocol: "packets",
            direction: "get",
            target: "localhost:7100".into(),
            address: "127.0.0.1:7100".into(),
            replace: false,
            resume: true,
            verify: true,
            timeout_s: 10.0,
        };
        let environment = Environment::of_this_process(None);
        FilesReport::new(plan, environment, files, (5_000, Duration::from_secs(1)), is_interrupted)
    }

    fn good() -> FileReport {
        let moved =
            Moved { size_bytes: Some(7_000), resumed_from: 2_000, transferred_bytes: 5_000 };
        FileReport::checked(b"good", moved, [0xab; 32], Check::Digest([0xab; 32]))
    }

    #[test]
    fn the_report_is_what_its_schema_says() {
        let bad = FileReport::failed(b"bad", Fault::new(ErrorKind::BadStatus, "words"));
        let json = serde_json::to_value(report(vec![good(), bad], false)).expect("JSON");
        check_against_schema("transfers", &json);
    }

    #[test]
    fn one_file_that_fails_fails_the_run() {
        let different =
            FileReport::checked(b"bad", Moved::default(), [1; 32], Check::Digest([2; 32]));
        let failed = |kind| FileReport::failed(b"bad", Fault::new(kind, "words"));
        for (files, is_interrupted, status, says) in [
            (vec![good()], false, 0, "good: 7,000 bytes, resumed from 2,000"),
            // It was complete before the signal was noticed.
            (vec![good()], true, 0, "same as the server's"),
            (vec![good(), failed(ErrorKind::BadStatus)], false, 1, "FAILED: 1 of 2"),
            (vec![good(), different], false, 1, "but that of the server's file is 0202"),
            (vec![failed(ErrorKind::Eof)], true, 130, "INTERRUPTED"),
            (vec![failed(ErrorKind::ConnectRefused)], false, 3, "no connection"),
        ] {
            let report = report(files, is_interrupted);
            let text = report.summary();
            assert_eq!(report.exit_status, status, "{text}");
            assert!(text.contains(says), "{text}");
        }
    }
}
