//! Each setting of the engine has a key in `[engine]`.

use crate::config::file::{Engine, OwnListener};
use crate::config::load::{Source, load};
use crate::config::plan::plan;
use ringwright::{
    AtCapacity, Balance, Config, IdleOperation, Listener, ListenerSettings, RingChoice,
};
use std::collections::BTreeSet;
use std::time::Duration;

/// Tells if a key has set its field of the configuration.
type IsSet = fn(&Config) -> bool;

/// The keys with a value that is not the default.
const KEYS: [(&str, &str, IsSet); 38] = [
    ("shards", "3", |it| it.shards == Some(3)),
    ("ring", "'epoll'", |it| it.ring == RingChoice::Epoll),
    ("pin", "false", |it| !it.pin),
    ("pin_from", "1", |it| it.pin_from == 1),
    ("max_connections", "7", |it| it.max_connections == 7),
    ("max_per_ip", "7", |it| it.max_per_address == Some(7)),
    ("at_capacity", "'reject'", |it| it.at_capacity == AtCapacity::Reject),
    ("balance", "'off'", |it| it.balance == Balance::Off),
    ("evict_idle", "'off'", |it| !it.evict_idle),
    ("bans", "['192.0.2.7']", |it| it.bans.len() == 1),
    ("buffers", "64", |it| it.receive_buffers == 64),
    ("buffer_size", "'8KiB'", |it| it.receive_buffer_bytes == 8 << 10),
    ("send_buffers", "7", |it| it.send_buffers == 7),
    ("send_buffer_size", "'4KiB'", |it| it.send_buffer_bytes == 4 << 10),
    ("memory_budget", "'64MiB'", |it| it.memory_budget_bytes == Some(64 << 20)),
    ("probe", "'recv'", |it| it.idle_operation == IdleOperation::Receive),
    ("park_after", "'7s'", |it| it.park_after == Duration::from_secs(7)),
    ("streaming_max", "0", |it| it.streaming_connections_max == 0),
    ("workers", "7", |it| it.workers == 7),
    ("backlog", "7", |it| it.backlog == 7),
    ("accept_backoff", "'7ms'", |it| it.accept_backoff == Duration::from_millis(7)),
    ("pipes", "7", |it| it.pipes == 7),
    ("pipe_size", "'8KiB'", |it| it.pipe_bytes == 8 << 10),
    ("sendfile_max", "0", |it| it.sendfile_bytes_max == 0),
    ("splice_from", "'8KiB'", |it| it.splice_from_bytes == 8 << 10),
    ("open_files", "7", |it| it.open_files == 7),
    ("open_files_valid", "'7s'", |it| it.open_files_valid == Duration::from_secs(7)),
    ("io_workers", "7", |it| it.io_workers_max == 7),
    ("submission_entries", "64", |it| it.submission_entries == 64),
    ("output_high", "'128KiB'", |it| it.output_high_bytes == 128 << 10),
    ("output_low", "'8KiB'", |it| it.output_low_bytes == 8 << 10),
    ("output_max", "'8MiB'", |it| it.output_bytes_max == 8 << 20),
    ("jobs_max", "7", |it| it.jobs_queued_max == 7),
    ("jobs_per_connection", "7", |it| it.jobs_per_connection_max == 7),
    ("commands_max", "77", |it| it.mailbox_commands_max == 77),
    ("keepalive", "'7s'", |it| it.tcp_keepalive == Some(Duration::from_secs(7))),
    ("user_timeout", "'7s'", |it| it.tcp_user_timeout == Some(Duration::from_secs(7))),
    // The engine has it by listener.
    ("min_rate", "7", |it| it.listeners[0].settings.as_ref().unwrap().min_rate == 7),
];

/// The keys of `[engine] timeouts` that the engine knows.
const TIMEOUTS: [(&str, IsSet); 6] = [
    ("idle", |it| it.idle_timeout == Some(Duration::from_secs(7))),
    ("request", |it| it.receive_timeout == Some(Duration::from_secs(7))),
    ("write", |it| it.write_timeout == Some(Duration::from_secs(7))),
    ("write", |it| it.transfer_timeout == Some(Duration::from_secs(7))),
    ("linger", |it| it.linger_timeout == Duration::from_secs(7)),
    ("linger_total", |it| it.linger_total == Duration::from_secs(7)),
];

/// The configuration of a site with this text of `[engine]`.
fn config(engine: &str) -> Config {
    let folder = tempfile::tempdir().unwrap();
    let text = format!("[engine]\n{engine}\n[[site]]\nlisten = ['127.0.0.1:0']\nroot = '.'\n");
    let source = Source { name: "c.toml".into(), text, folder: folder.path().to_owned() };
    let loaded = load(Some(&source), &[]).unwrap_or_else(|error| panic!("{error}"));
    let plan = plan(&loaded.file, &source.folder);
    plan.unwrap_or_else(|faults| panic!("{engine}: {}", source.text().describe(&faults))).engine
}

