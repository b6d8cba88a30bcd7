//! Judges the ending of a connection.

use super::Strictness;
use crate::dialect::{Ending, Limits, Sight, Speech, Verdict};
use crate::dialects::ending;
use crate::oracle;

/// Numbers of requests that were sent.
struct Said {
    /// Complete and well-formed requests before the first malformed one.
    proper: u64,
    /// A part of a malformed request was sent.
    is_bad: bool,
    /// A malformed request was sent completely.
    is_bad_whole: bool,
}

impl Said {
    fn new(speech: &Speech, said: u64) -> Self {
        let bad = speech.requests.iter().find(|request| !request.is_proper);
        let before_bad = bad.map_or(u64::MAX, |bad| bad.start);
        let is_due = |end: u64| end <= said && end <= before_bad;
        Self {
            proper: speech.requests.iter().filter(|request| is_due(request.end)).count() as u64,
            is_bad: bad.is_some_and(|bad| bad.start < said),
            is_bad_whole: bad.is_some_and(|bad| bad.end <= said),
        }
    }
}

/// Judges a connection that was to send `speech`.
pub fn judge(strictness: Strictness, speech: &Speech, sight: &Sight, limits: &Limits) -> Verdict {
    if let Some(verdict) = oracle::common(sight, limits) {
        return verdict;
    }
    let said = Said::new(speech, sight.deeds.said);
    let progress = progress(speech, sight);
    if let Some(verdict) = ending::announced(progress, sight, limits) {
        return verdict;
    }
    let owed = match strictness {
        Strictness::Own => own(&said, sight),
        Strictness::Foreign if is_excused(&said, sight) => {
            return oracle::fine(format!("{progress}, {}", oracle::ending(sight)));
        }
        Strictness::Foreign => unanswered(&said, sight),
    };
    oracle::settle(progress, owed.as_deref(), sight, limits)
}

/// Returns the missing replies by the guarantees of `ringwrightd`.
fn own(said: &Said, sight: &Sight) -> Option<String> {
    let refusal_owed = said.is_bad_whole && sight.replies <= said.proper && !sight.announced_end;
    unanswered(said, sight).or_else(|| {
        refusal_owed.then(|| "a complete malformed request had not been refused".into())
    })
}

/// Describes the requests without a reply.
fn unanswered(said: &Said, sight: &Sight) -> Option<String> {
    let missing = said.proper.saturating_sub(sight.replies);
    (missing > 0 && !sight.announced_end).then(|| {
        format!(
            "{missing} of {} complete {} had not been answered ({} bytes were received)",
            said.proper,
            if said.proper == 1 { "request" } else { "requests" },
            sight.heard
        )
    })
}

/// Returns true if HTTP allows the ending.
fn is_excused(said: &Said, sight: &Sight) -> bool {
    let owes = unanswered(said, sight).is_some();
    match sight.ending {
        // A server may close at any time between two replies, and may ignore a client that has sent
        // its FIN (RFC 9112, 9.3.2 and 9.5). It must answer the first request on a connection.
        Ending::Fin => !owes || said.is_bad || sight.deeds.fin || sight.replies > 0,
        // A reset can destroy a reply that has been sent (RFC 9112, 9.6).
        Ending::Reset => said.is_bad || (!owes && sight.deeds.fin),
        Ending::Silence => said.is_bad && sight.replies >= said.proper,
        _ => false,
    }
}

fn progress(speech: &Speech, sight: &Sight) -> &'static str {
    match sight.replies {
        0 if sight.heard == 0 => "no reply",
        0 => "part of a reply",
        replies if replies >= speech.requests.len() as u64 => "replied",
        _ => "some replies",
    }
}
