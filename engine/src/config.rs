//! The settings of an engine: every limit with its unit, default and reason.

use crate::address::{Address, ParseAddressError};
use crate::admission::Prefix;
use crate::cpu;
use crate::inherited::InheritedSocket;
use crate::ring::calls::TcpOptions;
use crate::ring::probe::{Requirements, memlock_needed};
use crate::ring::{Features, RingChoice, Setup};
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The largest budget of a shard, in bytes: none at all, and sums with it do not overflow.
const SHARE_MAX: usize = usize::MAX >> 8;

/// The operation that an idle connection leaves in the ring to learn of the next bytes.
///
/// Both operations hold no receive buffer. `engine/tests/probe_memory.rs` measured their kernel
/// memory on Linux 6.18.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum IdleOperation {
    /// A zero-length receive (`IORING_OP_RECV`): 866 bytes of kernel memory per connection. Waking
    /// and parking 16,000 connections takes 1.13 times the CPU time of a poll
    /// (`benches/JOURNAL.md`).
    Receive,
    /// A poll (`IORING_OP_POLL_ADD`): 264 bytes of kernel memory per connection.
    #[default]
    Poll,
}

/// The treatment of a client that connects while `max_connections` connections are open, or as many
/// accepted ones as `outgoing_reserved` leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AtCapacity {
    /// The client waits until another connection ends. An accepted client waits in the shard's
    /// waiting room, where it costs one descriptor; further clients wait in the listen backlog.
    #[default]
    Wait,
    /// The engine accepts the client and closes it at once.
    Reject,
}

/// The shard that a new connection comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Balance {
    /// The one that the kernel chooses: by a hash of the addresses, or, for a socket that all
    /// shards share, the one that wakes first.
    Off,
    /// The one with the fewest connections, if the shard that has accepted the client has more: by
    /// more than a quarter of the connections that end within a second.
    #[default]
    Accept,
}

