//! Connects out, says something, prints what comes back, ends:
//! `cargo run --release --example client [ADDRESS [TEXT]]`.

use ringwright::{Config, Connection, ConnectionId, Engine, Handler, Local, Origin, Reason};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

struct Client {
    to: SocketAddr,
    text: String,
}

impl Handler for Client {
    type State = usize;

    fn started(&mut self, shard: &mut Local<'_>) {
        shard.connect(self.to, 0);
    }

    fn opened(&mut self, connection: &mut Connection<'_>, _: Origin) -> usize {
        let _ = connection.send(self.text.as_bytes());
        // A client says all it has to say, and then listens.
        connection.shutdown();
        0
    }

    fn received(&mut self, total: &mut usize, _: &mut Connection<'_>, bytes: &[u8]) -> usize {
        *total += bytes.len();
        print!("{}", String::from_utf8_lossy(bytes));
        bytes.len()
    }

    fn connect_failed(&mut self, shard: &mut Local<'_>, _: u64, error: io::Error) {
        eprintln!("cannot connect to {}: {error}", self.to);
        shard.engine().drain(Duration::ZERO);
    }

    fn closed(
        &mut self,
        total: Option<usize>,
        shard: &mut Local<'_>,
        _: ConnectionId,
        reason: Reason,
    ) {
        let total = total.unwrap_or(0);
        eprintln!("\n{total} bytes came back; it ended by {}", reason.name());
        shard.engine().drain(Duration::ZERO);
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let to = arguments.next().unwrap_or_else(|| "127.0.0.1:7000".into()).parse()?;
    let text = arguments.next().unwrap_or_else(|| "hello\n".into());
    let config = Config { shards: Some(1), ..Config::default() };
    Engine::start(config, move |_| Client { to, text: text.clone() })?.join()?;
    Ok(())
}
