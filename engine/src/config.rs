//! Every limit of the engine: name, unit, default, reason.

use crate::Prefix;
use crate::ring::Setup;
use std::net::SocketAddr;
use std::time::Duration;

/// How a connection with nothing to read waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Probe {
    /// A zero-length receive (`IORING_OP_RECV`): 866 bytes of kernel memory each, and 1.13 times
    /// the CPU of a poll to wake a connection and park it again (16,000 connections).
    Receive,
    /// A poll (`IORING_OP_POLL_ADD`): 264 bytes of kernel memory each.
    #[default]
    Poll,
}

/// What happens to a client that comes when `max_connections` are open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AtCapacity {
    /// It waits: in the shard's waiting room (a descriptor and nothing else), then in the backlog.
    #[default]
    Wait,
    /// It is closed at once.
    Reject,
}

/// Limits and settings of an engine. Change the fields of [`Config::default`].
#[derive(Clone, Debug)]
pub struct Config {
    /// Addresses to listen on; port 0 takes a free one. None for a pure client.
    pub listeners: Vec<SocketAddr>,
    /// Shards: threads with a ring each. `None`: as many as the process may use CPUs (affinity
    /// and cgroup quota). Zero is an error.
    pub shards: Option<usize>,
    /// Pin each shard to a CPU of the allowed set. Default true: a shard's memory and sockets
    /// stay in one core's caches.
    pub pin: bool,
    /// Pin the first shard to this place in the allowed set, the next to the next one. Default 0.
    pub pin_from: usize,
    /// Open connections over all shards, accepted and connected. Default 10,000: half of a usual
    /// hard limit of 20,000 descriptors, so that files and the waiting room have room.
    pub max_connections: usize,
    /// What happens beyond that. Default: wait.
    pub at_capacity: AtCapacity,
    /// Connections of one IPv4 address, or of one IPv6 /64, at most, those that wait included;
    /// a further one is closed at once. Default: no limit.
    pub max_per_address: Option<u16>,
    /// Addresses that are not let in from the start; see [`Remote::ban`](crate::Remote::ban).
    pub bans: Vec<Prefix>,
    /// listen(2) backlog per listener and shard, connections. Default 1,024; the kernel caps it
    /// at `net.core.somaxconn`.
    pub backlog: u32,

    /// Receive buffers per shard, a power of two up to 32,768. Default 512: several batches of
    /// ready connections find one each, and they stay in the cache.
    pub receive_buffers: u16,
    /// Bytes of a receive buffer. Default 4 KiB: most requests fit in one.
    pub receive_buffer_bytes: u32,
    /// Send buffers per shard. Default 256; when all are taken the heap serves, counted.
    pub send_buffers: u32,
    /// Bytes of a send buffer. Default 8 KiB: head and body of a small reply leave together. What
    /// is longer goes into several while more than half are free, else to the heap, counted.
    pub send_buffer_bytes: u32,
    /// Pipes per shard, for files on their way in and for those on their way out that are not in
    /// the page cache. Default 32: with 256 KiB each, eight shards stay under the 16,384 pages
    /// after which the kernel shrinks an ordinary user's. Transfers beyond wait their turn.
    pub pipes: u32,
    /// Bytes of a pipe: what one splice moves. Default 256 KiB.
    pub pipe_bytes: u32,
    /// Bytes of a file that lies in the page cache sent at once, by sendfile(2); then others have
    /// their turn. 0: files always go through a pipe. Default 1 MiB.
    pub sendfile_bytes_max: u32,
    /// A file being received of which more than so many bytes are still to come goes from its socket
    /// to the disk by splice(2); a shorter rest is received like anything else and written. Default
    /// 64 KiB.
    pub splice_from_bytes: u64,
    /// Regular files on local file systems that stay open for the next one who asks for them with
    /// [`Connection::cached_file`](crate::Connection::cached_file), per shard; but all shards
    /// together keep at most a sixteenth of the descriptors that the process may have, and give
    /// them back when there is none for something else. Default 0: none.
    pub open_files: usize,
    /// A file that stays open is looked up anew after so long: what befalls a directory above it
    /// is seen by then. What befalls the file itself is seen by the next request. Default 1 s.
    pub open_files_valid: Duration,
    /// Most io-wq threads of each class per shard. Default 4: they only wait for disks.
    pub io_workers_max: u32,
    /// Submission queue entries per shard, a power of two. Default 1,024.
    pub submission_entries: u32,

    /// Bytes of a message the application has not used yet, kept per connection at most.
    /// Default 64 KiB. More ends the connection.
    pub message_bytes_max: usize,
    /// Queued output above which [`Connection::send`](crate::Connection::send) answers "full" and
    /// receiving is paused, bytes. Default 256 KiB.
    pub output_high_bytes: usize,
    /// Queued output below which the application hears `writable`, bytes. Default 64 KiB.
    pub output_low_bytes: usize,
    /// Queued output beyond which the connection ends, bytes (files not counted). Default 16 MiB.
    pub output_bytes_max: usize,