/// Limits and settings of an engine.
///
/// Start from [`Config::default`] and change the fields that matter. The defaults serve 10,000
/// connections with small requests and responses. [`Engine::start`](crate::Engine::start) checks
/// every field. It returns [`Error::Config`](crate::Error::Config) for a value outside the range
/// given below.
///
/// ```
/// use ringwright::{AtCapacity, Config};
/// use std::time::Duration;
///
/// let config = Config {
///     listeners: vec!["127.0.0.1:7000".parse()?, "[::1]:7000".parse()?],
///     max_connections: 2_000,
///     at_capacity: AtCapacity::Reject,
///     idle_timeout: Some(Duration::from_secs(30)),
///     workers: 4,
///     ..Config::default()
/// };
/// assert_eq!(config.message_bytes_max, 64 << 10); // the default
/// # Ok::<(), ringwright::ParseAddressError>(())
/// ```
///
/// | subject | fields |
/// |---|---|
/// | listeners | `listeners`, `backlog`, `accept_backoff` |
/// | threads | `shards`, `pin`, `pin_from`, `ring`, `io_workers_max` |
/// | places | `max_connections`, `outgoing_reserved`, `at_capacity`, `max_per_address`, `bans` |
/// | making room | `evict_idle`, `min_rate` |
/// | input | `message_bytes_max`, `receive_buffers`, `receive_buffer_bytes` |
/// | output | `output_high_bytes`, `output_low_bytes`, `output_bytes_max` |
/// | output buffers | `send_buffers`, `send_buffer_bytes` |
/// | memory of all connections | `memory_budget_bytes` |
/// | deadlines | `idle_timeout`, `receive_timeout`, `write_timeout`, `transfer_timeout` |
/// | further deadlines | `connect_timeout`, `linger_timeout`, `linger_total` |
/// | TCP | `tcp_keepalive`, `tcp_user_timeout` |
/// | files | `open_files`, `open_files_valid`, `sendfile_bytes_max`, `splice_from_bytes` |
/// | pipes for files | `pipes`, `pipe_bytes` |
/// | workers | `workers`, `jobs_queued_max`, `jobs_per_connection_max`, `jobs_per_shard_max` |
/// | idle connections | `park_after`, `idle_operation`, `streaming_connections_max` |
/// | limits of other parts | `mailbox_commands_max`, `reconnects_max`, `submission_entries` |
/// | others | `count_traffic`, `raise_descriptors` |
///
/// New fields come with minor versions, so a struct expression ends with `..Config::default()`.
///
/// # Memory
/// Each shard maps `receive_buffers * receive_buffer_bytes + send_buffers * send_buffer_bytes`
/// bytes, which is 4 MiB by default. It registers this memory with the kernel if `RLIMIT_MEMLOCK`
/// allows it, and has 64 KiB on the heap for long messages. An open connection adds up to about
/// `message_bytes_max` bytes of unused input and `output_bytes_max` bytes of queued output on the
/// heap.
///
/// # Time
/// The timeouts of a connection have a resolution of 4 ms. No duration may be zero. A duration
/// below 1 ms counts as 1 ms.
#[derive(Clone, Debug)]
pub struct Config {
    /// The addresses to listen on. Default: none, which makes a pure client.
    ///
    /// Each shard opens its own socket per address (`SO_REUSEPORT`, socket(7)). Port 0 takes a
    /// free port; [`Engine::addresses`](crate::Engine::addresses) returns it. At most 65,535
    /// addresses. A Unix socket ([`SocketPath`](crate::SocketPath)) is shared by all shards.
    ///
    /// `[::]` takes IPv4 clients as well (`net.ipv6.bindv6only`), unless the list has an IPv4
    /// address with the same port. `0.0.0.0:P` and `[::]:P` can therefore stand together, in any
    /// order.
    ///
    /// A listener may have settings of its own ([`Listener::settings`]).
    /// [`EngineHandle::add_listener`](crate::EngineHandle::add_listener) adds listeners while the
    /// engine runs. A listener may take a socket that somebody else has opened
    /// ([`Listener::inherited`], [`inherited_listeners`](crate::inherited_listeners)).
    pub listeners: Vec<Listener>,
    /// The kernel interface of all shards. Default [`RingChoice::Auto`]: io_uring, or epoll where
    /// io_uring is forbidden. [`Ledger::ring`](crate::Ledger::ring) has the outcome.
    pub ring: RingChoice,
    /// The features of the kernel that the engine may use; fewer than all only in tests.
    #[doc(hidden)]
    pub features: Features,
    /// The number of shards, 1 to 256: threads with one ring each. Default `None`: one shard per
    /// CPU that the process may use ([`cpu::default_shards`](crate::cpu::default_shards)). Without
    /// `pin`, only CPUs of the calling thread count.
    pub shards: Option<usize>,
    /// Pins each shard to one CPU of the process's affinity mask. Default `true`, because a shard's
    /// memory and sockets then stay in the caches of one core.
    ///
    /// The mask is that of the process's first thread together with the calling thread's
    /// ([`cpu::of_process`](crate::cpu::of_process)). A calling thread that is bound to fewer CPUs
    /// is worth a notice ([`Engine::notices`](crate::Engine::notices)).
    pub pin: bool,
    /// The position of the first shard's CPU in the affinity mask, from 0. Default 0. Each further
    /// shard takes the next CPU; the count wraps at the end of the mask. CPUs with fewer pinned
    /// shards of the process come first, so that several engines of a process spread over the CPUs.
    pub pin_from: usize,
    /// The limit on open connections over all shards, accepted and outgoing: 1 to 1,048,576.
    ///
    /// Default 10,000: half of a usual hard limit of 20,000 descriptors, which leaves the other
    /// half to files and waiting clients. A soft `RLIMIT_NOFILE` that is not larger is worth a
    /// notice ([`Engine::notices`](crate::Engine::notices)).
    pub max_connections: usize,
    /// The part of `max_connections` that only outgoing connections may take, over all shards.
    /// Default 0. With listeners it must be smaller than `max_connections`.
    ///
    /// Accepted connections take at most `max_connections - outgoing_reserved`; further clients are
    /// treated as `at_capacity` says. Outgoing connections may take any free place. A proxy that
    /// opens one connection per client reserves half. Without a reservation, clients that arrive
    /// together take every place, and then every connect fails.
    pub outgoing_reserved: usize,
    /// Raises the soft `RLIMIT_NOFILE` of the process to the hard limit. Default `false`, because
    /// the limit belongs to the program: select(2) works only with descriptors below 1,024.
    pub raise_descriptors: bool,
    /// The treatment of clients beyond `max_connections - outgoing_reserved`. Default
    /// [`AtCapacity::Wait`].
    pub at_capacity: AtCapacity,
    /// The shard that a new connection comes to. Default [`Balance::Accept`]. Outgoing connections
    /// stay on the shard that connects.
    pub balance: Balance,
    /// Ends the connection that has been idle longest when a client finds no free permit. Default
    /// `false`. The client waits for that, with every `at_capacity`.
    ///
    /// A connection is idle when nothing has happened on it for 100 ms, and nothing is queued,
    /// unread, unacknowledged or under way: between two requests, or before the first one. Outgoing
    /// connections and [paused](crate::Connection::pause) ones are not ended. The reason is
    /// [`Reason::Evicted`](crate::Reason::Evicted).
    ///
    /// Only waiting clients make connections end. A connect that finds no place fails at once.
    pub evict_idle: bool,
    /// The rate in bytes per second below which a connection counts as stalled. Default 0: no such
    /// floor. It needs `evict_idle`.
    ///
    /// A stalled connection alone is not ended. When a client waits for a permit and no connection
    /// is idle, the slowest connection below the floor makes room at once: by a reset if output is
    /// unacknowledged. The reason is [`Reason::TooSlow`](crate::Reason::TooSlow), unless the
    /// connection was closing already.
    ///
    /// The rate is that of 30 s: the bytes that the peer acknowledged and those that it sent. It is
    /// measured from the moment when a client finds neither a free permit nor an idle connection,
    /// and as long as no permit is free. Only the time counts in which output is unacknowledged, or
    /// a message or a file is incomplete and nothing of it is unread. A connection that waits for
    /// the application, a worker, a pipe or a receive buffer is not slow. Outgoing connections are
    /// not ended.
    ///
    /// A peer acknowledges whole segments, so the rate of a peer with a full receive buffer moves
    /// in steps of its segment size. Clients of a Unix socket are not measured.
    pub min_rate: u32,
    /// Asks the kernel for the bytes of each connection when it ends, for
    /// [`Local::ended`](crate::Local::ended). Default `false`: it costs a system call per
    /// connection.
    pub count_traffic: bool,
    /// The limit on connections from one IPv4 address or one IPv6 /64 prefix, 1 to 65,535.
    /// Default `None`: no limit.
    ///
    /// Clients of a Unix socket have no address and no such limit. Waiting clients count as well.
    /// The engine closes a client beyond the limit at once. The
    /// table of counts takes 32 bytes or more for each connection and waiting client allowed.
    pub max_per_address: Option<u16>,
    /// The addresses that are banned from the start, at most 65,536 prefixes. Default: none.
    /// [`EngineHandle::ban`](crate::EngineHandle::ban) adds more while the engine runs.
    pub bans: Vec<Prefix>,
    /// The listen(2) backlog of each listener on each shard, 1 to 65,535 connections. Default
    /// 1,024. The kernel caps it at `net.core.somaxconn`. [`backlog`](field@Listener::backlog) has
    /// it for one listener.
    pub backlog: u32,

