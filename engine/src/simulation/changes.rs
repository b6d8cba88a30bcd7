//! Files that change under a shard that keeps them open: what it may still take for a path's file.

use super::actor::{Actor, FILE_KEY, PATHS, Talk};
use super::book::{Piece, Shape};
use super::world::World;
use crate::Connection;
use crate::files::{FileKind, OpenFile};
use crate::ring::Ring;
use crate::ring::simulated::SimulatedFile;

/// Files of a shard's that there may be, old ones included.
const FILES_MAX: usize = 200;

/// What a path has led to from some time on.
#[derive(Clone, Copy, Debug)]
struct Led {
    /// The inode of a file.
    to: Option<u64>,
    since_us: u64,
    /// A change that the status of the file before has shown.
    shows: bool,
}

/// What the paths of all shards lead to, and have led to.
#[derive(Debug, Default)]
pub struct Paths {
    led: Vec<(usize, &'static str, Led)>,
}

impl Paths {
    fn leads(&mut self, shard: usize, path: &'static str, led: Led) {
        self.led.push((shard, path, led));
    }

    /// Why a path cannot be taken to lead to this file at a time that is known to be later than
    /// `now_us`, by whoever looks it up at least every `valid_us`.
    fn objection(
        &self,
        (shard, path): (usize, &str),
        inode: u64,
        (now_us, valid_us): (u64, u64),
    ) -> Option<String> {
        let number = PATHS.iter().position(|it| *it == path).expect("one that is known") as u64;
        let mut led = Led { to: Some(number + 1), since_us: 0, shows: true };
        let mut right_until_us = None;
        for (_, _, next) in self.led.iter().filter(|it| (it.0, it.1) == (shard, path)) {
            if led.to == Some(inode) {
                // Its age is counted in milliseconds.
                let bound_us = if next.shows { 0 } else { valid_us + 1_000 };
                right_until_us = Some(next.since_us + bound_us);
            }
            led = *next;
        }
        if led.to == Some(inode) {
            return None;
        }
        let late = right_until_us.is_none_or(|until_us| until_us < now_us);
        late.then(|| format!("{path} led to {inode} until {right_until_us:?}, it is {now_us}"))
    }
}

impl World {
    /// A file of one shard's is replaced, removed, renamed, resized, or a directory above it.
    pub fn change_file(&mut self, shard: usize) {
        let path = self.rng.pick(&["small", "small", "middling", "large", "empty"]);
        let how = self.rng.below(6);
        let bytes = self.rng.pick(&[0, 10, 700, 5_000, 100_000]);
        let ring = self.lanes[shard].ring();
        if ring.files.len() >= FILES_MAX {
            return;
        }
        let number = ring.files.len();
        let kind = FileKind::Regular;
        let file = SimulatedFile { key: FILE_KEY + number as u64, bytes, kind };
        let to = match how {
            0 => {
                ring.remove_file(path);
                None
            }
            1 => {
                ring.rename_file(path, "elsewhere");
                None
            }
            2 => {
                ring.redirect(path, file);
                Some(number as u64 + 1)
            }
            3 => return ring.resize_file(self.rng.below(number as u64) as usize, bytes),
            _ => {
                ring.replace_file(path, file);
                Some(number as u64 + 1)
            }
        };
        let led = Led { to, since_us: ring.now_us(), shows: how != 2 };
        self.book.borrow_mut().paths.leads(shard, path, led);
    }
}

impl Actor {
    /// Answers with a file that is open already. False: it takes an open.
    pub(super) fn answer_at_once(
        &self,
        talk: &mut Talk,
        connection: &mut Connection<'_>,
        path: &'static str,
    ) -> bool {
        let Some(file) = connection.cached_file(&self.directory, path.as_bytes()) else {
            return false;
        };
        let local = connection.local();
        let now_us = local.now_us();
        let place = (local.shard(), path);
        let inode = file.status().inode;
        let objection = self.book.borrow().paths.objection(place, inode, (now_us, self.valid_us));
        if let Some(objection) = objection {
            self.fail(talk.id, &objection);
        }
        self.send_part(talk, connection, &file);
        true
    }

    fn send_part(&self, talk: &mut Talk, connection: &mut Connection<'_>, file: &OpenFile) {
        let status = file.status();
        let most = talk.rng.pick(&[120, 2_000]);
        let header = talk.rng.up_to(most);
        let before = connection.queued_bytes();
        let _ = self.say_own(talk, connection, header);
        if connection.queued_bytes() == before {
            return;
        }
        let offset = talk.rng.below(status.bytes + 1);
        // Short ranges fit into a send buffer, and are read at once.
        let most = talk.rng.pick(&[200, 10_000]);
        let length = (status.bytes - offset).min(talk.rng.below(most));
        // The third time it is known already.
        for _ in 0..talk.rng.pick(&[1, 1, 3]) {
            let before = connection.queued_bytes();
            let at_once = connection.send_cached(file, offset, length).is_some();
            let grown = (connection.queued_bytes() - before) as u64;
            if grown != if at_once { length } else { 0 } {
                self.fail(
                    talk.id,
                    &format!("{length} bytes at once: {at_once}, but {grown} queued"),
                );
            }
            let key = FILE_KEY + status.inode - 1;
            let shape = if at_once { Shape::Bytes } else { Shape::File };
            let piece = Piece { key, offset, bytes: length, shape };
            let mut book = self.book.borrow_mut();
            book.records[talk.record].said.push(piece);
            if !at_once {
                book.records[talk.record].files_owed += 1;
                drop(book);
                let _ = connection.send_file(file.clone(), offset, length);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::book::{Farewell, Role};
    use super::super::scenarios::{config, end, go_on, part, world_of};
    use super::World;
    use crate::Config;
    use crate::ring::simulated::Plan;
    use std::time::Duration;

    const HITS_MIN: u64 = 200;

    /// Between two turns of those who ask for it all the time: the oracle of `answer_at_once`
    /// objects to an old one.
    #[test]
    fn a_file_that_changes_is_the_new_one_for_whoever_asks_next() {
        let hits_of = |world: &mut World| world.shard(0).parts().1.counters.file_cache_hits;
        let (mut hits, mut changes) = (0, 0);
        for seed in 0..20 {
            let mut world = world_of(seed, Config { open_files: 100, ..config() }, 1);
            let files = part(Role::Files, Farewell::Close);
            let mut peers = Vec::new();
            for _ in 0..20 {
                // Some end for having been sent more than there is.
                peers.extend((0..3).map(|_| world.add_peer(Plan::plain(), files, 10)));
                // Long enough for a file to be left alone, and for all to have their replies.
                go_on(&mut world, Duration::from_millis(30));
                for _ in 0..100 {
                    peers.iter().for_each(|peer| world.sends((0, *peer), 1));
                    let before = hits_of(&mut world);
                    world.turn();
                    if hits_of(&mut world) > before {
                        break;
                    }
                }
                // In the turn before it was asked for.
                let before = world.ring().files.len();
                world.change_file(0);
                changes += usize::from(world.ring().files.len() > before);
                peers.iter().for_each(|peer| world.sends((0, *peer), 1));
                world.turn();
                world.turn();
            }
            hits += hits_of(&mut world);
            end(&mut world);
        }
        assert!(hits > HITS_MIN && changes > 100, "{hits} hits, {changes} changes");
    }
}
