//! Commands from other threads to a shard: a bounded queue and an event descriptor (eventfd(2))
//! that the shard polls on its ring.
//!
//! Invariant: a drain and a stop always find a place in the queue, behind the commands that their
//! sender queued before. Drains that the shard has not taken yet become one.

mod room;

pub use room::Waiter;

use crate::admission::{Bans, Listening};
use crate::config::{SharedSettings, milliseconds};
use crate::connect::Connect;
use crate::credit::Credit;
use crate::error::SendCommandError;
use crate::id::ConnectionId;
use crate::info::{ConnectionInfo, Origin};
use crate::memory::Payload;
use crate::message::Message;
use crate::panics::discard;
use crate::reconnect::Reconnect;
use crate::ring::{Descriptor, Instruction, Outside};
use crate::waker::Waker;
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use room::Room;
use std::any::Any;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// A command of another thread to a shard.
pub enum Command {
    /// Accept clients on these listening sockets.
    Listen(Vec<Opened>),
    /// Remove a listener. Its connections may stay for so many milliseconds.
    RemoveListener(u16, u64),
    /// Give other settings to the connections that a listener accepts from now on.
    SetListener(u16, SharedSettings),
    /// Pause accepting at a listener, or resume it.
    PauseListener(u16, bool),
    /// Reset a connection.
    Kick(ConnectionId),
    /// Reset all connections.
    KickAll,
    /// Ask a connection to end gracefully.
    DrainConnection(ConnectionId),
    /// Ask all connections to end gracefully.
    DrainConnections,
    /// Send to a connection, perhaps as a part of a stream.
    Send(ConnectionId, Payload, Option<Credit>),
    /// Send to the connections of an audience.
    Broadcast(Arc<[u8]>, Audience, SlowReaders),
    /// Give a message to the handler, or to the handler of a connection.
    Post(Option<ConnectionId>, Message),
    /// Call a closure with the shard, or with a connection. `connection.rs` and `local.rs` define
    /// the types.
    Run(Option<ConnectionId>, Box<dyn Any + Send>),
    /// Describe a connection.
    Find(ConnectionId, Sender<Option<ConnectionInfo>>),
    /// Describe up to `limit` connections, from slot `from` on.
    List { from: u32, limit: usize, answer: Sender<Vec<ConnectionInfo>> },
    /// Replace the list of banned addresses.
    Ban(Arc<BanList>),
    /// Connect out, with a tag.
    Connect(Box<Connect>, u64),
    /// End the attempts to connect with a tag.
    CancelConnect(u64),
    /// Connect out again and again, with a tag.
    KeepConnected(Box<Connect>, u64, Reconnect),
    /// Make no further attempt for a tag.
    StopReconnecting(u64),
    /// Stop accepting, let connections finish, and reset those left after the time that
    /// [`Mailbox::take_deadline`] returns.
    Drain,
    /// Reset everything and end.
    Stop,
}

/// The treatment of connections whose output queue is full, in a broadcast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SlowReaders {
    /// They do not get the payload. The ledger counts them as `broadcasts_skipped`.
    Skip,
    /// The payload is queued for them as well. A connection beyond `output_bytes_max` is reset with
    /// [`Reason::OutputTooLong`](crate::Reason::OutputTooLong).
    Queue,
    /// They are reset with [`Reason::OutputTooLong`](crate::Reason::OutputTooLong).
    Disconnect,
}

/// The connections that a broadcast reaches.
///
/// An engine whose listeners, or whose outgoing connections, speak different protocols names the
/// listeners. Otherwise the payload would come into the middle of another protocol's replies.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Audience {
    /// Every connection, also outgoing ones.
    All,
    /// The connections that these listeners have accepted, by their numbers
    /// ([`Origin::Listener`]). A number without a listener reaches nobody.
    Listeners(Arc<[u16]>),
    /// The members of a group, see [`Connection::join`](crate::Connection::join). A group that
    /// nobody has joined reaches nobody.
    Group(u64),
}