    /// The number of receive buffers per shard, a power of two up to 32,768. Default 512.
    ///
    /// A buffer is in use only while the shard reads it. 512 buffers serve several batches of
    /// ready connections and still fit into a CPU cache.
    pub receive_buffers: u16,
    /// The size of a receive buffer, 64 bytes to 1 MiB. Default 4 KiB: most requests fit into one.
    ///
    /// Messages that fill several are received in pieces of up to 64 KiB, without these buffers.
    pub receive_buffer_bytes: u32,
    /// The number of send buffers per shard, 1 to 65,536. Default 256.
    ///
    /// Output goes to the heap while no send buffer is free. The ledger counts these pieces as
    /// `heap_chunks`.
    pub send_buffers: u32,
    /// The size of a send buffer, 64 bytes to 1 MiB. Default 8 KiB: head and body of a small
    /// response leave together.
    ///
    /// A longer payload fills several send buffers while more than half of them are free.
    /// Otherwise it goes to the heap (`heap_chunks`).
    pub send_buffer_bytes: u32,
    /// The number of pipes per shard, 1 to 65,536. Default 32. A transfer that finds no free pipe
    /// waits for one (`pipe_waits` in the ledger).
    ///
    /// Pipes carry received files and sent files that are not in the page cache. With 256 KiB
    /// each, the pipes of eight shards stay below the 16,384 pages at which the kernel shrinks the
    /// pipes of an unprivileged user (pipe(7), `pipe-user-pages-soft`).
    pub pipes: u32,
    /// The size of a pipe, which one splice(2) can move: 4 KiB to 1 GiB. Default 256 KiB. The
    /// kernel may grant less (fcntl(2), `F_SETPIPE_SZ`).
    pub pipe_bytes: u32,
    /// The number of bytes that one sendfile(2) call sends of a file in the page cache. Default
    /// 1 MiB.
    ///
    /// A shard sends two such pieces per turn of its loop, so that other connections are served in
    /// between. 0 disables sendfile(2): a file that does not fit into a send buffer then always
    /// goes through a pipe.
    pub sendfile_bytes_max: u32,
    /// The remaining length above which a file is received by splice(2). Default 64 KiB.
    ///
    /// A shorter remainder goes through receive buffers and is written from there.
    pub splice_from_bytes: u64,
    /// The number of files that each shard keeps open for
    /// [`Connection::cached_file`](crate::Connection::cached_file). Default 0: none.
    ///
    /// Only regular files on local file systems stay open. All shards together keep at most one
    /// sixteenth of the soft `RLIMIT_NOFILE`; [`Engine::start`](crate::Engine::start) lowers a
    /// larger value. A shard closes these files when a call finds no free descriptor.
    pub open_files: usize,
    /// The time after which the path of a kept file is looked up again. Default 1 s.
    ///
    /// The engine notices a change of the file itself at the next request. It notices a change of
    /// a directory above the file only after this time.
    pub open_files_valid: Duration,
    /// The limit on io-wq threads of each class (bounded, unbounded) per shard, 1 to 1,024
    /// (`IORING_REGISTER_IOWQ_MAX_WORKERS`). Default 4, because these threads only wait for disks.
    /// With epoll, the limit on the threads per shard that do the same, of two classes as well.
    pub io_workers_max: u32,
    /// The number of submission queue entries per shard, a power of two up to 32,768. Default
    /// 1,024. A full queue delays operations until the next turn and loses none.
    pub submission_entries: u32,

