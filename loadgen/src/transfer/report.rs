//! The reports of transfers: the summaries, and the JSON that `report.schema.json` describes.
//! [`TransferReport`] is for one file without `--resume`, [`FilesReport`] for all other transfers.

use super::{Check, Sha};
use crate::args::{LoadArgs, Transfer};
use ringload_lifecycle::fault::{ErrorKind, Fault};
use ringload_lifecycle::report::{Environment, Outcome, SCHEMA};
use ringload_lifecycle::rows::Rows;
use ringload_lifecycle::system::CpuTime;
use ringload_lifecycle::units::{show_bytes, show_count, show_hex, show_text};
use serde::Serialize;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

/// The result of the comparison of both digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verification {
    /// The digests are equal.
    Same,
    /// The digests differ.
    Different,
    /// The server has no workers to compute its digest.
    NoWorkers,
    /// `--no-verify`.
    NotAsked,
    /// The transfer ended before the comparison.
    NotReached,
}

impl Verification {
    const fn text(self) -> &'static str {
        match self {
            Self::Same => "same as the server's",
            Self::Different => "differs from the server's",
            Self::NoWorkers => "not compared: the server has no workers to compute it",
            Self::NotAsked | Self::NotReached => "not compared",
        }
    }
}

/// The error that ended a transfer.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)] // Described in report.schema.json, where scripts read it.
pub struct TransferError {
    pub kind: &'static str,
    pub detail: String,
}

/// The results of all files.
pub struct Run {
    /// The environment of the run.
    pub environment: Environment,
    /// A report for each file.
    pub files: Vec<FileReport>,
    /// From the connect to the arrival of the last byte, or to the end.
    pub elapsed: Duration,
    /// CPU time of this process during the transfers.
    pub cpu: CpuTime,
    /// A signal arrived before the end.
    pub is_interrupted: bool,
}

impl Run {
    fn outcome(&self) -> Outcome {
        let has_failed = self.files.iter().any(|file| file.error.is_some());
        // A transfer that was complete before the signal was noticed has passed.
        if self.is_interrupted && has_failed {
            Outcome::Interrupted
        } else if self.files.iter().any(|file| file.is_unreachable) {
            Outcome::Unreachable
        } else if has_failed {
            Outcome::Failed
        } else {
            Outcome::Passed
        }
    }

    fn transferred_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.transferred_bytes).sum()
    }

    fn bytes_per_s(&self) -> f64 {
        let elapsed_s = self.elapsed.as_secs_f64();
        if elapsed_s > 0.0 { self.transferred_bytes() as f64 / elapsed_s } else { 0.0 }
    }
}

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
    /// The receiver has the whole file, even if a later step failed.
    #[serde(skip)]
    is_complete: bool,
}

/// The bytes of a transfer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moved {
    /// Size of the file, if known.
    pub size_bytes: Option<u64>,
    /// Bytes that an earlier run transferred.
    pub resumed_from: u64,
    /// Bytes sent or received in this run.
    pub transferred_bytes: u64,
    /// The receiver has the whole file.
    pub is_complete: bool,
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
    /// Makes the plan from the options.
    #[must_use]
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
            is_complete: false,
        }
    }

    /// Makes the report of a file in a list.
    #[must_use]
    pub fn listed(name: &[u8], size: u64) -> Self {
        let verification = Verification::NotAsked;
        Self { size_bytes: Some(size), verification, ..Self::new(name) }
    }

    /// Makes the report of a file that was not transferred.
    #[must_use]
    pub fn failed(name: &[u8], fault: &Fault) -> Self {
        let mut report = Self::new(name);
        report.fail(fault);
        report
    }

    /// Makes the report of a file that was transferred; `own` is the digest of its data.
    #[must_use]
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

    /// Adds the bytes of the transfer.
    pub fn moved(&mut self, moved: Moved) {
        self.size_bytes = moved.size_bytes;
        self.resumed_from_bytes = moved.resumed_from;
        self.transferred_bytes = moved.transferred_bytes;
        self.is_complete = moved.is_complete;
    }

    /// Adds the error.
    pub fn fail(&mut self, fault: &Fault) {
        self.is_unreachable =
            matches!(fault.kind, ErrorKind::ConnectRefused | ErrorKind::ConnectFailed);
        self.error = Some(TransferError { kind: fault.kind.name(), detail: fault.detail.clone() });
    }

    /// Returns a line about the file.
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
        let compared = self.verification.text();
        let sha256 = self.sha256.as_deref().unwrap_or_default();
        format!("{direction:<13} {name}: {size} bytes{resumed}\nsha256        {sha256}  {compared}")
    }
}