impl Audience {
    /// Returns whether a connection of this origin gets the payload. The members of a group have
    /// any origin.
    pub(crate) fn includes(&self, origin: Origin) -> bool {
        match (self, origin) {
            (Self::All | Self::Group(_), _) => true,
            (Self::Listeners(numbers), Origin::Listener(number)) => numbers.contains(&number),
            (Self::Listeners(_), Origin::Connected(_)) => false,
        }
    }
}

/// The banned addresses, and the socket filter that refuses them if it is short enough.
#[derive(Debug, Default)]
pub struct BanList {
    pub bans: Bans,
    pub program: Option<Vec<Instruction>>,
}

/// A listening socket on its way to a shard. It is closed if it does not arrive.
pub struct Opened {
    listening: Arc<Listening>,
    settings: SharedSettings,
    socket: Option<Descriptor>,
    outside: Outside,
}

impl Opened {
    pub fn new(
        listening: Arc<Listening>,
        settings: SharedSettings,
        socket: Descriptor,
        outside: Outside,
    ) -> Self {
        Self { listening, settings, socket: Some(socket), outside }
    }

    /// Hands the socket to the caller, who closes it.
    pub fn take(mut self) -> (Arc<Listening>, SharedSettings, Descriptor) {
        let socket = self.socket.take().expect("it is taken once");
        (self.listening.clone(), self.settings.clone(), socket)
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.socket.take().into_iter().for_each(self.outside.close);
    }
}

/// No drain was asked for since the shard took the last one.
const NO_DRAIN: u64 = u64::MAX;
/// Places in the queue that only `Drain` and `Stop` take: one each.
const PLACES_FOR_THE_END: usize = 2;

struct Shared {
    commands_max: usize,
    /// Commands in the queue other than `Drain` and `Stop`. Those two always find a place,
    /// because the queue never holds more than one of each.
    queued: AtomicUsize,
    /// The shortest deadline of the drains in the queue, in milliseconds. The queue holds a `Drain`
    /// if and only if it is not `NO_DRAIN`.
    drain_ms: AtomicU64,
    stop_asked: AtomicBool,
    /// Waiters for room in this queue.
    room: Room,
    /// The handler of this shard is to be told that another queue has room.
    room_notice: AtomicBool,
}

/// The sending side of a mailbox.
#[derive(Clone)]
pub struct Sending {
    commands: Sender<Command>,
    shared: Arc<Shared>,
    waker: Waker,
}

impl Sending {
    /// Queues a command and wakes the shard.
    pub fn send(&self, command: Command) -> Result<(), SendCommandError> {
        self.reserve()?.send(command)
    }

    /// Takes a place in the queue for a command that is still to be made.
    pub fn reserve(&self) -> Result<Place<'_>, SendCommandError> {
        let shared = &self.shared;
        if self.has_ended() {
            return Err(SendCommandError);
        }
        let free = |queued| (queued < shared.commands_max).then_some(queued + 1);
        shared
            .queued
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, free)
            .map_err(|_| SendCommandError)?;
        Ok(Place(Some(self)))
    }

    /// Queues a drain. It never lacks room: drains that the shard has not taken yet become one,
    /// with the shortest of their deadlines.
    pub fn drain(&self, deadline: Duration) {
        let deadline_ms = milliseconds(deadline);
        if self.shared.drain_ms.fetch_min(deadline_ms, Ordering::SeqCst) == NO_DRAIN {
            // A shard that has ended needs no drain.
            let _ = self.push(Command::Drain);
        }
    }

    /// Queues a stop. It never lacks room, because the first one is enough.
    pub fn stop(&self) {
        if !self.shared.stop_asked.swap(true, Ordering::SeqCst) {
            let _ = self.push(Command::Stop);
        }
    }

    fn push(&self, command: Command) -> Result<(), SendCommandError> {
        let sent = self.commands.try_send(command);
        assert!(!matches!(sent, Err(TrySendError::Full(_))), "a command that has a place fits");
        self.waker.wake();
        sent.map_err(|_| SendCommandError)
    }

    pub fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Returns whether the queue takes no further command at this moment.
    pub fn is_full(&self) -> bool {
        self.shared.queued.load(Ordering::SeqCst) >= self.shared.commands_max
    }

    /// Calls `waiter` once the queue is at most half full, or the shard has ended.
    pub fn wait_for_room(&self, waiter: Waiter) {
        let Shared { room, queued, commands_max, .. } = &*self.shared;
        room.wait(waiter, queued, *commands_max, || self.has_ended());
    }

    /// Makes the shard tell its handler that a queue has room.
    pub fn tell_of_room(&self) {
        self.shared.room_notice.store(true, Ordering::SeqCst);
        self.waker.wake();
    }

    /// Returns whether the shard has ended. A crossbeam sender cannot tell, so the shard's waker
    /// does.
    pub fn has_ended(&self) -> bool {
        self.waker.has_ended()
    }
}

