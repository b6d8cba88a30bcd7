//! Paths that led to regular files a moment ago. They are opened without a lookup.
//!
//! A lookup is a second operation on the ring and a turn of the loop. Without this memory, 16
//! pipelined requests for files that are not kept open took 1.45 times as long.

use crate::files::Directory;
use std::hash::{DefaultHasher, Hash, Hasher};

/// A path counts as leading to a regular file for this time after a lookup. The path is resolved
/// again for the open in any case, so a lookup never rules out that it leads elsewhere by then.
const KEPT_MS: u64 = 250;
/// The limit on remembered paths.
const PLACES: usize = 1024;

/// The last paths that were found. Two paths that share a place replace each other.
pub struct RegularPaths {
    /// Hash of a path, and when it expires.
    places: Box<[(u64, u64)]>,
}

impl Default for RegularPaths {
    fn default() -> Self {
        Self { places: vec![(0, 0); PLACES].into() }
    }
}

impl RegularPaths {
    /// The hash of a path beneath a directory. Its key is fixed, so that a seed repeats. Equal
    /// hashes of two paths do no harm: one of them would be opened without its lookup.
    pub fn hash(directory: &Directory, path: &[u8]) -> u64 {
        let mut hasher = DefaultHasher::new();
        (directory.descriptor().0, path).hash(&mut hasher);
        hasher.finish()
    }

    /// Returns whether the path of this hash led to a regular file a moment ago.
    pub fn contains(&self, hash: u64, now_ms: u64) -> bool {
        let (held, until_ms) = self.places[hash as usize % PLACES];
        held == hash && now_ms < until_ms
    }

    /// Remembers a path that leads to a regular file.
    pub fn insert(&mut self, hash: u64, now_ms: u64) {
        self.places[hash as usize % PLACES] = (hash, now_ms + KEPT_MS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_remembered_for_a_while() {
        let directory = Directory::open(std::path::Path::new("/")).unwrap();
        let [one, other] = [b"one", b"two"].map(|path| RegularPaths::hash(&directory, path));
        assert_ne!(one, other);
        let mut paths = RegularPaths::default();
        assert!(!paths.contains(one, 1_000));
        paths.insert(one, 1_000);
        assert!(paths.contains(one, 1_000 + KEPT_MS - 1) && !paths.contains(other, 1_000));
        assert!(!paths.contains(one, 1_000 + KEPT_MS));
        // Another path with the same place.
        paths.insert(one + PLACES as u64, 1_000);
        assert!(!paths.contains(one, 1_000));
    }
}
