//! The tables and keys of the configuration file, with their defaults.

use super::rule::{Auth, Cors, Rate, Redirect};
use super::values::{
    Count, Delay, LimitOrNone, Network, Number, NumberOrAuto, ProxyAddress, RateOrAuto, Shards,
    Size, SizeOrAuto, SizeOrZero, SwitchOrAuto, Time, Timeout,
};
use crate::access_log::Format;
use crate::messages::Level;
use crate::options::{ProbeWith, RingOf, Spread, WhenFull};
use crate::site::spec::{self, Listing, RealIpHeader, Symlinks};
use serde::{Deserialize, Serialize, Serializer};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct File {
    /// The engine: threads, memory, limits and timeouts of all listeners.
    pub engine: Engine,
    /// The access log and the daemon's own messages.
    pub log: Log,
    /// The admin listener.
    pub admin: Admin,
    /// A site over HTTP. Sites with the same address share one listener.
    pub site: Vec<Site>,
    /// A service that sends every byte back.
    pub echo: Vec<Echo>,
    /// A service of length-prefixed packets (PACKETS.md).
    pub packets: Vec<Packets>,
}

/// `[engine]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Engine {
    /// The number of shards: threads with a ring each, 1 to 256. `auto`: one per CPU.
    pub shards: Shards,
    /// The kernel interface: `auto`, `io_uring` or `epoll`.
    pub ring: RingOf,
    /// Pins each shard to one CPU.
    pub pin: bool,
    /// The position among the allowed CPUs, from 0, to which the first shard is pinned.
    pub pin_from: Number,
    /// The limit on open connections over all shards, 1 to 1,048,576.
    pub max_connections: Count,
    /// The limit on connections per IPv4 address or IPv6 /64, 1 to 65,535, or `none`.
    pub max_per_ip: LimitOrNone,
    /// The treatment of a client beyond `max_connections`: `wait` or `reject`.
    pub at_capacity: WhenFull,
    /// The shard that a new connection comes to: `off`, the one that the kernel chooses, or
    /// `accept`, the one with the fewest connections.
    pub balance: Spread,
    /// Closes the connection that has been idle longest when a client finds every place taken.
    /// `auto`: for sites only.
    pub evict_idle: SwitchOrAuto,
    /// Ends the slowest connection below this many bytes per second when a client finds every
    /// place taken and no connection is idle. `auto`: 64 for sites, 0 (off) for the others.
    pub min_rate: RateOrAuto,
    /// The addresses and prefixes that are refused.
    pub bans: Vec<Network>,
    /// The number of receive buffers per shard: a power of two up to 32,768.
    pub buffers: Count,
    /// The size of a receive buffer, 64 bytes to 1 MiB.
    pub buffer_size: Size,
    /// The number of send buffers per shard, 1 to 65,536.
    pub send_buffers: Count,
    /// The size of a send buffer, 64 bytes to 1 MiB.
    pub send_buffer_size: Size,
    /// The memory of all connections for queued output and unprocessed input. `auto`: 1/32 of the
    /// memory of the machine or the cgroup, but 16 MiB to 256 MiB.
    pub memory_budget: SizeOrAuto,
    /// The operation with which an idle connection waits for input: `poll` or `recv`.
    pub probe: ProbeWith,
    /// The time without a received or sent byte after which a connection gives up its multishot
    /// receive for a probe.
    pub park_after: Time,
    /// The number of connections on a shard above which none has a multishot receive; 0: none has.
    pub streaming_max: Number,
    /// The number of threads for work that would block a shard, 0 to 1,024. `auto`: 4 if there are
    /// sites, and 2 more if there are packets.
    pub workers: NumberOrAuto,
    /// The backlog of each listener (listen(2)), 1 to 65,535.
    pub backlog: Count,
    /// The first pause of accepting after an error such as EMFILE. Each further error doubles it,
    /// up to 1 s.
    pub accept_backoff: Time,
    /// The number of pipes per shard for files, 1 to 65,536.
    pub pipes: Count,
    /// The size of a pipe, 4 KiB to 1 GiB.
    pub pipe_size: Size,
    /// The number of bytes that one sendfile(2) call sends; 0 sends files through pipes.
    pub sendfile_max: SizeOrZero,
    /// The length above which an upload of packets is received by splice(2). A shorter one goes
    /// through receive buffers.
    pub splice_from: Size,
    /// The number of files that each shard keeps open; 0 keeps none.
    pub open_files: Number,
    /// The time after which the path of an open file is looked up again.
    pub open_files_valid: Time,
    /// The limit on kernel threads of each class that wait for disks, per shard, 1 to 1,024.
    pub io_workers: Count,
    /// The number of submission queue entries per shard: a power of two up to 32,768.
    pub submission_entries: Count,
    /// The queued output of a connection above which nothing more is read from it.
    pub output_high: Size,
    /// The queued output of a connection below which reading goes on.
    pub output_low: Size,
    /// The limit on queued output of a connection.
    pub output_max: Size,
    /// The limit on jobs of all shards that wait for a worker.
    pub jobs_max: Count,
    /// The limit on jobs in progress of a connection, 1 to 65,536.
    pub jobs_per_connection: Count,
    /// The limit on commands of the admin listener and of reloads that wait for a shard, from 16.
    pub commands_max: Count,
    /// The idle time before the first TCP keepalive probe, or `never`.
    pub keepalive: Timeout,
    /// The time after which unacknowledged output ends a connection (TCP_USER_TIMEOUT), or
    /// `never`.
    pub user_timeout: Timeout,
    /// The time limits of connections.
    pub timeouts: Timeouts,
    /// The time between the signal that starts a drain and the end of accepting. Meanwhile health
    /// checks fail, and replies announce the end of their connection.
    pub drain_delay: Delay,
}

