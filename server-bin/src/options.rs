//! The command line and the environment.

use crate::access_log::Format;
use crate::echo::fate::Probability;
use crate::units::{Timeout, count, duration, probability, size, timeout};
use clap::builder::{BoolishValueParser, RangedU64ValueParser};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use ringwright::{AtCapacity, Config, Prefix, Probe, RingChoice};
use serde::{Deserialize, Serialize};
use std::net::{SocketAddr, TcpListener};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

// The engine checks the same limits, but its errors name its own keys instead of flags. A test
// below compares these constants with the engine's checks.

/// Maximum number of shards.
const SHARDS_MAX: usize = 256;
/// Maximum number of open connections over all shards.
const CONNECTIONS_MAX: usize = 1 << 20;
/// Minimum of the memory budget: less would pause ordinary clients for nothing.
const MEMORY_BUDGET_MIN: usize = 1 << 20;
/// Maximum number of receive buffers of a shard.
const BUFFERS_MAX: u16 = 1 << 15;
/// Size of a receive buffer in bytes.
const BUFFER_BYTES: RangeInclusive<u32> = 64..=1 << 20;
/// Maximum number of worker threads.
pub const WORKERS_MAX: usize = 1024;

/// Serve files, packets or echo with io_uring, one ring per core.
#[derive(Debug, Parser)]
#[command(name = "ringwrightd", version, after_help = PROGRAM_NOTES)]
pub struct Options {
    /// The mode to run.
    #[command(subcommand)]
    pub command: Command,
}

impl Options {
    /// Parses the options of this process. Exits with status 2 if they are wrong.
    #[must_use]
    pub fn of_process() -> Self {
        Self::try_parse().and_then(Self::checked).unwrap_or_else(|mistake| mistake.exit())
    }

    /// Refuses options that contradict each other. `conflicts_with` does not work here: it would
    /// count an environment variable that is set to `no`.
    fn checked(self) -> Result<Self, clap::Error> {
        match &self.command {
            Command::Packets(packets) if packets.read_only && packets.replace => {
                let both = "--read-only refuses every upload, but --replace allows uploads that \
                            replace a file: remove one of them, or set RINGWRIGHTD_READ_ONLY or \
                            RINGWRIGHTD_REPLACE to no";
                Err(Self::command().error(ErrorKind::ArgumentConflict, both))
            }
            _ => Ok(self),
        }
    }
}

/// A mode of the program.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the files of a directory over HTTP/1.1.
    ///
    /// Supports GET and HEAD, ranges, conditional requests, and index.html for directories. Files
    /// whose names begin with a dot, targets of symbolic links, and directory listings are not
    /// served.
    #[command(after_help = HTTP_NOTES)]
    Http(Http),
    /// Send every received byte back.
    #[command(after_help = ECHO_NOTES, after_long_help = ECHO_LONG_NOTES)]
    Echo(Echo),
    /// Serve a directory over length-prefixed packets: upload, download, list and digest files.
    ///
    /// Also answers echo requests and sends broadcasts. PACKETS.md specifies the protocol. Only
    /// regular files are served: no names that begin with a dot, no symbolic links. Clients see an
    /// uploaded file only when it is complete.
    #[command(after_help = PACKETS_NOTES)]
    Packets(Packets),
    /// Check whether this system can run the server, and print how to raise its limits.
    ///
    /// Checks the kernel, the container and the resource limits against the size given by the
    /// options. Exits with status 1 if the server cannot run, and with 0 if it can run, also on
    /// epoll.
    #[command(after_help = DOCTOR_NOTES)]
    Doctor(Doctor),
}

/// Ends the help of every mode.
macro_rules! units {
    () => {
        "Durations need a unit: 500us, 100ms, 5s, 2m, 1h. Counts: 500, 10k, 1M.\n\
         Sizes are in bytes or have a unit: 4096, 64KiB, 1MiB, 16GiB.\n\
         A flag overrides its environment variable."
    };
}

macro_rules! echo_examples {
    () => {
        "Examples:\n  \
           ringwrightd echo --listen 127.0.0.1:7000 --shards 1\n  \
           ringwrightd echo --disconnect-rate 1%     closes connections at random\n  \
           ringwrightd echo --disconnect-rate 1% --disconnect-seed 7 --shards 1\n\n"
    };
}

const PROGRAM_NOTES: &str = "Examples:\n  \
      ringwrightd http                          serves the current directory on port 8080\n  \
      ringwrightd http /srv/www --listen 0.0.0.0:80 --max-connections 50k\n  \
      ringwrightd echo --listen 127.0.0.1:7000 --shards 1\n  \
      ringwrightd packets /srv/files --upload-max 64GiB --replace\n  \
      ringwrightd doctor                        checks this system\n\n\
    SIGTERM, SIGINT or SIGQUIT starts a drain: the server accepts no new connections and finishes \
    the requests in progress. A second signal ends it at once.\n\
    Exit status: 0 after a clean end, 1 after a failure, 2 for wrong options.";

