//! Every line to everybody: `cargo run --release --example chat [ADDRESS]`, then `nc` a few times.

use ringwright::{
    Audience, Config, Connection, ConnectionId, Engine, Handler, Local, Origin, Reason, SendStatus,
    SlowReaders,
};
use std::sync::Arc;

struct Chat;

impl Chat {
    /// To the connections of all shards, this one included.
    fn say(shard: &Local<'_>, line: String) {
        let line = Arc::from(line.into_bytes());
        if shard.engine().broadcast(line, &Audience::All, SlowReaders::Queue).is_err() {
            eprintln!("too much is said at once: a line was dropped");
        }
    }
}

impl Handler for Chat {
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
        // What is not a whole line yet stays with the engine, bounded by `message_bytes_max`.
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
        // None after a panic in `opened`, which has announced nobody.
        let Some(name) = name else { return };
        Self::say(shard, format!("* {name} has gone ({})\n", reason.name()));
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7001".into());
    let config =
        Config { listeners: vec![address.parse()?], idle_timeout: None, ..Config::default() };
    let engine = Engine::start(config, |_| Chat)?;
    println!("chatting on {}", engine.addresses()[0]);
    engine.join()?;
    Ok(())
}