/// A place in a queue. It is given back unless a command takes it.
pub struct Place<'a>(Option<&'a Sending>);

impl Place<'_> {
    /// Queues a command there. [`SendCommandError`] means that the shard has ended.
    pub fn send(mut self, command: Command) -> Result<(), SendCommandError> {
        self.0.take().map_or(Err(SendCommandError), |sending| sending.push(command))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(sending) = self.0 {
            sending.shared.queued.fetch_sub(1, Ordering::SeqCst);
            if sending.shared.room.waits() {
                // The shard tells those who wait for room: this thread may hold a lock.
                sending.waker.wake();
            }
        }
    }
}

/// The shard's side of a mailbox.
pub struct Mailbox {
    commands: Receiver<Command>,
    shared: Arc<Shared>,
    waker: Waker,
}

impl Mailbox {
    /// Creates a queue of at most `commands_max` commands with its event descriptor.
    ///
    /// # Errors
    /// EMFILE and ENFILE, as eventfd(2).
    pub fn new(commands_max: usize) -> io::Result<(Sending, Self)> {
        let event = crate::ring::calls::event()?;
        Ok(Self::with_event(commands_max, event, Outside::KERNEL))
    }

    pub fn with_event(commands_max: usize, event: Descriptor, outside: Outside) -> (Sending, Self) {
        let (sender, receiver) = bounded(commands_max.saturating_add(PLACES_FOR_THE_END));
        let shared = Arc::new(Shared {
            commands_max,
            queued: AtomicUsize::new(0),
            drain_ms: AtomicU64::new(NO_DRAIN),
            stop_asked: AtomicBool::new(false),
            room: Room::default(),
            room_notice: AtomicBool::new(false),
        });
        let waker = Waker::new(event, outside);
        let sending = Sending { commands: sender, shared: shared.clone(), waker: waker.clone() };
        (sending, Self { commands: receiver, shared, waker })
    }

    /// The descriptor that the shard polls.
    pub fn event(&self) -> Descriptor {
        self.waker.event()
    }

    /// Called before the commands are read: from now on, a waker writes again.
    pub fn acknowledge(&self) {
        self.waker.acknowledge();
        let Shared { room, queued, commands_max, .. } = &*self.shared;
        room.look(queued.load(Ordering::SeqCst), *commands_max);
        interruption!();
    }

    /// Refuses further commands, so that the queue can be emptied.
    pub fn close(&self) {
        self.waker.end();
        self.shared.room.call_all();
    }

    /// Returns whether the handler is to be told that a queue has room, once for each notice.
    pub fn takes_room_notice(&self) -> bool {
        let notice = &self.shared.room_notice;
        notice.load(Ordering::SeqCst) && notice.swap(false, Ordering::SeqCst)
    }

    /// The number of commands in the queue.
    pub fn len(&self) -> usize {
        let commands = self.commands.len();
        interruption!();
        commands
    }

