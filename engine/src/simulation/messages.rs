//! Messages, closures and groups: senders on every thread, and whether each receiver got what was
//! sent, in the order of its sender.

use super::actor::{Actor, Talk};
use super::book::{Book, Role};
use super::world::World;
use crate::handle::EngineHandle;
use crate::ring::simulated::{Rng, stretch};
use crate::{
    Audience, Connection, ConnectionId, Local, Message, PostMessageErrorKind, RunWithStateError,
    SendStatus, SlowReaders,
};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Senders that are no shard: the world, and a thread that interrupts the shards.
const WORLD: usize = 1_000;
const INTERRUPTER: usize = 1_001;
/// Content so long is found in one place only.
const BYTES_MIN: usize = 24;
/// Answers to a message, one to the other, at most.
const HOPS_MAX: u8 = 3;
/// Groups are numbered from 0.
const GROUPS: u64 = 3;

/// A message of the simulation.
#[derive(Clone)]
struct Letter {
    sender: usize,
    number: u64,
    /// It went to the connection before.
    sent: Option<Arc<[u8]>>,
    hops: u8,
}

/// The number of a message, and its connection if it is for one.
type Posted = (u64, Option<ConnectionId>);

/// A closure that a callback has left for a connection of its shard.
struct Left {
    book: Rc<RefCell<Book>>,
    shard: usize,
    number: u64,
}

impl Left {
    /// Checks that the closure runs in its turn, with its connection and that one's state.
    fn run(&self, id: ConnectionId, talk: &mut Talk, connection: &mut Connection<'_>, rng: Rng) {
        let mut rng = rng;
        let mut book = self.book.borrow_mut();
        book.letters.ran.fetch_add(1, Ordering::Relaxed);
        let first = book.letters.left.get(&self.shard).and_then(|left| left.front());
        let in_turn = first == Some(&self.number);
        let record = &mut book.records[talk.record];
        let over = record.closing || record.called.over;
        if over || !in_turn || (talk.id, connection.id()) != (id, id) {
            let what = format!("{id:?}: closure {}: {:?}, {over}", self.number, talk.id);
            book.failures.push(what);
            return;
        }
        match rng.below(4) {
            // A kick would be the reason for the end on a shard that fails.
            0 if book.failing.is_none() => {
                let record = &mut book.records[talk.record];
                (record.cut, record.called.over) = (true, true);
                drop(book);
                connection.local().kick(id);
            }
            1 => {
                let blob = book.blob(BYTES_MIN);
                drop(book);
                let _ = connection.send(&blob);
            }
            2 => {
                drop(book);
                leave_closure(&self.book, rng, &mut connection.local());
            }
            _ => {}
        }
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        let mut book = self.book.borrow_mut();
        let left = book.letters.left.entry(self.shard).or_default();
        // One that was refused is not among them.
        if left.contains(&self.number) && left.pop_front() != Some(self.number) {
            book.failures.push(format!("closure {} is not in its turn", self.number));
        }
    }
}

/// A callback leaves a closure for a connection of its shard, or of another one.
fn leave_closure(book: &Rc<RefCell<Book>>, mut rng: Rng, local: &mut Local<'_>) {
    let Some(id) = book.borrow().anybody(&mut rng) else { return };
    let number = book.borrow().letters.next;
    book.borrow_mut().letters.next += 1;
    let left = Left { book: book.clone(), shard: local.shard(), number };
    let reachable = local.connection(id).is_some();
    let wrong = local.run_with_state(id, |_: &mut u8, _| unreachable!());
    let result = local.run_with_state(id, move |talk: &mut Talk, connection| {
        left.run(id, talk, connection, rng);
    });
    let mut book = book.borrow_mut();
    if result.is_ok() {
        mark!("a callback leaves a closure");
        book.letters.accepted += 1;
        book.letters.left.entry(local.shard()).or_default().push_back(number);
    }
    let expected = if reachable { Ok(()) } else { Err(RunWithStateError::NoSuchConnection) };
    if (result, wrong) != (expected, Err(RunWithStateError::OtherState)) {
        book.failures.push(format!("{id:?}: a closure: {result:?}, {wrong:?}"));
    }
}