/// `[engine] timeouts`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// A connection without a received or sent byte ends after this time. `never`: no limit.
    pub idle: Timeout,
    /// A request must be complete this long after its first byte. `never`: no limit.
    pub request: Timeout,
    /// A client must read some pending output within this time. `never`: no limit.
    pub write: Timeout,
    /// A drain waits this long for requests in progress, and then resets the connections.
    pub drain: Time,
    /// A closed connection waits this long for the client's FIN if nothing arrives.
    pub linger: Time,
    /// A closed connection waits at most this long for the client's FIN.
    pub linger_total: Time,
}

/// `[log]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// The file of the access log, or `-` for standard output.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "lossy_if_any")]
    pub access: Option<PathBuf>,
    /// The format of the access log: `combined` or `json`.
    pub format: Format,
    /// The file of the daemon's own messages, or `-` for standard error with time and level.
    /// Without it they go to standard error as they are.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "lossy_if_any")]
    pub error: Option<PathBuf>,
    /// The level down to which messages are written: `error`, `warn`, `info` or `debug`.
    pub level: Level,
}

/// `[admin]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// The address of the admin listener: as those of a site, also `unix:PATH`, `unix:@NAME` and
    /// `fd:NAME`. There is none by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,
    /// The address of a listener that answers only GET of /metrics, /livez and /readyz.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read: Option<String>,
    /// The host names that are answered beside addresses and localhost.
    pub names: Vec<String>,
    /// A file with a token, which requests that change something must have as
    /// `Authorization: Bearer TOKEN`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<PathBuf>,
}