    /// The limit on input that the handler has not used, per connection: 1 byte to 1 GiB. Default
    /// 64 KiB. An incomplete message beyond the limit ends the connection with
    /// [`Reason::MessageTooLong`](crate::Reason::MessageTooLong).
    pub message_bytes_max: usize,
    /// The high-water mark of queued output per connection, in bytes. Default 256 KiB.
    ///
    /// Above it, [`Connection::send`](crate::Connection::send) returns
    /// [`SendStatus::Full`](crate::SendStatus::Full) and the engine pauses receiving, unless
    /// [`receive_while_full`](crate::Connection::receive_while_full) is on. Files do not count. The
    /// mark must not exceed `output_bytes_max`.
    pub output_high_bytes: usize,
    /// The low-water mark of queued output per connection: 1 byte to `output_high_bytes`. Default
    /// 64 KiB. The engine calls [`Handler::writable`](crate::Handler::writable) and resumes
    /// receiving below it.
    pub output_low_bytes: usize,
    /// The limit on queued output per connection, at most 1 GiB. Default 16 MiB. A file counts only
    /// while it is small and its bytes lie in a send buffer. More output of the handler is
    /// [`SendStatus::Refused`](crate::SendStatus::Refused). More output from elsewhere, such as
    /// [`EngineHandle::send`](crate::EngineHandle::send), ends the connection with
    /// [`Reason::OutputTooLong`](crate::Reason::OutputTooLong).
    pub output_bytes_max: usize,

    /// The budget of all connections together for queued output and kept input, 1 byte or more.
    /// Default `None`: 1/32 of the memory that the process may use (`MemTotal`, or the limit of its
    /// cgroups), but 16 to 256 MiB.
    ///
    /// Each shard has an equal part, by default at least 1 MiB. Memory counts that the engine
    /// allocates beyond the send buffers of the shards, and so does the memory of queued payloads
    /// ([`Payload`](crate::Payload) has the rule). A payload that several connections share counts
    /// in parts. Files do not count.
    ///
    /// While a shard uses more than its part, it halves `output_high_bytes` and `output_low_bytes`
    /// for its connections step by step, down to 4 KiB or one send buffer. The connections that
    /// hold most are therefore paused first. A connection whose incomplete message is as long as
    /// that is paused, too. One at a time may complete its message. The marks rise again below
    /// three quarters. The ledger counts the pauses as `budget_pauses`.
    ///
    /// The budget ends no connection, so the use can exceed it: each connection may hold a little
    /// above the lowest mark, and input that came before its pause. A connection with
    /// [`receive_while_full`](crate::Connection::receive_while_full) is not paused.
    /// [`receive_timeout`](Self::receive_timeout) runs while an incomplete message waits.
    pub memory_budget_bytes: Option<usize>,

