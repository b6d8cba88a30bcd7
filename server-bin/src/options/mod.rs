//! The command line and the environment.

mod given;
mod notes;
mod parse;

use crate::access_log::Format;
use crate::config::load::Given;
use crate::echo::fate::Probability;
use crate::messages::Level;
use crate::proxies::Proxy;
use crate::site::spec::{Listing, Symlinks};
use crate::units::{Timeout, delay, duration, probability, size, timeout};
use clap::builder::{BoolishValueParser, RangedU64ValueParser};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use notes::{
    CHECK_NOTES, DOCTOR_NOTES, ECHO_LONG_NOTES, ECHO_NOTES, HTTP_NOTES, PACKETS_NOTES,
    PROGRAM_NOTES, RUN_NOTES,
};
use parse::{
    addresses, buffer_size, buffers, connections, header, memory_budget, pair, per_ip, rate,
    shards, size_or_zero,
};
use ringwright::{Address, Config, Prefix, RingChoice};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Maximum number of worker threads.
pub const WORKERS_MAX: usize = 1024;

/// Serve files, packets or echo with io_uring, one ring per core.
#[derive(Debug, Parser)]
#[command(name = "ringwrightd", version, after_help = PROGRAM_NOTES)]
pub struct Options {
    /// The mode to run.
    #[command(subcommand)]
    pub command: Command,
    /// The values that were given, as keys of the configuration.
    #[arg(skip)]
    pub given: Vec<Given>,
}

impl Options {
    /// Parses the options of this process. Exits with status 2 if they are wrong.
    #[must_use]
    pub fn of_process() -> Self {
        Self::parse_all(std::env::args_os()).unwrap_or_else(|mistake| mistake.exit())
    }

    /// Parses a command line.
    fn parse_all(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let matches = Self::command().try_get_matches_from(arguments)?;
        let mut options = Self::from_arg_matches(&matches)?.checked()?;
        if let Some((mode, matches)) = matches.subcommand() {
            options.given = given::given(mode, matches);
        }
        Ok(options)
    }

    /// The configuration file, if there is one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        if let Command::Run(run) = &self.command { Some(&run.file) } else { None }
    }

    /// The options of every server, if this mode is one.
    #[must_use]
    pub const fn common(&self) -> Option<&Common> {
        match &self.command {
            Command::Http(Http { common, .. })
            | Command::Echo(Echo { common, .. })
            | Command::Packets(Packets { common, .. })
            | Command::Run(Run { common, .. }) => Some(common),
            Command::Check(_) | Command::Doctor(_) => None,
        }
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
            Command::Run(_) => {
                let set = given::OF_ONE_SERVICE
                    .into_iter()
                    .find(|variable| std::env::var_os(variable).is_some());
                let Some(variable) = set else { return Ok(self) };
                let beside = format!(
                    "the environment variable {variable} belongs to one site, but FILE describes \
                     all of them: unset it, or write its value into FILE"
                );
                Err(Self::command().error(ErrorKind::ArgumentConflict, beside))
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
    /// whose names begin with a dot are not served, and symbolic links are not followed without
    /// --symlinks.
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
    /// Run the sites and services of a configuration file.
    ///
    /// Flags and environment variables of the engine, the log and the admin listener override the
    /// file. Paths in the file are relative to its folder. SIGHUP reads the file again.
    #[command(after_help = RUN_NOTES)]
    Run(Run),
    /// Check a configuration file: exit status 0 if `run` accepts it, and 2 if not.
    ///
    /// Each error is printed with file, line, column, key, value and reason.
    #[command(after_help = CHECK_NOTES)]
    Check(Check),
    /// Check whether this system can run the server, and print how to raise its limits.
    ///
    /// Checks the kernel, the container and the resource limits against the size given by the
    /// options. Exits with status 1 if the server cannot run, and with 0 if it can run, also on
    /// epoll.
    #[command(after_help = DOCTOR_NOTES)]
    Doctor(Doctor),
}

/// `ringwrightd http`.
#[derive(Debug, Args)]
pub struct Http {
    /// Serve the files of this directory. The server notices within 250 ms that the path leads to
    /// another one: deleted and made again, renamed, or behind a symbolic link that was switched.
    #[arg(env = "RINGWRIGHTD_DIR", default_value = ".")]
    pub dir: PathBuf,
    /// Listen on this address and port; repeat the option or use commas for several. A name stands
    /// for all of its addresses. Port 0 picks a free port for each address. unix:PATH is a Unix
    /// socket, 'unix:PATH (mode=0660)' one with these permissions, and unix:@NAME an abstract one.
    /// fd:NAME is a socket that systemd or another parent has opened (LISTEN_FDS).
    #[arg(long, value_name = "ADDR", env = "RINGWRIGHTD_LISTEN", value_delimiter = ',',
        default_value = "127.0.0.1:8080", value_parser = addresses)]
    pub listen: Vec<Addresses>,
    /// Answer navigations to what does not exist with the page at this URL path and status 200, for
    /// applications that run in the browser.
    #[arg(long, value_name = "PATH", env = "RINGWRIGHTD_SPA")]
    pub spa: Option<String>,
    /// Send FILE.zst, FILE.br or FILE.gz instead of FILE to clients that accept them.
    #[arg(long, env = "RINGWRIGHTD_PRECOMPRESSED", value_parser = BoolishValueParser::new())]
    pub precompressed: bool,
    /// Send the page at this URL path with this error status, such as 404=/404.html; repeat the
    /// option for several.
    #[arg(long, value_name = "STATUS=PATH", value_parser = pair)]
    pub error_page: Vec<String>,
    /// List directories without an index file, as a page or as JSON.
    #[arg(
        long,
        value_name = "FORM",
        env = "RINGWRIGHTD_LISTING",
        default_value = "off",
        value_enum
    )]
    pub listing: Listing,
    /// Follow symbolic links that stay beneath DIR, but none to a name that begins with a dot, or
    /// no link.
    #[arg(
        long,
        value_name = "CHOICE",
        env = "RINGWRIGHTD_SYMLINKS",
        default_value = "deny",
        value_enum
    )]
    pub symlinks: Symlinks,
    /// Add a header field to the replies for paths of a glob pattern, such as
    /// '*.js: X-Robots-Tag: none'. An empty value removes the field.
    #[arg(long, value_name = "GLOB: NAME: VALUE", value_parser = header)]
    pub header: Vec<String>,
    /// Set Cache-Control for paths of a glob pattern, such as '/assets/**=max-age=31536000'.
    #[arg(long, value_name = "GLOB=VALUE", value_parser = pair)]
    pub cache_control: Vec<String>,
    /// Set the media type of files with this extension, such as 'md=text/markdown'.
    #[arg(long, value_name = "EXT=TYPE", value_parser = pair)]
    pub mime: Vec<String>,
    /// Require a header of the PROXY protocol, version 1 or 2, on connections from this address or
    /// prefix, or through a Unix socket (unix); repeat the option or use commas for several.
    #[arg(
        long,
        value_name = "PREFIX",
        env = "RINGWRIGHTD_PROXY_PROTOCOL_FROM",
        value_delimiter = ','
    )]
    pub proxy_protocol_from: Vec<Proxy>,
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