const HTTP_NOTES: &str = concat!(
    "Examples:\n  \
       ringwrightd http                          serves the current directory on port 8080\n  \
       ringwrightd http /srv/www --listen 0.0.0.0:80 --listen 127.0.0.1:8080\n  \
       ringwrightd http /srv/www --access-log /var/log/www.log --log-format json\n  \
       ringwrightd http /srv/www --admin 127.0.0.1:9000 --max-connections 50k\n\n",
    units!()
);

const ECHO_NOTES: &str = concat!(echo_examples!(), units!());

/// `ECHO_NOTES` with a description of `--disconnect-rate`.
const ECHO_LONG_NOTES: &str = concat!(
    echo_examples!(),
    "--disconnect-rate ends a connection in one of these ways. All ways of a group are equally \
     likely.\n  \
       Directly after accept, before any byte:\n    \
         close_at_once  FIN\n    \
         reset_at_once  RST; the client's connect(2) may already fail\n  \
       After receiving bytes:\n    \
         close          the echo of these bytes, then FIN\n    \
         reset          RST instead of the echo\n    \
         half_close     FIN instead of the echo; reads for 0.1 to 1 s more, then RST\n    \
         cut_close      a part of the echo, then FIN\n    \
         cut_reset      a part of the echo, then RST 2 to 20 ms later\n    \
         stall          neither sends nor reads for 0.1 to 1 s, then RST\n\
     A connection that sends nothing is ended only directly after accept.\n\n\
     Three numbers select the way in which a connection ends, and the accept or receive at which \
     it ends: the seed, the shard, and the number of connections that the shard accepted before. \
     A seed repeats a run exactly if --shards is 1, the client opens its \
     connections one after another and waits for each echo before it sends more, and each message \
     fits into --buffer-size. With several shards, each shard repeats its own sequence, but the \
     kernel chooses the shard of a connection by the client's port.\n\n\
     The server counts these ways: it prints a line `disconnected {...}` on standard error when \
     it ends, and /metrics has ringwright_disconnects_total.\n\n",
    units!()
);

const PACKETS_NOTES: &str = concat!(
    "Examples:\n  \
       ringwrightd packets /srv/files            serves and accepts files on 127.0.0.1:7100\n  \
       ringwrightd packets /srv/files --read-only --listen 0.0.0.0:7100\n  \
       ringwrightd packets /srv/files --upload-max 64GiB --replace --sync\n\n",
    units!()
);

const DOCTOR_NOTES: &str = concat!(
    "Examples:\n  \
       ringwrightd doctor\n  \
       ringwrightd doctor /srv/files             checks uploads to this directory as well\n  \
       ringwrightd doctor --shards 8 --max-connections 100k\n  \
       ringwrightd doctor --seccomp-profile docker    prints a profile for docker run\n\n",
    units!()
);

/// `ringwrightd http`.
#[derive(Debug, Args)]
pub struct Http {
    /// Serve the files of this directory. The server notices within 250 ms that the path leads to
    /// another one: deleted and made again, renamed, or behind a symbolic link that was switched.
    #[arg(env = "RINGWRIGHTD_DIR", default_value = ".")]
    pub dir: PathBuf,
    /// Listen on this address and port; repeat the option or use commas for several. A name stands
    /// for all of its addresses. Port 0 picks a free port for each address.
    #[arg(long, value_name = "ADDR", env = "RINGWRIGHTD_LISTEN", value_delimiter = ',',
        default_value = "127.0.0.1:8080", value_parser = addresses)]
    pub listen: Vec<Addresses>,
    /// Keep up to N files open per shard, so that the next request need not open them; 0 keeps
    /// none. All shards together use at most a sixteenth of the open-file limit. A changed file is
    /// opened again.
    #[arg(long, value_name = "N", env = "RINGWRIGHTD_OPEN_FILES", default_value_t = 1024)]
    pub open_files: u32,
    /// Look up the path of an open file again after this time. Until then, requests do not see a
    /// directory above it that was renamed, replaced or mounted over.
    #[arg(long, value_name = "DURATION", env = "RINGWRIGHTD_OPEN_FILES_VALID",
        default_value = "1s", value_parser = duration)]
    pub open_files_valid: Duration,
    /// Options of every server.
    #[command(flatten)]
    pub common: Common,
}

