//! The ways in which a connection is ended at random, and how often each was.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a client sees of an ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Ending {
    /// FIN as soon as it was accepted, before any byte.
    CloseAtOnce,
    /// RST as soon as it was accepted, before any byte.
    ResetAtOnce,
    /// The whole echo, then FIN.
    Close,
    /// RST instead of the echo.
    Reset,
    /// FIN instead of the echo; what comes is read for a while, then RST.
    HalfClose,
    /// A part of the echo, then FIN.
    CutClose,
    /// A part of the echo, then RST.
    CutReset,
    /// Nothing is sent and nothing is read for a while, then RST.
    Stall,
}

impl Ending {
    /// Every ending, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::CloseAtOnce,
        Self::ResetAtOnce,
        Self::Close,
        Self::Reset,
        Self::HalfClose,
        Self::CutClose,
        Self::CutReset,
        Self::Stall,
    ];
    /// Those of a connection that was just accepted.
    pub const AT_ONCE: [Self; 2] = [Self::CloseAtOnce, Self::ResetAtOnce];
    /// Those of a connection that has sent something.
    pub const LATER: [Self; 6] =
        [Self::Close, Self::Reset, Self::HalfClose, Self::CutClose, Self::CutReset, Self::Stall];

    /// The name in metrics and in the last line: `close_at_once`, `cut_reset`, …
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CloseAtOnce => "close_at_once",
            Self::ResetAtOnce => "reset_at_once",
            Self::Close => "close",
            Self::Reset => "reset",
            Self::HalfClose => "half_close",
            Self::CutClose => "cut_close",
            Self::CutReset => "cut_reset",
            Self::Stall => "stall",
        }
    }
}

/// How often each ending was begun, over all shards.
#[derive(Debug, Default)]
pub struct Endings([AtomicU64; Ending::ALL.len()]);

impl Endings {
    /// One more.
    pub fn count(&self, ending: Ending) {
        self.0[ending as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many so far.
    #[must_use]
    pub fn of(&self, ending: Ending) -> u64 {
        self.0[ending as usize].load(Ordering::Relaxed)
    }

    /// As a JSON object, for the last line.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut json = String::new();
        for ending in Ending::ALL {
            let before = if json.is_empty() { '{' } else { ',' };
            let _ = write!(json, "{before}\"{}\":{}", ending.name(), self.of(ending));
        }
        json.push('}');
        json
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ending_is_numbered_in_order_and_is_either_at_once_or_later() {
        for (at, ending) in Ending::ALL.into_iter().enumerate() {
            assert_eq!(ending as usize, at);
        }
        assert_eq!([&Ending::AT_ONCE[..], &Ending::LATER].concat(), Ending::ALL);
    }

    #[test]
    fn what_is_counted_is_told_by_name() {
        let endings = Endings::default();
        for ending in [Ending::Stall, Ending::Close, Ending::Stall] {
            endings.count(ending);
        }
        assert_eq!(
            endings.to_json(),
            "{\"close_at_once\":0,\"reset_at_once\":0,\"close\":1,\"reset\":0,\"half_close\":0,\
             \"cut_close\":0,\"cut_reset\":0,\"stall\":2}"
        );
    }
}