/// Messages on their way.
#[derive(Default)]
pub struct Letters {
    next: u64,
    /// Messages that were posted and have not arrived, by sender and shard.
    posted: BTreeMap<(usize, usize), VecDeque<Posted>>,
    /// Messages and closures that a queue has taken.
    accepted: u64,
    /// Messages that arrived, and closures that ran.
    arrived: u64,
    ran: Arc<AtomicU64>,
    /// Closures that the current callback of a shard has left, by their numbers.
    left: BTreeMap<usize, VecDeque<u64>>,
    /// Notices of room that threads have asked for, and that they got.
    asked: u64,
    told: Arc<AtomicU64>,
}

impl Letters {
    /// Whether closures wait that a callback on this shard has left.
    pub fn has_closures(&self, shard: usize) -> bool {
        self.left.get(&shard).is_some_and(|left| !left.is_empty())
    }

    /// A message has arrived. Those that its sender posted there before have arrived, or were for a
    /// connection that does not listen any more.
    fn arrive(&mut self, letter: &Letter, shard: usize, to: Option<ConnectionId>) -> Vec<String> {
        let mut failures = Vec::new();
        self.arrived += 1;
        let posted = self.posted.entry((letter.sender, shard)).or_default();
        loop {
            match posted.pop_front() {
                Some((number, id)) if number == letter.number => {
                    if id != to {
                        failures.push(format!("message {number} was for {id:?}, not {to:?}"));
                    }
                    return failures;
                }
                Some((_, Some(_))) => {}
                lost => {
                    let number = letter.number;
                    failures.push(format!("before message {number} at {shard}: {lost:?}"));
                    return failures;
                }
            }
        }
    }
}

fn post(
    book: &mut Book,
    handle: &EngineHandle,
    (sender, hops): (usize, u8),
    to: Result<ConnectionId, usize>,
    sent: Option<Arc<[u8]>>,
) -> Result<(), PostMessageErrorKind> {
    let letters = &mut book.letters;
    let number = letters.next;
    letters.next += 1;
    let letter = Letter { sender, number, sent, hops };
    let (shard, posted) = match to {
        Ok(id) => (id.shard(), handle.post_to_connection(id, letter)),
        Err(shard) => (shard, handle.post_to_shard(shard, letter)),
    };
    match posted {
        Ok(()) => {
            letters.accepted += 1;
            letters.posted.entry((sender, shard)).or_default().push_back((number, to.ok()));
            Ok(())
        }
        Err(refused) => {
            assert_eq!(refused.message.number, number, "another message comes back");
            Err(refused.kind)
        }
    }
}