impl FilesReport {
    /// Makes the report.
    #[must_use]
    pub fn new(plan: FilesPlan, run: Run) -> Self {
        let outcome = run.outcome();
        Self {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            kind: "transfers",
            outcome,
            exit_status: outcome.exit_status(),
            plan,
            transferred_bytes: run.transferred_bytes(),
            elapsed_s: run.elapsed.as_secs_f64(),
            bytes_per_s: run.bytes_per_s(),
            environment: run.environment,
            files: run.files,
        }
    }

    /// Returns the summary: a line for each file, and the totals.
    #[must_use]
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

/// The options of the transfer of one file.
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
    /// Makes the plan from that of several files. `file` is `None` for standard output.
    #[must_use]
    pub fn new(plan: &FilesPlan, name: &[u8], file: Option<&Path>) -> Self {
        Self {
            protocol: plan.protocol,
            direction: plan.direction,
            target: plan.target.clone(),
            address: plan.address.clone(),
            name: String::from_utf8_lossy(name).into_owned(),
            file: file.map(|file| file.display().to_string()),
            replace: plan.replace,
            verify: plan.verify,
            timeout_s: plan.timeout_s,
        }
    }

    /// Describes the transfer in a line.
    #[must_use]
    pub fn what(&self) -> String {
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

/// The report of the transfer of one file.
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
    /// The target may contain a part of the file.
    #[serde(skip)]
    leaves_part: bool,
}

impl TransferReport {
    /// Makes the report of the first file of `run`. `is_in_place` is true if the target was written
    /// directly.
    #[must_use]
    pub fn new(plan: TransferPlan, mut run: Run, is_in_place: bool) -> Self {
        let (outcome, bytes_per_s) = (run.outcome(), run.bytes_per_s());
        let file = run.files.swap_remove(0);
        Self {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            kind: "transfer",
            outcome,
            exit_status: outcome.exit_status(),
            plan,
            environment: run.environment,
            size_bytes: file.size_bytes,
            transferred_bytes: file.transferred_bytes,
            elapsed_s: run.elapsed.as_secs_f64(),
            bytes_per_s,
            sha256: file.sha256,
            server_sha256: file.server_sha256,
            verification: file.verification,
            error: file.error.filter(|_| outcome != Outcome::Interrupted),
            cpu_user_s: run.cpu.user.as_secs_f64(),
            cpu_system_s: run.cpu.system.as_secs_f64(),
            is_complete: file.is_complete,
            leaves_part: is_in_place && file.transferred_bytes > 0,
        }
    }

    /// Returns the summary. The digest is the second word of the line that begins with `sha256`.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut rows = Rows::default();
        rows.add("file", self.plan.what());
        let (bytes, rate) = (show_count(self.transferred_bytes), show_bytes(self.bytes_per_s));
        rows.add("bytes", format_args!("{bytes} in {:.2} s ({rate}/s)", self.elapsed_s));
        if let Some(sha256) = &self.sha256 {
            rows.add("sha256", format_args!("{sha256}  {}", self.verification.text()));
        }
        if let Some(TransferError { kind, detail }) = &self.error {
            rows.add("error", format_args!("{kind}: {detail}"));
        }
        let mut text = rows.text();
        if let Some(verdict) = self.verdict() {
            text += &format!("{verdict}{}\n", self.remains());
        }
        text
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
    use super::*;
    use ringload_lifecycle::schema::check_against_schema;