/// `ringwrightd echo`.
#[derive(Debug, Args)]
pub struct Echo {
    /// Listen on this address and port; repeat the option or use commas for several. A name stands
    /// for all of its addresses. Port 0 picks a free port for each address.
    #[arg(long, value_name = "ADDR", env = "RINGWRIGHTD_LISTEN", value_delimiter = ',',
        default_value = "127.0.0.1:7000", value_parser = addresses)]
    pub listen: Vec<Addresses>,
    /// End connections at random, to test how clients reconnect. After its accept and after each
    /// receive, a connection ends with this probability, such as 0.01 or 1%. Default: never.
    #[arg(long, value_name = "PROBABILITY", env = "RINGWRIGHTD_DISCONNECT_RATE",
        value_parser = probability)]
    pub disconnect_rate: Option<Probability>,
    /// Seed the random disconnects with this number, to repeat a run. Default: a random seed,
    /// printed on standard error.
    #[arg(
        long,
        value_name = "N",
        env = "RINGWRIGHTD_DISCONNECT_SEED",
        requires = "disconnect_rate"
    )]
    pub disconnect_seed: Option<u64>,
    /// Options of every server.
    #[command(flatten)]
    pub common: Common,
}

/// `ringwrightd packets`.
#[derive(Debug, Args)]
pub struct Packets {
    /// Serve the files of this directory, and store uploads there. The server notices within 250 ms
    /// that the path leads to another one.
    #[arg(env = "RINGWRIGHTD_DIR", default_value = ".")]
    pub dir: PathBuf,
    /// Listen on this address and port; repeat the option or use commas for several. A name stands
    /// for all of its addresses. Port 0 picks a free port for each address.
    #[arg(long, value_name = "ADDR", env = "RINGWRIGHTD_LISTEN", value_delimiter = ',',
        default_value = "127.0.0.1:7100", value_parser = addresses)]
    pub listen: Vec<Addresses>,
    /// Refuse an upload larger than this. The total is not limited: use file system quotas for
    /// that.
    #[arg(long, value_name = "SIZE", env = "RINGWRIGHTD_UPLOAD_MAX", default_value = "16GiB",
        value_parser = size)]
    pub upload_max: u64,
    /// Refuse all uploads.
    #[arg(long, env = "RINGWRIGHTD_READ_ONLY", value_parser = BoolishValueParser::new())]
    pub read_only: bool,
    /// Allow an upload to replace a file if the client asks for it; not with --read-only. The new
    /// file belongs to the server's user and has mode 0644 minus the umask.
    #[arg(long, env = "RINGWRIGHTD_REPLACE", value_parser = BoolishValueParser::new())]
    pub replace: bool,
    /// Call fsync(2) on each uploaded file and its directory before the server reports it as
    /// stored.
    #[arg(long, env = "RINGWRIGHTD_SYNC", value_parser = BoolishValueParser::new())]
    pub sync: bool,
    /// Withdraw an offered download that the client does not take within this time, and give up an
    /// upload that receives no chunk for this time. `never` is not allowed, because each holds an
    /// open file.
    #[arg(long, value_name = "DURATION", env = "RINGWRIGHTD_OFFER_TIMEOUT",
        default_value = "30s", value_parser = duration)]
    pub offer_timeout: Duration,
    /// Keep a resumable upload whose connection has ended for this time. A restart keeps none.
    #[arg(long, value_name = "DURATION", env = "RINGWRIGHTD_RESUME_TIMEOUT",
        default_value = "10m", value_parser = duration)]
    pub resume_timeout: Duration,
    /// Let all uploads that wait to be resumed take this much disk space, and discard the oldest
    /// beyond it; 0 keeps none. At most 64 wait, and none if the disk is full.
    #[arg(long, value_name = "SIZE", env = "RINGWRIGHTD_RESUME_MAX", default_value = "16GiB",
        value_parser = size_or_zero)]
    pub resume_max: u64,
    /// Options of every server.
    #[command(flatten)]
    pub common: Common,
}

/// `ringwrightd doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Also check whether files of this directory can be served and uploads stored there.
    #[arg(env = "RINGWRIGHTD_DIR")]
    pub dir: Option<PathBuf>,
    /// Instead of checking, print a seccomp profile under which the server uses io_uring: a JSON
    /// file for docker run --security-opt seccomp=FILE, or a drop-in for a unit of systemd.
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub seccomp_profile: Option<ProfileOf>,
    /// The size of the server that is checked.
    #[command(flatten)]
    pub capacity: Capacity,
}

