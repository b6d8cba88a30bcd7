//! Commands from other threads to a shard: a bounded queue and an event descriptor (eventfd(2))
//! that the shard polls on its ring.

use crate::admission::{Bans, Instruction};
use crate::info::ConnectionInfo;
use crate::ring::Descriptor;
use crate::{ConnectionId, Reconnect, SlowReaders};
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::time::Duration;

/// A command of another thread to a shard.
pub enum Command {
    /// Accept clients on these listening sockets.
    Listen(Sockets),
    /// Reset a connection.
    Kick(ConnectionId),
    /// Reset all connections.
    KickAll,
    /// Send to a connection.
    Send(ConnectionId, Arc<[u8]>),
    /// Send to every connection.
    Broadcast(Arc<[u8]>, SlowReaders),
    /// Describe a connection.
    Find(ConnectionId, Sender<Option<ConnectionInfo>>),
    /// Describe up to `limit` connections, from slot `from` on.
    List { from: u32, limit: usize, answer: Sender<Vec<ConnectionInfo>> },
    /// Replace the list of banned addresses.
    Ban(Arc<BanList>),
    /// Connect out, with a tag.
    Connect(SocketAddr, u64),
    /// Connect out again and again, with a tag.
    KeepConnected(SocketAddr, u64, Reconnect),
    /// Make no further attempt for a tag.
    StopReconnecting(u64),
    /// Stop accepting, let connections finish, and reset those left after this time.
    Drain(Duration),
    /// Reset everything and end.
    Stop,
}

/// The banned addresses, and the socket filter that refuses them if it is short enough.
#[derive(Debug, Default)]
pub struct BanList {
    pub bans: Bans,
    pub program: Option<Vec<Instruction>>,
}

/// Listening sockets on their way to a shard. They are closed if they do not arrive.
#[derive(Default)]
pub struct Sockets(Vec<Descriptor>);

impl Sockets {
    #[cfg(test)]
    pub fn new(descriptors: Vec<Descriptor>) -> Self {
        Self(descriptors)
    }

    pub fn push(&mut self, descriptor: Descriptor) {
        self.0.push(descriptor);
    }

    /// Hands the sockets to the caller, who closes them.
    pub fn take(mut self) -> Vec<Descriptor> {
        std::mem::take(&mut self.0)
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        self.0.drain(..).for_each(crate::ring::calls::close);
    }
}

/// The error of a command that was not queued: the command queue of the shard is full, or the shard
/// has ended.
///
/// The queue holds [`Config::mailbox_commands_max`](crate::Config::mailbox_commands_max) commands.
/// The shard empties it in every turn of its loop, so a later attempt can succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

impl std::fmt::Display for Busy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(
            "the shard's command queue is full or the shard has ended; try again later or raise \
             mailbox_commands_max",
        )
    }
}

impl std::error::Error for Busy {}

struct Shared {
    /// Closed with the last handle, so that no waker writes to a number that was reused.
    event: Descriptor,
    signalled: AtomicBool,
    ended: AtomicBool,
}

impl Drop for Shared {
    fn drop(&mut self) {
        crate::ring::calls::close(self.event);
    }
}

/// Wakes a shard from any thread.
#[derive(Clone)]
pub struct Waker(Arc<Shared>);

impl Waker {
    /// Makes the shard look at its mailbox. All calls until it has looked cost one write(2)
    /// together.
    pub fn wake(&self) {
        if !self.0.signalled.swap(true, Ordering::SeqCst) {
            crate::ring::calls::signal_event(self.0.event);
        }
    }

    /// Returns whether the shard has ended.
    pub fn has_ended(&self) -> bool {
        self.0.ended.load(Ordering::SeqCst)
    }
}

/// The sending side of a mailbox.
#[derive(Clone)]
pub struct Sending {
    commands: Sender<Command>,
    waker: Waker,
}

impl Sending {
    /// Queues a command and wakes the shard.
    pub fn send(&self, command: Command) -> Result<(), Busy> {
        match self.commands.try_send(command) {
            Ok(()) => {
                self.waker.wake();
                Ok(())
            }
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Err(Busy),
        }
    }

    pub fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Returns whether the shard has ended. A crossbeam sender cannot tell, so the shard's waker
    /// does.
    pub fn has_ended(&self) -> bool {
        self.waker.has_ended()
    }
}

/// The shard's side of a mailbox.
pub struct Mailbox {
    commands: Receiver<Command>,
    shared: Arc<Shared>,
}

impl Mailbox {
    /// Creates a queue of at most `commands_max` commands with its event descriptor.
    ///
    /// # Errors
    /// EMFILE and ENFILE, as eventfd(2).
    pub fn new(commands_max: usize) -> io::Result<(Sending, Self)> {
        let event = crate::ring::calls::event()?;
        Ok(Self::with_event(commands_max, event))
    }

    pub fn with_event(commands_max: usize, event: Descriptor) -> (Sending, Self) {
        let (sender, receiver) = bounded(commands_max);
        let shared = Arc::new(Shared {
            event,
            signalled: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        });
        let sending = Sending { commands: sender, waker: Waker(shared.clone()) };
        (sending, Self { commands: receiver, shared })
    }

    /// The descriptor that the shard polls.
    pub fn event(&self) -> Descriptor {
        self.shared.event
    }

    /// Called before the commands are read: from now on, a waker writes again.
    pub fn acknowledge(&self) {
        self.shared.signalled.store(false, Ordering::SeqCst);
        // State that other threads change, such as permits handed over, must be read after this
        // point.
        fence(Ordering::SeqCst);
        #[cfg(test)]
        crate::ring::simulated::interrupt();
    }

    /// Takes the next command.
    pub fn next(&self) -> Option<Command> {
        let command = self.commands.try_recv().ok();
        #[cfg(test)]
        crate::ring::simulated::interrupt();
        command
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // The queue lives as long as its senders. A listening socket left in it would stay open,
        // and nobody would accept from it.
        while self.next().is_some() {}
    }
}
