//! A small Redis: strings with a time to live, transactions, publish and subscribe.
//!
//! `cargo run --release -p ringwright --example redis -- --listen 127.0.0.1:6380 --shards 2`, then
//! `redis-cli -p 6380`. `--unix PATH` listens on a Unix socket as well. SIGTERM and SIGINT drain.
//!
//! | file | shows |
//! |---|---|
//! | `server.rs` | pipelined requests, backpressure, groups over shards, a full queue, a job |
//! | `commands.rs`, `store.rs` | data that all shards share |
//! | `resp.rs` | a parser that says how many bytes are missing |
//!
//! It is an example: there is no persistence, and only strings are implemented.

mod commands;
mod resp;
mod server;
mod store;

use ringwright::{Config, Engine, Error, Listener};
use server::{Channels, Server, Shared};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::fmt::Display;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::Store;

/// Connections that are left so long after SIGTERM are reset.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);
/// Replies that a client may leave unread before its commands wait. Clients of Redis write long
/// pipelines before they read: 600,000 replies to SET have 3 MB.
const OUTPUT_HIGH_BYTES: usize = 8 << 20;
/// A command with one value of the greatest length fits.
const MESSAGE_BYTES_MAX: usize = resp::BULK_BYTES_MAX + (1 << 20);

struct Options {
    listeners: Vec<Listener>,
    shards: Option<usize>,
}

/// The value of an option.
fn parsed<T: FromStr<Err: Display>>(name: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|error| format!("{name} {value}: {error}"))
}

fn options(arguments: impl Iterator<Item = String>) -> Result<Options, Box<dyn std::error::Error>> {
    let mut options = Options { listeners: Vec::new(), shards: None };
    let mut arguments = arguments;
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--listen" => options.listeners.push(parsed(&name, &value)?),
            "--unix" => options.listeners.push(parsed(&name, &format!("unix:{value}"))?),
            "--shards" => options.shards = Some(parsed(&name, &value)?),
            _ => return Err(format!("{name}: expected --listen, --unix or --shards").into()),
        }
    }
    if options.listeners.is_empty() {
        options.listeners.push("127.0.0.1:6379".parse()?);
    }
    Ok(options)
}

fn start(options: Options) -> Result<Engine, Error> {
    let config = Config {
        listeners: options.listeners,
        shards: options.shards,
        idle_timeout: None,
        // A message is received for as long as its client likes, as with Redis.
        receive_timeout: None,
        message_bytes_max: MESSAGE_BYTES_MAX,
        output_high_bytes: OUTPUT_HIGH_BYTES,
        output_low_bytes: OUTPUT_HIGH_BYTES / 4,
        output_bytes_max: resp::REPLIES_BYTES_MAX,
        // For CLIENT LIST.
        workers: 1,
        ..Config::default()
    };
    let channels: Mutex<Channels> = Mutex::default();
    let shared = Arc::new(Shared { store: Store::new(), channels });
    Engine::start(config, move |_shard| Server::new(shared.clone()))
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("redis: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let engine = start(options(std::env::args().skip(1))?)?;
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
    engine.join()?;
    Ok(())
}

#[cfg(test)]
mod tests;