    /// The operation that waits for input on an idle connection. Default [`IdleOperation::Poll`],
    /// which takes a third of the kernel memory of a zero-length receive, and less CPU time.
    pub idle_operation: IdleOperation,
    /// The time without received or sent bytes after which a connection is parked: its multishot
    /// receive gives way to the [`IdleOperation`]. Default 5 s.
    pub park_after: Duration,
    /// The number of connections on a shard above which no connection uses a multishot receive.
    /// Default 8,192. Each connection then receives once and is parked when its socket is empty. A
    /// kernel without multishot receives counts as 0.
    pub streaming_connections_max: usize,

    /// The time without received or sent bytes after which a connection is closed with
    /// [`Reason::IdleTimeout`](crate::Reason::IdleTimeout). Default 75 s; `None`: never.
    ///
    /// The timeout does not run while output is queued or unacknowledged, a job runs, or a file is
    /// being received or published. A connection on which nothing is unread or unacknowledged is
    /// closed at once; others wait for the peer's FIN
    /// ([`linger_timeout`](Config::linger_timeout)).
    pub idle_timeout: Option<Duration>,
    /// The time in which an incomplete message must make progress. Default 30 s; `None`: no limit.
    /// A late message closes the connection with
    /// [`Reason::ReceiveTimeout`](crate::Reason::ReceiveTimeout).
    ///
    /// A message is incomplete while [`Handler::received`](crate::Handler::received) leaves bytes
    /// unused. The time starts again whenever the handler uses some bytes. It does not run while
    /// the connection is paused.
    pub receive_timeout: Option<Duration>,
    /// The time in which queued output must make progress. Default 30 s; `None`: no limit. The
    /// engine then resets the connection with
    /// [`Reason::WriteTimeout`](crate::Reason::WriteTimeout).
    ///
    /// Sent bytes and bytes that the peer acknowledged count as progress. The time also runs while
    /// everything has left and the peer has not acknowledged it. On a Unix socket the kernel
    /// tells what the peer has read, in steps of up to 64 KiB.
    pub write_timeout: Option<Duration>,
    /// The time in which a file being sent or received must make progress. Default 60 s; `None`:
    /// no limit. The engine then resets the connection with
    /// [`Reason::TransferTimeout`](crate::Reason::TransferTimeout).
    ///
    /// The time that a transfer waits for a pipe does not count.
    pub transfer_timeout: Option<Duration>,
    /// The time in which each address of an outgoing connect must answer, and in which its name
    /// must be resolved. Default 10 s. A late one fails with ETIMEDOUT in
    /// [`Handler::connect_failed`](crate::Handler::connect_failed). [`Connect::timeout`] replaces
    /// it for one connect.
    ///
    /// [`Connect::timeout`]: crate::Connect::timeout
    pub connect_timeout: Duration,
    /// The limit on connections that each shard keeps up for
    /// [`Local::keep_connected`](crate::Local::keep_connected), 0 to 1,048,576. Default 1,024.
    /// Connections that wait for their next attempt count as well.
    pub reconnects_max: usize,
    /// The time without a received byte after which a closed connection no longer waits for the
    /// peer's FIN. Default 5 s. During a drain it is at most 500 ms for a silent peer.
    ///
    /// The time starts when the peer has acknowledged all output. Until then the connection keeps
    /// its slot and its permit, and [`write_timeout`](Config::write_timeout) runs.
    pub linger_timeout: Duration,
    /// The time after which a closed connection no longer waits for the peer's FIN, whatever the
    /// peer sends. Default 30 s. It starts like [`linger_timeout`](Config::linger_timeout).
    pub linger_total: Duration,
    /// The first pause of accepting after an error such as EMFILE. Default 10 ms. Each further
    /// error doubles the pause, up to 1 s; a successful accept sets it back.
    pub accept_backoff: Duration,
    /// The limit on queued commands from other threads per shard, at least 16. Default 1,024.
    /// Beyond it, the methods of [`EngineHandle`](crate::EngineHandle) return
    /// [`SendCommandError`](crate::SendCommandError).
    pub mailbox_commands_max: usize,
    /// The number of worker threads for [`Connection::offload`](crate::Connection::offload) and for
    /// names to connect to ([`Connect`](crate::Connect)), 0 to 1,024. Default 0, which refuses
    /// every job and every name.
    /// [`EngineHandle::set_workers`](crate::EngineHandle::set_workers) changes the number at run
    /// time.
    pub workers: usize,
    /// The limit on jobs of all shards that wait for a worker, 1 to 1,048,576. Default 1,024.
    /// Beyond it, [`Connection::offload`](crate::Connection::offload) refuses the job and pauses
    /// the connection until there is room.
    pub jobs_queued_max: usize,
    /// The limit on jobs and holds in progress per connection, 1 to 65,536. Default 16. A finished
    /// one counts until [`Handler::job_done`](crate::Handler::job_done) is called for it. Beyond
    /// the limit the connection is paused until one of them is done.
    pub jobs_per_connection_max: u32,
    /// The limit on jobs and holds in progress per shard that belong to no connection, 1 to
    /// 1,048,576. Default 1,024. Beyond it, [`Local::offload`](crate::Local::offload) and
    /// [`Local::hold`](crate::Local::hold) refuse.
    pub jobs_per_shard_max: u32,
    /// The idle time before the first TCP keepalive probe, in whole seconds (`TCP_KEEPIDLE`,
    /// tcp(7)): 1 s to 32,767 s, about nine hours. Default 60 s; `None`: no keepalive. It holds for
    /// accepted and for outgoing connections.
    ///
    /// Four unanswered probes, a quarter of this time apart, end the connection. A vanished peer is
    /// therefore noticed after twice this time.
    pub tcp_keepalive: Option<Duration>,
    /// The time after which unacknowledged data ends a connection (`TCP_USER_TIMEOUT`, tcp(7)):
    /// 1 ms to 2,147,483,647 ms, about 24 days. Default 60 s; `None`: the kernel's own timeout.
    ///
    /// It holds for accepted and for outgoing connections. An outgoing one gets it when the connect
    /// has succeeded, because it would also shorten `connect_timeout`.
    pub tcp_user_timeout: Option<Duration>,
}

