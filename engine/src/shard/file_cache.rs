//! Regular files of local file systems that stay open by their path (`Config::open_files`).
//!
//! `Connection::cached_file` returns one at once, where `open_file` takes a lookup, an open, two
//! closes and two turns of the loop. `send_cached` reads small files (preadv2(2) with `RWF_NOWAIT`)
//! into the send buffer behind earlier output. Sixteen pipelined responses then leave in as many
//! sends as they fill buffers.
//!
//! The cache holds the relation from path to file. It holds no content, except within one turn
//! (`again.rs`). Three rules make it safe:
//!
//! * A change of the file (replaced, unlinked, renamed, written, truncated, chmod) shows in its
//!   status. statx(2) must return the status of the open; it is called once per entry and turn. The
//!   kernel received all requests of a turn before the turn began (`DEFER_TASKRUN`), and so before
//!   the call.
//! * A change of a directory above the file does not show in the status. The path is therefore
//!   looked up again `open_files_valid` after its open began.
//! * A file that has just changed could lose its name between the lookup and statx(2). Two changes
//!   within a tick of the file system's clock could also look like one. A file is therefore kept
//!   only if it had been unchanged for [`SETTLED_MS`], by that clock, when its open began.
//!
//! Beyond `open_files` entries the least recently used one is closed. An entry that nobody used for
//! three seconds is closed, so that a deleted file frees its blocks. All entries are closed when a
//! call finds no free descriptor, and at the end of a drain. The ledger counts them among files and
//! descriptors.

use crate::files::{CachedPlace, Directory, OpenFile};
use foldhash::quality::RandomState;
use std::collections::HashMap;
use std::os::fd::RawFd;
use std::rc::Rc;

/// What nobody asked for is closed after so long: a deleted file frees its blocks, and a file
/// system can be unmounted.
const UNUSED_MS: u64 = 3_000;
/// A file that was used so lately keeps its place among the others.
const FRESH_MS: u64 = 50;
/// Longer than a tick of the clock that file systems take their times from.
const SETTLED_MS: i64 = 20;
/// No entry.
const NONE: usize = usize::MAX;

/// An open file and where it was found.
struct Entry {
    key: Rc<[u8]>,
    place: CachedPlace,
    file: OpenFile,
    /// Open for as long as its descriptor is part of the key.
    _directory: Directory,
    times: Times,
    newer: usize,
    older: usize,
}

/// When what happened to an entry last.
#[derive(Clone, Copy)]
pub struct Times {
    /// When its open began.
    pub opened_ms: u64,
    /// When somebody asked for it, to within [`FRESH_MS`].
    pub used_ms: u64,
    /// The turn in which its status was asked for.
    pub asked_turn: u64,
}

/// What a look into the cache has found.
pub enum Found {
    /// The file, by its entry.
    Current(usize),
    /// It is to be asked for its status, and dropped if that has changed.
    Unasked(usize),
    /// It was open for too long, and is in the cache no more.
    Old(OpenFile),
    Nothing,
}

/// The open files of a shard, least recently used first to go.
pub struct FileCache {
    entries_max: usize,
    valid_ms: u64,
    /// SipHash, the default of the standard library, takes four times as many instructions.
    by_key: HashMap<Rc<[u8]>, usize, RandomState>,
    entries: Vec<Option<Entry>>,
    free: Vec<usize>,
    /// The entry that was found by its path last.
    last: usize,
    newest: usize,
    oldest: usize,
    /// A key to look for.
    key: Vec<u8>,
}

impl FileCache {
    pub fn new(entries_max: usize, valid_ms: u64) -> Self {
        Self {
            entries_max,
            valid_ms,
            by_key: HashMap::with_hasher(RandomState::default()),
            entries: Vec::new(),
            free: Vec::new(),
            last: NONE,
            newest: NONE,
            oldest: NONE,
            key: Vec::new(),
        }
    }