/// `[[site]]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// The addresses to listen on: `127.0.0.1:8080`, `localhost:8080`, `unix:PATH (mode=0660)`,
    /// `unix:@NAME`, or `fd:NAME` for an inherited socket.
    pub listen: Vec<String>,
    /// The names that the site answers to: `example.org`, `*.example.org`, or an IP literal.
    #[serde(default)]
    pub names: Vec<String>,
    /// The site answers requests for a name that no site has. Otherwise the first one does.
    #[serde(default)]
    pub default: bool,
    /// The directory that is served.
    #[serde(serialize_with = "lossy")]
    pub root: PathBuf,
    /// The names of the files that answer for a directory, in the order of preference.
    #[serde(default = "index")]
    pub index: Vec<String>,
    /// The URL path of the page that answers navigations to what does not exist, with status 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spa: Option<String>,
    /// Sends `FILE.zst`, `FILE.br` or `FILE.gz` instead of `FILE` to clients that accept them.
    #[serde(default)]
    pub precompressed: bool,
    /// The URL paths of error pages by status.
    #[serde(default)]
    pub errors: BTreeMap<String, String>,
    /// The URL path of the health check: 200, or 503 once the server is about to leave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,
    /// The treatment of symbolic links below the root: `deny`, or `beneath` to follow those that
    /// stay beneath it.
    #[serde(default)]
    pub symlinks: Symlinks,
    /// The listing of directories without an index file: `off`, `html` or `json`.
    #[serde(default)]
    pub listing: Listing,
    /// The number of ranges that one request may ask for, 1 to 64.
    #[serde(default = "max_ranges")]
    pub max_ranges: u16,
    /// The proxies whose connections begin with a header of the PROXY protocol, version 1 or 2.
    /// `unix`: all clients of Unix sockets.
    #[serde(default)]
    pub proxy_protocol_from: Vec<ProxyAddress>,
    /// The limit on open connections of these addresses together, or `none`.
    #[serde(default = "no_limit")]
    pub max_connections: LimitOrNone,
    /// The time limits of connections, where they differ from those of `[engine]`.
    #[serde(default)]
    pub timeouts: OwnTimeouts,
    /// The settings of these listeners, where they differ from those of `[engine]`: `v6_only`,
    /// `backlog`, `keepalive`, `user_timeout`, `output_high`, `output_low`, `output_max`.
    #[serde(default)]
    pub listener: OwnListener,
    /// As in `[engine]`, for connections of these addresses. `auto`: the value of `[engine]`.
    #[serde(default = "auto_rate")]
    pub min_rate: RateOrAuto,
    /// The source of a request's real address: for logs, `rate`, `allow` and `deny`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub real_ip: Option<RealIp>,
    /// The rules. For most keys, the first rule that matches and has the key decides; header fields
    /// of all rules that match apply.
    #[serde(default)]
    pub rule: Vec<Rule>,
}

/// `timeouts` of a site or service
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct OwnTimeouts {
    /// As in `[engine] timeouts`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<Timeout>,
    /// As in `[engine] timeouts`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Timeout>,
    /// As in `[engine] timeouts`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write: Option<Timeout>,
}

/// `listener` of a site or service
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct OwnListener {
    /// Leaves IPv4 clients of IPv6 addresses out (IPV6_V6ONLY). Without it, `[::]` takes them
    /// unless an IPv4 address with the same port is listened on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub v6_only: Option<bool>,
    /// As in `[engine]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backlog: Option<Count>,
    /// As in `[engine]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keepalive: Option<Timeout>,
    /// As in `[engine]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_timeout: Option<Timeout>,
    /// As in `[engine]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_high: Option<Size>,
    /// As in `[engine]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_low: Option<Size>,
    /// As in `[engine]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_max: Option<Size>,
}

/// Writes a path. One of the command line may have bytes that TOML cannot have.
fn lossy<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

#[expect(clippy::ref_option, reason = "serde calls it")]
fn lossy_if_any<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    path.as_deref().map(Path::to_string_lossy).serialize(serializer)
}

const fn no_limit() -> LimitOrNone {
    LimitOrNone(None)
}

const fn auto_rate() -> RateOrAuto {
    RateOrAuto(None)
}

/// `real_ip`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RealIp {
    /// The proxies that are believed. `unix`: those that connect through a Unix socket.
    pub from: Vec<ProxyAddress>,
    /// The header field that is read: `x-forwarded-for` or `forwarded`.
    #[serde(default)]
    pub header: RealIpHeader,
}

