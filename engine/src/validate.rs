//! Refusing a configuration that cannot work.

use crate::admission::BANS_MAX;
use crate::config::{Config, Listener, ListenerSettings};
use crate::error::Error;
use crate::id::SLOTS_MAX;
use crate::workers::WORKERS_MAX;
use std::ops::RangeInclusive;
use std::time::Duration;

/// The limit on shards: a connection id has 8 bits for the shard.
const SHARDS_MAX: usize = 256;
/// The sizes that a receive or send buffer may have.
const BUFFER_BYTES: RangeInclusive<u64> = 64..=1 << 20;
/// The sizes that a pipe may have. The kernel rounds them up to a power of two of pages.
const PIPE_BYTES: RangeInclusive<u64> = 4_096..=1 << 30;
/// `TCP_KEEPIDLE` (tcp(7)) is at most `MAX_TCP_KEEPIDLE` of the kernel's <net/tcp.h>.
const KEEPALIVE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(32_767);
/// `TCP_USER_TIMEOUT` (tcp(7)) is a positive int.
const USER_TIMEOUT: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_millis(i32::MAX as u64);

/// The shortest duration that a setting may have.
const SHORTEST: Duration = Duration::from_nanos(1);
/// The listen(2) backlog.
const BACKLOG: RangeInclusive<u64> = 1..=65_535;
const BACKLOG_REMEDY: &str = "1 to 65535";
/// The addresses that have no `IPV6_V6ONLY` to choose.
const V6_ONLY_REMEDY: &str = "None for an address that is not IPv6 and for an inherited socket";
/// The remedy for a duration of 0.
const POSITIVE: &str = "longer than 0";

impl Config {
    /// Checks every field, as [`Engine::start`](crate::Engine::start) does before anything else.
    ///
    /// # Errors
    /// [`Error::Config`] with the first field that is out of range.
    pub fn check(&self) -> Result<(), Error> {
        check(self, self.shards.unwrap_or(1))
    }
}

/// Returns an error for a value that cannot work, with its key and the allowed values.
pub fn check(config: &Config, shards: usize) -> Result<(), Error> {
    let (slots_max, workers_max) = (SLOTS_MAX as u64, WORKERS_MAX as u64);
    let per_address = config.max_per_address.map_or(1, u64::from);
    let (receive_bytes, send_bytes) = (config.receive_buffer_bytes, config.send_buffer_bytes);
    let per_connection = config.jobs_per_connection_max as u64;
    let per_shard = config.jobs_per_shard_max.into();
    let pipe_bytes = config.pipe_bytes.into();
    let budget = config.memory_budget_bytes.map_or(1, |bytes| bytes as u64);
    let ranges: [(&'static str, u64, RangeInclusive<u64>, &'static str); 19] = [
        ("shards", shards as u64, 1..=SHARDS_MAX as u64, "1 to 256"),
        ("max_connections", config.max_connections as u64, 1..=slots_max, "1 to 1048576"),
        ("max_per_address", per_address, 1..=65_535, "1 to 65535, or None for no limit"),
        ("bans", config.bans.len() as u64, 0..=BANS_MAX as u64, "at most 65536 prefixes"),
        ("receive_buffer_bytes", receive_bytes.into(), BUFFER_BYTES, "64 to 1048576 (1 MiB)"),
        ("send_buffer_bytes", send_bytes.into(), BUFFER_BYTES, "64 to 1048576 (1 MiB)"),
        ("send_buffers", config.send_buffers.into(), 1..=65_536, "1 to 65536"),
        ("pipes", config.pipes.into(), 1..=65_536, "1 to 65536"),
        ("pipe_bytes", pipe_bytes, PIPE_BYTES, "4096 to 1073741824 (1 GiB)"),
        ("backlog", config.backlog.into(), BACKLOG, BACKLOG_REMEDY),
        ("io_workers_max", config.io_workers_max.into(), 1..=1024, "1 to 1024"),
        ("workers", config.workers as u64, 0..=workers_max, "0 to 1024"),
        ("jobs_queued_max", config.jobs_queued_max as u64, 1..=1 << 20, "1 to 1048576"),
        ("jobs_per_connection_max", per_connection, 1..=1 << 16, "1 to 65536"),
        ("jobs_per_shard_max", per_shard, 1..=1 << 20, "1 to 1048576"),
        ("reconnects_max", config.reconnects_max as u64, 0..=slots_max, "0 to 1048576"),
        ("mailbox_commands_max", config.mailbox_commands_max as u64, 16..=u64::MAX, "at least 16"),
        ("memory_budget_bytes", budget, 1..=u64::MAX, "at least 1, or None for the default"),
        ("listeners", config.listeners.len() as u64, 0..=65_535, "at most 65535 addresses"),
    ];
    for (key, value, range, remedy) in ranges {
        if !range.contains(&value) {
            return Err(Error::Config { key, value: value.to_string(), remedy });
        }
    }
    check_engine_durations(config)?;
    check_relations(config)?;
    check_settings(&ListenerSettings::of(config))?;
    config.listeners.iter().try_for_each(check_listener)
}

