//! The command line and the environment.

use crate::access_log::Format;
use crate::echo::fate::Probability;
use crate::units::{Timeout, count, duration, probability, size, timeout};
use clap::builder::{BoolishValueParser, RangedU64ValueParser};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use ringwright::{AtCapacity, Config, Prefix, Probe};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

/// A server on io_uring, one ring per core.
#[derive(Debug, Parser)]
#[command(
    name = "ringwrightd",
    version,
    after_help = "Examples:\n  \
        ringwrightd http                          the current folder on http://127.0.0.1:8080\n  \
        ringwrightd http /srv/www --listen [::]:80 --max-connections 50k\n  \
        ringwrightd echo --shards 1 --listen 127.0.0.1:7000\n  \
        ringwrightd echo --disconnect-rate 1%     ends connections at random: how does a client take it?\n  \
        ringwrightd packets /srv/files --upload-max 64GiB --replace\n  \
        ringwrightd doctor                        what this machine allows, and how to allow more\n\n\
        SIGTERM or SIGINT drains: no new connections, what is under way is finished; a second one \
        ends at once.\nExit status: 0 clean, 1 failed, 2 usage."
)]
pub struct Options {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Options {
    /// Those of this process; a mistake in them ends it with status 2.
    #[must_use]
    pub fn of_process() -> Self {
        Self::try_parse().and_then(Self::checked).unwrap_or_else(|mistake| mistake.exit())
    }

