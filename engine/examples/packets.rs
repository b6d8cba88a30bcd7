//! Reverses packets: `cargo run --release --example packets [ADDRESS]`. A packet is a length of
//! four bytes, big-endian, and a body. A packet that is too long ends its connection, after a
//! packet that says so.

use ringwright::packets::{CreateFramingError, Framing};
use ringwright::{Config, Connection, Engine, Handler, Listener, Origin, SendStatus};

/// The longest body, in bytes.
const BODY_BYTES_MAX: usize = 32 << 10;

struct Reverse(Framing);

impl Handler for Reverse {
    type State = ();

    fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}

    fn received(&mut self, _: &mut (), connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
        let mut packets = self.0.packets(bytes);
        for packet in &mut packets {
            match packet {
                Ok(body) => {
                    let reversed: Vec<u8> = body.iter().rev().copied().collect();
                    let sent = self.0.send(connection, &[&reversed]);
                    if sent.expect("a received body is short enough") == SendStatus::Full {
                        break; // the other packets are delivered again after `writable`
                    }
                }
                Err(too_long) => {
                    let _ = self.0.send(connection, &[too_long.to_string().as_bytes()]);
                    connection.protocol_error();
                    return bytes.len();
                }
            }
        }
        packets.finish(connection)
    }
}

fn start(listener: Listener) -> Result<Engine, Box<dyn std::error::Error>> {
    let config = Config { listeners: vec![listener], ..Config::default() };
    let framing: Result<Framing, CreateFramingError> = Framing::new(BODY_BYTES_MAX, &config);
    let framing = framing?;
    Ok(Engine::start(config, move |_shard| Reverse(framing))?)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7006".into());
    let engine = start(address.parse()?)?;
    println!("reversing packets on {}", engine.addresses()[0]);
    engine.join()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::time::Duration;

    #[test]
    fn packets_are_reversed_and_a_long_one_is_refused() {
        let engine = start("127.0.0.1:0".parse().unwrap()).unwrap();
        let mut client = TcpStream::connect(engine.addresses()[0]).unwrap();
        client.write_all(b"\0\0\0\x03abc\0\0\0\0\0\0\0\x02xy").unwrap();
        let mut back = [0; 17];
        client.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"\0\0\0\x03cba\0\0\0\0\0\0\0\x02yx");
        client.write_all(&(BODY_BYTES_MAX as u32 + 1).to_be_bytes()).unwrap();
        let mut refusal = String::new();
        client.read_to_string(&mut refusal).unwrap();
        assert!(refusal.ends_with("a packet of 32769 bytes is too long: 32768 are allowed"));
        engine.handle().drain(Duration::from_secs(5));
        engine.join().unwrap();
    }
}