impl From<RealIp> for spec::RealIp {
    fn from(RealIp { from, header }: RealIp) -> Self {
        Self { from: from.into_iter().map(|proxy| proxy.0).collect(), header }
    }
}

/// `[[site.rule]]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The paths, as a glob pattern. Without a slash it is compared with the last segment, with a
    /// leading slash with the whole path. `*` and `?` stay inside a segment, `**` crosses them.
    #[serde(rename = "match")]
    pub matching: String,
    /// A directory that replaces the site's for these paths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<PathBuf>,
    /// Header fields of replies. An empty value removes the field.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The value of Content-Type.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// The value of Cache-Control.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<String>,
    /// A redirect: a path or a URL, which may contain `{path}`, `{query}` and `{name}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<Redirect>,
    /// A file of users and passwords (htpasswd: bcrypt or SHA-512-crypt) for Basic authentication.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
    /// The listing of these directories, instead of the site's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listing: Option<Listing>,
    /// The limit on requests of an address: `10/s`, `100/m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// The only addresses that are let in.
    #[serde(default)]
    pub allow: Vec<Network>,
    /// The addresses that are refused.
    #[serde(default)]
    pub deny: Vec<Network>,
    /// The origins whose pages may read replies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cors: Option<Cors>,
    /// The statuses of the replies that `headers`, `type` and `cache` apply to.
    #[serde(default)]
    pub status: Vec<u16>,
}

const fn max_ranges() -> u16 {
    16
}

fn index() -> Vec<String> {
    vec!["index.html".to_owned()]
}

/// `[[echo]]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Echo {
    /// The addresses to listen on: `127.0.0.1:8080`, `localhost:8080`, `unix:PATH (mode=0660)`,
    /// `unix:@NAME`, or `fd:NAME` for an inherited socket.
    pub listen: Vec<String>,
    /// The limit on open connections of these addresses together, or `none`.
    #[serde(default = "no_limit")]
    pub max_connections: LimitOrNone,
    /// The time limits of connections, where they differ from those of `[engine]`.
    #[serde(default)]
    pub timeouts: OwnTimeouts,
    /// The settings of these listeners, where they differ from those of `[engine]`: `v6_only`,
    /// `backlog`, `keepalive`, `user_timeout`, `output_high`, `output_low`, `output_max`.
    #[serde(default)]
    pub listener: OwnListener,
    /// As in `[engine]`, for connections of these addresses. `auto`: the value of `[engine]`.
    #[serde(default = "auto_rate")]
    pub min_rate: RateOrAuto,
    /// The proxies whose connections begin with a header of the PROXY protocol, version 1 or 2.
    /// `unix`: all clients of Unix sockets.
    #[serde(default)]
    pub proxy_protocol_from: Vec<ProxyAddress>,
}

/// `[[packets]]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Packets {
    /// The addresses to listen on: `127.0.0.1:8080`, `localhost:8080`, `unix:PATH (mode=0660)`,
    /// `unix:@NAME`, or `fd:NAME` for an inherited socket.
    pub listen: Vec<String>,
    /// The directory of the files.
    #[serde(serialize_with = "lossy")]
    pub root: PathBuf,
    /// The limit on open connections of these addresses together, or `none`.
    #[serde(default = "no_limit")]
    pub max_connections: LimitOrNone,
    /// The time limits of connections, where they differ from those of `[engine]`.
    #[serde(default)]
    pub timeouts: OwnTimeouts,
    /// The settings of these listeners, where they differ from those of `[engine]`: `v6_only`,
    /// `backlog`, `keepalive`, `user_timeout`, `output_high`, `output_low`, `output_max`.
    #[serde(default)]
    pub listener: OwnListener,
    /// As in `[engine]`, for connections of these addresses. `auto`: the value of `[engine]`.
    #[serde(default = "auto_rate")]
    pub min_rate: RateOrAuto,
    /// The proxies whose connections begin with a header of the PROXY protocol, version 1 or 2.
    /// `unix`: all clients of Unix sockets.
    #[serde(default)]
    pub proxy_protocol_from: Vec<ProxyAddress>,
    /// The limit on the size of an upload.
    #[serde(default = "upload_max")]
    pub upload_max: Size,
    /// Refuses all uploads.
    #[serde(default)]
    pub read_only: bool,
    /// Allows an upload to replace a file if the client asks for it.
    #[serde(default)]
    pub replace: bool,
    /// Calls fsync(2) before an upload is reported as stored.
    #[serde(default)]
    pub sync: bool,
    /// The time in which an offered download must be taken, and the next chunk of an upload must
    /// arrive.
    #[serde(default = "offer_timeout")]
    pub offer_timeout: Time,
    /// The time for which an interrupted upload is kept.
    #[serde(default = "resume_timeout")]
    pub resume_timeout: Time,
    /// The disk space of all interrupted uploads; 0 keeps none.
    #[serde(default = "resume_max")]
    pub resume_max: SizeOrZero,
}

