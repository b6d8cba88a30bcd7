//! One shard on a ring of the caller's own, for the package that counts instructions. Not part of
//! the public interface.

pub use crate::ring::calls::TcpOptions;
pub use crate::ring::{
    Calls, Completion, Delivery, Descriptor, Errno, F_BUFFER, F_MORE, FileStatus, Instruction, Op,
    Pipe, Ring, RingCounters, Shutdown, Token, Traffic,
};

use crate::address::Address;
use crate::admission::Admission;
use crate::config::Config;
use crate::handle::EngineHandle;
use crate::handler::Handler;
use crate::ledger::{Published, ShardLedger};
use crate::mailbox::{Command, Mailbox, Opened};
use crate::memory::Arena;
use crate::registry::Registry;
use crate::ring::RingInUse;
use crate::shard::{Parts, Shard};
use crate::transit::Transit;
use crate::workers::Pool;
use std::any::TypeId;
use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// A shard with one listener. It is never dropped: its descriptors are open only in a script.
pub struct BareShard<R: Ring, H: Handler> {
    shard: Shard<R, H>,
    published: Arc<Published>,
    _arena: Arena,
}

impl<R: Ring, H: Handler> fmt::Debug for BareShard<R, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BareShard").finish_non_exhaustive()
    }
}

impl<R: Ring, H: Handler> BareShard<R, H> {
    /// A shard that has started. `receive_buffer` is copied to the start of each receive buffer.
    ///
    /// # Errors
    /// There is no memory or no descriptor.
    ///
    /// # Panics
    /// If `receive_buffer` is longer than a receive buffer, or if `Handler::started` panics.
    pub fn new(
        config: &Config,
        ring: R,
        listener: Descriptor,
        handler: H,
        receive_buffer: &[u8],
    ) -> io::Result<Self> {
        let arena = Arena::new(config.setup().arena_bytes)?;
        assert!(receive_buffer.len() <= config.receive_buffer_bytes as usize, "it fits");
        for buffer in 0..usize::from(config.receive_buffers) {
            arena.fill(buffer * config.receive_buffer_bytes as usize, receive_buffer);
        }
        let (permits, waiting_max) = (config.max_connections, config.waiting_max());
        let admission = Arc::new(Admission::new(permits, 0, 1, None, waiting_max));
        let (sending, mailbox) = Mailbox::new(config.mailbox_commands_max)?;
        let waker = sending.waker().clone();
        admission.set_wakers(vec![waker.clone()]);
        let published = Arc::<Published>::default();
        let transit = Transit::new([waker.clone()]);
        let (pool, mut ports) = Pool::new(config.jobs_queued_max, vec![waker], false);
        let mut registry = Registry::new(config);
        let settings = registry.settings(None).expect("few settings");
        let address = Address::Ip((Ipv4Addr::LOCALHOST, 1).into());
        let listening =
            registry.reserve(&address.into(), settings.clone()).expect("a number is free");
        let opened = Opened::new(listening, settings, listener, ring.outside());
        let (ring_in_use, all) = (RingInUse::default(), vec![published.clone()]);
        let (sendings, admitted, state) =
            (vec![sending], admission.clone(), TypeId::of::<H::State>());
        let handle = EngineHandle::new(sendings, all, admitted, pool, ring_in_use, registry, state);
        handle.to(0, Command::Listen(vec![opened])).expect("the mailbox is empty");
        let mut shard = Shard::new(Parts {
            number: 0,
            config,
            ring,
            arena: &arena,
            handler,
            mailbox,
            published: published.clone(),
            admission,
            handle,
            jobs: ports.remove(0),
            transit,
        });
        assert!(matches!(shard.start(), Ok(Ok(()))), "`started` failed");
        Ok(Self { shard, published, _arena: arena })
    }

    /// One turn of the loop.
    ///
    /// # Errors
    /// The ring failed.
    #[inline]
    pub fn turn(&mut self) -> Result<(), Errno> {
        self.shard.turn()
    }

    /// The counters as of the last turn.
    #[must_use]
    pub fn ledger(&self) -> ShardLedger {
        self.published.read()
    }
}