/// The size of a server.
#[derive(Debug, Args)]
pub struct Capacity {
    /// Run N shards, 1 to 256: threads, each with its own ring and CPU. `auto` runs one per CPU
    /// that this process may use.
    #[arg(long, value_name = "N", env = "RINGWRIGHTD_SHARDS", default_value = "auto",
        value_parser = shards)]
    pub shards: Shards,
    /// Allow at most N open connections over all shards, 1 to 1048576. --at-capacity applies to
    /// further clients.
    #[arg(long, value_name = "N", env = "RINGWRIGHTD_MAX_CONNECTIONS", default_value = "10k",
        value_parser = connections)]
    pub max_connections: usize,
    /// Allocate N receive buffers per shard: a power of two, 1 to 32768. Connections wait for a
    /// buffer while all are in use.
    #[arg(long, value_name = "N", env = "RINGWRIGHTD_BUFFERS",
        default_value_t = Config::default().receive_buffers, value_parser = buffers)]
    pub buffers: u16,
    /// Choose the kernel interface. Where `auto` chooses epoll, one line on standard error says why
    /// and how to allow io_uring.
    #[arg(long, value_name = "RING", env = "RINGWRIGHTD_RING", default_value = "auto", value_enum)]
    pub ring: RingOf,
}

/// Options of every server.
#[derive(Debug, Args)]
#[command(next_help_heading = "Common options")]
pub struct Common {
    /// The size of the server.
    #[command(flatten)]
    pub capacity: Capacity,
    /// Pin the first shard to allowed CPU number N, counted from 0, and each further shard to the
    /// next allowed CPU.
    #[arg(long, value_name = "N", env = "RINGWRIGHTD_PIN_FROM", default_value_t = 0)]
    pub pin_from: usize,
    /// Choose what happens to a client beyond --max-connections.
    #[arg(
        long,
        value_name = "POLICY",
        env = "RINGWRIGHTD_AT_CAPACITY",
        default_value = "wait",
        value_enum
    )]
    pub at_capacity: WhenFull,
    /// Close the connection that has been idle longest when a client finds every place taken.
    /// Default: on for http, off for the other modes.
    #[arg(long, value_name = "on|off", env = "RINGWRIGHTD_EVICT_IDLE", value_enum)]
    pub evict_idle: Option<Switch>,
    /// When a client finds every place taken and no connection is idle, end the slowest connection
    /// whose client has read or sent fewer bytes per second than SIZE for 30 seconds; 0 disables
    /// this, and so does --evict-idle off. Default: 64 for http, 0 for the other modes.
    #[arg(long, value_name = "SIZE", env = "RINGWRIGHTD_MIN_RATE", value_parser = rate)]
    pub min_rate: Option<u32>,
    /// Allow at most N connections, 1 to 65535, per IPv4 address or IPv6 /64; the server closes
    /// further ones at once. Default: no limit.
    #[arg(long, value_name = "N", env = "RINGWRIGHTD_MAX_PER_IP", value_parser = per_ip)]
    pub max_per_ip: Option<u16>,
    /// Refuse clients from this address or prefix, such as 192.0.2.7 or 2001:db8::/32; repeat the
    /// option or use commas for several. The admin listener changes the list at /bans.
    #[arg(long, value_name = "PREFIX", env = "RINGWRIGHTD_BAN", value_delimiter = ',')]
    pub ban: Vec<Prefix>,
    /// Close a connection that neither receives nor sends a byte for this time. `never` disables
    /// the limit.
    #[arg(long, value_name = "DURATION", env = "RINGWRIGHTD_IDLE_TIMEOUT",
        default_value = "75s", value_parser = timeout)]
    pub idle_timeout: Timeout,
    /// http: answer 408 and close if a request head is incomplete this long after its first byte,
    /// or its body this long after the head. packets: close a connection if a packet is incomplete
    /// this long after its first byte. echo: no effect, because each byte is complete. `never`
    /// disables the limit.
    #[arg(long, value_name = "DURATION", env = "RINGWRIGHTD_REQUEST_TIMEOUT",
        default_value = "30s", value_parser = timeout)]
    pub request_timeout: Timeout,
    /// Close a connection whose client reads none of the pending output for this time, or (packets)
    /// sends nothing in the middle of an upload chunk. `never` disables the limit.
    #[arg(long, value_name = "DURATION", env = "RINGWRIGHTD_WRITE_TIMEOUT",
        default_value = "30s", value_parser = timeout)]
    pub write_timeout: Timeout,
    /// Wait at most this long after SIGTERM or SIGINT for requests in progress, then reset the
    /// remaining connections.
    #[arg(long, value_name = "DURATION", env = "RINGWRIGHTD_DRAIN_TIMEOUT",
        default_value = "30s", value_parser = duration)]
    pub drain_timeout: Duration,
    /// Run N threads, 0 to 1024, for work that would block a shard. http: they read small
    /// files that are not in the page cache. packets: they compute digests and list the directory;
    /// with 0, the server refuses these requests. echo: nothing needs them yet. The admin listener
    /// changes N at /workers. Default: 4 for http, 2 for packets, 0 for echo.
    #[arg(long, value_name = "N", env = "RINGWRIGHTD_WORKERS",
        value_parser = RangedU64ValueParser::<usize>::new().range(..=WORKERS_MAX as u64))]
    pub workers: Option<usize>,
    /// Append lines to this file, or print them to standard output for `-`; no log without this
    /// option. http: one line per reply. echo, packets: one line per connection, at its end. If the
    /// log stalls, the server loses and counts lines instead of waiting. After a rename or a
    /// removal of the file it is created again.
    #[arg(long, value_name = "FILE", env = "RINGWRIGHTD_ACCESS_LOG")]
    pub access_log: Option<PathBuf>,
    /// Choose the format of the access log.
    #[arg(
        long,
        value_name = "FORMAT",
        env = "RINGWRIGHTD_LOG_FORMAT",
        default_value = "combined",
        value_enum
    )]
    pub log_format: Format,
    /// Serve /metrics, /livez, /readyz, /ledger, /connections, /addresses, /bans, /workers, /drain
    /// and a live page on this address, or on all addresses of this name; none by default. There is
    /// no password: anyone who can connect can close connections, ban addresses and begin a drain.
    #[arg(long, value_name = "ADDR", env = "RINGWRIGHTD_ADMIN", value_parser = addresses)]
    pub admin: Option<Addresses>,
    /// Set the size of a receive buffer, 64 to 1MiB. Larger buffers need fewer receives and more
    /// memory.
    #[arg(long, value_name = "SIZE", env = "RINGWRIGHTD_BUFFER_SIZE", default_value = "4KiB",
        value_parser = buffer_size)]
    pub buffer_size: u32,
    /// Let queued output and unprocessed input of all connections together take this much memory,
    /// 1MiB or more. Beyond it the server stops reading from the connections that hold most.
    /// Default: 1/32 of the machine's or the cgroup's memory, but 16MiB to 256MiB.
    #[arg(long, value_name = "SIZE", env = "RINGWRIGHTD_MEMORY_BUDGET",
        value_parser = memory_budget)]
    pub memory_budget: Option<usize>,
    /// Choose how an idle connection waits for input: on a poll, or on a zero-length receive, which
    /// takes more kernel memory and CPU time.
    #[arg(
        long,
        value_name = "METHOD",
        env = "RINGWRIGHTD_PROBE",
        default_value = "poll",
        value_enum
    )]
    pub probe: ProbeWith,
}

