//! The findings of an oracle.

use std::fmt;

crate::named! {
    /// The rule that a server violated.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum Rule {
        /// A connect was refused although the server serves.
        Refused = "refused",
        /// A connection was not served within the limit: it was not accepted, or it was forgotten.
        NotServed = "not_served",
        /// A whole request had arrived, the client was still reading, and the connection ended
        /// without its reply.
        LostReply = "lost_reply",
        /// A reset arrived instead of a missing reply.
        ResetInsteadOfReply = "reset_instead_of_reply",
        /// A reply, or a file, ended before its announced end.
        CutReply = "cut_reply",
        /// A reset without a cause on the client's side.
        UnprovokedReset = "unprovoked_reset",
        /// Bytes that no known connection sent.
        WrongBytes = "wrong_bytes",
        /// Bytes of another connection, of another place of the stream, or of another file; the
        /// detail names the owner.
        ForeignBytes = "foreign_bytes",
        /// Bytes without a request.
        Unasked = "unasked",
        /// The received bytes violate the protocol.
        Protocol = "protocol",
        /// A whole and proper request was refused.
        BadStatus = "bad_status",
        /// The client had ended, or a deadline had passed, and the server did not react within the
        /// limit.
        NoReaction = "no_reaction",
    }
}

/// One violation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule.
    pub rule: Rule,
    /// The observation, for people.
    pub detail: String,
}

impl Finding {
    /// Creates a finding of a rule.
    pub fn new(rule: Rule, detail: impl fmt::Display) -> Self {
        Self { rule, detail: detail.to_string() }
    }
}
