//! Ends without cutting a request off: `cargo run --release --example shutdown [ADDRESS]`, connect
//! with `nc 127.0.0.1 7007`, and press Enter in the first terminal. Enter once more ends at once.
//!
//! Each line is answered by its length. A service drains on SIGTERM in the same way: a thread that
//! waits for the signal calls `EngineHandle::drain`.

use ringwright::{Config, Connection, Engine, EngineHandle, Error, Handler, Listener, Origin};
use std::time::Duration;

/// Connections that are left after this time are reset.
const DRAIN_DEADLINE: Duration = Duration::from_secs(30);

struct Lengths;

impl Handler for Lengths {
    type State = ();

    fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}

    fn received(&mut self, _: &mut (), connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
        let mut used = 0;
        while let Some(length) = bytes[used..].iter().position(|byte| *byte == b'\n') {
            used += length + 1;
            let _ = connection.send(format!("{length}\n").as_bytes());
        }
        used
    }

    fn draining(&mut self, _: &mut (), connection: &mut Connection<'_>) {
        let _ = connection.send(b"this server is going down\n");
        // Requests under way are still answered. Then the connection closes.
        connection.finish(Duration::ZERO);
    }
}

fn start(listener: Listener) -> Result<Engine, Error> {
    let config = Config { listeners: vec![listener], ..Config::default() };
    Engine::start(config, |_shard| Lengths)
}

fn wait_for_enter(engine: &EngineHandle) {
    let mut line = String::new();
    let _ = std::io::stdin().read_line(&mut line);
    println!("draining {} connections", engine.connections());
    engine.drain(DRAIN_DEADLINE);
    let _ = std::io::stdin().read_line(&mut line);
    engine.stop();
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7007".into());
    let engine = start(address.parse()?)?;
    println!("listening on {}", engine.addresses()[0]);
    let handle = engine.handle();
    std::thread::spawn(move || wait_for_enter(&handle));
    let ledger = engine.join()?; // returns when the last connection has ended
    println!("{} connections were served", ledger.sum.closed);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpStream;

    #[test]
    fn a_request_under_way_is_answered_and_nobody_else_is_let_in() {
        let engine = start("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = engine.addresses()[0];
        let mut client = BufReader::new(TcpStream::connect(address).unwrap());
        client.get_mut().write_all(b"one\nhel").unwrap();
        let mut read_line = || {
            let mut line = String::new();
            client.read_line(&mut line).unwrap();
            (line, client.get_ref().try_clone().unwrap())
        };
        assert_eq!(read_line().0, "3\n");
        engine.handle().drain(DRAIN_DEADLINE);
        let (line, mut writing) = read_line();
        assert_eq!(line, "this server is going down\n");
        writing.write_all(b"lo\n").unwrap();
        let mut rest = String::new();
        client.read_to_string(&mut rest).expect("a FIN follows the last reply");
        assert_eq!(rest, "5\n");
        assert!(engine.join().unwrap().balanced());
        assert!(TcpStream::connect(address).is_err());
    }
}
