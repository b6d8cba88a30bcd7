//! What a callback gets from files that are open already and lie in the page cache: at once, by
//! system calls that wait for nobody.

use super::again::Range;
use super::core::{Core, OpenRequest};
use super::file_cache::{FileCache, Found, Times};
use super::output::Body;
use super::slots::NONE;
use crate::files::{CachedPlace, Directory, FileKind, OpenFile};
use crate::ring::Calls;

impl Core {
    /// A file that a path has led to and still does, as far as its status tells.
    pub fn cached_file(
        &mut self,
        calls: &mut dyn Calls,
        directory: &Directory,
        path: &[u8],
    ) -> Option<OpenFile> {
        if self.file_cache.is_off() {
            return None;
        }
        let found = self.file_cache.find(directory, path, self.now_ms, self.counters.turns);
        self.current_file(calls, found)
    }

    /// The file at a place of the cache, as [`cached_file`](Self::cached_file) returns it.
    pub fn cached_file_at(
        &mut self,
        calls: &mut dyn Calls,
        place: CachedPlace,
    ) -> Option<OpenFile> {
        let found = self.file_cache.find_at(place, self.now_ms, self.counters.turns);
        self.current_file(calls, found)
    }

    fn current_file(&mut self, calls: &mut dyn Calls, found: Found) -> Option<OpenFile> {
        let (now_ms, turn) = (self.now_ms, self.counters.turns);
        let current = match found {
            Found::Current(at) => Some(at),
            Found::Unasked(at) => {
                let file = self.file_cache.file(at);
                let status = calls.file_status(file.descriptor());
                if status == Ok(file.status()) || (bug!("file-not-asked") && status.is_ok()) {
                    Some(at)
                } else {
                    mark!("a file that was kept open has changed");
                    let file = self.file_cache.remove(at);
                    self.close_file(file);
                    None
                }
            }
            Found::Old(file) => {
                mark!("a file was kept open for long enough");
                self.close_file(file);
                None
            }
            Found::Nothing => None,
        };
        let Some(at) = current else {
            self.counters.file_cache_misses += 1;
            return None;
        };
        self.counters.file_cache_hits += 1;
        self.file_cache.note_used(at, now_ms, turn);
        Some(self.file_cache.file(at).clone())
    }

    /// Keeps a file open that was just opened, if whatever befalls it from now on will show.
    pub fn keep_open(&mut self, request: &OpenRequest, file: &OpenFile) {
        let status = file.status();
        let keeps = !self.file_cache.is_off()
            && !file.waits()
            && status.kind == FileKind::Regular
            && FileCache::is_settled(status.changed_s, status.changed_ns, request.begun_wall_ms);
        if !keeps {
            return;
        }
        let path = &request.path[..request.path.len() - 1];
        let times = Times {
            opened_ms: request.begun_ms,
            used_ms: self.now_ms,
            asked_turn: self.counters.turns,
        };
        let gone = self.file_cache.insert(&request.directory, path, file.clone(), times);
        if let Some(gone) = gone {
            mark!("a file is kept open instead of another");
            self.close_file(gone);
        }
    }

    /// Closes what nobody has asked for for a while.
    pub fn close_unused_files(&mut self) {
        while let Some(file) = self.file_cache.take_unused(self.now_ms) {
            mark!("a file is kept open no longer");
            self.close_file(file);
        }
    }

    /// Closes everything that is kept open.
    pub fn empty_file_cache(&mut self) {
        while let Some(file) = self.file_cache.take_oldest() {
            self.close_file(file);
        }
    }

    /// A call has failed. If that was for want of a descriptor, those that are merely kept open are
    /// given back; true: there were some, so that it is worth another try.
    pub fn give_way(&mut self, errno: i32) -> bool {
        let gives = matches!(errno, libc::EMFILE | libc::ENFILE) && self.file_cache.len() > 0;
        if gives {
            mark!("files kept open give way");
            self.empty_file_cache();
        }
        gives
    }

    /// Reads a range of a file from the page cache to the end of a slot's queue, all of it or
    /// nothing. False: it is too long, or does not lie there, or no buffer is free.
    pub fn queue_cached(
        &mut self,
        calls: &mut dyn Calls,
        slot: u32,
        file: &OpenFile,
        offset: u64,
        length: u64,
    ) -> bool {
        let size = self.send_buffers.bytes_each();
        if length > size as u64 {
            return false;
        }
        let length = length as u32;
        let range = Range { file: file.descriptor(), offset, length, turn: self.counters.turns };
        let tail = self.slots[slot].output_tail();
        if tail != NONE
            && let Body::Pooled { buffer, end, .. } = &mut self.chunks[tail as usize].body
            && (size - *end as usize) as u32 >= length
        {
            // A send that is in flight ends before that; a read would be followed by its file.
            if let Some(bytes) = self.again.bytes(range) {
                self.send_buffers.write(buffer, *end as usize, bytes);
            } else {
                let address = self.send_buffers.address(buffer).wrapping_add(*end as usize);
                if calls.read_cached(range.file, address, length, offset) != Ok(length) {
                    mark!("not read to the end of the queue");
                    return false;
                }
                let bytes = self.send_buffers.bytes(buffer, *end as usize, length as usize);
                self.again.note_read(range, bytes);
            }
            *end += length;
        } else {
            let Some(buffer) = self.send_buffers.take() else { return false };
            if let Some(bytes) = self.again.bytes(range) {
                self.send_buffers.write(&buffer, 0, bytes);
            } else {
                let address = self.send_buffers.address(&buffer);
                if calls.read_cached(range.file, address, length, offset) != Ok(length) {
                    mark!("not read to a buffer of its own");
                    self.send_buffers.give_back(buffer);
                    return false;
                }
                let bytes = self.send_buffers.bytes(&buffer, 0, length as usize);
                self.again.note_read(range, bytes);
            }
            self.append(slot, Body::Pooled { buffer, start: 0, end: length });
        }
        self.slots[slot].add_output_bytes(length);
        true
    }
}
