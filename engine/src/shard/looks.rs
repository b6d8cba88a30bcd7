//! Remembers what was found in the page cache a moment ago. To look costs as much as a tenth of
//! sending it, and many send the same.

use crate::ring::FileStatus;

/// Files are looked for in stretches of so many bytes, aligned.
pub const STRETCH_BYTES: u64 = 1 << 20;
/// For how long what was found counts as being there still. What was sent a moment ago is the last
/// that the kernel takes out of its cache; should it do so nevertheless, the shard waits for one
/// disk.
const KEPT_MS: u64 = 250;
/// Stretches that are remembered, at most.
const PLACES: usize = 1024;

/// One stretch of one file.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Stretch {
    device: u64,
    inode: u64,
    number: u64,
}

/// The stretches found last; two that share a place drive each other out.
pub struct Looks {
    places: Box<[(Stretch, u64)]>,
}

impl Default for Looks {
    fn default() -> Self {
        Self { places: vec![(Stretch::default(), 0); PLACES].into() }
    }
}

impl Looks {
    /// Returns whether the stretch that holds `offset` was found lately, or is found now by `look`,
    /// which is given its first byte and its length, up to the end that the file had when it was
    /// opened.
    pub fn find(
        &mut self,
        file: &FileStatus,
        offset: u64,
        now_ms: u64,
        look: impl FnOnce(u64, u32) -> bool,
    ) -> bool {
        let number = offset / STRETCH_BYTES;
        let stretch = Stretch { device: file.device, inode: file.inode, number };
        let place = &mut self.places[place(stretch)];
        if place.0 == stretch && now_ms < place.1 {
            return true;
        }
        let begin = number * STRETCH_BYTES;
        let length = file.bytes.saturating_sub(begin).min(STRETCH_BYTES) as u32;
        let found = length > 0 && look(begin, length);
        if found {
            *place = (stretch, now_ms + KEPT_MS);
        }
        found
    }
}

/// Fibonacci hashing: neighbours lie apart.
fn place(stretch: Stretch) -> usize {
    let mixed = stretch.inode.rotate_left(20) ^ stretch.number ^ stretch.device.rotate_left(40);
    (mixed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as usize % PLACES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::FileKind;

    fn file(inode: u64, bytes: u64) -> FileStatus {
        FileStatus {
            bytes,
            modified_s: 0,
            modified_ns: 0,
            changed_s: 0,
            changed_ns: 0,
            links: 1,
            device: 1,
            inode,
            kind: FileKind::Regular,
        }
    }

    #[test]
    fn a_stretch_is_looked_for_once_for_a_while() {
        let mut looks = Looks::default();
        let (one, other) = (file(1, STRETCH_BYTES * 2 + 5), file(2, 10));
        let mut asked = Vec::new();
        let mut find = |file: &FileStatus, offset, now_ms| {
            looks.find(file, offset, now_ms, |begin, length| {
                asked.push((file.inode, begin, length));
                true
            })
        };
        assert!(find(&one, 7, 1000));
        assert!(find(&one, STRETCH_BYTES - 1, 1000 + KEPT_MS - 1));
        assert!(find(&one, 0, 1000 + KEPT_MS));
        assert!(find(&one, STRETCH_BYTES * 2, 1000));
        assert!(find(&other, 3, 1000));
        let stretch = STRETCH_BYTES as u32;
        let last = (1, STRETCH_BYTES * 2, 5);
        assert_eq!(asked, [(1, 0, stretch), (1, 0, stretch), last, (2, 0, 10)]);
    }

    #[test]
    fn what_is_not_there_is_looked_for_again() {
        let mut looks = Looks::default();
        assert!(!looks.find(&file(1, 10), 0, 5, |_, _| false));
        assert!(looks.find(&file(1, 10), 0, 5, |_, _| true));
        // Behind its end there is nothing to look for.
        assert!(!looks.find(&file(1, STRETCH_BYTES), STRETCH_BYTES, 5, |_, _| true));
    }
}