/// The checks of a listener and of its settings.
pub fn check_listener(listener: &Listener) -> Result<(), Error> {
    if listener.backlog.is_some_and(|backlog| !BACKLOG.contains(&backlog.into())) {
        let (key, value) = ("backlog", listener.backlog.unwrap_or(0).to_string());
        return Err(Error::Config { key, value, remedy: BACKLOG_REMEDY });
    }
    let is_v6 = listener.address.ip().is_some_and(|address| address.is_ipv6());
    let is_v6 = is_v6 && listener.inherited.is_none();
    if let Some(only) = listener.v6_only.filter(|_| !is_v6) {
        let (key, value) = ("v6_only", only.to_string());
        return Err(Error::Config { key, value, remedy: V6_ONLY_REMEDY });
    }
    listener.settings.as_ref().map_or(Ok(()), check_settings)
}

/// The limit on exempt prefixes of a listener. They are compared one after the other.
const EXEMPT_MAX: usize = 1_000;

/// The checks of what each listener can have of its own.
pub fn check_settings(settings: &ListenerSettings) -> Result<(), Error> {
    let any = |key, value| (key, value, SHORTEST..=Duration::MAX, POSITIVE);
    check_durations(&[
        any("idle_timeout", settings.idle_timeout),
        any("receive_timeout", settings.receive_timeout),
        any("write_timeout", settings.write_timeout),
        any("transfer_timeout", settings.transfer_timeout),
        ("tcp_keepalive", settings.tcp_keepalive, KEEPALIVE, "1 s to 32767 s, or None"),
        (
            "tcp_user_timeout",
            settings.tcp_user_timeout,
            USER_TIMEOUT,
            "1 ms to 2147483647 ms, or None",
        ),
    ])?;
    let message = settings.message_bytes_max;
    if message == 0 || message > 1 << 30 {
        let (key, value) = ("message_bytes_max", message.to_string());
        return Err(Error::Config { key, value, remedy: "1 to 1073741824 (1 GiB)" });
    }
    let (low, high) = (settings.output_low_bytes, settings.output_high_bytes);
    if low == 0 || low > high {
        let (key, value) = ("output_low_bytes", low.to_string());
        return Err(Error::Config { key, value, remedy: "1 to output_high_bytes" });
    }
    let most = settings.output_bytes_max;
    if high > most || most > 1 << 30 {
        let (key, value) = ("output_bytes_max", most.to_string());
        return Err(Error::Config {
            key,
            value,
            remedy: "output_high_bytes to 1073741824 (1 GiB)",
        });
    }
    if settings.exempt.len() > EXEMPT_MAX {
        let (key, value) = ("exempt", format!("{} prefixes", settings.exempt.len()));
        return Err(Error::Config { key, value, remedy: "at most 1,000" });
    }
    if settings.connections_max == Some(0) {
        let (key, value) = ("connections_max", "0".to_owned());
        return Err(Error::Config { key, value, remedy: "at least 1, or None for no limit" });
    }
    Ok(())
}

/// A duration with its key, the allowed values, and the text about them. `None`: no such limit.
type Checked = (&'static str, Option<Duration>, RangeInclusive<Duration>, &'static str);

fn check_durations(durations: &[Checked]) -> Result<(), Error> {
    for (key, value, range, remedy) in durations {
        if let Some(value) = value.filter(|value| !range.contains(value)) {
            return Err(Error::Config { key, value: format!("{value:?}"), remedy });
        }
    }
    Ok(())
}

/// The checks of durations that belong to the engine.
fn check_engine_durations(config: &Config) -> Result<(), Error> {
    let any = |key, value| (key, value, SHORTEST..=Duration::MAX, POSITIVE);
    check_durations(&[
        any("open_files_valid", Some(config.open_files_valid)),
        any("park_after", Some(config.park_after)),
        any("connect_timeout", Some(config.connect_timeout)),
        any("linger_timeout", Some(config.linger_timeout)),
        any("linger_total", Some(config.linger_total)),
        any("accept_backoff", Some(config.accept_backoff)),
    ])
}

/// The checks of values that depend on each other or are powers of two.
fn check_relations(config: &Config) -> Result<(), Error> {
    let refuse = |key, value: &dyn ToString, remedy| {
        Err(Error::Config { key, value: value.to_string(), remedy })
    };
    let power_of_two = "a power of two up to 32768";
    let (buffers, entries) = (config.receive_buffers, config.submission_entries);
    if !buffers.is_power_of_two() || buffers > 32_768 {
        return refuse("receive_buffers", &buffers, power_of_two);
    }
    if !entries.is_power_of_two() || entries > 32_768 {
        return refuse("submission_entries", &entries, power_of_two);
    }
    let for_clients = usize::from(!config.listeners.is_empty());
    let reserved = config.outgoing_reserved;
    if reserved > config.max_connections - for_clients {
        let remedy = "less than max_connections; equal to it only without listeners";
        return refuse("outgoing_reserved", &reserved, remedy);
    }
    Ok(())
}
