//! The outcome of a load run.

use crate::stats::Stats;
use ringload_lifecycle::fault::ErrorKind;
use ringload_lifecycle::report::Outcome;

/// Returns the outcome of a run. `saturated` is true if ringload was the bottleneck.
#[must_use]
pub fn outcome(stats: &Stats, interrupted: bool, saturated: bool) -> Outcome {
    // A lack of local ports says nothing of the server.
    let no_port = stats.errors.of(ErrorKind::NoPort);
    if interrupted {
        Outcome::Interrupted
    } else if stats.errors.total() > 0 && stats.errors.total() == no_port {
        Outcome::Saturated
    } else if stats.opened == 0 {
        Outcome::Unreachable
    } else if stats.errors.total() > 0 || stats.replies == 0 {
        Outcome::Failed
    } else if saturated {
        Outcome::Saturated
    } else {
        Outcome::Passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringload_lifecycle::fault::Fault;

    #[test]
    fn ports_of_ours_are_not_the_servers() {
        let mut stats = Stats::new();
        stats.errors.count(Fault::new(ErrorKind::NoPort, ""));
        assert_eq!(outcome(&stats, false, true), Outcome::Saturated);
        (stats.opened, stats.replies) = (1, 1);
        assert_eq!(outcome(&stats, false, true), Outcome::Saturated);
        stats.errors.count(Fault::new(ErrorKind::Reset, ""));
        assert_eq!(outcome(&stats, false, true), Outcome::Failed);
    }

    #[test]
    fn outcomes_follow_the_counts() {
        let mut stats = Stats::new();
        assert_eq!(outcome(&stats, false, false), Outcome::Unreachable);
        stats.opened = 1;
        assert_eq!(outcome(&stats, false, false), Outcome::Failed, "no reply is no success");
        stats.replies = 1;
        assert_eq!(outcome(&stats, false, false), Outcome::Passed);
        assert_eq!(outcome(&stats, false, true), Outcome::Saturated);
        stats.errors.count(Fault::new(ErrorKind::Reset, ""));
        assert_eq!(outcome(&stats, false, true), Outcome::Failed, "that much is certain");
        assert_eq!(outcome(&stats, true, true), Outcome::Interrupted);
    }
}
