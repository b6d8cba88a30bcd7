//! Counts primes on worker threads: `cargo run --release --example workers [ADDRESS]`, then type
//! numbers into `nc 127.0.0.1 7005`. Replies come in the order of the requests, and other clients
//! are served meanwhile.

use ringwright::workers::{Job, JobDone, OffloadJobErrorKind};
use ringwright::{Config, Connection, Engine, Error, Handler, Listener, Origin};

struct Primes;

fn primes_up_to(number: u64) -> usize {
    (2..=number).filter(|n| (2..*n).take_while(|d| d * d <= *n).all(|d| n % d != 0)).count()
}

impl Handler for Primes {
    type State = ();

    fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}

    fn received(&mut self, _: &mut (), connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
        let mut used = 0;
        while let Some(length) = bytes[used..].iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(&bytes[used..used + length]);
            let Ok(number) = line.trim().parse::<u64>() else {
                connection.protocol_error();
                break;
            };
            let job = Job::new(number, move || primes_up_to(number));
            match connection.offload(job) {
                Ok(()) => used += length + 1,
                // The line stays unused and is delivered again when a worker is free.
                Err(refused) if refused.kind == OffloadJobErrorKind::Full => break,
                Err(_) => {
                    connection.abort();
                    break;
                }
            }
        }
        used
    }

    fn job_done(&mut self, _: &mut (), connection: &mut Connection<'_>, job: JobDone) {
        let number = job.tag();
        match job.result::<usize>() {
            Ok(count) => drop(connection.send(format!("{number}: {count}\n").as_bytes())),
            Err(error) => drop(connection.send(format!("{number}: {error}\n").as_bytes())),
        }
    }
}

fn start(listener: Listener) -> Result<Engine, Error> {
    let config = Config {
        listeners: vec![listener],
        workers: 2,
        jobs_per_connection_max: 4,
        ..Config::default()
    };
    Engine::start(config, |_shard| Primes)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7005".into());
    let engine = start(address.parse()?)?;
    println!("counting primes on {}", engine.addresses()[0]);
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
    fn replies_come_in_the_order_of_the_requests() {
        let engine = start("127.0.0.1:0".parse().unwrap()).unwrap();
        let mut client = TcpStream::connect(engine.addresses()[0]).unwrap();
        client.write_all(&b"20000\n10\n100\n".repeat(5)).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut replies = String::new();
        client.read_to_string(&mut replies).unwrap();
        assert_eq!(replies, "20000: 2262\n10: 4\n100: 25\n".repeat(5));
        engine.handle().drain(Duration::from_secs(5));
        assert_eq!(engine.join().unwrap().sum.jobs_done, 15);
    }
}
