//! Idle clients in a process of their own. One process may not hold as many descriptors as two
//! servers have connections.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::machine;

/// Subcommand of `ringwright-bench` that runs [`hold`]; hidden from its help.
pub const SUBCOMMAND: &str = "hold-clients";
/// The child prints this line when all clients are connected, and after each order.
const DONE: &str = "done\n";
pub const MESSAGE_BYTES: usize = 32;
/// Requests in flight. Below the 512 receive buffers of `ringwrightd`, so that no receive starves.
const IN_FLIGHT_MAX: usize = 256;
const WAIT_MAX: Duration = Duration::from_secs(10);
const DESCRIPTORS_OTHER: u64 = 100;

/// The process that holds the clients. It ends when this is dropped.
pub struct Clients {
    child: Child,
    /// `None` only while dropping: end of input is the order to end.
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Clients {
    /// Starts the process on `cpu` and waits until it holds `connections` to `address`.
    pub fn connect(address: SocketAddr, connections: usize, cpu: usize) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(SUBCOMMAND).arg(address.to_string());
        command.args([connections, cpu].map(|number| number.to_string()));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let orders = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("standard output is piped"));
        let mut clients = Self { child, orders, answers };
        clients.wait()?;
        Ok(clients)
    }

    /// Sends a message on every connection once and returns when all are answered.
    pub fn ask_all(&mut self) -> io::Result<()> {
        self.orders.as_mut().expect("it is taken by `drop` only").write_all(b"\n")?;
        self.wait()
    }

    fn wait(&mut self) -> io::Result<()> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        match line == DONE {
            true if machine::terminated() => Err(io::Error::other("interrupted")),
            true => Ok(()),
            false => Err(io::Error::other("the process that holds the clients failed")),
        }
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.orders = None;
        if let Err(error) = self.child.wait() {
            eprintln!("wait for the process that holds the clients: {error}");
        }
    }
}

/// The child: connects, then sends a message on every connection for each line of standard input.
pub fn hold(address: SocketAddr, connections: usize, cpu: usize) -> io::Result<()> {
    machine::pin_to_cpu(cpu)?;
    machine::need_descriptors(connections as u64 + DESCRIPTORS_OTHER)?;
    let connect = |_| {
        let client = TcpStream::connect_timeout(&address, WAIT_MAX)?;
        client.set_read_timeout(Some(WAIT_MAX))?;
        client.set_nodelay(true)?;
        Ok(client)
    };
    let mut clients = (0..connections).map(connect).collect::<io::Result<Vec<TcpStream>>>()?;
    let mut output = io::stdout();
    output.write_all(DONE.as_bytes())?;
    output.flush()?;
    for line in io::stdin().lines() {
        line?;
        clients.chunks_mut(IN_FLIGHT_MAX).try_for_each(ask)?;
        output.write_all(DONE.as_bytes())?;
        output.flush()?;
    }
    Ok(())
}

fn ask(clients: &mut [TcpStream]) -> io::Result<()> {
    let message = [b'x'; MESSAGE_BYTES];
    for client in &mut *clients {
        client.write_all(&message)?;
    }
    for client in clients {
        let mut answer = [0; MESSAGE_BYTES];
        client.read_exact(&mut answer)?;
        if answer != message {
            return Err(io::Error::other("other bytes came back"));
        }
    }
    Ok(())
}