/// An address to listen on, or the addresses of a name. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses(pub Vec<SocketAddr>);

/// `--shards`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shards(pub Option<usize>);

/// `--at-capacity`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum WhenFull {
    /// Let the client wait until another connection ends.
    Wait,
    /// Close its connection at once.
    Reject,
}

/// `on` or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

/// `--probe`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum ProbeWith {
    /// With a zero-length receive.
    Recv,
    /// With a poll, which takes less kernel memory.
    Poll,
}

/// `--seccomp-profile`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProfileOf {
    /// For Docker, Podman, containerd and Kubernetes.
    Docker,
    /// For a unit of systemd.
    Systemd,
}

/// `--ring`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum RingOf {
    /// io_uring, or epoll where io_uring is forbidden.
    Auto,
    /// io_uring, or no start.
    #[value(name = "io_uring")]
    IoUring,
    /// epoll.
    Epoll,
}

impl Capacity {
    /// The engine's settings for these options.
    #[must_use]
    pub fn config(&self) -> Config {
        Config {
            shards: self.shards.0,
            max_connections: self.max_connections,
            raise_descriptors: true,
            receive_buffers: self.buffers,
            ring: match self.ring {
                RingOf::Auto => RingChoice::Auto,
                RingOf::IoUring => RingChoice::IoUring,
                RingOf::Epoll => RingChoice::Epoll,
            },
            ..Config::default()
        }
    }
}

impl Common {
    /// The engine's settings for these options.
    #[must_use]
    pub fn config(&self, listen: &[Addresses]) -> Config {
        let mut listeners = Vec::new();
        for address in listen.iter().flat_map(|addresses| &addresses.0) {
            // A name may stand for an address that is also given. Each port 0 is a port of its own.
            if address.port() == 0 || !listeners.contains(address) {
                listeners.push(*address);
            }
        }
        Config {
            listeners,
            pin_from: self.pin_from,
            at_capacity: match self.at_capacity {
                WhenFull::Wait => AtCapacity::Wait,
                WhenFull::Reject => AtCapacity::Reject,
            },
            evict_idle: self.evict_idle == Some(Switch::On),
            min_rate: self.min_rate.unwrap_or(0),
            max_per_address: self.max_per_ip,
            bans: self.ban.clone(),
            receive_buffer_bytes: self.buffer_size,
            memory_budget_bytes: self.memory_budget,
            probe: match self.probe {
                ProbeWith::Recv => Probe::Receive,
                ProbeWith::Poll => Probe::Poll,
            },
            idle_timeout: self.idle_timeout.0,
            receive_timeout: self.request_timeout.0,
            workers: self.workers.unwrap_or(0),
            write_timeout: self.write_timeout.0,
            transfer_timeout: self.write_timeout.0,
            ..self.capacity.config()
        }
    }
}