fn upload_max() -> Size {
    Size(16 << 30)
}

fn offer_timeout() -> Time {
    Time(Duration::from_secs(30))
}

fn resume_timeout() -> Time {
    Time(Duration::from_mins(10))
}

fn resume_max() -> SizeOrZero {
    SizeOrZero(16 << 30)
}

impl Default for Engine {
    fn default() -> Self {
        let engine = ringwright::Config::default();
        Self {
            shards: Shards(engine.shards),
            ring: RingOf::Auto,
            pin: engine.pin,
            pin_from: Number(engine.pin_from),
            max_connections: Count(engine.max_connections),
            max_per_ip: LimitOrNone(None),
            at_capacity: WhenFull::Wait,
            balance: Spread::Accept,
            evict_idle: SwitchOrAuto(None),
            min_rate: RateOrAuto(None),
            bans: Vec::new(),
            buffers: Count(engine.receive_buffers.into()),
            buffer_size: Size(engine.receive_buffer_bytes.into()),
            send_buffers: Count(engine.send_buffers as usize),
            send_buffer_size: Size(engine.send_buffer_bytes.into()),
            memory_budget: SizeOrAuto(None),
            probe: ProbeWith::Poll,
            park_after: Time(engine.park_after),
            streaming_max: Number(engine.streaming_connections_max),
            workers: NumberOrAuto(None),
            backlog: Count(engine.backlog as usize),
            accept_backoff: Time(engine.accept_backoff),
            pipes: Count(engine.pipes as usize),
            pipe_size: Size(engine.pipe_bytes.into()),
            sendfile_max: SizeOrZero(engine.sendfile_bytes_max.into()),
            splice_from: Size(engine.splice_from_bytes),
            open_files: Number(1024),
            open_files_valid: Time(engine.open_files_valid),
            io_workers: Count(engine.io_workers_max as usize),
            submission_entries: Count(engine.submission_entries as usize),
            output_high: Size(engine.output_high_bytes as u64),
            output_low: Size(engine.output_low_bytes as u64),
            output_max: Size(engine.output_bytes_max as u64),
            jobs_max: Count(engine.jobs_queued_max),
            jobs_per_connection: Count(engine.jobs_per_connection_max as usize),
            commands_max: Count(engine.mailbox_commands_max),
            keepalive: Timeout(engine.tcp_keepalive),
            user_timeout: Timeout(engine.tcp_user_timeout),
            timeouts: Timeouts::default(),
            drain_delay: Delay(Duration::ZERO),
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        let engine = ringwright::Config::default();
        Self {
            idle: Timeout(engine.idle_timeout),
            request: Timeout(engine.receive_timeout),
            write: Timeout(engine.write_timeout),
            drain: Time(Duration::from_secs(30)),
            linger: Time(engine.linger_timeout),
            linger_total: Time(engine.linger_total),
        }
    }
}
