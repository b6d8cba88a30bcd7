//! An embeddable io_uring server engine for Linux: one ring per core, registered buffers, multishot
//! accept and receive. Each connection that was opened is reported as closed exactly once.
//!
//! # The three parts
//! * A **shard** is one thread with one ring. It serves its own connections and takes no lock to do
//!   so.
//! * A **connection** belongs to one shard. The engine accepts it or connects out, receives, sends,
//!   and ends it for exactly one [`Reason`].
//! * A **handler** is the application: a value of a type that implements [`Handler`], one per
//!   shard. The engine calls it for every event of a connection.
//!
//! A complete echo server:
//!
//! ```
//! use ringwright::{Config, Connection, Engine, Handler, Origin};
//!
//! struct Echo;
//!
//! impl Handler for Echo {
//!     type State = ();
//!     fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}
//!     fn received(&mut self, _: &mut (), connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
//!         let _ = connection.send(bytes); // a full queue pauses receiving by itself
//!         bytes.len()
//!     }
//! }
//!
//! let config = Config { listeners: vec!["127.0.0.1:0".parse()?], ..Config::default() };
//! let engine = Engine::start(config, |_shard| Echo)?;
//! # use std::io::{Read, Write};
//! # let mut client = std::net::TcpStream::connect(engine.addresses()[0])?;
//! # client.write_all(b"hello")?;
//! # let mut back = [0; 5];
//! # client.read_exact(&mut back)?;
//! # assert_eq!(&back, b"hello");
//! # drop(client);
//! engine.handle().drain(std::time::Duration::from_secs(5));
//! let ledger = engine.join()?;
//! assert!(ledger.balanced());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Where to read on
//! * [`guide`]: how to build a server, page by page, with the life of a connection and the hazards.
//! * [`Engine`]: starting, threads, shutdown. [`Config`]: every limit with its default.
//! * [`Handler`]: the callbacks and their order. [`Connection`]: sending, files, ways to end.
//! * [`Listener`]: TCP and Unix sockets, with settings of their own. [`inherited_listeners`]: those
//!   of systemd. [`Handlers`]: a handler for each of them.
//! * [`EngineHandle`]: control from other threads. [`Local`]: timers of a shard, outgoing
//!   connections.
//! * [`Reconnect`]: outgoing connections that are kept up.
//! * [`files`]: files to send and to receive. [`workers`]: work on other threads. [`packets`]:
//!   length-prefixed packets.
//! * [`Ledger`]: counters, and the equations that hold between them.
//! * `testing`, with the feature of that name: your handler on a simulated kernel.
//! * [`guide::events`]: what the engine tells the crate `tracing`, with the feature of that name.
//! * [`probe`]: checks of the kernel and of the resource limits of this process.
//!
//! # Requirements
//! Linux 6.1 or later with io_uring allowed. Where the kernel is older or io_uring is forbidden (by
//! Docker's seccomp profile, for example), the shards use epoll instead, and [`Engine::notices`]
//! says why. [`Config::ring`] decides otherwise. [`probe::examine`] makes the checks in advance.
//!
//! The file `ARCHITECTURE.md` of this crate explains the design and lists its invariants.
//! `DECISIONS.md` has the reasons and measurements.

#![deny(missing_debug_implementations)]

#[macro_use]
mod bugs;
#[macro_use]
mod marks;
#[macro_use]
mod trace;

mod activation;
mod address;
mod admission;
mod cgroup;
mod config;
mod connect;
mod connection;
pub mod cpu;
mod credit;
mod ends;
mod engine;
mod error;
pub mod files;
#[cfg(any(doc, doctest))]
pub mod guide;
mod handle;
mod handler;
mod handlers;
mod id;
mod info;
mod inherited;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals;
mod ledger;
mod listener;
mod local;
mod mailbox;
mod memory;
mod message;
pub mod packets;
mod panics;
mod reason;
mod reconnect;
mod registry;
mod ring;
mod scope;
mod shard;
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub mod simulation;
mod stream;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod transit;
mod validate;
mod waker;
pub mod workers;

/// The lock-free modules use these atomics; tests/loom.rs replaces them with loom's.
use std::sync::atomic;

pub use activation::inherited_listeners;
pub use address::{Address, ParseAddressError, Peer, PeerCredentials, SocketPath};
pub use admission::{ParsePrefixError, Prefix};
pub use config::{AtCapacity, Balance, Config, IdleOperation, Listener, ListenerSettings};
pub use connect::{Connect, ConnectError};
pub use connection::Connection;
pub use engine::Engine;
pub use error::{BoxError, Error, RunWithStateError, SendCommandError, SendPayloadError};
pub use handle::{ChangeBansError, CommandShardError, EngineHandle, QueryShardError};
pub use handler::{Deadline, Handler};
pub use handlers::{Handlers, OneOf};
pub use id::ConnectionId;
pub use info::{
    ConnectionInfo, EndedConnection, Forwarded, JoinGroupError, Origin, SendStatus, SentMarker,
    StartForwardError,
};
pub use inherited::InheritedSocket;
pub use ledger::{Capacity, Counter, CounterValue, Histogram, Ledger, ShardLedger};
pub use listener::PreparedListeners;
pub use local::Local;
pub use mailbox::{Audience, SlowReaders};
pub use memory::Payload;
pub use message::{Message, PostMessageError, PostMessageErrorKind};
pub use reason::Reason;
pub use reconnect::{KeepConnectedError, Reconnect};
pub use registry::{ListenerInfo, ListenerState};
#[doc(hidden)]
pub use ring::Features;
pub use ring::probe;
pub use ring::{Errno, RingChoice, RingInUse, RingKind, Traffic};
pub use stream::{OutputStream, SendStreamError, SendStreamErrorKind};

/// The README's program is compiled and run with the documents.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
