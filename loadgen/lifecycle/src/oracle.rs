//! The judgement of endings that all protocols share, given the replies that are still missing.
//!
//! There are no false alarms: a doubtful case is never a finding. The client can expect nothing
//! after its own reset, close or vanishing. If the script leaves while data is in flight, the
//! outcome is unknown. Around its own timeout ([`Limits::deadline`]) a server may close a silent
//! connection.

use super::dialect::{Ending, Limits, Outgoing, Record, Verdict};
use super::finding::{Finding, Rule};
use std::time::Duration;

/// Tolerance for the resolution of a server's timers.
const COARSE: Duration = Duration::from_millis(100);

/// Judges the cases that do not depend on the protocol: a finding of the checker, a failed connect
/// and a rejected connection. Returns `None` for all other cases.
#[must_use]
pub fn common(record: &Record, limits: &Limits) -> Option<Verdict> {
    if let Some(finding) = &record.finding {
        return Some(wrong(finding.rule.name().replace('_', " "), finding.clone()));
    }
    let refused =
        |outcome: &str, detail: &str| Some(wrong(outcome, Finding::new(Rule::Refused, detail)));
    match record.ending {
        Ending::Refused if limits.may_reject => Some(fine("turned away")),
        Ending::Refused => refused("refused", "the connect was refused (ECONNREFUSED)"),
        Ending::ConnectFailed(errno) => {
            let error = std::io::Error::from_raw_os_error(errno);
            refused("connect failed", &format!("the connect failed: {error}"))
        }
        Ending::ConnectTimeout => {
            let detail =
                format!("the connect was not answered within {:?}", limits.connect_patience());
            Some(wrong("no answer to connect", Finding::new(Rule::NotServed, detail)))
        }
        Ending::Fin | Ending::Reset if limits.may_reject && record.received == 0 => {
            Some(fine("turned away"))
        }
        Ending::Fin | Ending::Reset | Ending::Ours | Ending::Silence => None,
    }
}

/// Judges an ending. `progress` describes the received data (`no reply`, `replied`). `missing`
/// describes the missing data if the server certainly had to send it.
#[must_use]
pub fn judge_ending(
    progress: &str,
    missing: Option<&str>,
    record: &Record,
    limits: &Limits,
) -> Verdict {
    let outcome = format!("{progress}, {}", ending(record));
    let found = |rule, detail: String| wrong(&outcome, Finding::new(rule, detail));
    let excused = record.actions.gone || may_be_overdue(record, limits);
    match (record.ending, missing) {
        (Ending::Fin, Some(missing)) if !excused => found(
            Rule::LostReply,
            format!("the server closed the connection (FIN){}, but {missing}", after(record)),
        ),
        (Ending::Reset, Some(missing)) if !excused => found(
            Rule::ResetInsteadOfReply,
            format!("the server reset the connection{}, but {missing}", after(record)),
        ),
        (Ending::Reset, None) if !excused => found(
            Rule::UnprovokedReset,
            format!("the server reset the connection{} for no reason", after(record)),
        ),
        (Ending::Silence, Some(missing)) if !record.actions.gone => found(
            Rule::NotServed,
            format!("nothing was received for {:?}, but {missing}", limits.patience),
        ),
        (Ending::Silence, None) if record.actions.fin => found(
            Rule::NoReaction,
            format!(
                "after the client's FIN the server did not close the connection within {:?}",
                limits.patience
            ),
        ),
        (Ending::Silence, None) if is_overdue(record, limits) => found(
            Rule::NoReaction,
            format!(
                "the client sent nothing for {:?}, but the server did not close the connection \
                 despite its --deadline of {:?}",
                record.actions.silent,
                limits.deadline.unwrap_or_default()
            ),
        ),
        _ => fine(outcome),
    }
}

/// Returns the number of requests that were sent completely.
#[must_use]
pub fn whole_requests(outgoing: &Outgoing, sent: u64) -> usize {
    outgoing.requests.partition_point(|request| request.end <= sent)
}

/// Returns true if the server's timeout may have passed.
#[must_use]
pub fn may_be_overdue(record: &Record, limits: &Limits) -> bool {
    limits.deadline.is_some_and(|deadline| record.actions.silent + COARSE >= deadline)
}

