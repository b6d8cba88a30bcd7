//! Notes about open files: what a further reply with the same file needs not compute again.

use super::contents::Kept;
use super::exchange::Candidate;
use super::lines::common_lines;
use crate::http::date::CommonLines;
use crate::site::headers::BuiltIn;
use crate::site::rules::Facts;
use crate::site::variants::Coding;
use ringwright::files::{CachedPlace, OpenFile};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// The time for which a variant that is missing is not looked for again, in milliseconds.
const MISSING_MS: u64 = 1_000;
/// A bit for each coding.
const CODING_BITS: u32 = Coding::ALL.len() as u32;

/// The data that are kept with a file while it is open.
pub(super) struct Note {
    /// The rules that decide about its path.
    facts: OnceLock<Facts>,
    /// The rules that decide about the path of the directory whose index file it is.
    directory_facts: OnceLock<Facts>,
    /// The rules that decide about its real path, if it was found across a link.
    pub(super) target: Option<Facts>,
    pub(super) variants: Variants,
    /// The replies that send all of it: under its own path, and as a variant of another file.
    replies: [OnceLock<KeptReply>; 2],
    /// The contents of a small file.
    pub(super) kept: OnceLock<Kept>,
}

impl Note {
    pub(super) fn of(file: &OpenFile) -> Option<&Self> {
        file.note().get().and_then(|note| note.downcast_ref())
    }

    pub(super) fn new(target: Option<Facts>) -> Self {
        Self {
            facts: OnceLock::new(),
            directory_facts: OnceLock::new(),
            target,
            variants: Variants::default(),
            replies: [OnceLock::new(), OnceLock::new()],
            kept: OnceLock::new(),
        }
    }

    /// The place for the rules that decide about the path of the file, or about that of the
    /// directory whose index file it is. A file has no other paths: its note is dropped with the
    /// site's directory.
    pub(super) fn facts(&self, of_directory: bool) -> &OnceLock<Facts> {
        if of_directory { &self.directory_facts } else { &self.facts }
    }

    /// The place for the reply with this candidate.
    pub(super) fn reply(&self, candidate: &Candidate) -> &OnceLock<KeptReply> {
        &self.replies[usize::from(candidate.coding().is_some())]
    }
}

/// The part of a reply that sends all of a file.
pub(super) struct KeptReply {
    pub(super) lines: Box<[u8]>,
    /// The fields that rules have replaced.
    pub(super) without: BuiltIn,
    /// The lines depend on the origin of the request as well.
    pub(super) is_shared: bool,
}

impl KeptReply {
    /// The lines of all replies that rules have not replaced.
    pub(super) fn common_lines<'a>(&self, common: &'a CommonLines) -> &'a [u8] {
        common_lines(common, self.without)
    }
}

/// The variants of a file.
#[derive(Debug, Default)]
pub(super) struct Variants {
    /// Those that were missing when they were looked for, and the time until which that is
    /// believed.
    missing: AtomicU64,
    /// The places of those that were found, by the coding.
    places: [Mutex<Option<CachedPlace>>; Coding::ALL.len()],
}

impl Variants {
    /// Returns whether a variant was looked for in vain, a short time ago.
    pub fn is_missing(&self, coding: Coding, now: Duration) -> bool {
        let known = self.missing.load(Ordering::Relaxed);
        known & bit(coding) != 0 && known >> CODING_BITS > now.as_millis() as u64
    }

    /// Notes that a variant was looked for in vain.
    pub fn set_missing(&self, coding: Coding, now: Duration) {
        let known = self.missing.load(Ordering::Relaxed);
        let now_ms = now.as_millis() as u64;
        let (until_ms, bits) = (known >> CODING_BITS, known & ((1 << CODING_BITS) - 1));
        let known = if until_ms > now_ms {
            until_ms << CODING_BITS | bits | bit(coding)
        } else {
            (now_ms + MISSING_MS) << CODING_BITS | bit(coding)
        };
        self.missing.store(known, Ordering::Relaxed);
    }

    /// The place at which a variant was found last. The file at it may be gone.
    pub fn place(&self, coding: Coding) -> Option<CachedPlace> {
        *self.places[coding as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the place at which a variant was found.
    pub fn set_place(&self, coding: Coding, place: Option<CachedPlace>) {
        *self.places[coding as usize].lock().unwrap_or_else(PoisonError::into_inner) = place;
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
        let missing = Variants::default();
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