    pub fn is_off(&self) -> bool {
        self.entries_max == 0
    }

    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether a file that was changed at this time had been left alone for long enough when its
    /// open began.
    pub fn is_settled(changed_s: i64, changed_ns: u32, begun_ms: i64) -> bool {
        let changed_ms =
            changed_s.saturating_mul(1000).saturating_add((changed_ns / 1_000_000).into());
        changed_ms.saturating_add(SETTLED_MS) < begun_ms
    }

    pub fn find(&mut self, directory: &Directory, path: &[u8], now_ms: u64, turn: u64) -> Found {
        self.write_key(directory, path);
        // Most often it is the one that was asked for last.
        let last = self.entries.get(self.last).and_then(Option::as_ref);
        let at = match last.is_some_and(|entry| *entry.key == self.key[..]) {
            true => self.last,
            false => match self.by_key.get(&self.key[..]) {
                Some(&at) => at,
                None => return Found::Nothing,
            },
        };
        self.last = at;
        self.look_at(at, now_ms, turn)
    }

    /// Finds a file by its place.
    pub fn find_at(&mut self, place: CachedPlace, now_ms: u64, turn: u64) -> Found {
        match self.entries.get(place.entry as usize) {
            Some(Some(entry)) if entry.place == place => {
                self.look_at(place.entry as usize, now_ms, turn)
            }
            _ => Found::Nothing,
        }
    }

    fn look_at(&mut self, at: usize, now_ms: u64, turn: u64) -> Found {
        let entry = self.entry(at);
        if now_ms >= entry.times.opened_ms + self.valid_ms {
            return Found::Old(self.remove(at));
        }
        let asked_turn = entry.times.asked_turn;
        match asked_turn == turn || (bug!("file-asked-last-turn") && asked_turn + 1 == turn) {
            true => Found::Current(at),
            false => Found::Unasked(at),
        }
    }

    pub fn file(&self, at: usize) -> &OpenFile {
        &self.entry(at).file
    }

    /// Somebody gets it.
    pub fn note_used(&mut self, at: usize, now_ms: u64, turn: u64) {
        let entry = self.entry_mut(at);
        entry.times.asked_turn = turn;
        if now_ms < entry.times.used_ms + FRESH_MS {
            return;
        }
        entry.times.used_ms = now_ms;
        if self.newest != at {
            self.unlink(at);
            self.link_newest(at);
        }
    }

    /// Keeps a file that was just opened, and asked for its status in this turn. What has to go
    /// for it: an older one of the same path, or the least recently used one.
    pub fn insert(
        &mut self,
        directory: &Directory,
        path: &[u8],
        file: OpenFile,
        times: Times,
    ) -> Option<OpenFile> {
        self.write_key(directory, path);
        let gone = match self.by_key.get(&self.key[..]) {
            Some(&at) => Some(self.remove(at)),
            None if self.len() == self.entries_max => Some(self.remove(self.oldest)),
            None => None,
        };
        let key: Rc<[u8]> = self.key[..].into();
        let at = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            self.entries.len() - 1
        });
        let entry = Entry {
            key: key.clone(),
            place: file.keep_at(at as u32),
            file,
            _directory: directory.clone(),
            times,
            newer: NONE,
            older: NONE,
        };
        self.entries[at] = Some(entry);
        self.by_key.insert(key, at);
        self.link_newest(at);
        gone
    }

    pub fn remove(&mut self, at: usize) -> OpenFile {
        self.unlink(at);
        let entry = self.entries[at].take().expect("an entry is removed once");
        self.by_key.remove(&entry.key);
        self.free.push(at);
        entry.file
    }

    /// Takes the file out that nobody has asked for for the longest time.
    pub fn take_oldest(&mut self) -> Option<OpenFile> {
        (self.oldest != NONE).then(|| self.remove(self.oldest))
    }

    /// Takes a file out that nobody has asked for for long enough.
    pub fn take_unused(&mut self, now_ms: u64) -> Option<OpenFile> {
        self.next_ms().filter(|at_ms| *at_ms <= now_ms).and_then(|_| self.take_oldest())
    }

    /// When the next one is to be closed for not being used.
    pub fn next_ms(&self) -> Option<u64> {
        (self.oldest != NONE).then(|| self.entry(self.oldest).times.used_ms + UNUSED_MS)
    }

    fn write_key(&mut self, directory: &Directory, path: &[u8]) {
        let number: RawFd = directory.descriptor().0;
        self.key.clear();
        self.key.extend_from_slice(&number.to_ne_bytes());
        self.key.extend_from_slice(path);
    }

    fn entry(&self, at: usize) -> &Entry {
        self.entries[at].as_ref().expect("the numbers of entries lead to entries")
    }

    fn entry_mut(&mut self, at: usize) -> &mut Entry {
        self.entries[at].as_mut().expect("the numbers of entries lead to entries")
    }

    fn link_newest(&mut self, at: usize) {
        let older = std::mem::replace(&mut self.newest, at);
        let entry = self.entry_mut(at);
        (entry.newer, entry.older) = (NONE, older);
        match older {
            NONE => self.oldest = at,
            older => self.entry_mut(older).newer = at,
        }
    }

    fn unlink(&mut self, at: usize) {
        let Entry { newer, older, .. } = *self.entry(at);
        match newer {
            NONE => self.newest = older,
            newer => self.entry_mut(newer).older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.entry_mut(older).newer = newer,
        }
    }
}