    /// What contradicts itself. Not `conflicts_with`, for which a variable that says `no` is there.
    fn checked(self) -> Result<Self, clap::Error> {
        match &self.command {
            Command::Packets(packets) if packets.read_only && packets.replace => {
                let both = "--read-only takes no files and --replace lets them be replaced: \
                            leave one of them out, or set RINGWRIGHTD_READ_ONLY or \
                            RINGWRIGHTD_REPLACE to no";
                Err(Self::command().error(ErrorKind::ArgumentConflict, both))
            }
            _ => Ok(self),
        }
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the files of a directory over HTTP/1.1.
    ///
    /// GET and HEAD, ranges, conditional requests, index.html for directories. Never shown: names
    /// that begin with a dot, what symbolic links point to, listings of directories.
    #[command(after_help = UNITS)]
    Http(Http),
    /// Send every byte back.
    #[command(after_help = UNITS, after_long_help = DISCONNECTS)]
    Echo(Echo),
    /// Length-prefixed packets: files of a directory put, got and listed, digests, echo, broadcast.
    ///
    /// The protocol is described in PACKETS.md. Only regular files are shown, names that begin with
    /// a dot are not, symbolic links are not followed. A file that is being put is not seen before
    /// it is whole.
    #[command(after_help = UNITS)]
    Packets(Packets),
    /// Say what this kernel, container and set of limits allow, and how to allow more.
    ///
    /// Exit status 1 if the server cannot run.
    #[command(after_help = UNITS)]
    Doctor(Doctor),
}

const UNITS: &str = "Durations: 100ms, 5s, 2m. Counts: 500, 10k, 1M. Sizes: 4096, 64KiB, 1MiB.\n\
                     A flag goes before its environment variable.";

/// `UNITS`, behind what `--disconnect-rate` does.
const DISCONNECTS: &str = "\
How --disconnect-rate ends a connection; each way is as likely as the others:
  when it is accepted, before a byte
    close_at_once  FIN
    reset_at_once  RST; connect(2) itself may see it
  when bytes have come
    close          they are echoed, then FIN
    reset          RST instead of their echo
    half_close     FIN instead of their echo; what comes is read for 0.1 to 1 s more, then RST
    cut_close      a part of their echo, then FIN
    cut_reset      a part of their echo, then RST 2 to 20 ms later
    stall          nothing is sent or read any more for 0.1 to 1 s, then RST
A connection that sends nothing after it was accepted stays.

What happens to a connection is a function of the seed, its shard and how many that shard has opened
before it. With --shards 1, and a client that makes its connections one after the other and waits for
each echo before it sends on, a seed repeats a run to the byte; its messages must fit into
--buffer-size. With several shards the kernel chooses the shard by the client's port, so that every
shard repeats its own sequence, but not whom it meets.

How often each was begun is told at the end (disconnected {...}, on standard error) and by
ringwright_disconnects_total of /metrics.

Durations: 100ms, 5s, 2m. Counts: 500, 10k, 1M. Sizes: 4096, 64KiB, 1MiB.
A flag goes before its environment variable.";

/// `ringwrightd http`.
#[derive(Debug, Args)]
pub struct Http {
    /// The directory whose files are served.
    #[arg(env = "RINGWRIGHTD_DIR", default_value = ".")]
    pub dir: PathBuf,
    /// Where to listen; can be given more than once. Port 0 takes a free one.
    #[arg(long, value_name = "ADDR", env = "RINGWRIGHTD_LISTEN", value_delimiter = ',',
        default_value = "127.0.0.1:8080", value_parser = address)]
    pub listen: Vec<SocketAddr>,
    /// A request must have arrived whole so long after its first byte, or is answered 408; or
    /// `never`.
    #[arg(long, value_name = "D", env = "RINGWRIGHTD_REQUEST_TIMEOUT", default_value = "30s",
        value_parser = timeout)]
    pub request_timeout: Timeout,
    /// Files that stay open for the next request, per shard, so that it need not open them; a change
    /// of the file is seen by the next request all the same. All shards together keep at most a
    /// sixteenth of the descriptors that the process may have. 0: none.
    #[arg(long, value_name = "N", env = "RINGWRIGHTD_OPEN_FILES", default_value_t = 1024)]
    pub open_files: u32,
    /// A file that stays open is looked up anew after so long: what befalls a directory above it
    /// (renamed, replaced, mounted over) is seen by then.
    #[arg(long, value_name = "D", env = "RINGWRIGHTD_OPEN_FILES_VALID", default_value = "1s",
        value_parser = duration)]
    pub open_files_valid: Duration,
    /// Write a line per reply to this file, or to standard output for `-`. It never holds the
    /// server up: when it stalls, lines are dropped and counted.
    #[arg(long, value_name = "FILE", env = "RINGWRIGHTD_ACCESS_LOG")]
    pub access_log: Option<PathBuf>,
    /// What the lines look like.
    #[arg(
        long,
        value_name = "FORMAT",
        env = "RINGWRIGHTD_LOG_FORMAT",
        default_value = "combined",
        value_enum
    )]
    pub log_format: Format,
    /// The rest.
    #[command(flatten)]
    pub common: Common,
}

/// `ringwrightd echo`.
#[derive(Debug, Args)]
pub struct Echo {
    /// Where to listen; can be given more than once. Port 0 takes a free one.
    #[arg(long, value_name = "ADDR", env = "RINGWRIGHTD_LISTEN", value_delimiter = ',',
        default_value = "127.0.0.1:7000", value_parser = address)]
    pub listen: Vec<SocketAddr>,
    /// End connections at random, so that a client's reconnect can be tested: each is ended with
    /// this probability, such as 0.01 or 1%, when it is accepted, and again each time that bytes
    /// have come from it.
    #[arg(long, value_name = "P", env = "RINGWRIGHTD_DISCONNECT_RATE", value_parser = probability)]
    pub disconnect_rate: Option<Probability>,
    /// End them as a run with this seed did. Drawn, and told on standard error, unless given.
    #[arg(
        long,
        value_name = "N",
        env = "RINGWRIGHTD_DISCONNECT_SEED",
        requires = "disconnect_rate"
    )]
    pub disconnect_seed: Option<u64>,
    /// The rest.
    #[command(flatten)]
    pub common: Common,
}