    /// How an idle connection waits. Default: a poll. It takes a third of the kernel memory of a
    /// zero-length receive, and less CPU to wake and to park again; see [`Probe`].
    pub probe: Probe,
    /// A connection that received nothing for so long is parked on a probe. Default 5 s.
    pub park_after: Duration,
    /// Above so many connections on a shard every connection is parked as soon as it has been
    /// read. Default 8,192.
    pub streaming_connections_max: usize,

    /// Nothing received or sent for so long ends a connection. Default 75 s; `None`: never.
    pub idle_timeout: Option<Duration>,
    /// A message begun must be complete after so long. Default 30 s; `None`: never.
    pub receive_timeout: Option<Duration>,
    /// Output that makes no progress for so long ends a connection. Default 30 s; `None`: never.
    pub write_timeout: Option<Duration>,
    /// A file that makes no progress for so long ends a connection. Default 60 s; `None`: never.
    pub transfer_timeout: Option<Duration>,
    /// A connect must succeed within. Default 10 s.
    pub connect_timeout: Duration,
    /// Connections of a shard that [`Local::keep_connected`](crate::Local::keep_connected) keeps up
    /// at most, those that wait for their next attempt included. Default 1,024.
    pub reconnects_max: usize,
    /// `close` waits so long for the peer to read what was sent. Default 5 s.
    pub linger_timeout: Duration,
    /// `close` discards so many bytes of input while it waits. Default 1 MiB.
    pub linger_bytes_max: usize,
    /// First pause of accepting after EMFILE and its like; doubles up to a second. Default 10 ms.
    pub accept_backoff: Duration,
    /// Commands from other threads waiting per shard. Default 1,024; beyond, `Remote` says busy.
    pub mailbox_commands_max: usize,
    /// Threads that do what handlers offload. Default 0: a job is refused;
    /// [`Remote::set_workers`](crate::Remote::set_workers) changes it.
    pub workers: usize,
    /// Jobs of all shards that may wait for a worker. Default 1,024; beyond, connections that
    /// offload are paused until there is room.
    pub jobs_queued_max: usize,
    /// Jobs of one connection under way at most, those that are over and not yet told of
    /// included. Default 16; beyond, it is paused until one is done.
    pub jobs_per_connection_max: u32,
    /// TCP keepalive on accepted connections: idle time before the first probe. Four probes in
    /// the same time again without an answer end it. Default 60 s; `None`: off.
    pub tcp_keepalive: Option<Duration>,
    /// `TCP_USER_TIMEOUT` on accepted connections: sent data unacknowledged for so long ends
    /// them. Default 60 s; `None`: the kernel's own.
    pub tcp_user_timeout: Option<Duration>,
}

impl Config {
    /// Clients that may wait on a shard: a backlog of each listener that was accepted in one go,
    /// and another one from accepts that were being cancelled.
    pub(crate) fn waiting_max(&self) -> usize {
        2 * self.backlog as usize * self.listeners.len().max(1)
    }

    /// What the ring of each shard is set up with; the arena's address is not known yet.
    #[must_use]
    pub fn setup(&self) -> Setup {
        let receive_bytes = usize::from(self.receive_buffers) * self.receive_buffer_bytes as usize;
        let send_bytes = self.send_buffers as usize * self.send_buffer_bytes as usize;
        // A completion for every buffer and for a whole backlog at once, one for every send, and
        // slack for what ends. More than that overflows, which is counted and loses nothing.
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
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listeners: Vec::new(),
            shards: None,
            pin: true,
            pin_from: 0,
            max_connections: 10_000,
            at_capacity: AtCapacity::Wait,
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
            probe: Probe::Poll,
            park_after: Duration::from_secs(5),
            streaming_connections_max: 8_192,
            idle_timeout: Some(Duration::from_secs(75)),
            receive_timeout: Some(Duration::from_secs(30)),
            write_timeout: Some(Duration::from_secs(30)),
            transfer_timeout: Some(Duration::from_secs(60)),
            connect_timeout: Duration::from_secs(10),
            reconnects_max: 1_024,
            linger_timeout: Duration::from_secs(5),
            linger_bytes_max: 1 << 20,
            accept_backoff: Duration::from_millis(10),
            mailbox_commands_max: 1_024,
            workers: 0,
            jobs_queued_max: 1_024,
            jobs_per_connection_max: 16,
            tcp_keepalive: Some(Duration::from_secs(60)),
            tcp_user_timeout: Some(Duration::from_secs(60)),
        }
    }
}
