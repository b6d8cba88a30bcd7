//! Sends every byte back: `cargo run --release --example echo [ADDRESS]`.

use ringwright::{Config, Connection, Engine, Error, Handler, Listener, Origin};

struct Echo;

impl Handler for Echo {
    type State = ();

    fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}

    fn received(&mut self, _: &mut (), connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
        let _ = connection.send(bytes); // a full queue pauses receiving by itself
        bytes.len()
    }
}

fn start(listener: Listener) -> Result<Engine, Error> {
    let config = Config { listeners: vec![listener], ..Config::default() };
    Engine::start(config, |_shard| Echo)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".into());
    let engine = start(address.parse()?)?;
    println!("listening on {}", engine.addresses()[0]);
    engine.join()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpStream};
    use std::time::Duration;

    #[test]
    fn every_byte_comes_back() {
        let engine = start("127.0.0.1:0".parse().unwrap()).unwrap();
        let mut client = TcpStream::connect(engine.addresses()[0]).unwrap();
        client.write_all(b"hello").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut back = Vec::new();
        client.read_to_end(&mut back).unwrap();
        assert_eq!(back, b"hello");
        engine.handle().drain(Duration::from_secs(5));
        assert!(engine.join().unwrap().balanced());
    }
}