/// Returns true if the server's timeout has certainly passed, and `--timeout` in addition.
fn is_overdue(record: &Record, limits: &Limits) -> bool {
    limits.deadline.is_some_and(|deadline| record.actions.silent >= deadline + limits.patience)
}

/// Returns the end of an outcome's text.
#[must_use]
pub const fn ending(record: &Record) -> &'static str {
    match record.ending {
        Ending::Refused | Ending::ConnectFailed(_) | Ending::ConnectTimeout => "not connected",
        Ending::Fin => "fin",
        Ending::Reset => "reset",
        Ending::Ours => "we left",
        Ending::Silence => "silence",
    }
}

fn after(record: &Record) -> String {
    record
        .reaction
        .map_or_else(String::new, |time| format!(" {time:.1?} after the client's last byte or FIN"))
}

/// Makes a verdict without a finding.
pub fn fine(outcome: impl Into<String>) -> Verdict {
    Verdict { outcome: outcome.into(), finding: None }
}

/// Makes a verdict with a finding.
pub fn wrong(outcome: impl Into<String>, finding: Finding) -> Verdict {
    Verdict { outcome: outcome.into(), finding: Some(finding) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::dialect::Actions;

    /// Limits without a deadline.
    pub(crate) const LIMITS: Limits =
        Limits { patience: Duration::from_secs(5), deadline: None, may_reject: false };

    /// A connection that sent `sent` bytes, read to the end, and ended with `ending`.
    pub(crate) fn seen(sent: u64, received: u64, ending: Ending) -> Record {
        Record {
            actions: Actions { sent, read_to_end: true, ..Actions::default() },
            received,
            replies: 0,
            announced_end: false,
            finding: None,
            ending,
            reaction: None,
        }
    }

    fn rule(missing: bool, record: &Record, limits: &Limits) -> Option<Rule> {
        let missing = missing.then_some("64 bytes are missing");
        judge_ending("some", missing, record, limits).finding.map(|finding| finding.rule)
    }

    #[test]
    fn an_ending_is_judged_by_what_is_owed() {
        for (ending, missing, nothing_owed) in [
            (Ending::Fin, Some(Rule::LostReply), None),
            (Ending::Reset, Some(Rule::ResetInsteadOfReply), Some(Rule::UnprovokedReset)),
            (Ending::Silence, Some(Rule::NotServed), None),
            (Ending::Ours, None, None),
        ] {
            let mut record = seen(64, 0, ending);
            assert_eq!(rule(true, &record, &LIMITS), missing, "{ending:?}");
            assert_eq!(rule(false, &record, &LIMITS), nothing_owed, "{ending:?}");
            record.actions.gone = true;
            assert_eq!(rule(true, &record, &LIMITS), None, "{ending:?}: we had gone");
        }
        let mut record = seen(64, 64, Ending::Silence);
        record.actions.fin = true;
        assert_eq!(rule(false, &record, &LIMITS), Some(Rule::NoReaction));
    }

    #[test]
    fn around_its_deadline_a_server_may_end_what_is_silent_and_later_it_must() {
        let limits = Limits { deadline: Some(Duration::from_secs(1)), ..LIMITS };
        let mut record = seen(64, 0, Ending::Reset);
        assert_eq!(rule(true, &record, &limits), Some(Rule::ResetInsteadOfReply));
        record.actions.silent = Duration::from_millis(998);
        assert_eq!(rule(true, &record, &limits), None);
        assert_eq!(rule(false, &record, &limits), None);
        record.ending = Ending::Silence;
        assert_eq!(rule(false, &record, &limits), None);
        record.actions.silent = Duration::from_secs(6);
        assert_eq!(rule(false, &record, &limits), Some(Rule::NoReaction));
    }

    #[test]
    fn a_server_that_may_be_full_may_turn_away_before_the_first_byte() {
        let full = Limits { may_reject: true, ..LIMITS };
        for ending in [Ending::Refused, Ending::Fin, Ending::Reset] {
            assert_eq!(common(&seen(64, 0, ending), &full), Some(fine("turned away")));
        }
        assert_eq!(common(&seen(64, 1, Ending::Reset), &full), None);
        assert_eq!(common(&seen(64, 0, Ending::Reset), &LIMITS), None);
        let refused = common(&seen(0, 0, Ending::Refused), &LIMITS).and_then(|it| it.finding);
        assert_eq!(refused.map(|finding| finding.rule), Some(Rule::Refused));
    }
}