/// `ringwrightd run`.
#[derive(Debug, Args)]
pub struct Run {
    /// Read the configuration from this TOML file.
    pub file: PathBuf,
    /// Options of every server.
    #[command(flatten)]
    pub common: Common,
}

/// `ringwrightd check`.
#[derive(Debug, Args)]
pub struct Check {
    /// Check this TOML file.
    pub file: PathBuf,
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
    /// Choose the shard that a new connection comes to.
    #[arg(
        long,
        value_name = "POLICY",
        env = "RINGWRIGHTD_BALANCE",
        default_value = "accept",
        value_enum
    )]
    pub balance: Spread,
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
    /// After SIGTERM, go on accepting for this long, and drain then. Meanwhile /readyz and health
    /// checks fail, and each reply ends its connection.
    #[arg(long, value_name = "DURATION", env = "RINGWRIGHTD_DRAIN_DELAY",
        default_value = "0s", value_parser = delay)]
    pub drain_delay: Duration,
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
    /// Append the server's own messages to this file, one line each with time and level, or print
    /// such lines to standard error for `-`. Without this option, messages go to standard error
    /// without time and level. After a rename or a removal the file is created again.
    #[arg(long, value_name = "FILE", env = "RINGWRIGHTD_ERROR_LOG")]
    pub error_log: Option<PathBuf>,
    /// Leave messages below this level out.
    #[arg(
        long,
        value_name = "LEVEL",
        env = "RINGWRIGHTD_LOG_LEVEL",
        default_value = "info",
        value_enum
    )]
    pub log_level: Level,
    /// Serve /metrics, /livez, /readyz, /ledger, /connections, /addresses, /bans, /workers, /drain
    /// and a live page on this address, or on all addresses of this name; none by default. There is
    /// no password: anyone who can connect can close connections, ban addresses and begin a drain.
    #[arg(long, value_name = "ADDR", env = "RINGWRIGHTD_ADMIN", value_parser = addresses)]
    pub admin: Option<Addresses>,
    /// Answer only GET of /metrics, /livez and /readyz on this address, for scrapers and probes.
    #[arg(long, value_name = "ADDR", env = "RINGWRIGHTD_ADMIN_READ", value_parser = addresses)]
    pub admin_read: Option<Addresses>,
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
    /// Print the effective configuration as TOML, with the origin of each value, and exit.
    #[arg(long)]
    pub print_config: bool,
}

/// An address to listen on, or the addresses of a name. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses(pub Vec<Address>);

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

/// `--balance`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Spread {
    /// The shard that the kernel chooses, by a hash of the addresses.
    Off,
    /// The shard with the fewest connections.
    Accept,
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

#[cfg(test)]
mod tests;