impl Config {
    /// The limit on clients in the waiting room of a shard: one whole backlog of each listener, and
    /// a second one from accepts that are being cancelled.
    pub(crate) fn waiting_max(&self) -> usize {
        let own = self.listeners.iter().map(|it| it.backlog(self.backlog) as usize).sum();
        2 * (self.backlog as usize).max(own)
    }

    /// `TCP_KEEPIDLE` of every connection, seconds.
    pub(crate) fn keepalive_s(&self) -> Option<u32> {
        self.tcp_keepalive.map(|after| after.as_secs() as u32)
    }

    /// `TCP_USER_TIMEOUT` of every connection, milliseconds.
    pub(crate) fn user_timeout_ms(&self) -> Option<u32> {
        self.tcp_user_timeout.map(|after| after.as_millis() as u32)
    }

    /// The budget of one shard, in bytes.
    pub(crate) fn budget_share_bytes(&self) -> usize {
        let shards = self.shards.unwrap_or(1);
        // `Engine::start` sets the default. Tests without it have no limit.
        self.memory_budget_bytes.map_or(SHARE_MAX, |bytes| (bytes / shards).clamp(1, SHARE_MAX))
    }

    /// Returns the needs of an engine with this configuration, for
    /// [`probe::examine`](crate::probe::examine).
    ///
    /// The locked memory is the least with which a shard can start: an engine also runs if its
    /// buffers cannot be registered.
    #[must_use]
    pub fn requirements(&self) -> Requirements {
        let setup = Setup { arena_registered: false, ..self.setup() };
        Requirements {
            ring: self.ring,
            shards: self.shards.unwrap_or_else(cpu::default_shards),
            max_connections: self.max_connections,
            memlock_needed_bytes: memlock_needed(&setup),
            listeners: self.listeners.len().max(1),
            backlog: self.backlog,
            pipes: self.pipes,
            pipe_bytes: self.pipe_bytes,
        }
    }