impl World {
    /// A thread sends messages and closures, and publishes.
    pub(super) fn post(&mut self) {
        let shards = self.lanes.len() as u64;
        let shard = self.rng.below(shards) as usize;
        let mut book = self.book.borrow_mut();
        let book = &mut *book;
        let somebody = book.anybody(&mut self.rng);
        let handle = &self.handle;
        let result = match (self.rng.below(6), somebody) {
            (0 | 1, Some(id)) => {
                // A command before the message: it must be carried out before, too.
                let before = (self.rng.below(2) == 0).then(|| book.blob(BYTES_MIN).into());
                let before =
                    before.filter(|bytes: &Arc<[u8]>| handle.send(id, bytes.clone()).is_ok());
                post(book, handle, (WORLD, HOPS_MAX), Ok(id), before)
            }
            (2, _) => self.post_to_all(book),
            (3, Some(id)) => {
                let blob = book.blob(BYTES_MIN);
                let ran = book.letters.ran.clone();
                let run = move |connection: &mut Connection<'_>| {
                    ran.fetch_add(1, Ordering::Relaxed);
                    assert_eq!(connection.id(), id);
                    let _ = connection.send(&blob);
                };
                // On a shard that has ended there is no such connection, which is no error.
                let runs = !handle.mailboxes()[id.shard()].has_ended();
                let sent = if self.rng.below(2) == 0 {
                    handle.run_on_connection(id, run).is_ok()
                } else {
                    let with_state = move |talk: &mut Talk, connection: &mut Connection<'_>| {
                        assert_eq!(talk.id, id);
                        run(connection);
                    };
                    handle.run_with_state(id, with_state).is_ok()
                };
                book.letters.accepted += u64::from(sent && runs);
                Ok(())
            }
            (4, _) => {
                let ran = book.letters.ran.clone();
                let run = move |local: &mut Local<'_>| {
                    ran.fetch_add(1, Ordering::Relaxed);
                    assert_eq!(local.shard(), shard);
                };
                book.letters.accepted += u64::from(handle.run_on_shard(shard, run).is_ok());
                Ok(())
            }
            _ => post(book, handle, (WORLD, HOPS_MAX), Err(shard), None),
        };
        if result == Err(PostMessageErrorKind::Full) {
            mark!("a thread waits for room in a queue");
            book.letters.asked += 1;
            let told = book.letters.told.clone();
            self.handle.notify_of_room(move || {
                told.fetch_add(1, Ordering::Relaxed);
            });
        }
    }

    fn post_to_all(&self, book: &mut Book) -> Result<(), PostMessageErrorKind> {
        let letters = &mut book.letters;
        let number = letters.next;
        letters.next += 1;
        let running: Vec<usize> = (0..self.lanes.len())
            .filter(|shard| !self.handle.mailboxes()[*shard].has_ended())
            .collect();
        let letter = Letter { sender: WORLD, number, sent: None, hops: 0 };
        match self.handle.post_to_shards(letter) {
            Ok(()) => {
                letters.accepted += running.len() as u64;
                for shard in running {
                    letters.posted.entry((WORLD, shard)).or_default().push_back((number, None));
                }
                Ok(())
            }
            Err(refused) => {
                assert_eq!(refused.message.number, number, "another message comes back");
                Err(refused.kind)
            }
        }
    }

    /// A payload for a group.
    pub(super) fn publish(&mut self) {
        let group = self.rng.below(GROUPS);
        let slow = [SlowReaders::Queue, SlowReaders::Skip, SlowReaders::Disconnect];
        let slow = self.rng.pick(&slow);
        let mut book = self.book.borrow_mut();
        book.disconnects |= slow == SlowReaders::Disconnect;
        let bytes = self.rng.up_to(500);
        let blob = book.blob(bytes).into();
        book.meant_for_group(group);
        let _ = self.handle.broadcast(blob, &Audience::Group(group), slow);
    }

    /// In quiet times: a notice of room that has not come.
    pub(super) fn missing_room(&mut self) -> Option<String> {
        let letters = &self.book.borrow().letters;
        let told = letters.told.load(Ordering::Relaxed);
        if letters.asked != told {
            return Some(format!("threads were told {told} of {} times of room", letters.asked));
        }
        let mut shards = self.lanes.iter_mut().filter_map(super::lane::Lane::shard);
        let waits = shards.any(|shard| shard.parts().1.asked_for_room);
        waits.then(|| "a shard was not told of room".to_owned())
    }

    /// Every shard has ended.
    pub(super) fn judge_messages(&mut self) {
        let letters = &self.book.borrow().letters;
        assert_eq!(letters.asked, letters.told.load(Ordering::Relaxed), "notices of room");
        let sum = self.ledger().sum;
        assert_eq!(letters.arrived, sum.messages_delivered, "messages delivered");
        let ran = letters.ran.load(Ordering::Relaxed);
        assert_eq!(letters.accepted, letters.arrived + ran + sum.messages_unclaimed, "messages");
    }
}

/// A thread that comes between two steps of a shard posts to it, or to another one.
pub fn interrupt(book: &mut Book, handle: &EngineHandle, rng: &mut Rng) {
    let shard = rng.below(handle.shards() as u64) as usize;
    let to = book.anybody(rng).filter(|_| rng.below(2) == 0).ok_or(shard);
    let _ = post(book, handle, (INTERRUPTER, 0), to, None);
}

impl Actor {
    /// Leaves a closure for somebody.
    pub(super) fn leave_closure(&mut self, local: &mut Local<'_>) {
        leave_closure(&self.book, Rng::new(self.rng.bits()), local);
    }