/// A new field does not compile here before it has a key, or a reason for none.
fn fields(config: Config) {
    let Config {
        ring: _,
        shards: _,
        pin: _,
        pin_from: _,
        max_connections: _,
        at_capacity: _,
        balance: _,
        evict_idle: _,
        min_rate: _,
        max_per_address: _,
        bans: _,
        backlog: _,
        receive_buffers: _,
        receive_buffer_bytes: _,
        send_buffers: _,
        send_buffer_bytes: _,
        pipes: _,
        pipe_bytes: _,
        sendfile_bytes_max: _,
        splice_from_bytes: _,
        open_files: _,
        open_files_valid: _,
        io_workers_max: _,
        submission_entries: _,
        output_high_bytes: _,
        output_low_bytes: _,
        output_bytes_max: _,
        memory_budget_bytes: _,
        idle_operation: _,
        park_after: _,
        streaming_connections_max: _,
        idle_timeout: _,
        receive_timeout: _,
        write_timeout: _,
        transfer_timeout: _,
        linger_timeout: _,
        linger_total: _,
        accept_backoff: _,
        mailbox_commands_max: _,
        workers: _,
        jobs_queued_max: _,
        jobs_per_connection_max: _,
        tcp_keepalive: _,
        tcp_user_timeout: _,
        // The sites and services are the listeners.
        listeners: _,
        // No protocol of the daemon has jobs without a connection.
        jobs_per_shard_max: _,
        // The daemon connects to nobody.
        outgoing_reserved: _,
        connect_timeout: _,
        reconnects_max: _,
        // The daemon has no select(2), so it always raises the limit.
        raise_descriptors: _,
        // The access log needs it or not.
        count_traffic: _,
        // The protocols have limits of their own.
        message_bytes_max: _,
        // For tests of the engine.
        features: _,
    } = config;
}

#[test]
fn each_setting_of_the_engine_has_a_key() {
    let default = config("shards = 2");
    for (key, value, is_set) in KEYS {
        assert!(!is_set(&default), "{key} = {value} is the default");
        let shards = if key == "shards" { "" } else { "shards = 2\n" };
        assert!(is_set(&config(&format!("{shards}{key} = {value}"))), "{key} is ignored");
    }
    for (key, is_set) in TIMEOUTS {
        assert!(!is_set(&default), "7s is the default of {key}");
        assert!(is_set(&config(&format!("timeouts = {{ {key} = '7s' }}"))), "{key} is ignored");
    }
    fields(default);
    // The drain is the daemon's own.
    let others = ["drain_delay", "timeouts"];
    let known: BTreeSet<&str> = KEYS.iter().map(|it| it.0).chain(others).collect();
    let table = toml::Table::try_from(Engine::default()).unwrap();
    assert_eq!(table.keys().map(String::as_str).collect::<BTreeSet<_>>(), known);
}

/// Tells if a key has set its field of a listener.
type IsSetThere = fn(&Listener) -> bool;

/// The keys of `listener` with a value that is not the default.
const OF_LISTENER: [(&str, &str, IsSetThere); 7] = [
    ("v6_only", "true", |it| it.v6_only == Some(true)),
    ("backlog", "7", |it| it.backlog == Some(7)),
    ("keepalive", "'7s'", |it| settings(it).tcp_keepalive == Some(Duration::from_secs(7))),
    ("user_timeout", "'never'", |it| settings(it).tcp_user_timeout.is_none()),
    ("output_high", "'128KiB'", |it| settings(it).output_high_bytes == 128 << 10),
    ("output_low", "'7KiB'", |it| settings(it).output_low_bytes == 7 << 10),
    ("output_max", "'7MiB'", |it| settings(it).output_bytes_max == 7 << 20),
];

fn settings(listener: &Listener) -> &ListenerSettings {
    listener.settings.as_ref().expect("each listener has its own")
}

/// The listeners of two services on IPv4 and IPv6, the first with this text of `listener`.
fn listeners(listener: &str) -> Vec<Listener> {
    let addresses = "listen = ['127.0.0.1:0', '[::1]:0']";
    let first = format!("[[echo]]\n{addresses}\nlistener = {{ {listener} }}\n");
    let text = format!("shards = 2\n{first}[[echo]]\n{addresses}\n");
    config(&text).listeners
}

#[test]
fn each_listener_has_settings_of_its_own() {
    let table = toml::Table::try_from(OwnListener::default()).unwrap();
    assert!(table.is_empty(), "none of them has a default");
    for (key, value, is_set) in OF_LISTENER {
        let all = listeners(&format!("{key} = {value}"));
        let set: Vec<bool> = all.iter().map(is_set).collect();
        // The other service has its own, and the site of `config` comes first.
        let is_v4_too = key != "v6_only";
        assert_eq!(set, [false, is_v4_too, true, false, false], "{key} = {value}");
    }
}
