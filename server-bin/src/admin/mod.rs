//! The admin listener: metrics, health, the ledger, connections and bans.
//!
//! It runs on its own engine with one small shard, and therefore answers when the watched engine is
//! full, has no descriptors left, or hangs in a callback. Metrics, health and the ledger are
//! readable without the shards of the watched engine and are answered at once. A separate thread
//! (`asking`) asks the shards for everything else, because a shard that hangs does not answer.
//!
//! # Descriptors
//! The threads of this engine have a descriptor table of their own, so a process whose descriptors
//! are all in use still accepts admin connections. A descriptor number means something else in the
//! other table. Therefore one thread owns the engine with everything that holds a descriptor of it,
//! such as its `EngineHandle`, and nothing of it leaves that thread. An inherited socket is in both
//! tables: this engine closes its own copy. In the other direction,
//! `Admin` keeps the watched engine's `EngineHandle` alive, so that its last handle is not dropped
//! there.

mod addresses;
mod asking;
mod bans;
mod connections;
mod exposition;
mod guard;
mod handler;
mod metrics;
mod response;
mod routes;
mod samples;
mod visit;
mod watched;

pub use routes::Access;
pub use watched::{Condition, DrainTimes, Leaving, Watched, WatchedEngine};

use crate::descriptors;
use crate::inherited;
use asking::Asker;
use handler::Visitors;
use ringwright::{Address, AtCapacity, Config, Engine, InheritedSocket, Listener, RingChoice};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Maximum number of admin connections. A browser opens six, a scraper one.
const CONNECTIONS_MAX: usize = 16;
/// Maximum time that the end waits for pending replies.
const END_TIMEOUT: Duration = Duration::from_millis(500);

/// The settings of the admin listener.
#[derive(Clone, Debug, Default)]
pub struct AdminPlan {
    /// The addresses that answer everything.
    pub listen: Vec<Address>,
    /// The addresses that answer only probes and scrapes.
    pub read: Vec<Address>,
    /// The clients that are let in.
    pub access: Access,
}

impl AdminPlan {
    /// The listeners. The first ones answer everything.
    #[must_use]
    pub fn listeners(&self) -> Vec<Listener> {
        self.listen.iter().chain(&self.read).map(inherited::listener).collect()
    }
}

/// A running admin listener.
pub struct Admin {
    addresses: Vec<Address>,
    notices: Vec<String>,
    /// Ends the listener when it is dropped.
    end: SyncSender<()>,
    thread: JoinHandle<Result<(), String>>,
    watched: Arc<Watched>,
}

/// The addresses and the notices of a listener that has started.
type Started = (Vec<Address>, Vec<String>);

impl Admin {
    /// Listens on these addresses.
    ///
    /// # Errors
    /// A message for the user.
    pub fn start(
        plan: &AdminPlan,
        ring: RingChoice,
        watched: &Arc<Watched>,
    ) -> Result<Self, String> {
        // The query thread reads the watched engine's sockets, so it starts here: the other threads
        // of the listener have a separate descriptor table.
        let asker = Asker::start(watched)
            .map_err(|error| format!("--admin: cannot start the query thread: {error}"))?;
        let (ready, readiness) = sync_channel(1);
        let (end, ending) = sync_channel(1);
        let (config, of_thread) = (config(plan.listeners(), ring), watched.clone());
        let (access, read_only_from) = (plan.access.clone(), plan.listen.len() as u16);
        let thread = thread::Builder::new()
            .name("admin".into())
            .spawn(move || {
                let factory = move |_: usize| {
                    let (watched, asker) = (of_thread.clone(), asker.clone());
                    let visitors_max = CONNECTIONS_MAX - 1;
                    Visitors::new(watched, asker, access.clone(), read_only_from, visitors_max)
                };
                run(config, usize::from(read_only_from), factory, &ready, &ending)
            })
            .map_err(|error| format!("--admin: cannot start a thread: {error}"))?;
        match readiness.recv() {
            Ok((addresses, notices)) => {
                Ok(Self { addresses, notices, end, thread, watched: watched.clone() })
            }
            Err(_) => Err(ended(thread).err().unwrap_or_else(|| "--admin: it ended".into())),
        }
    }

    /// The addresses that it listens on.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Notices for the operator.
    #[must_use]
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// Ends the listener. Waits briefly for pending replies.
    ///
    /// # Errors
    /// A message for the user.
    pub fn end(self) -> Result<(), String> {
        drop(self.end);
        let result = ended(self.thread);
        drop(self.watched);
        result
    }
}

/// Waits for the thread of the listener.
fn ended(thread: JoinHandle<Result<(), String>>) -> Result<(), String> {
    thread.join().unwrap_or_else(|_| Err("--admin: its thread panicked".into()))
}

/// Runs the listener until the other end of `ending` is dropped. The first `full` addresses answer
/// everything.
fn run(
    config: Config,
    full: usize,
    factory: impl Fn(usize) -> Visitors + Send + Sync + 'static,
    ready: &SyncSender<Started>,
    ending: &Receiver<()>,
) -> Result<(), String> {
    let mut notices = Vec::new();
    let inherited = config.listeners.iter().filter_map(|listener| listener.inherited.as_ref());
    let kept: Vec<i32> = inherited.map(InheritedSocket::number).collect();
    if let Err(error) = descriptors::separate_table(&kept) {
        notices.push(format!(
            "--admin: the admin listener cannot accept while the process has no descriptor left: \
             close_range(2) with CLOSE_RANGE_UNSHARE failed: {error}"
        ));
    }
    let all = config.listeners.iter().take(full).filter_map(|listener| listener.address.ip());
    for address in all.filter(|address| !address.ip().is_loopback()) {
        notices.push(format!(
            "--admin {address} has no password: anyone who can connect to it sees all clients, \
             and can close connections, ban addresses and begin a drain; use 127.0.0.1 to allow \
             only this machine"
        ));
    }
    let engine = Engine::start(config, factory).map_err(|error| format!("--admin: {error}"))?;
    notices.extend_from_slice(engine.notices());
    // Fails only if the main thread panicked; then `recv` fails too.
    let listening = engine.handle().listeners().into_iter();
    let _ = ready.send((listening.map(|listener| listener.address).collect(), notices));
    let _ = ending.recv();
    engine.handle().drain(END_TIMEOUT);
    let ledger = engine.join().map_err(|error| format!("--admin: {error}"))?;
    if ledger.balanced() {
        Ok(())
    } else {
        Err(format!(
            "--admin: the admin listener's own ledger does not balance: {}; please report this",
            ledger.to_json()
        ))
    }
}

/// Configures a small engine. A client beyond the maximum is closed at once instead of waiting.
fn config(listeners: Vec<Listener>, ring: RingChoice) -> Config {
    Config {
        listeners,
        ring,
        shards: Some(1),
        pin: false,
        max_connections: CONNECTIONS_MAX,
        at_capacity: AtCapacity::Reject,
        backlog: 128,
        receive_buffers: 16,
        receive_buffer_bytes: 2 << 10,
        send_buffers: 16,
        send_buffer_bytes: 2 << 10,
        pipes: 1,
        io_workers_max: 1,
        submission_entries: 64,
        output_bytes_max: 8 << 20,
        idle_timeout: Some(Duration::from_secs(20)),
        receive_timeout: Some(Duration::from_secs(5)),
        write_timeout: Some(Duration::from_secs(5)),
        ..Config::default()
    }
}
