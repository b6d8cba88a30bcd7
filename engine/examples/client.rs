//! Keeps a connection to a server, sends it a line each second, and prints the replies:
//! `cargo run --release --example client [ADDRESS [LINE]]`. The example `echo` is such a server.
//! When the server goes away, the client connects again, with growing waits in between.

use ringwright::{
    BoxError, Config, Connection, ConnectionId, Engine, Error, Handler, Local, Origin, Reason,
    Reconnect,
};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// The name of the kept connection on its shard.
const UPLINK: u64 = 1;

struct Client {
    to: SocketAddr,
    line: String,
    reconnect: Reconnect,
}

impl Client {
    fn say_next_attempt(shard: &Local<'_>, why: &str) {
        match shard.reconnects_in(UPLINK) {
            Some(wait) => eprintln!("{why}; next attempt in {} ms", wait.as_millis()),
            None => eprintln!("{why}; no further attempt"),
        }
    }
}

impl Handler for Client {
    type State = ();

    fn started(&mut self, shard: &mut Local<'_>) -> Result<(), BoxError> {
        shard.keep_connected(self.to, UPLINK, self.reconnect).expect("the tag is unused");
        Ok(())
    }

    fn opened(&mut self, connection: &mut Connection<'_>, _: Origin) {
        self.timer(&mut (), connection, 0);
    }

    fn timer(&mut self, _: &mut (), connection: &mut Connection<'_>, _: u8) {
        let _ = connection.send(self.line.as_bytes());
        connection.set_timer(0, Some(Duration::from_secs(1)));
    }

    fn received(&mut self, _: &mut (), _: &mut Connection<'_>, bytes: &[u8]) -> usize {
        print!("{}", String::from_utf8_lossy(bytes));
        bytes.len()
    }

    fn connect_failed(&mut self, shard: &mut Local<'_>, _: u64, error: io::Error) {
        Self::say_next_attempt(shard, &format!("cannot connect to {}: {error}", self.to));
    }

    fn closed(&mut self, _: Option<()>, shard: &mut Local<'_>, _: ConnectionId, reason: Reason) {
        Self::say_next_attempt(shard, &format!("the connection ended by {}", reason.name()));
    }
}

fn start(to: SocketAddr, line: String, reconnect: Reconnect) -> Result<Engine, Error> {
    // No listeners: this engine only connects out.
    let config = Config { shards: Some(1), ..Config::default() };
    Engine::start(config, move |_shard| Client { to, line: line.clone(), reconnect })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let to = arguments.next().unwrap_or_else(|| "127.0.0.1:7000".into()).parse()?;
    let line = arguments.next().unwrap_or_else(|| "hello".into()) + "\n";
    start(to, line, Reconnect::default())?.join()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::TcpListener;

    #[test]
    fn the_line_is_sent_again_after_the_server_has_hung_up() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let reconnect = Reconnect { first: Duration::from_millis(10), ..Reconnect::default() };
        let engine = start(server.local_addr().unwrap(), "hello\n".into(), reconnect).unwrap();
        for _ in 0..3 {
            let (mut client, _) = server.accept().unwrap();
            let mut line = [0; 6];
            client.read_exact(&mut line).unwrap();
            assert_eq!(&line, b"hello\n");
        }
        engine.handle().stop();
        assert!(engine.join().unwrap().sum.reconnects >= 2);
    }
}