    /// The ring setup of each shard that this configuration leads to. `arena_address` is null,
    /// because the arena does not exist yet.
    pub(crate) fn setup(&self) -> Setup {
        let receive_bytes = usize::from(self.receive_buffers) * self.receive_buffer_bytes as usize;
        let send_bytes = self.send_buffers as usize * self.send_buffer_bytes as usize;
        // One completion for every buffer, for a whole backlog and for every send, plus slack for
        // cancelled operations. More completions overflow, which is counted and loses nothing.
        let completions = u32::from(self.receive_buffers)
            + self.backlog
            + self.send_buffers
            + 2 * self.submission_entries;
        Setup {
            submission_entries: self.submission_entries,
            completion_entries: completions.next_power_of_two().min(65_536),
            arena_address: std::ptr::null_mut(),
            arena_bytes: receive_bytes + send_bytes,
            arena_registered: true,
            receive_buffers: self.receive_buffers,
            receive_buffer_bytes: self.receive_buffer_bytes,
            io_workers_max: self.io_workers_max,
            features: self.features,
            started: Instant::now(),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listeners: Vec::new(),
            ring: RingChoice::Auto,
            features: Features::ALL,
            shards: None,
            pin: true,
            pin_from: 0,
            max_connections: 10_000,
            outgoing_reserved: 0,
            raise_descriptors: false,
            at_capacity: AtCapacity::Wait,
            balance: Balance::Accept,
            evict_idle: false,
            min_rate: 0,
            count_traffic: false,
            max_per_address: None,
            bans: Vec::new(),
            backlog: 1_024,
            receive_buffers: 512,
            receive_buffer_bytes: 4_096,
            send_buffers: 256,
            send_buffer_bytes: 8_192,
            pipes: 32,
            pipe_bytes: 256 << 10,
            sendfile_bytes_max: 1 << 20,
            splice_from_bytes: 64 << 10,
            open_files: 0,
            open_files_valid: Duration::from_secs(1),
            io_workers_max: 4,
            submission_entries: 1_024,
            message_bytes_max: 64 << 10,
            output_high_bytes: 256 << 10,
            output_low_bytes: 64 << 10,
            output_bytes_max: 16 << 20,
            memory_budget_bytes: None,
            idle_operation: IdleOperation::Poll,
            park_after: Duration::from_secs(5),
            streaming_connections_max: 8_192,
            idle_timeout: Some(Duration::from_secs(75)),
            receive_timeout: Some(Duration::from_secs(30)),
            write_timeout: Some(Duration::from_secs(30)),
            transfer_timeout: Some(Duration::from_secs(60)),
            connect_timeout: Duration::from_secs(10),
            reconnects_max: 1_024,
            linger_timeout: Duration::from_secs(5),
            linger_total: Duration::from_secs(30),
            accept_backoff: Duration::from_millis(10),
            mailbox_commands_max: 1_024,
            workers: 0,
            jobs_queued_max: 1_024,
            jobs_per_connection_max: 16,
            jobs_per_shard_max: 1_024,
            tcp_keepalive: Some(Duration::from_secs(60)),
            tcp_user_timeout: Some(Duration::from_secs(60)),
        }
    }
}

/// A listener for [`Config::listeners`] and
/// [`EngineHandle::add_listener`](crate::EngineHandle::add_listener): an address, and the settings
/// of its connections.
///
/// ```
/// use ringwright::{Config, Listener, ListenerSettings};
///
/// // The settings of the engine.
/// let plain: Listener = "127.0.0.1:7000".parse()?;
/// // The same, except for some.
/// let config = Config::default();
/// let settings = ListenerSettings {
///     idle_timeout: None,
///     connections_max: Some(100),
///     ..ListenerSettings::of(&config)
/// };
/// let private = Listener { settings: Some(settings), ..("[::1]:7001".parse()?) };
/// // IPv6 only, with a longer queue.
/// let all: Listener = "[::]:7002".parse()?;
/// let all = Listener { v6_only: Some(true), backlog: Some(4_096), ..all };
/// // Unix sockets, for clients of the same machine: a file, and an abstract name.
/// let local: Listener = "unix:/run/app.sock (mode=0660)".parse()?;
/// let unnamed: Listener = "unix:@app".parse()?;
/// let config = Config { listeners: vec![plain, private, all, local, unnamed], ..config };
/// # Ok::<(), ringwright::ParseAddressError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The address to listen on. Port 0 takes a free port.
    pub address: Address,
    /// The settings of the connections that the listener accepts. `None`: those of the engine's
    /// [`Config`].
    pub settings: Option<ListenerSettings>,
    /// Leaves IPv4 clients of an IPv6 listener out (`IPV6_V6ONLY`, ipv6(7)). `None`: it does so if
    /// the engine has an IPv4 address with the same port, as [`Config::listeners`] explains.
    /// Other addresses must have `None`.
    pub v6_only: Option<bool>,
    /// The listen(2) backlog on each shard, 1 to 65,535 connections. `None`: [`Config::backlog`].
    pub backlog: Option<u32>,
    /// The number of the handler that serves the connections, in an engine of several
    /// ([`Handlers`](crate::Handlers)). 0 is the first one, and the only one of other engines.
    pub handler: u8,
    /// A socket that listens on the address already ([`Listener::inherited`]). `None`: the engine
    /// opens its sockets.
    pub inherited: Option<InheritedSocket>,
}

impl Listener {
    /// The clients that may wait in the backlog of a shard's socket.
    pub(crate) fn backlog(&self, of_engine: u32) -> u32 {
        self.backlog.unwrap_or(of_engine)
    }
}

impl From<SocketAddr> for Listener {
    fn from(address: SocketAddr) -> Self {
        Address::Ip(address).into()
    }
}

