//! How a run ended, and the exit status that says so.

use crate::protocol::ErrorKind;
use crate::stats::Stats;
use serde::Serialize;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Every reply was right.
    Passed,
    /// Errors were seen, or there was no reply at all.
    Failed,
    /// Nothing could be connected to.
    Unreachable,
    /// Every reply was right, but ringload could not keep to its schedule, or had no local ports:
    /// the times are its own, not the server's.
    Saturated,
    /// SIGINT, SIGTERM or SIGHUP.
    Interrupted,
}

impl Outcome {
    /// The exit status of the process.
    #[must_use]
    pub const fn exit_status(self) -> u8 {
        match self {
            Self::Passed => 0,
            Self::Failed => 1,
            Self::Unreachable => 3,
            Self::Saturated => 4,
            Self::Interrupted => 130,
        }
    }

    /// What the counts say of a run. `saturated`: ringload was the bottleneck.
    #[must_use]
    pub fn of(stats: &Stats, interrupted: bool, saturated: bool) -> Self {
        // A lack of local ports says nothing of the server.
        let no_port = stats.errors.of(ErrorKind::NoPort);
        if interrupted {
            Self::Interrupted
        } else if stats.errors.total() > 0 && stats.errors.total() == no_port {
            Self::Saturated
        } else if stats.opened == 0 {
            Self::Unreachable
        } else if stats.errors.total() > 0 || stats.replies == 0 {
            Self::Failed
        } else if saturated {
            Self::Saturated
        } else {
            Self::Passed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Fault;

    #[test]
    fn ports_of_ours_are_not_the_servers() {
        let mut stats = Stats::new();
        stats.errors.count(Fault::new(ErrorKind::NoPort, ""));
        assert_eq!(Outcome::of(&stats, false, true), Outcome::Saturated);
        (stats.opened, stats.replies) = (1, 1);
        assert_eq!(Outcome::of(&stats, false, true), Outcome::Saturated);
        stats.errors.count(Fault::new(ErrorKind::Reset, ""));
        assert_eq!(Outcome::of(&stats, false, true), Outcome::Failed);
    }

    #[test]
    fn outcomes_follow_the_counts() {
        let mut stats = Stats::new();
        assert_eq!(Outcome::of(&stats, false, false), Outcome::Unreachable);
        stats.opened = 1;
        assert_eq!(Outcome::of(&stats, false, false), Outcome::Failed, "no reply is no success");
        stats.replies = 1;
        assert_eq!(Outcome::of(&stats, false, false), Outcome::Passed);
        assert_eq!(Outcome::of(&stats, false, true), Outcome::Saturated);
        stats.errors.count(Fault::new(ErrorKind::Reset, ""));
        assert_eq!(Outcome::of(&stats, false, true), Outcome::Failed, "that much is certain");
        assert_eq!(Outcome::of(&stats, true, true), Outcome::Interrupted);
    }
}