/// `ringwrightd packets`.
#[derive(Debug, Args)]
pub struct Packets {
    /// The directory whose files are got and put.
    #[arg(env = "RINGWRIGHTD_DIR", default_value = ".")]
    pub dir: PathBuf,
    /// Where to listen; can be given more than once. Port 0 takes a free one.
    #[arg(long, value_name = "ADDR", env = "RINGWRIGHTD_LISTEN", value_delimiter = ',',
        default_value = "127.0.0.1:7100", value_parser = address)]
    pub listen: Vec<SocketAddr>,
    /// A file that is put may be so large. All together may be as large as the file system: it has
    /// quotas, this has none.
    #[arg(long, value_name = "SIZE", env = "RINGWRIGHTD_UPLOAD_MAX", default_value = "16GiB",
        value_parser = size)]
    pub upload_max: u64,
    /// Take no files.
    #[arg(long, env = "RINGWRIGHTD_READ_ONLY", value_parser = BoolishValueParser::new())]
    pub read_only: bool,
    /// Let a client that asks for it replace a file that is there. The new one is the server's own,
    /// with mode 0644 less its umask. Not with `--read-only`.
    #[arg(long, env = "RINGWRIGHTD_REPLACE", value_parser = BoolishValueParser::new())]
    pub replace: bool,
    /// Say that a file is stored only when it is on the disk: fsync(2), of the directory too.
    #[arg(long, env = "RINGWRIGHTD_SYNC", value_parser = BoolishValueParser::new())]
    pub sync: bool,
    /// Withdraw a file that was offered and not taken for so long, and give up one being put of
    /// which nothing has come for so long. Never is no choice: each holds an open file.
    #[arg(long, value_name = "D", env = "RINGWRIGHTD_OFFER_TIMEOUT", default_value = "30s",
        value_parser = duration)]
    pub offer_timeout: Duration,
    /// A packet must have arrived whole so long after its first byte; or `never`.
    #[arg(long, value_name = "D", env = "RINGWRIGHTD_REQUEST_TIMEOUT", default_value = "30s",
        value_parser = timeout)]
    pub request_timeout: Timeout,
    /// Threads that compute digests and list the directory, 0 to 1024; without one, both are
    /// refused.
    #[arg(long, value_name = "N", env = "RINGWRIGHTD_WORKERS", default_value_t = 2,
        value_parser = RangedU64ValueParser::<usize>::new().range(..=1024))]
    pub workers: usize,
    /// The rest.
    #[command(flatten)]
    pub common: Common,
}

/// `ringwrightd doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// The size to judge by.
    #[command(flatten)]
    pub capacity: Capacity,
}

/// How large a server is.
#[derive(Debug, Args)]
pub struct Capacity {
    /// Threads, each with a ring and a CPU of its own; `auto`: one per CPU this process may use.
    #[arg(long, value_name = "N", env = "RINGWRIGHTD_SHARDS", default_value = "auto",
        value_parser = shards)]
    pub shards: Shards,
    /// Open connections at most, over all shards; 1 to 1048576.
    #[arg(long, value_name = "N", env = "RINGWRIGHTD_MAX_CONNECTIONS", default_value = "10k",
        value_parser = connections)]
    pub max_connections: usize,
    /// Receive buffers per shard, a power of two up to 32768.
    #[arg(long, value_name = "N", env = "RINGWRIGHTD_BUFFERS", default_value_t = Config::default().receive_buffers,
        value_parser = buffers)]
    pub buffers: u16,
}

