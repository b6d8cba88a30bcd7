//! What other threads ask of the shards: kicks, broadcasts, bans, drains, questions.

use super::world::World;
use crate::mailbox::Command;
use crate::{ConnectionInfo, Prefix, SlowReaders};
use crossbeam_channel::{Receiver, bounded};
use std::time::Duration;

/// Turns in which a shard finds the time to empty its queue of commands.
const TURNS_BUSY_MAX: u32 = 10_000;

impl World {
    /// Any of them.
    pub(super) fn order(&mut self) {
        let mut book = self.book.borrow_mut();
        match (self.rng.below(10), book.anybody(&mut self.rng)) {
            (0 | 1, Some(id)) => {
                if let Some(record) = book.record(id) {
                    record.cut = true;
                }
                let _ = self.remote.kick(id);
            }
            (2..5, Some(id)) => {
                let bytes = self.rng.up_to(2000);
                let _ = self.remote.send(id, book.blob(bytes).into());
            }
            (5, _) if self.rng.below(8) == 0 => {
                // Whoever is opened before the shards have heard of it is cut, too.
                book.kicks_all = true;
                drop(book);
                let _ = self.remote.kick_all();
            }
            (6, Some(id)) => {
                drop(book);
                let (answer, question) = bounded(1);
                if self.remote.to(id.shard(), Command::Find(id, answer)).is_ok() {
                    self.finds.push(question);
                }
            }
            (7, _) => {
                drop(book);
                let (answer, question) = bounded(1);
                let limit = self.rng.up_to(8);
                let from = self.rng.below(4) as u32;
                let shard = self.rng.below(self.lanes.len() as u64) as usize;
                if self.remote.to(shard, Command::List { from, limit, answer }).is_ok() {
                    self.lists.push((limit, question));
                }
            }
            _ => {
                let bytes = self.rng.up_to(500);
                let slow = [SlowReaders::Queue, SlowReaders::Skip, SlowReaders::Disconnect];
                let slow = self.rng.pick(&slow);
                book.disconnects |= slow == SlowReaders::Disconnect;
                let _ = self.remote.broadcast(book.blob(bytes).into(), slow);
            }
        }
    }

    /// Looks at the answers that have come.
    pub(super) fn hear(&mut self) {
        let mut heard: Vec<ConnectionInfo> = Vec::new();
        let mut hear = |question: &Receiver<Option<ConnectionInfo>>| match question.try_recv() {
            Ok(answer) => {
                heard.extend(answer);
                false
            }
            Err(error) => error.is_empty(),
        };
        self.finds.retain(&mut hear);
        self.lists.retain(|(limit, question)| match question.try_recv() {
            Ok(answer) => {
                assert!(answer.len() <= *limit, "a list is longer than asked for");
                heard.extend(answer);
                false
            }
            Err(error) => error.is_empty(),
        });
        let mut book = self.book.borrow_mut();
        for info in heard {
            let record = book.record(info.id).expect("who is listed was opened");
            assert_eq!(record.address, info.peer, "{info:?}");
            assert!(info.idle <= info.age, "{info:?}");
        }
    }

    /// Bans some addresses, or lets them in again.
    pub(super) fn change_bans(&mut self) {
        let prefixes = ["10.0.0.1", "10.0.0.2", "10.0.0.2/31", "10.0.0.0/29", "10.1.0.0/16", "::1"];
        let prefix: Prefix = self.rng.pick(&prefixes).parse().expect("it is a prefix");
        let _ = match self.rng.below(3) {
            0 => self.remote.ban(prefix),
            _ => self.remote.unban(prefix),
        };
    }

    /// A drain or a stop, at any moment and again and again.
    pub(super) fn drain_or_stop(&mut self) {
        match self.rng.below(4) {
            0 => {
                let _ = self.remote.stop();
                self.note_drain(Duration::ZERO);
            }
            _ => {
                let deadline = Duration::from_millis(self.rng.pick(&[0, 1, 100, 2_000, 20_000]));
                let _ = self.remote.drain(deadline);
                self.note_drain(deadline);
            }
        }
    }

    /// A drain that every shard hears of.
    pub fn drain(&mut self, deadline: Duration) {
        self.insist(|world| world.remote.drain(deadline).is_ok());
        self.note_drain(deadline);
    }

    /// Again and again until the shards have room for it.
    pub(super) fn insist(&mut self, order: impl Fn(&Self) -> bool) {
        for _ in 0..TURNS_BUSY_MAX {
            if order(self) {
                return;
            }
            self.turn();
        }
        panic!("some shard does not empty its queue of commands");
    }

    fn note_drain(&mut self, deadline: Duration) {
        for lane in &mut self.lanes {
            let at_us = lane.now_us() + deadline.as_micros() as u64;
            let earlier = lane.drain_deadline_us.map_or(at_us, |before| before.min(at_us));
            lane.drain_deadline_us = Some(earlier);
        }
    }

    /// Whether a drain has begun, or been asked for.
    pub fn is_draining(&self) -> bool {
        self.lanes.iter().any(|lane| lane.drain_deadline_us.is_some())
    }

    /// Now and then storage that does not answer never will.
    pub fn may_hang_for_good(&mut self) -> bool {
        let hangs = self.lanes.iter_mut().any(|lane| lane.ring().hangs());
        let for_good = hangs && self.rng.below(2) == 0;
        self.lanes.iter_mut().for_each(|lane| lane.ring().hung_for_good = for_good);
        for_good
    }
}
