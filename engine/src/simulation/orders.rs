//! What other threads ask of the shards: kicks, broadcasts, bans, drains, questions.

use super::book::Book;
use super::draw::draw_settings;
use super::lane::Life;
use super::messages::interrupt;
use super::world::World;
use crate::handle::EngineHandle;
use crate::mailbox::Command;
use crate::ring::simulated::{Rng, present_us, set_interrupts};
use crate::{Audience, ConnectionId, ConnectionInfo, Error, Prefix, SlowReaders};
use crossbeam_channel::{Receiver, bounded};
use std::time::Duration;

/// A shard answers within so long: a wake may be late, and a wait takes a second at most.
const ANSWER_US_MAX: u64 = 2_000_000;
/// An order that finds no room is tried so often, with so many turns between.
const TRIES_MAX: u32 = 1_000;
const TURNS_BETWEEN_TRIES: u32 = 100;

enum Answer {
    Find(Receiver<Option<ConnectionInfo>>),
    /// So many at most.
    List(usize, Receiver<Vec<ConnectionInfo>>),
}

impl Answer {
    /// What was heard, if the answer has come.
    fn take(&self) -> Option<Vec<ConnectionInfo>> {
        match self {
            Self::Find(answer) => answer.try_recv().ok().map(|info| info.into_iter().collect()),
            Self::List(limit, answer) => {
                let list = answer.try_recv().ok()?;
                assert!(list.len() <= *limit, "a list is longer than asked for");
                Some(list)
            }
        }
    }
}

struct Question {
    shard: usize,
    asked_us: u64,
    answer: Answer,
}

/// Questions whose answers have not come.
#[derive(Default)]
pub struct Questions(Vec<Question>);

impl Questions {
    /// The shards did not run for a while.
    pub fn wait_longer(&mut self, time: Duration) {
        self.0.iter_mut().for_each(|question| question.asked_us += time.as_micros() as u64);
    }

    fn ask(&mut self, handle: &EngineHandle, id: ConnectionId) {
        let (answer, question) = bounded(1);
        let shard = id.shard();
        if handle.to(shard, Command::Find(id, answer)).is_ok() {
            let answer = Answer::Find(question);
            self.0.push(Question { shard, asked_us: present_us(), answer });
        }
    }
}

fn check_info(info: &ConnectionInfo, book: &mut Book) {
    let record = book.record(info.id).expect("who is listed was opened");
    assert_eq!(record.shown_peer, info.peer, "{info:?}");
    assert!(info.idle <= info.age, "{info:?}");
}

impl World {
    /// Any of them.
    pub(super) fn order(&mut self) {
        let mut book = self.book.borrow_mut();
        match (self.rng.below(10), book.anybody(&mut self.rng)) {
            (0 | 1, Some(id)) => {
                if let Some(record) = book.record(id) {
                    record.cut = true;
                }
                let _ = self.handle.kick(id);
            }
            (2..5, Some(id)) => {
                let bytes = self.rng.up_to(2000);
                let blob = book.blob(bytes);
                let _ = self.handle.send(id, book.payload(&blob));
            }
            (5, _) if self.rng.below(8) == 0 => {
                // Whoever is opened before the shards have heard of it is cut, too.
                book.kicks_all = true;
                drop(book);
                let _ = self.handle.kick_all();
            }
            (6, Some(id)) => {
                drop(book);
                self.questions.borrow_mut().ask(&self.handle, id);
            }
            (7, _) => {
                drop(book);
                let (answer, question) = bounded(1);
                let limit = self.rng.up_to(8);
                let from = self.rng.below(4) as u32;
                let shard = self.rng.below(self.lanes.len() as u64) as usize;
                if self.handle.to(shard, Command::List { from, limit, answer }).is_ok() {
                    let (asked_us, answer) = (present_us(), Answer::List(limit, question));
                    self.questions.borrow_mut().0.push(Question { shard, asked_us, answer });
                }
            }
            _ => {
                let bytes = self.rng.up_to(500);
                let slow = [SlowReaders::Queue, SlowReaders::Skip, SlowReaders::Disconnect];
                let slow = self.rng.pick(&slow);
                book.disconnects |= slow == SlowReaders::Disconnect;
                let blob = book.blob(bytes).into();
                let audience = match self.rng.below(2) {
                    0 => Audience::All,
                    _ => {
                        let listener = self.rng.below(2) as u16;
                        book.meant_for(listener);
                        Audience::Listeners([listener].into())
                    }
                };
                let _ = self.handle.broadcast(blob, &audience, slow);
            }
        }
    }

    /// Looks at the answers that have come, and whether they are late.
    pub(super) fn hear(&mut self) {
        let mut questions = self.questions.borrow_mut();
        let mut book = self.book.borrow_mut();
        let lanes = &mut self.lanes;
        questions.0.retain(|question| {
            let lane = &mut lanes[question.shard];
            let wait_us = lane.now_us().saturating_sub(question.asked_us);
            match question.answer.take() {
                Some(heard) => heard.into_iter().for_each(|info| check_info(&info, &mut book)),
                None if lane.life == Life::Runs => {
                    assert!(wait_us < ANSWER_US_MAX, "a question is not answered: a wake was lost");
                    return true;
                }
                None => {}
            }
            false
        });
    }