/// What every kind of server has.
#[derive(Debug, Args)]
pub struct Common {
    /// How large it is.
    #[command(flatten)]
    pub capacity: Capacity,
    /// Pin the first shard to this one of the allowed CPUs, counted from 0, the next to the next.
    #[arg(long, value_name = "N", env = "RINGWRIGHTD_PIN_FROM", default_value_t = 0)]
    pub pin_from: usize,
    /// A client that comes beyond `--max-connections` waits, or is closed at once.
    #[arg(
        long,
        value_name = "WHAT",
        env = "RINGWRIGHTD_AT_CAPACITY",
        default_value = "wait",
        value_enum
    )]
    pub at_capacity: WhenFull,
    /// Connections of one IPv4 address, or of one IPv6 /64, at most, up to 65535; a further one is
    /// closed at once. Not limited unless given.
    #[arg(long, value_name = "N", env = "RINGWRIGHTD_MAX_PER_IP", value_parser = per_ip)]
    pub max_per_ip: Option<u16>,
    /// Let nobody in from this address or prefix, such as 192.0.2.7 or 2001:db8::/32; can be given
    /// more than once or with commas, and changed at /bans of the admin listener. Whoever is
    /// connected when an address is banned there stays: kick it at /connections.
    #[arg(long, value_name = "PREFIX", env = "RINGWRIGHTD_BAN", value_delimiter = ',')]
    pub ban: Vec<Prefix>,
    /// End a connection on which nothing was received or sent for so long; or `never`.
    #[arg(long, value_name = "D", env = "RINGWRIGHTD_IDLE_TIMEOUT", default_value = "75s",
        value_parser = timeout)]
    pub idle_timeout: Timeout,
    /// End a connection whose client takes nothing of what is sent for so long, or sends nothing
    /// in the middle of a chunk that it puts; or `never`.
    #[arg(long, value_name = "D", env = "RINGWRIGHTD_WRITE_TIMEOUT", default_value = "30s",
        value_parser = timeout)]
    pub write_timeout: Timeout,
    /// After SIGTERM, finish what is under way for so long at most.
    #[arg(long, value_name = "D", env = "RINGWRIGHTD_DRAIN_TIMEOUT", default_value = "30s",
        value_parser = duration)]
    pub drain_timeout: Duration,
    /// A listener of its own for /metrics, /livez, /readyz, /ledger, /connections and a live page.
    /// It asks for no password: whoever reaches it may end connections.
    #[arg(long, value_name = "ADDR", env = "RINGWRIGHTD_ADMIN", value_parser = address)]
    pub admin: Option<SocketAddr>,
    /// Bytes of a receive buffer.
    #[arg(long, value_name = "SIZE", env = "RINGWRIGHTD_BUFFER_SIZE", default_value = "4KiB",
        value_parser = buffer_size)]
    pub buffer_size: u32,
    /// How an idle connection waits: on a poll, or on a zero-length receive, which takes 866
    /// instead of 264 bytes of kernel memory and 1.13 times the CPU to wake and park again.
    #[arg(long, value_name = "HOW", env = "RINGWRIGHTD_PROBE", default_value = "poll", value_enum)]
    pub probe: ProbeWith,
}

/// `--shards`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shards(pub Option<usize>);

/// `--at-capacity`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WhenFull {
    /// In the backlog, until another one leaves.
    Wait,
    /// Closed at once.
    Reject,
}

/// `--probe`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProbeWith {
    /// A zero-length receive.
    Recv,
    /// A poll.
    Poll,
}

impl Capacity {
    /// The engine's settings for these options.
    #[must_use]
    pub fn config(&self) -> Config {
        Config {
            shards: self.shards.0,
            max_connections: self.max_connections,
            receive_buffers: self.buffers,
            ..Config::default()
        }
    }
}

impl Common {
    /// The engine's settings for these options.
    #[must_use]
    pub fn config(&self, listeners: &[SocketAddr]) -> Config {
        Config {
            listeners: listeners.to_vec(),
            pin_from: self.pin_from,
            at_capacity: match self.at_capacity {
                WhenFull::Wait => AtCapacity::Wait,
                WhenFull::Reject => AtCapacity::Reject,
            },
            max_per_address: self.max_per_ip,
            bans: self.ban.clone(),
            receive_buffer_bytes: self.buffer_size,
            probe: match self.probe {
                ProbeWith::Recv => Probe::Receive,
                ProbeWith::Poll => Probe::Poll,
            },
            idle_timeout: self.idle_timeout.0,
            write_timeout: self.write_timeout.0,
            transfer_timeout: self.write_timeout.0,
            ..self.capacity.config()
        }
    }
}

