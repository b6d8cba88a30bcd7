//! Commands from other threads to a shard: a bounded queue, and an event descriptor that the
//! shard polls on its ring.

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

/// What another thread may ask of a shard.
pub enum Command {
    /// Serve these listening sockets.
    Listen(Sockets),
    /// End a connection.
    Kick(ConnectionId),
    /// End all connections.
    KickAll,
    /// Send to a connection.
    Send(ConnectionId, Arc<[u8]>),
    /// Send to every connection.
    Broadcast(Arc<[u8]>, SlowReaders),
    /// Say what is known of a connection.
    Find(ConnectionId, Sender<Option<ConnectionInfo>>),
    /// Say what is known of so many connections, from that slot on.
    List { from: u32, limit: usize, answer: Sender<Vec<ConnectionInfo>> },
    /// Let these addresses in no more.
    Ban(Arc<BanList>),
    /// Connect out.
    Connect(SocketAddr, u64),
    /// Connect out, again and again.
    KeepConnected(SocketAddr, u64, Reconnect),
    /// Do not connect again.
    StopReconnecting(u64),
    /// Stop accepting, finish, and abort what is left after so long.
    Drain(Duration),
    /// Abort everything and end.
    Stop,
}

/// Addresses that are banned, and the filter that refuses them where it is short enough.
#[derive(Debug, Default)]
pub struct BanList {
    pub bans: Bans,
    pub program: Option<Vec<Instruction>>,
}

/// Listening sockets on their way to a shard; closed if they do not arrive.
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

    /// They are the caller's to close now.
    pub fn take(mut self) -> Vec<Descriptor> {
        std::mem::take(&mut self.0)
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        self.0.drain(..).for_each(crate::ring::calls::close);
    }
}

/// The queue of a shard is full, or the shard has ended.
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
    /// Closed with the last handle: no waker may write to a descriptor that is somebody else's.
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
    /// Makes the shard look at its mailbox. Calls until it has looked cost one write together.
    pub fn wake(&self) {
        if !self.0.signalled.swap(true, Ordering::SeqCst) {
            crate::ring::calls::signal_event(self.0.event);
        }
    }

    /// Whether the shard is gone.
    pub fn has_ended(&self) -> bool {
        self.0.ended.load(Ordering::SeqCst)
    }
}

/// The sending side.
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

    /// Whether the shard is gone. (A sender cannot ask its channel; the shard says so.)
    pub fn has_ended(&self) -> bool {
        self.waker.has_ended()
    }
}

/// The shard's side.
pub struct Mailbox {
    commands: Receiver<Command>,
    shared: Arc<Shared>,
}

impl Mailbox {
    /// A queue of at most `commands_max`, with its event descriptor.
    ///
    /// # Errors
    /// EMFILE, as eventfd(2).
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

    /// What the shard polls.
    pub fn event(&self) -> Descriptor {
        self.shared.event
    }

    /// Before the commands are read: from now on a waker writes again.
    pub fn acknowledge(&self) {
        self.shared.signalled.store(false, Ordering::SeqCst);
        // What is looked at afterwards, permits handed over for instance, was not looked at before.
        fence(Ordering::SeqCst);
        #[cfg(test)]
        crate::ring::simulated::interrupt();
    }

    /// The next command.
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
        // The queue lives as long as its senders: a listening socket in it would stay open, and
        // nobody would accept from it.
        while self.next().is_some() {}
    }
}
