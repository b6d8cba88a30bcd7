//! How a transfer ended, when everything is known.

use super::client::Check;
use super::sink::Place;
use super::{Moved, Sha};
use crate::protocol::{ErrorKind, Fault};
use crate::report::Outcome;
use crate::units::show_hex;
use serde::Serialize;

/// What the two digests are to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verification {
    /// They are equal.
    Same,
    /// They are not.
    Different,
    /// The server computes none.
    NoWorkers,
    /// `--no-verify`.
    NotAsked,
    /// It did not come to that.
    NotReached,
}

/// How it ended.
#[derive(Debug)]
pub struct Verdict {
    /// For scripts.
    pub outcome: Outcome,
    /// Of what was sent or received.
    pub sha256: Option<Sha>,
    /// Of what the server has.
    pub server_sha256: Option<Sha>,
    /// What they are to each other.
    pub verification: Verification,
    /// What went wrong.
    pub fault: Option<Fault>,
    /// A part of the file may be where it was to go.
    pub leaves_part: bool,
}

impl Verdict {
    /// Of what came of it; `own` is the digest of what was sent or received.
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

    /// A file that is right gets its name; any other goes, unless `written_bytes` of it are where
    /// nobody can take them back.
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
                "SHA-256 of what was moved is {}, the server's file has {}",
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