fn shards(text: &str) -> Result<Shards, String> {
    match (text, text.parse()) {
        ("auto", _) => Ok(Shards(None)),
        (_, Ok(0)) => Err("no shard could serve anybody: use 1 or more, or auto".into()),
        (_, Ok(shards @ 1..=256)) => Ok(Shards(Some(shards))),
        _ => Err("expected a number from 1 to 256, or auto".into()),
    }
}

fn connections(text: &str) -> Result<usize, String> {
    let connections = count(text)?;
    if connections <= 1 << 20 {
        Ok(connections)
    } else {
        Err(format!("expected 1 to 1048576, not {connections}"))
    }
}

fn per_ip(text: &str) -> Result<u16, String> {
    let connections = count(text)?;
    u16::try_from(connections).map_err(|_| format!("expected 1 to 65535, not {connections}"))
}

fn buffers(text: &str) -> Result<u16, String> {
    let buffers = count(text)?;
    u16::try_from(buffers)
        .ok()
        .filter(|buffers| buffers.is_power_of_two())
        .ok_or_else(|| format!("expected a power of two up to 32768, not {buffers}"))
}

fn buffer_size(text: &str) -> Result<u32, String> {
    let bytes = size(text)?;
    u32::try_from(bytes)
        .ok()
        .filter(|bytes| (256..=1 << 20).contains(bytes))
        .ok_or_else(|| "expected 256 bytes to 1MiB".into())
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let expected = "expected an address and a port, such as 127.0.0.1:8080, [::]:80 or localhost:0";
    text.to_socket_addrs()
        .map_err(|error| format!("{expected} ({error})"))?
        .next()
        .ok_or_else(|| expected.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn defaults_are_those_of_the_engine() {
        let options = Options::try_parse_from(["ringwrightd", "http"]).unwrap();
        let Command::Http(http) = options.command else { panic!("that was http") };
        let (config, default) = (http.common.config(&http.listen), Config::default());
        assert_eq!(config.max_connections, default.max_connections);
        assert_eq!(config.at_capacity, default.at_capacity);
        assert_eq!(config.receive_buffer_bytes, default.receive_buffer_bytes);
        assert_eq!(config.probe, default.probe);
        assert_eq!(config.max_per_address, default.max_per_address);
        assert_eq!(config.bans, default.bans);
        assert_eq!(config.idle_timeout, default.idle_timeout);
        assert_eq!(config.write_timeout, default.write_timeout);
        assert_eq!(http.request_timeout.0, default.receive_timeout);
        assert_eq!(config.listeners, ["127.0.0.1:8080".parse().unwrap()]);
        assert_eq!(http.common.admin, None, "nobody gets an admin listener without asking");
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
            ("--buffer-size", "16"),
            ("--probe", "none"),
            ("--at-capacity", "panic"),
            ("--log-format", "xml"),
            ("--admin", "9000"),
            ("--max-per-ip", "0"),
            ("--max-per-ip", "65536"),
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

    /// Neither does anything beside the other.
    #[test]
    fn who_takes_no_files_replaces_none() {
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
    fn packets_have_workers_and_16_gib() {
        let options = Options::try_parse_from(["ringwrightd", "packets"]).unwrap();
        let Command::Packets(packets) = options.command else { panic!("that was packets") };
        assert_eq!((packets.workers, packets.upload_max), (2, 16 << 30));
        assert_eq!(packets.offer_timeout, Duration::from_secs(30));
        assert_eq!(packets.listen, ["127.0.0.1:7100".parse().unwrap()]);
        assert!(!packets.read_only && !packets.replace && !packets.sync);
        let options = ["ringwrightd", "packets", "--workers", "0", "--replace", "--sync"];
        let options = Options::try_parse_from(options).unwrap();
        let Command::Packets(packets) = options.command else { panic!("that was packets") };
        assert_eq!((packets.workers, packets.replace, packets.sync), (0, true, true));
    }
}
