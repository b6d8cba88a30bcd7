//! What an oracle finds.

use std::fmt;

/// The rule that a server broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// A connect was refused although the server serves.
    Refused,
    /// A connection was there and nothing came of it within the limit: accepted by nobody, or
    /// forgotten.
    NotServed,
    /// A whole request had arrived, the client was still reading, and the connection ended without
    /// its reply.
    LostReply,
    /// The same, by a reset: an answer was owed and a RST came.
    ResetInsteadOfReply,
    /// A reply, or a file, ended before its announced end.
    CutReply,
    /// A reset that nothing of the client's had called for.
    UnprovokedReset,
    /// Bytes that are nobody's.
    WrongBytes,
    /// Bytes of another connection, of another place of the stream, or of another file; the detail
    /// says whose.
    ForeignBytes,
    /// Bytes that nobody had asked for.
    Unasked,
    /// What came is not the protocol.
    Protocol,
    /// A whole and proper request was refused.
    BadStatus,
    /// The client had ended, or a deadline had passed, and the server did not react within the
    /// limit.
    NoReaction,
}

impl Rule {
    /// Every rule.
    pub const ALL: [Self; 12] = [
        Self::Refused,
        Self::NotServed,
        Self::LostReply,
        Self::ResetInsteadOfReply,
        Self::CutReply,
        Self::UnprovokedReset,
        Self::WrongBytes,
        Self::ForeignBytes,
        Self::Unasked,
        Self::Protocol,
        Self::BadStatus,
        Self::NoReaction,
    ];

    /// The name in output and JSON: `lost_reply`, `foreign_bytes`, …
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::NotServed => "not_served",
            Self::LostReply => "lost_reply",
            Self::ResetInsteadOfReply => "reset_instead_of_reply",
            Self::CutReply => "cut_reply",
            Self::UnprovokedReset => "unprovoked_reset",
            Self::WrongBytes => "wrong_bytes",
            Self::ForeignBytes => "foreign_bytes",
            Self::Unasked => "unasked",
            Self::Protocol => "protocol",
            Self::BadStatus => "bad_status",
            Self::NoReaction => "no_reaction",
        }
    }
}

/// One broken rule, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which.
    pub rule: Rule,
    /// What exactly was seen.
    pub detail: String,
}

impl Finding {
    /// Of that rule.
    pub fn new(rule: Rule, detail: impl fmt::Display) -> Self {
        Self { rule, detail: detail.to_string() }
    }
}
