//! Judges the ending of a connection.

use super::Strictness;
use crate::dialect::{Ending, Limits, Outgoing, Record, Verdict};
use crate::dialects::ending;
use crate::oracle;

/// Numbers of requests that were sent.
struct SentRequests {
    /// Complete and well-formed requests before the first malformed one.
    proper: u64,
    /// A part of a malformed request was sent.
    is_bad: bool,
    /// A malformed request was sent completely.
    is_bad_whole: bool,
}

impl SentRequests {
    fn new(outgoing: &Outgoing, sent: u64) -> Self {
        let bad = outgoing.requests.iter().find(|request| !request.is_proper);
        let before_bad = bad.map_or(u64::MAX, |bad| bad.start);
        let is_due = |end: u64| end <= sent && end <= before_bad;
        Self {
            proper: outgoing.requests.iter().filter(|request| is_due(request.end)).count() as u64,
            is_bad: bad.is_some_and(|bad| bad.start < sent),
            is_bad_whole: bad.is_some_and(|bad| bad.end <= sent),
        }
    }
}

/// Judges a connection that was to send `outgoing`.
pub fn judge(
    strictness: Strictness,
    outgoing: &Outgoing,
    record: &Record,
    limits: &Limits,
) -> Verdict {
    if let Some(verdict) = oracle::common(record, limits) {
        return verdict;
    }
    let sent = SentRequests::new(outgoing, record.actions.sent);
    let progress = progress(outgoing, record);
    if let Some(verdict) = ending::announced(progress, record, limits) {
        return verdict;
    }
    let missing = match strictness {
        Strictness::Own => own(&sent, record),
        Strictness::Foreign if is_excused(&sent, record) => {
            return oracle::fine(format!("{progress}, {}", oracle::ending(record)));
        }
        Strictness::Foreign => unanswered(&sent, record),
    };
    oracle::judge_ending(progress, missing.as_deref(), record, limits)
}

/// Returns the missing replies by the guarantees of `ringwrightd`.
fn own(sent: &SentRequests, record: &Record) -> Option<String> {
    let lacks_refusal = sent.is_bad_whole && record.replies <= sent.proper && !record.announced_end;
    unanswered(sent, record).or_else(|| {
        lacks_refusal.then(|| "a complete malformed request had not been refused".into())
    })
}

/// Describes the requests without a reply.
fn unanswered(sent: &SentRequests, record: &Record) -> Option<String> {
    let missing = sent.proper.saturating_sub(record.replies);
    (missing > 0 && !record.announced_end).then(|| {
        format!(
            "{missing} of {} complete {} had not been answered ({} bytes were received)",
            sent.proper,
            if sent.proper == 1 { "request" } else { "requests" },
            record.received
        )
    })
}

/// Returns true if HTTP allows the ending.
fn is_excused(sent: &SentRequests, record: &Record) -> bool {
    let lacks_reply = unanswered(sent, record).is_some();
    match record.ending {
        // A server may close at any time between two replies, and may ignore a client that has sent
        // its FIN (RFC 9112, 9.3.2 and 9.5). It must answer the first request on a connection.
        Ending::Fin => !lacks_reply || sent.is_bad || record.actions.fin || record.replies > 0,
        // A reset can destroy a reply that has been sent (RFC 9112, 9.6).
        Ending::Reset => sent.is_bad || (!lacks_reply && record.actions.fin),
        Ending::Silence => sent.is_bad && record.replies >= sent.proper,
        _ => false,
    }
}

fn progress(outgoing: &Outgoing, record: &Record) -> &'static str {
    match record.replies {
        0 if record.received == 0 => "no reply",
        0 => "part of a reply",
        replies if replies >= outgoing.requests.len() as u64 => "replied",
        _ => "some replies",
    }
}