    fn run(files: Vec<FileReport>, is_interrupted: bool) -> Run {
        Run {
            environment: Environment::of_this_process(None),
            files,
            elapsed: Duration::from_secs(2),
            cpu: CpuTime::default(),
            is_interrupted,
        }
    }

    /// Makes the report of a transfer with this result; `None` stands for a signal.
    fn one(put: bool, result: Option<Result<Check, Fault>>) -> TransferReport {
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
            size_bytes: Some(5_000_000),
            resumed_from: 0,
            transferred_bytes: 5_000_000,
            is_complete: matches!(result, Some(Ok(_))),
        };
        let is_interrupted = result.is_none();
        let file = match result.unwrap_or_else(|| Err(Fault::new(ErrorKind::Eof, "words"))) {
            Ok(check) => FileReport::checked(b"there", moved, [0xab; 32], check),
            Err(fault) => FileReport::failed(b"there", &fault),
        };
        TransferReport::new(plan, run(vec![file], is_interrupted), false)
    }

    #[test]
    fn the_report_of_one_file_matches_its_schema() {
        for result in [
            Some(Ok(Check::Digest([0xab; 32]))),
            Some(Ok(Check::NoWorkers)),
            Some(Err(Fault::new(ErrorKind::Eof, "closed"))),
            None,
        ] {
            let json = serde_json::to_value(one(true, result)).expect("a report is JSON");
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
            let report = one(true, Some(Ok(check)));
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
            let report = one(put, result);
            let text = report.summary();
            assert_eq!(report.exit_status, status, "{text}");
            assert!(text.contains(says) && !text.contains("sha256"), "{text}");
            assert_eq!(text.contains("words"), status != 130, "{text}");
        }
    }

    fn several(files: Vec<FileReport>, is_interrupted: bool) -> FilesReport {
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
        FilesReport::new(plan, run(files, is_interrupted))
    }

    fn good() -> FileReport {
        let moved = Moved {
            size_bytes: Some(7_000),
            resumed_from: 2_000,
            transferred_bytes: 5_000,
            is_complete: true,
        };
        FileReport::checked(b"good", moved, [0xab; 32], Check::Digest([0xab; 32]))
    }

    #[test]
    fn the_report_of_several_files_matches_its_schema() {
        let bad = FileReport::failed(b"bad", &Fault::new(ErrorKind::BadStatus, "words"));
        let json = serde_json::to_value(several(vec![good(), bad], false)).expect("JSON");
        check_against_schema("transfers", &json);
    }

    #[test]
    fn one_file_that_fails_fails_the_run() {
        let different =
            FileReport::checked(b"bad", Moved::default(), [1; 32], Check::Digest([2; 32]));
        let failed = |kind| FileReport::failed(b"bad", &Fault::new(kind, "words"));
        for (files, is_interrupted, status, says) in [
            (vec![good()], false, 0, "good: 7,000 bytes, resumed from 2,000"),
            // It was complete before the signal was noticed.
            (vec![good()], true, 0, "same as the server's"),
            (vec![good(), failed(ErrorKind::BadStatus)], false, 1, "FAILED: 1 of 2"),
            (vec![good(), different], false, 1, "but that of the server's file is 0202"),
            (vec![failed(ErrorKind::Eof)], true, 130, "INTERRUPTED"),
            (vec![failed(ErrorKind::ConnectRefused)], false, 3, "no connection"),
        ] {
            let report = several(files, is_interrupted);
            let text = report.summary();
            assert_eq!(report.exit_status, status, "{text}");
            assert!(text.contains(says), "{text}");
        }
    }
}