fn shards(text: &str) -> Result<Shards, String> {
    match (text, text.parse()) {
        ("auto", _) => Ok(Shards(None)),
        (_, Ok(shards @ 1..=SHARDS_MAX)) => Ok(Shards(Some(shards))),
        _ => Err(format!("expected a number from 1 to {SHARDS_MAX}, or auto")),
    }
}

fn connections(text: &str) -> Result<usize, String> {
    let connections = count(text)?;
    if connections <= CONNECTIONS_MAX {
        Ok(connections)
    } else {
        Err(format!("expected 1 to {CONNECTIONS_MAX}, not {connections}"))
    }
}

fn per_ip(text: &str) -> Result<u16, String> {
    let connections = count(text)?;
    u16::try_from(connections).map_err(|_| format!("expected 1 to {}, not {connections}", u16::MAX))
}

fn rate(text: &str) -> Result<u32, String> {
    if text == "0" {
        return Ok(0);
    }
    let bytes = size(text).map_err(|error| format!("{error}, or 0"))?;
    u32::try_from(bytes).map_err(|_| format!("expected 0 to {} bytes, not {bytes}", u32::MAX))
}

fn size_or_zero(text: &str) -> Result<u64, String> {
    if text == "0" { Ok(0) } else { size(text).map_err(|error| format!("{error}, or 0")) }
}

fn buffers(text: &str) -> Result<u16, String> {
    let buffers = count(text)?;
    u16::try_from(buffers)
        .ok()
        .filter(|buffers| buffers.is_power_of_two() && *buffers <= BUFFERS_MAX)
        .ok_or_else(|| format!("expected a power of two from 1 to {BUFFERS_MAX}, not {buffers}"))
}

fn buffer_size(text: &str) -> Result<u32, String> {
    let bytes = size(text)?;
    u32::try_from(bytes).ok().filter(|bytes| BUFFER_BYTES.contains(bytes)).ok_or_else(|| {
        let (least, most) = (BUFFER_BYTES.start(), BUFFER_BYTES.end());
        format!("expected {least} to {most} bytes, not {bytes}")
    })
}

fn memory_budget(text: &str) -> Result<usize, String> {
    let bytes = size(text)?;
    usize::try_from(bytes)
        .ok()
        .filter(|bytes| *bytes >= MEMORY_BUDGET_MIN)
        .ok_or_else(|| format!("expected 1MiB or more, not {bytes} bytes"))
}

fn addresses(text: &str) -> Result<Addresses, String> {
    let all = ringwright_names::resolve(text).map_err(|error| error.to_string())?;
    Ok(Addresses(usable(all)))
}