    /// Joins a group, or leaves one.
    pub(super) fn change_groups(&self, talk: &mut Talk, connection: &mut Connection<'_>) {
        let group = talk.rng.below(GROUPS);
        let mut book = self.book.borrow_mut();
        let record = &mut book.records[talk.record];
        let joins = talk.rng.below(3) > 0;
        let changed =
            if joins { connection.join(group) == Ok(true) } else { connection.leave(group) };
        let expected = record.change_group(group, joins);
        if changed != expected || connection.groups() != record.groups() {
            book.failures.push(format!("{:?}: groups {:?}", talk.id, connection.groups()));
        }
    }

    /// The members of a group on this shard are those that have joined and not ended.
    fn check_groups(&self, shard: &Local<'_>) {
        let mut book = self.book.borrow_mut();
        for group in 0..GROUPS {
            let here = |id: ConnectionId| id.shard() == shard.shard();
            let members = book.records.iter().filter(|it| here(it.id) && it.closed.is_none());
            let expected = members.filter(|it| it.groups().contains(&group)).count();
            let count = shard.group_members(group);
            if count != expected {
                book.failures.push(format!("group {group} has {count} members, not {expected}"));
            }
        }
    }

    fn arrives(&self, shard: usize, to: Option<ConnectionId>, message: Message) -> Option<Letter> {
        let mut book = self.book.borrow_mut();
        match message.downcast::<Letter>() {
            Ok(letter) => {
                let failures = book.letters.arrive(&letter, shard, to);
                book.failures.extend(failures);
                Some(letter)
            }
            Err(other) => {
                book.failures.push(format!("{other:?} is of another type"));
                None
            }
        }
    }

    /// A message to the shard: now and then it is answered.
    pub(super) fn hear_message(&mut self, shard: &mut Local<'_>, message: Message) {
        self.check_groups(shard);
        let Some(letter) = self.arrives(shard.shard(), None, message) else { return };
        self.answer(shard, letter.hops);
    }

    /// A message to a connection: what was sent to it before is queued before.
    pub(super) fn hear_message_to(
        &mut self,
        talk: &mut Talk,
        connection: &mut Connection<'_>,
        message: Message,
    ) {
        let (shard, id) = (connection.local().shard(), talk.id);
        let Some(letter) = self.arrives(shard, Some(id), message) else { return };
        if let Some(sent) = letter.sent.filter(|_| matches!(talk.part.role, Role::Echo)) {
            let (key, offset) = ((1 << 45) + talk.record as u64, talk.said);
            let status = self.say_own(talk, connection, BYTES_MIN);
            if matches!(status, SendStatus::Ready | SendStatus::Full) {
                let then = stretch(key, offset, BYTES_MIN).into();
                self.book.borrow_mut().records[talk.record].in_order.push([sent, then]);
            }
        }
        self.answer(&mut connection.local(), letter.hops);
    }

    fn answer(&mut self, local: &mut Local<'_>, hops: u8) {
        if hops == 0 || self.rng.below(2) == 0 {
            return;
        }
        let mut book = self.book.borrow_mut();
        let handle = local.engine().clone();
        let shard = self.rng.below(handle.shards() as u64) as usize;
        let somebody = book.anybody(&mut self.rng).filter(|_| self.rng.below(2) == 0);
        let from = (local.shard(), hops - 1);
        let posted = post(&mut book, &handle, from, somebody.ok_or(shard), None);
        if posted == Err(PostMessageErrorKind::Full) {
            mark!("a shard waits for room in a queue");
            book.waits_for_room.insert(local.shard());
            local.notify_of_room();
        }
    }

    /// There is room again, for which the shard has asked.
    pub(super) fn hear_of_room(&mut self, shard: &mut Local<'_>) {
        let mut book = self.book.borrow_mut();
        if !book.waits_for_room.remove(&shard.shard()) {
            book.failures.push(format!("shard {} did not ask for room", shard.shard()));
        }
        drop(book);
        self.answer(shard, 1);
    }
}