#[cfg(any(test, feature = "testing"))]
impl FileCache {
    /// The list has every entry once, the least recently used one last, and none that should have
    /// been closed before `late_ms`.
    pub fn check(&self, late_ms: u64) {
        assert!(self.len() <= self.entries_max, "{} files are kept open", self.len());
        let (mut at, mut newer, mut listed) = (self.newest, NONE, 0);
        while at != NONE {
            let entry = self.entry(at);
            assert_eq!(entry.newer, newer, "a list that leads back as it leads on");
            assert_eq!(self.by_key[&entry.key], at, "a key leads to its entry");
            assert!(entry.times.used_ms + UNUSED_MS > late_ms, "kept open for nobody");
            let least_ms = self
                .entries
                .get(entry.older)
                .map_or(0, |older| older.as_ref().expect("it leads to an entry").times.used_ms);
            assert!(least_ms <= entry.times.used_ms, "the least recently used one goes first");
            (newer, at, listed) = (at, entry.older, listed + 1);
        }
        assert_eq!((self.oldest, listed), (newer, self.len()), "the end of the list");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::FilesOpen;
    use crate::ring::{Descriptor, FileKind, FileStatus, Outside};
    use std::sync::Arc;

    /// A cache of two, its directory, and who counts its files.
    fn cache() -> (FileCache, Directory, Arc<FilesOpen>) {
        let files_open = Arc::new(FilesOpen::new(Outside::KERNEL));
        (FileCache::new(2, 100), Directory::simulated(Descriptor(7)), files_open)
    }

    fn file(inode: u64, opener: &Arc<FilesOpen>) -> OpenFile {
        let status = FileStatus {
            bytes: 1,
            modified_s: 0,
            modified_ns: 0,
            changed_s: 0,
            changed_ns: 0,
            links: 1,
            device: 1,
            inode,
            kind: FileKind::Regular,
        };
        let found = crate::files::Found { waits: false, crossed_link: false };
        OpenFile::new(Descriptor(1_000_000 + inode as i32), status, found, opener)
    }

    fn at(now_ms: u64, turn: u64) -> Times {
        Times { opened_ms: now_ms, used_ms: now_ms, asked_turn: turn }
    }

    #[test]
    fn the_least_recently_used_one_goes_first() {
        let (mut cache, directory, opener) = cache();
        assert!(cache.insert(&directory, b"a", file(1, &opener), at(0, 1)).is_none());
        assert!(cache.insert(&directory, b"b", file(2, &opener), at(1, 1)).is_none());
        for (now_ms, oldest) in [(FRESH_MS - 1, 1), (FRESH_MS, 2)] {
            let Found::Current(first) = cache.find(&directory, b"a", now_ms, 1) else {
                panic!("a is gone")
            };
            cache.note_used(first, now_ms, 1);
            assert_eq!(cache.file(cache.oldest).status().inode, oldest, "{now_ms}");
            cache.check(0);
        }
        let gone = cache.insert(&directory, b"c", file(3, &opener), at(60, 1)).unwrap();
        assert_eq!(gone.status().inode, 2);
        assert!(matches!(cache.find(&directory, b"b", 60, 1), Found::Nothing));
        let gone = cache.insert(&directory, b"c", file(4, &opener), at(61, 1)).unwrap();
        assert_eq!((gone.status().inode, cache.len()), (3, 2), "a newer one of that path");
        cache.check(0);
        assert_eq!(cache.next_ms(), Some(FRESH_MS + UNUSED_MS));
        assert!(cache.take_unused(FRESH_MS - 1 + UNUSED_MS).is_none());
        assert_eq!(cache.take_unused(FRESH_MS + UNUSED_MS).unwrap().status().inode, 1);
        assert_eq!(cache.take_oldest().unwrap().status().inode, 4);
        assert!(cache.take_oldest().is_none() && cache.next_ms().is_none());
        cache.check(0);
    }

    #[test]
    fn a_file_is_asked_once_a_turn_and_looked_up_anew_in_time() {
        let (mut cache, directory, opener) = cache();
        cache.insert(&directory, b"a", file(1, &opener), at(10, 1));
        let other = Directory::simulated(Descriptor(8));
        assert!(matches!(cache.find(&other, b"a", 10, 1), Found::Nothing), "beneath another");
        let Found::Unasked(entry) = cache.find(&directory, b"a", 11, 2) else {
            panic!("not asked")
        };
        cache.note_used(entry, 11, 2);
        assert!(matches!(cache.find(&directory, b"a", 11, 2), Found::Current(_)));
        assert!(matches!(cache.find(&directory, b"a", 109, 2), Found::Current(_)));
        assert!(matches!(cache.find(&directory, b"a", 110, 2), Found::Old(_)));
        assert_eq!(cache.len(), 0);
    }

    #[test]
    fn a_place_leads_to_its_file_while_that_is_kept() {
        let (mut cache, directory, opener) = cache();
        let first = file(1, &opener);
        assert!(first.place().is_none());
        cache.insert(&directory, b"a", first.clone(), at(10, 1));
        let place = first.place().expect("it is kept");
        let Found::Current(entry) = cache.find_at(place, 10, 1) else { panic!("it has no place") };
        assert_eq!(cache.file(entry).status().inode, 1);
        assert!(matches!(cache.find_at(place, 11, 2), Found::Unasked(_)), "it is asked each turn");
        assert!(matches!(cache.find_at(place, 110, 2), Found::Old(_)), "it is looked up anew");
        assert!(matches!(cache.find_at(place, 10, 1), Found::Nothing), "it is gone");
        // Another file gets the same entry.
        let second = file(2, &opener);
        cache.insert(&directory, b"a", second.clone(), at(10, 1));
        assert_eq!(second.place().map(|place| place.entry), Some(place.entry));
        assert!(matches!(cache.find_at(place, 10, 1), Found::Nothing), "a place is not used again");
        // One of another shard has another file there.
        let mut other = FileCache::new(2, 100);
        other.insert(&directory, b"a", file(3, &opener), at(10, 1));
        assert!(matches!(other.find_at(second.place().unwrap(), 10, 1), Found::Nothing));
    }

    #[test]
    fn a_file_that_has_just_changed_is_not_settled() {
        for (changed_s, changed_ns, settled) in [
            (1_000, 0, true),
            (1_000, 79_000_000, true),
            (1_000, 80_000_000, false),
            (i64::MAX, 0, false),
        ] {
            let begun_ms = 1_000_100;
            assert_eq!(FileCache::is_settled(changed_s, changed_ns, begun_ms), settled);
        }
    }
}
