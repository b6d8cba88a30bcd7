//! Notes about open files: what a further reply with the same file needs not compute again.

use super::contents::Kept;
use super::exchange::Candidate;
use super::lines::common_lines;
use crate::http::date::CommonLines;
use crate::site::headers::BuiltIn;
use crate::site::rules::Facts;
use crate::site::variants::Coding;
use ringwright::files::OpenFile;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The time for which a variant that is missing is not looked for again, in milliseconds.
const MISSING_MS: u64 = 1_000;
/// A bit for each coding.
const CODING_BITS: u32 = Coding::ALL.len() as u32;

/// The part of replies that is kept with a file while it is open.
pub(super) struct Note {
    /// The lines of a reply that sends all of it.
    pub(super) lines: Box<[u8]>,
    /// The coding of a variant, whose lines these are.
    pub(super) coding: Option<Coding>,
    /// The fields that rules have replaced.
    pub(super) without: BuiltIn,
    /// The lines depend on the origin of the request as well.
    pub(super) is_shared: bool,
    /// The rules that decide about its path.
    pub(super) facts: Option<Facts>,
    /// The rules that decide about its real path, if it was found across a link.
    pub(super) target: Option<Facts>,
    /// The variants that it does not have.
    pub(super) variants: Missing,
    /// The contents of a small file.
    pub(super) kept: Option<Kept>,
}

impl Note {
    pub(super) fn of(file: &OpenFile) -> Option<&Self> {
        file.note().get().and_then(|note| note.downcast_ref())
    }

    /// The lines are those of a reply with this candidate.
    pub(super) fn holds_for(&self, candidate: &Candidate) -> bool {
        self.coding == candidate.coding() && !self.is_shared
    }

    /// The lines of all replies that rules have not replaced.
    pub(super) fn common_lines<'a>(&self, common: &'a CommonLines) -> &'a [u8] {
        common_lines(common, self.without)
    }
}

/// The variants that a file did not have when they were looked for, and the time until which that
/// is believed.
#[derive(Debug, Default)]
pub(super) struct Missing(AtomicU64);

impl Missing {
    /// Returns whether a variant was looked for in vain, a short time ago.
    pub fn is_missing(&self, coding: Coding, now: Duration) -> bool {
        let known = self.0.load(Ordering::Relaxed);
        known >> CODING_BITS > now.as_millis() as u64 && known & bit(coding) != 0
    }

    /// Notes that a variant was looked for in vain.
    pub fn set_missing(&self, coding: Coding, now: Duration) {
        let known = self.0.load(Ordering::Relaxed);
        let now_ms = now.as_millis() as u64;
        let (until_ms, bits) = (known >> CODING_BITS, known & ((1 << CODING_BITS) - 1));
        let known = if until_ms > now_ms {
            until_ms << CODING_BITS | bits | bit(coding)
        } else {
            (now_ms + MISSING_MS) << CODING_BITS | bit(coding)
        };
        self.0.store(known, Ordering::Relaxed);
    }
}

const fn bit(coding: Coding) -> u64 {
    1 << coding as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_variant_is_looked_for_again_after_a_while() {
        let ms = Duration::from_millis;
        let missing = Missing::default();
        let is_missing = |coding, now| missing.is_missing(coding, ms(now));
        assert!(!is_missing(Coding::Gzip, 5_000));
        missing.set_missing(Coding::Gzip, ms(5_000));
        assert!(is_missing(Coding::Gzip, 5_999) && !is_missing(Coding::Gzip, 6_000));
        assert!(!is_missing(Coding::Brotli, 5_000));
        // One that is noted later is looked for with the first.
        missing.set_missing(Coding::Brotli, ms(5_500));
        assert!(is_missing(Coding::Brotli, 5_999) && is_missing(Coding::Gzip, 5_999));
        assert!(!is_missing(Coding::Brotli, 6_000));
        missing.set_missing(Coding::Zstd, ms(7_000));
        assert!(is_missing(Coding::Zstd, 7_500) && !is_missing(Coding::Gzip, 7_500));
    }
}