/// The addresses that this machine has, or all if it has none of them; the engine then says why it
/// cannot listen. /etc/hosts often gives localhost the address ::1 where IPv6 is switched off.
fn usable(all: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let is_missing = |address: &SocketAddr| {
        let on_any_port = SocketAddr::new(address.ip(), 0);
        let errno = TcpListener::bind(on_any_port).err().and_then(|error| error.raw_os_error());
        matches!(errno, Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT))
    };
    let (missing, found): (Vec<_>, Vec<_>) = all.into_iter().partition(is_missing);
    if found.is_empty() { missing } else { found }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringwright::{Connection, Engine, Error, Handler, Origin};

    #[test]
    fn the_definition_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn defaults_are_those_of_the_engine() {
        let options = Options::try_parse_from(["ringwrightd", "http"]).unwrap();
        let Command::Http(http) = options.command else { panic!("expected http") };
        let (config, default) = (http.common.config(&http.listen), Config::default());
        assert_eq!(config.max_connections, default.max_connections);
        assert_eq!(config.at_capacity, default.at_capacity);
        assert_eq!(config.receive_buffer_bytes, default.receive_buffer_bytes);
        assert_eq!(config.probe, default.probe);
        assert_eq!(config.ring, default.ring);
        assert_eq!(config.max_per_address, default.max_per_address);
        assert_eq!(config.min_rate, default.min_rate);
        assert_eq!(config.bans, default.bans);
        assert_eq!(config.idle_timeout, default.idle_timeout);
        assert_eq!(config.write_timeout, default.write_timeout);
        assert_eq!(config.receive_timeout, default.receive_timeout);
        assert_eq!(config.workers, 0);
        assert_eq!(config.listeners, ["127.0.0.1:8080".parse().unwrap()]);
        assert_eq!(http.common.admin, None, "there is no admin listener by default");
    }

    /// The key of the setting that the engine refuses.
    fn refused_by_the_engine(config: Config) -> &'static str {
        struct Unused;
        impl Handler for Unused {
            type State = ();
            fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}
            fn received(&mut self, (): &mut (), _: &mut Connection<'_>, _: &[u8]) -> usize {
                unreachable!("the engine does not start")
            }
        }
        match Engine::start(config, |_| Unused).map(drop) {
            Err(Error::Config { key, .. }) => key,
            other => panic!("the engine refuses no setting: {other:?}"),
        }
    }

    #[test]
    fn limits_are_those_of_the_engine() {
        // The engine checks this key after the others and reports the first wrong key.
        let last = "message_bytes_max";
        let config = || Config { message_bytes_max: 0, shards: Some(1), ..Config::default() };
        let shards = |shards| Config { shards: Some(shards), ..config() };
        let connections = |max_connections| Config { max_connections, ..config() };
        let per_ip = |limit| Config { max_per_address: Some(limit), ..config() };
        let buffers = |receive_buffers| Config { receive_buffers, ..config() };
        let bytes = |receive_buffer_bytes| Config { receive_buffer_bytes, ..config() };
        let workers = |workers| Config { workers, ..config() };
        let (least, most) = (*BUFFER_BYTES.start(), *BUFFER_BYTES.end());
        for (key, allowed, refused) in [
            ("shards", shards(1), shards(0)),
            ("shards", shards(SHARDS_MAX), shards(SHARDS_MAX + 1)),
            ("max_connections", connections(1), connections(0)),
            ("max_connections", connections(CONNECTIONS_MAX), connections(CONNECTIONS_MAX + 1)),
            ("max_per_address", per_ip(1), per_ip(0)),
            ("receive_buffers", buffers(1), buffers(0)),
            ("receive_buffers", buffers(BUFFERS_MAX), buffers(BUFFERS_MAX - 1)),
            ("receive_buffer_bytes", bytes(least), bytes(least - 1)),
            ("receive_buffer_bytes", bytes(most), bytes(most + 1)),
            ("workers", workers(WORKERS_MAX), workers(WORKERS_MAX + 1)),
        ] {
            assert_eq!(refused_by_the_engine(allowed), last, "{key}");
            assert_eq!(refused_by_the_engine(refused), key);
        }
    }

    #[test]
    fn each_mode_takes_the_common_options() {
        for mode in ["http", "echo", "packets"] {
            let common = |arguments: &[&str]| {
                let all = [&["ringwrightd", mode], arguments].concat();
                match Options::try_parse_from(all).unwrap().command {
                    Command::Http(Http { common, .. })
                    | Command::Echo(Echo { common, .. })
                    | Command::Packets(Packets { common, .. }) => common,
                    Command::Doctor(_) => panic!("not asked for"),
                }
            };
            let default = common(&[]);
            assert_eq!((default.workers, default.access_log), (None, None));
            assert_eq!(default.request_timeout.0, Some(Duration::from_secs(30)));
            let common = common(&["--workers", "3", "--request-timeout", "2s"]);
            let config = common.config(&[]);
            assert_eq!((config.workers, config.receive_timeout), (3, Some(Duration::from_secs(2))));
        }
    }

    #[test]
    fn an_address_given_twice_is_one_listener() {
        let listeners = |listen: &str| {
            let options = Options::try_parse_from(["ringwrightd", "echo", "--listen", listen]);
            let Command::Echo(echo) = options.unwrap().command else { panic!("expected echo") };
            echo.common.config(&echo.listen).listeners.len()
        };
        assert_eq!(listeners("127.0.0.1:80,[::1]:80,127.0.0.1:80"), 2);
        assert_eq!(listeners("127.0.0.1:0,127.0.0.1:0"), 2);
    }

    #[test]
    fn addresses_of_other_machines_are_left_out_if_one_is_here() {
        // 203.0.113.0/24 is reserved for documentation (RFC 5737).
        let [here, elsewhere, other] =
            ["127.0.0.1:80", "203.0.113.1:80", "203.0.113.2:80"].map(|text| text.parse().unwrap());
        assert_eq!(usable(vec![elsewhere, here, other]), [here]);
        assert_eq!(usable(vec![elsewhere, other]), [elsewhere, other]);
    }

    #[test]
    fn limits_are_inclusive() {
        for (flag, values) in [
            ("--shards", ["1", "256"]),
            ("--max-connections", ["1", "1048576"]),
            ("--max-per-ip", ["1", "65535"]),
            ("--min-rate", ["0", "4294967295"]),
            ("--buffers", ["1", "32768"]),
            ("--buffer-size", ["64", "1MiB"]),
            ("--memory-budget", ["1MiB", "1TiB"]),
            ("--workers", ["0", "1024"]),
        ] {
            for value in values {
                let arguments = ["ringwrightd", "packets", flag, value];
                assert!(Options::try_parse_from(arguments).is_ok(), "{flag} {value}");
            }
        }
    }

    #[test]
    fn examples_in_the_help_are_valid() {
        let notes = [PROGRAM_NOTES, HTTP_NOTES, ECHO_LONG_NOTES, PACKETS_NOTES, DOCTOR_NOTES];
        for note in notes {
            let examples = note.lines().filter(|line| line.starts_with("  ringwrightd "));
            let mut found = 0;
            for example in examples {
                let command = example.trim_start().split("  ").next().unwrap();
                let options = Options::try_parse_from(command.split(' '));
                options.and_then(Options::checked).unwrap_or_else(|error| panic!("{error}"));
                found += 1;
            }
            assert!(found > 0, "{note}");
        }
    }

    #[test]
    fn mistakes_name_the_flag() {
        for (flag, value) in [
            ("--shards", "0"),
            ("--shards", "-1"),
            ("--listen", "127.0.0.1"),
            ("--max-connections", "0"),
            ("--max-connections", "2M"),
            ("--shards", "257"),
            ("--idle-timeout", "5"),
            ("--buffers", "1000"),
            ("--buffers", "65536"),
            ("--buffer-size", "63"),
            ("--memory-budget", "1023KiB"),
            ("--memory-budget", "half"),
            ("--buffer-size", "1048577"),
            ("--probe", "none"),
            ("--ring", "io-uring"),
            ("--at-capacity", "panic"),
            ("--log-format", "xml"),
            ("--admin", "9000"),
            ("--max-per-ip", "0"),
            ("--max-per-ip", "65536"),
            ("--min-rate", "-1"),
            ("--min-rate", "4GiB"),
            ("--ban", "192.0.2.0/33"),
            ("--ban", "localhost"),
        ] {
            is_refused("http", flag, value);
        }
        for (flag, value) in [
            ("--disconnect-rate", "101%"),
            ("--disconnect-rate", "-0.1"),
            ("--disconnect-rate", "5 %"),
            ("--disconnect-rate", "often"),
            ("--disconnect-seed", "-1"),
        ] {
            is_refused("echo", flag, value);
        }
        for (flag, value) in [
            ("--upload-max", "0"),
            ("--upload-max", "16Gib"),
            ("--offer-timeout", "0s"),
            ("--offer-timeout", "never"),
            ("--workers", "1025"),
            ("--workers", "-1"),
            ("--workers", "auto"),
        ] {
            is_refused("packets", flag, value);
        }
    }

    #[track_caller]
    fn is_refused(mode: &str, flag: &str, value: &str) {
        let arguments = ["ringwrightd".to_owned(), mode.into(), format!("{flag}={value}")];
        let error = Options::try_parse_from(arguments).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{flag} {value}");
        assert!(error.to_string().contains(flag), "{error}");
    }

    #[test]
    fn read_only_contradicts_replace() {
        let checked = |flags: &[&str]| {
            let all = [&["ringwrightd", "packets"], flags].concat();
            Options::try_parse_from(all).and_then(Options::checked)
        };
        let error = checked(&["--read-only", "--replace"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        let said = error.to_string();
        assert!(said.contains("--read-only") && said.contains("--replace"), "{said}");
        for one in ["--read-only", "--replace"] {
            checked(&[one]).unwrap();
        }
    }

    #[test]
    fn packets_have_16_gib() {
        let options = Options::try_parse_from(["ringwrightd", "packets"]).unwrap();
        let Command::Packets(packets) = options.command else { panic!("expected packets") };
        assert_eq!((packets.common.workers, packets.upload_max), (None, 16 << 30));
        assert_eq!(packets.offer_timeout, Duration::from_secs(30));
        assert_eq!(
            (packets.resume_timeout, packets.resume_max),
            (Duration::from_secs(600), 16 << 30)
        );
        assert_eq!(packets.listen, [Addresses(vec!["127.0.0.1:7100".parse().unwrap()])]);
        assert!(!packets.read_only && !packets.replace && !packets.sync);
        let options = ["ringwrightd", "packets", "--workers", "0", "--replace", "--sync"];
        let options = Options::try_parse_from(options).unwrap();
        let Command::Packets(packets) = options.command else { panic!("expected packets") };
        assert_eq!((packets.common.workers, packets.replace, packets.sync), (Some(0), true, true));
    }
}