    /// From now on other threads may ask in the middle of a shard's work.
    pub(super) fn interrupt(&mut self) {
        let (handle, book, questions) =
            (self.handle.clone(), self.book.clone(), self.questions.clone());
        let mut rng = Rng::new(self.rng.bits());
        let (shift, elsewhere) = (self.shift.clone(), self.elsewhere.clone());
        set_interrupts(Some(Box::new(move || {
            if rng.below(16) == 0 {
                // Nobody else plays the workers at this moment, unless a job itself gets here.
                let _ = shift.try_borrow_mut().map(|mut shift| shift.step());
            }
            if rng.below(16) == 0 {
                let _ = elsewhere.try_borrow_mut().map(|mut elsewhere| elsewhere.step());
            }
            if rng.below(16) == 0 {
                let somebody = book.borrow().anybody(&mut rng);
                let _ = somebody.map(|id| questions.borrow_mut().ask(&handle, id));
            }
            if rng.below(32) == 0 {
                let _ =
                    book.try_borrow_mut().map(|mut book| interrupt(&mut book, &handle, &mut rng));
            }
        })));
    }

    /// Bans some addresses, or lets them in again.
    pub(super) fn change_bans(&mut self) {
        let prefixes = ["10.0.0.1", "10.0.0.2", "10.0.0.2/31", "10.0.0.0/29", "10.1.0.0/16", "::1"];
        let prefix: Prefix = self.rng.pick(&prefixes).parse().expect("it is a prefix");
        let _ = match self.rng.below(3) {
            0 => self.handle.ban(prefix),
            _ => self.handle.unban(prefix),
        };
    }

    /// The number of a listener, if there is one.
    fn some_listener(&mut self) -> Option<u16> {
        let numbers: Vec<u16> = self.handle.listeners().iter().map(|info| info.number).collect();
        (!numbers.is_empty()).then(|| self.rng.pick(&numbers))
    }

    /// Removes a listener, if there is one.
    pub(super) fn remove_some_listener(&mut self) {
        let Some(number) = self.some_listener() else { return };
        let deadline_ms = self.rng.pick(&[0, 1, 50, 500, 5_000, 100_000]);
        self.remove_listener(number, Duration::from_millis(deadline_ms));
    }

    /// A listener is removed, of which every shard hears.
    pub fn remove_listener(&mut self, number: u16, deadline: Duration) {
        let gone = |result| matches!(result, Ok(()) | Err(Error::NoSuchListener { .. }));
        self.insist(|world| gone(world.handle.remove_listener(number, deadline)));
        // No shard has heard of it before: one full queue keeps it from all of them.
        for lane in &mut self.lanes {
            let at_us = lane.now_us() + deadline.as_micros() as u64;
            let earlier = lane.removed_us.get(&number).map_or(at_us, |before| at_us.min(*before));
            lane.removed_us.insert(number, earlier);
        }
    }

    /// Pauses a listener, or resumes it.
    pub(super) fn pause_or_resume(&mut self) {
        let Some(number) = self.some_listener() else { return };
        let _ = match self.rng.below(3) {
            0 => self.handle.pause_listener(number),
            _ => self.handle.resume_listener(number),
        };
    }

    /// Gives other settings to the connections that a listener accepts from now on.
    pub(super) fn change_settings(&mut self) {
        if let Some(number) = self.some_listener() {
            let settings = draw_settings(&mut self.rng);
            let _ = self.handle.set_listener(number, settings);
        }
    }

    /// Resumes all listeners.
    pub(super) fn resume_all(&mut self) {
        for info in self.handle.listeners() {
            let gone = |result| matches!(result, Ok(()) | Err(Error::NoSuchListener { .. }));
            self.insist(|world| gone(world.handle.resume_listener(info.number)));
        }
    }

    /// A drain or a stop, at any moment and again and again.
    pub(super) fn drain_or_stop(&mut self) {
        match self.rng.below(4) {
            0 => self.stop(),
            _ => {
                let deadline = Duration::from_millis(self.rng.pick(&[0, 1, 100, 2_000, 20_000]));
                self.drain(deadline);
            }
        }
    }

    /// A drain, of which every shard hears.
    pub fn drain(&mut self, deadline: Duration) {
        self.handle.drain(deadline);
        self.note_drain(deadline);
    }

    /// A stop, of which every shard hears.
    pub fn stop(&mut self) {
        self.handle.stop();
        self.note_drain(Duration::ZERO);
    }

    /// Again and again until the shards have room for it.
    pub(super) fn insist(&mut self, order: impl Fn(&Self) -> bool) {
        for _ in 0..TRIES_MAX {
            if order(self) {
                return;
            }
            (0..TURNS_BETWEEN_TRIES).for_each(|_| self.turn());
        }
        panic!("some shard does not empty its queue of commands");
    }

    fn note_drain(&mut self, deadline: Duration) {
        for lane in &mut self.lanes {
            let at_us = lane.now_us() + deadline.as_micros() as u64;
            // The clock of a shard that waited may be ahead of the one whose turn it is.
            let by_us = at_us.max(present_us() + deadline.as_micros() as u64);
            let earlier = lane.drain_deadline_us.map_or(at_us, |before| before.min(at_us));
            lane.drain_deadline_us = Some(earlier);
            let earlier = lane.ends_by_us.map_or(by_us, |before| before.min(by_us));
            lane.ends_by_us = Some(earlier);
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
