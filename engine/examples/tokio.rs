//! Answers from a tokio runtime: `cargo run --release --example tokio [ADDRESS]`, then type a word
//! and a number of milliseconds into `nc 127.0.0.1 7006`. A task per line waits for so long, as it
//! would for a database, and then answers. The answers come in the order of the lines.

use ringwright::workers::{JobDone, TakeHoldError};
use ringwright::{Config, Connection, Engine, Error, Handler, Listener, Origin};
use std::time::Duration;
use tokio::runtime::{Handle, Runtime};

struct Questions {
    runtime: Handle,
}

/// Stands for a question to a database. Returns `None` if the time is not a number.
async fn answer(line: String) -> Option<String> {
    let (word, time) = line.split_once(' ').unwrap_or((&line, "0"));
    let time = time.trim().parse().ok()?;
    tokio::time::sleep(Duration::from_millis(time)).await;
    Some(format!("{} after {time} ms\n", word.trim()))
}

impl Handler for Questions {
    type State = ();

    fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}

    fn received(&mut self, _: &mut (), connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
        let mut used = 0;
        while let Some(length) = bytes[used..].iter().position(|byte| *byte == b'\n') {
            let hold = match connection.hold(0) {
                Ok(hold) => hold,
                // The line stays unused and is delivered again when an answer has come.
                Err(TakeHoldError::Full) => break,
                Err(_) => {
                    connection.abort();
                    break;
                }
            };
            let line = String::from_utf8_lossy(&bytes[used..used + length]).into_owned();
            // `spawn` never blocks. A task that ends without an answer drops the hold.
            self.runtime.spawn(async move {
                if let Some(answer) = answer(line).await {
                    hold.complete(answer);
                }
            });
            used += length + 1;
        }
        used
    }

    fn job_done(&mut self, _: &mut (), connection: &mut Connection<'_>, job: JobDone) {
        match job.result::<String>() {
            Ok(answer) => drop(connection.send(answer.as_bytes())),
            // The hold was dropped. It also is if the task panics or the runtime ends.
            Err(error) => drop(connection.send(format!("error: {error}\n").as_bytes())),
        }
    }
}

fn start(listener: Listener, runtime: Handle) -> Result<Engine, Error> {
    let config = Config {
        listeners: vec![listener],
        // Lines of a client that are answered at the same time.
        jobs_per_connection_max: 64,
        ..Config::default()
    };
    Engine::start(config, move |_shard| Questions { runtime: runtime.clone() })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7006".into());
    let runtime = Runtime::new()?;
    let engine = start(address.parse()?, runtime.handle().clone())?;
    println!("answering on {}", engine.addresses()[0]);
    // Tasks wait for the end like this. The runtime ends after the engine: a drain waits for its
    // tasks.
    runtime.block_on(engine.ended());
    engine.join()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpStream};

    #[test]
    fn answers_come_in_the_order_of_the_lines_and_a_drain_waits_for_them() {
        let runtime = Runtime::new().unwrap();
        let engine = start("127.0.0.1:0".parse().unwrap(), runtime.handle().clone()).unwrap();
        let mut client = TcpStream::connect(engine.addresses()[0]).unwrap();
        client.write_all(&b"slow 30\nfast 0\nwrong x\n".repeat(50)).unwrap();
        let mut first = [0; 4];
        client.read_exact(&mut first).unwrap();
        engine.handle().drain(Duration::from_secs(5));
        client.shutdown(Shutdown::Write).unwrap();
        let mut answers = String::from_utf8_lossy(&first).into_owned();
        client.read_to_string(&mut answers).unwrap();
        let error = "error: the hold was dropped without a value";
        assert_eq!(answers, format!("slow after 30 ms\nfast after 0 ms\n{error}\n").repeat(50));
        let sum = engine.join().unwrap().sum;
        assert_eq!((sum.jobs_done, sum.holds_dropped, sum.jobs_unclaimed), (100, 50, 0));
    }
}