impl From<Address> for Listener {
    fn from(address: Address) -> Self {
        Self { address, settings: None, v6_only: None, backlog: None, handler: 0, inherited: None }
    }
}

impl FromStr for Listener {
    type Err = ParseAddressError;

    fn from_str(address: &str) -> Result<Self, ParseAddressError> {
        address.parse::<Address>().map(Self::from)
    }
}

/// The settings of the connections that a listener accepts. [`Config`] explains the fields of the
/// same names.
///
/// [`EngineHandle::set_listener`](crate::EngineHandle::set_listener) changes them while the engine
/// runs. A connection keeps the settings that its listener had when the connection was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSettings {
    /// See [`Config::idle_timeout`].
    pub idle_timeout: Option<Duration>,
    /// See [`Config::receive_timeout`].
    pub receive_timeout: Option<Duration>,
    /// See [`Config::write_timeout`].
    pub write_timeout: Option<Duration>,
    /// See [`Config::transfer_timeout`].
    pub transfer_timeout: Option<Duration>,
    /// See [`Config::min_rate`]. It needs `evict_idle`.
    pub min_rate: u32,
    /// Connections of this listener may be ended to make room for waiting clients of any listener.
    /// Nothing is ended unless [`Config::evict_idle`] is on.
    pub evict_idle: bool,
    /// See [`Config::count_traffic`].
    pub count_traffic: bool,
    /// See [`Config::message_bytes_max`].
    pub message_bytes_max: usize,
    /// See [`Config::output_high_bytes`].
    pub output_high_bytes: usize,
    /// See [`Config::output_low_bytes`].
    pub output_low_bytes: usize,
    /// See [`Config::output_bytes_max`].
    pub output_bytes_max: usize,
    /// See [`Config::tcp_keepalive`]. It has no effect on connections of a Unix socket.
    pub tcp_keepalive: Option<Duration>,
    /// See [`Config::tcp_user_timeout`]. It has no effect on connections of a Unix socket.
    pub tcp_user_timeout: Option<Duration>,
    /// The limit on connections of this listener over all shards, 1 or more; clients that wait for
    /// a permit count as well. `None`: no limit but those of the engine.
    ///
    /// The engine closes a client beyond the limit at once. The ledger counts these as
    /// `over_listener_limit`.
    pub connections_max: Option<usize>,
    /// Clients to which `max_per_address` and bans do not apply: proxies, whose address is not that
    /// of the client they stand for. At most 1,000 prefixes. Default: none.
    ///
    /// While a banned prefix shares an address with one of these, this listener has no socket
    /// filter: other banned clients are closed right after accept.
    /// [`Local::is_banned`](crate::Local::is_banned) checks the address that a proxy names, and
    /// [`Connection::count_client`](crate::Connection::count_client) counts it.
    pub exempt: Vec<Prefix>,
}

impl ListenerSettings {
    /// The settings of an engine's configuration.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self {
            idle_timeout: config.idle_timeout,
            receive_timeout: config.receive_timeout,
            write_timeout: config.write_timeout,
            transfer_timeout: config.transfer_timeout,
            min_rate: config.min_rate,
            evict_idle: config.evict_idle,
            count_traffic: config.count_traffic,
            message_bytes_max: config.message_bytes_max,
            output_high_bytes: config.output_high_bytes,
            output_low_bytes: config.output_low_bytes,
            output_bytes_max: config.output_bytes_max,
            tcp_keepalive: config.tcp_keepalive,
            tcp_user_timeout: config.tcp_user_timeout,
            connections_max: None,
            exempt: Vec::new(),
        }
    }

    /// The options of the sockets.
    pub(crate) fn tcp_options(&self) -> TcpOptions {
        TcpOptions {
            keepalive_s: self.tcp_keepalive.map(|after| after.as_secs() as u32),
            user_timeout_ms: self.tcp_user_timeout.map(|after| after.as_millis() as u32),
        }
    }

    pub(crate) fn is_exempt(&self, address: IpAddr) -> bool {
        self.exempt.iter().any(|prefix| prefix.contains(address))
    }
}

/// Settings with the number that connections remember. The number belongs to other settings only
/// when nobody but the registry refers to these.
#[derive(Clone, Debug)]
pub(crate) struct SharedSettings {
    pub number: u8,
    pub values: Arc<ListenerSettings>,
}

/// A duration as the loop counts it: at least 1 ms, and so bounded that no sum overflows.
pub(crate) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).clamp(1, 1 << 40)
}