    /// Takes the next command.
    pub fn next(&self) -> Option<Command> {
        let command = self.commands.try_recv().ok();
        if command.as_ref().is_some_and(|it| !matches!(it, Command::Drain | Command::Stop)) {
            let queued = self.shared.queued.fetch_sub(1, Ordering::SeqCst) - 1;
            interruption!();
            if !bug!("room-not-told") {
                self.shared.room.look(queued, self.shared.commands_max);
            }
        }
        interruption!();
        command
    }

    /// Returns the deadline of a `Drain` that was just taken, in milliseconds. Drains that are
    /// asked for from here on are in the queue again.
    pub fn take_deadline(&self) -> u64 {
        self.shared.drain_ms.swap(NO_DRAIN, Ordering::SeqCst)
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        self.close();
        // The queue lives as long as its senders. A listening socket left in it would stay open,
        // and nobody would accept from it.
        while let Some(command) = self.next() {
            // It may hold a value of the application.
            discard(command);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(mailbox: &Mailbox) -> Vec<String> {
        std::iter::from_fn(|| mailbox.next())
            .map(|command| match command {
                Command::StopReconnecting(tag) => tag.to_string(),
                Command::Drain => format!("drain {}", mailbox.take_deadline()),
                Command::Stop => "stop".to_owned(),
                _ => "another".to_owned(),
            })
            .collect()
    }

    /// Places that are given back without a command end the wait for room, too: the shard is woken.
    #[test]
    fn places_that_are_given_back_are_room() {
        let (sending, mailbox) = Mailbox::new(16).expect("a descriptor");
        let places: Vec<Place<'_>> = (0..9).map(|_| sending.reserve().expect("room")).collect();
        (0..7).for_each(|tag| sending.send(Command::StopReconnecting(tag)).expect("room"));
        let called = Arc::new(AtomicBool::new(false));
        let waiter = called.clone();
        sending.wait_for_room(Box::new(move || waiter.store(true, Ordering::SeqCst)));
        mailbox.acknowledge();
        assert_eq!(names(&mailbox).len(), 7);
        assert!(!called.load(Ordering::SeqCst), "nine places are still taken");
        drop(places);
        assert!(sending.waker().is_signalled(), "the shard is woken");
        mailbox.acknowledge();
        assert!(called.load(Ordering::SeqCst));
    }

    /// No other wake-up may follow: the commands that are taken end the wait.
    #[test]
    fn commands_that_are_taken_are_room() {
        let (sending, mailbox) = Mailbox::new(8).expect("a descriptor");
        (0..8).for_each(|tag| sending.send(Command::StopReconnecting(tag)).expect("room"));
        let called = Arc::new(AtomicBool::new(false));
        let waiter = called.clone();
        sending.wait_for_room(Box::new(move || waiter.store(true, Ordering::SeqCst)));
        mailbox.acknowledge();
        let told: Vec<bool> = (0..4)
            .map(|_| {
                assert!(mailbox.next().is_some(), "eight were sent");
                called.load(Ordering::SeqCst)
            })
            .collect();
        assert_eq!(told, [false, false, false, true]);
    }

    #[test]
    fn drains_and_stops_find_a_place_in_a_full_queue_and_keep_theirs() {
        let (sending, mailbox) = Mailbox::new(3).expect("a descriptor");
        let (second, third) = (Duration::from_millis(7), Duration::from_millis(9));
        for round in 0..3 {
            let begin = |tag| sending.send(Command::StopReconnecting(tag));
            assert_eq!((begin(0), begin(1)), (Ok(()), Ok(())));
            for deadline in [Duration::MAX, second, third] {
                sending.drain(deadline);
            }
            assert_eq!(begin(2), Ok(()));
            assert_eq!((begin(3), begin(4)), (Err(SendCommandError), Err(SendCommandError)));
            (0..9).for_each(|_| sending.stop());
            let stop: &[&str] = if round == 0 { &["stop"] } else { &[] };
            assert_eq!(names(&mailbox), [&["0", "1", "drain 7", "2"], stop].concat());
        }
        drop(mailbox);
        sending.drain(second);
        assert_eq!(sending.send(Command::KickAll), Err(SendCommandError));
    }
}
