//! Sends every line to everybody. Start it, then run `nc 127.0.0.1 7001` a few times:
//!
//! ```sh
//! cargo run --release -p ringwright --example chat -- --listen 127.0.0.1:7001
//! ```
//!
//! `--listen ADDRESS` and `--unix PATH` can be repeated; `--shards N` sets the number of shards.
//! SIGTERM and SIGINT drain.

use ringwright::{
    Audience, Config, Connection, ConnectionId, Engine, Error, Handler, Listener, Local, Origin,
    Reason, SendStatus, SlowReaders,
};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::error::Error as StdError;
use std::fmt::Display;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// The longest line, in bytes, with its line feed.
const LINE_BYTES_MAX: usize = 1_000;
/// The deadline of a drain.
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);

struct Chat;

impl Chat {
    /// Sends a line to the connections of all shards, this one included.
    fn say(shard: &Local<'_>, line: String) {
        let line = Arc::from(line.into_bytes());
        if shard.engine().broadcast(line, &Audience::All, SlowReaders::Queue).is_err() {
            eprintln!("a command queue is full: a line was dropped");
        }
    }
}

impl Handler for Chat {
    /// The name of the client.
    type State = String;

    fn opened(&mut self, connection: &mut Connection<'_>, _: Origin) -> String {
        let name = connection.peer().to_string();
        Self::say(&connection.local(), format!("* {name} has come\n"));
        name
    }

    fn received(
        &mut self,
        name: &mut String,
        connection: &mut Connection<'_>,
        bytes: &[u8],
    ) -> usize {
        let mut used = 0;
        // The engine keeps an incomplete line and delivers it again with the bytes that follow.
        while let Some(length) = bytes[used..].iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(&bytes[used..used + length]).into_owned();
            used += length + 1;
            match line.trim_end() {
                "/quit" => {
                    let _: SendStatus = connection.send(b"* goodbye\n");
                    connection.close();
                    break;
                }
                text => Self::say(&connection.local(), format!("{name}: {text}\n")),
            }
        }
        used
    }

    fn closed(
        &mut self,
        name: Option<String>,
        shard: &mut Local<'_>,
        _: ConnectionId,
        reason: Reason,
    ) {
        // `None` after a panic in `opened`, which has announced nobody.
        let Some(name) = name else { return };
        Self::say(shard, format!("* {name} has gone ({})\n", reason.name()));
    }
}

#[derive(Default)]
struct Options {
    listeners: Vec<Listener>,
    shards: Option<usize>,
}

/// The value of an option.
fn parsed<T: FromStr<Err: Display>>(name: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|error| format!("{name} {value}: {error}"))
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Options, Box<dyn StdError>> {
    let mut options = Options::default();
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
        options.listeners.push("127.0.0.1:7001".parse()?);
    }
    Ok(options)
}

fn start(options: Options) -> Result<Engine, Error> {
    let config = Config {
        listeners: options.listeners,
        shards: options.shards,
        // An incomplete line that is longer ends its connection: `Reason::MessageTooLong`.
        message_bytes_max: LINE_BYTES_MAX,
        idle_timeout: None,
        ..Config::default()
    };
    Engine::start(config, |_shard| Chat)
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chat: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn StdError>> {
    let engine = start(options(std::env::args().skip(1))?)?;
    for listener in engine.handle().listeners() {
        println!("listening {}", listener.address);
    }
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
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpStream;

    #[test]
    fn a_line_reaches_everybody_and_a_long_one_ends_its_connection() {
        let arguments = ["--listen", "127.0.0.1:0", "--shards", "2"].map(String::from);
        let engine = start(options(arguments.into_iter()).unwrap()).unwrap();
        let connect = || BufReader::new(TcpStream::connect(engine.addresses()[0]).unwrap());
        let read_until = |client: &mut BufReader<TcpStream>, text: &str| {
            let mut line = String::new();
            while !line.contains(text) {
                line.clear();
                assert!(client.read_line(&mut line).unwrap() > 0, "the end came before {text}");
            }
        };
        let mut anna = connect();
        read_until(&mut anna, "has come");
        let mut bert = connect();
        read_until(&mut anna, "has come");
        bert.get_mut().write_all(b"hel").unwrap();
        bert.get_mut().write_all(b"lo\n/quit\n").unwrap();
        read_until(&mut anna, ": hello");
        bert.read_to_string(&mut String::new()).expect("a FIN follows the last line");
        drop(bert); // `closed` waits for the client's FIN
        read_until(&mut anna, "has gone (local_close)");

        anna.get_mut().write_all(&[b'x'; LINE_BYTES_MAX + 1]).unwrap();
        let _ = anna.read_to_end(&mut Vec::new());
        engine.handle().drain(DRAIN_DEADLINE);
        let ledger = engine.join().unwrap();
        assert_eq!(ledger.sum.closed_by[Reason::MessageTooLong as usize], 1);
    }
}
