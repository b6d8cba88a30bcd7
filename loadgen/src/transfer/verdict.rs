//! The verdict on a transfer.

use super::client::Check;
use super::sink::Place;
use super::{Moved, Sha};
use ringload_lifecycle::fault::{ErrorKind, Fault};
use ringload_lifecycle::report::Outcome;
use ringload_lifecycle::units::show_hex;
use serde::Serialize;

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

/// The verdict on a transfer.
#[derive(Debug)]
pub struct Verdict {
    /// The outcome in the report.
    pub outcome: Outcome,
    /// SHA-256 of the data sent or received.
    pub sha256: Option<Sha>,
    /// SHA-256 of the server's file.
    pub server_sha256: Option<Sha>,
    /// The result of the comparison of both digests.
    pub verification: Verification,
    /// The error, if any.
    pub fault: Option<Fault>,
    /// The target may contain a part of the file.
    pub leaves_part: bool,
}

impl Verdict {
    /// Judges a transfer; `own` is the digest of the data sent or received.
    pub fn new(moved: &Moved, own: impl FnOnce() -> Result<Sha, String>) -> Self {
        let mut verdict = Self {
            outcome: Outcome::Passed,
            sha256: None,
            server_sha256: None,
            verification: Verification::NotReached,
            fault: None,
            leaves_part: false,
        };
        let check = match &moved.result {
            Some(Ok(check)) => check,
            Some(Err(fault)) => {
                verdict.fail(fault.clone());
                return verdict;
            }
            None => {
                verdict.outcome = Outcome::Interrupted;
                return verdict;
            }
        };
        match own() {
            Ok(own) => verdict.compare(own, *check),
            Err(detail) => verdict.fail(Fault::new(ErrorKind::Other, detail)),
        }
        verdict
    }

    /// Renames a verified file to its target and drops any other file. Data that was written
    /// directly to a device or a pipe remains there.
    pub fn and_keep(mut self, place: Place, written_bytes: u64) -> Self {
        self.leaves_part = place.is_written_in_place() && written_bytes > 0;
        if self.outcome == Outcome::Passed
            && let Err(detail) = place.keep()
        {
            self.fail(Fault::new(ErrorKind::Other, detail));
        }
        self
    }

    fn compare(&mut self, own: Sha, check: Check) {
        self.sha256 = Some(own);
        self.verification = match check {
            Check::NotAsked => Verification::NotAsked,
            Check::NoWorkers => Verification::NoWorkers,
            Check::Digest(theirs) => {
                self.server_sha256 = Some(theirs);
                if theirs == own { Verification::Same } else { Verification::Different }
            }
        };
        if let (Verification::Different, Some(theirs)) = (self.verification, self.server_sha256) {
            let detail = format_args!(
                "the SHA-256 of the transferred data is {}, but that of the server's file is {}",
                show_hex(&own),
                show_hex(&theirs)
            );
            self.fail(Fault::new(ErrorKind::WrongBytes, detail));
        }
    }

    fn fail(&mut self, fault: Fault) {
        self.outcome = match fault.kind {
            ErrorKind::ConnectRefused | ErrorKind::ConnectFailed => Outcome::Unreachable,
            _ => Outcome::Failed,
        };
        self.fault = Some(fault);
    }
}
