//! A TCP proxy that balances its clients over several servers, its upstreams.
//!
//! `cargo run --release -p ringwright --example proxy -- --listen 127.0.0.1:8080
//! --to 127.0.0.1:8081,127.0.0.1:8082 --shards 2 --max-connections 1000`. `--unix PATH` listens on
//! a Unix socket as well. SIGTERM and SIGINT drain. The counters are printed at the end.
//!
//! | file | shows |
//! |---|---|
//! | `main.rs` | options, places for both connections of a pair, signals |
//! | `relay.rs` | connects, backpressure, half-close and reset from one side to the other |
//! | `upstreams.rs` | round robin without the upstreams that have failed lately |
//!
//! It is an example: there are no active health checks, and upstreams are IP addresses.

mod relay;
mod upstreams;

use relay::{Counts, Relay};
use ringwright::{Config, Engine, Error, Listener};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::fmt::Display;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use upstreams::Upstreams;

/// Pairs that are left so long after SIGTERM are reset.
const DRAIN_DEADLINE: Duration = Duration::from_secs(30);
/// The time in which an upstream must accept a connection before the next one is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A pair on which no byte has passed for this time is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// Receive buffers of 64 KiB cost twice as much CPU per byte (`benches/JOURNAL.md`).
const RECEIVE_BUFFER_BYTES: u32 = 16 << 10;
/// Fewer cost more CPU per request of 64 active clients.
const RECEIVE_BUFFERS: u16 = 64;
const SEND_BUFFER_BYTES: u32 = 32 << 10;
const SEND_BUFFERS: u32 = 64;

#[derive(Clone)]
struct Options {
    listeners: Vec<Listener>,
    upstreams: Vec<SocketAddr>,
    shards: Option<usize>,
    /// Clients at one time. Each has two connections.
    max_connections: usize,
    connect_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listeners: Vec::new(),
            upstreams: Vec::new(),
            shards: None,
            max_connections: 5_000,
            connect_timeout: CONNECT_TIMEOUT,
        }
    }
}

/// The value of an option.
fn parsed<T: FromStr<Err: Display>>(name: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|error| format!("{name} {value}: {error}"))
}

fn options(arguments: impl Iterator<Item = String>) -> Result<Options, Box<dyn std::error::Error>> {
    let mut options = Options::default();
    let mut arguments = arguments;
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--listen" => options.listeners.push(parsed(&name, &value)?),
            "--unix" => options.listeners.push(parsed(&name, &format!("unix:{value}"))?),
            "--to" => {
                for address in value.split(',') {
                    options.upstreams.push(parsed(&name, address)?);
                }
            }
            "--shards" => options.shards = Some(parsed(&name, &value)?),
            "--max-connections" => options.max_connections = parsed(&name, &value)?,
            _ => {
                let names = "--listen, --unix, --to, --shards or --max-connections";
                return Err(format!("{name}: expected {names}").into());
            }
        }
    }
    if options.listeners.is_empty() || options.upstreams.is_empty() {
        return Err("--to and --listen or --unix are needed".into());
    }
    Ok(options)
}

/// Starts a proxy. Its counters are complete when the engine has ended.
fn start(options: Options) -> Result<(Engine, Arc<Mutex<Counts>>), Error> {
    let config = Config {
        listeners: options.listeners,
        shards: options.shards,
        // Clients take half of the places at most. At that limit, further clients wait.
        max_connections: options.max_connections.saturating_mul(2),
        outgoing_reserved: options.max_connections,
        connect_timeout: options.connect_timeout,
        idle_timeout: Some(IDLE_TIMEOUT),
        receive_buffers: RECEIVE_BUFFERS,
        receive_buffer_bytes: RECEIVE_BUFFER_BYTES,
        send_buffers: SEND_BUFFERS,
        send_buffer_bytes: SEND_BUFFER_BYTES,
        ..Config::default()
    };
    let (upstreams, counts) = (options.upstreams, Arc::new(Mutex::default()));
    let total = counts.clone();
    let relay = move |_shard| Relay::new(Upstreams::new(&upstreams), total.clone());
    Ok((Engine::start(config, relay)?, counts))
}

/// Waits for the end of the engine.
fn join(engine: Engine, counts: &Mutex<Counts>) -> Result<(ringwright::Ledger, Counts), Error> {
    let ledger = engine.join()?;
    Ok((ledger, *counts.lock().unwrap_or_else(PoisonError::into_inner)))
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("proxy: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let (engine, counts) = start(options(std::env::args().skip(1))?)?;
    for listener in engine.handle().listeners() {
        println!("listening {}", listener.address);
    }
    engine.notices().iter().for_each(|notice| eprintln!("{notice}"));
    let (mut signals, handle) = (Signals::new([SIGTERM, SIGINT])?, engine.handle());
    std::thread::spawn(move || {
        for _ in signals.forever() {
            handle.drain(DRAIN_DEADLINE);
        }
    });
    let (_, counts) = join(engine, &counts)?;
    println!(
        "pairs {}, connects failed {}, clients refused {}, bytes to upstreams {}, to clients {}",
        counts.pairs,
        counts.connects_failed,
        counts.refused,
        counts.bytes_to_upstreams,
        counts.bytes_to_clients
    );
    Ok(())
}

#[cfg(test)]
mod tests;
