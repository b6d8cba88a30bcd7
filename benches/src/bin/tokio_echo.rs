//! `ringwright-peer-tokio`: the same echo on tokio, the peer that the limit program must beat for
//! its numbers to be a limit.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser;
use ringwright_benches::machine;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Read at a time, as much as one receive buffer of the limit program holds.
const BUFFER_BYTES: usize = 4096;

/// Echo on tokio: one thread, one task per connection.
#[derive(Parser)]
#[command(name = "ringwright-peer-tokio", version)]
struct Arguments {
    /// Where to listen; port 0 takes a free one, which is printed.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// Stay on this CPU.
    #[arg(long, value_name = "N")]
    cpu: Option<usize>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringwright-peer-tokio: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> io::Result<()> {
    if let Some(cpu) = arguments.cpu {
        machine::pin_to_cpu(cpu)?;
    }
    let listener = machine::listen(arguments.listen)?;
    listener.set_nonblocking(true)?;
    println!("listening echo://{}", listener.local_addr()?);
    io::stdout().flush()?;
    tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
        let listener = TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(echo(stream));
        }
    })
}

/// Ends with its connection, by whatever error.
async fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = [0; BUFFER_BYTES];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            count => stream.write_all(&buffer[..count]).await?,
        }
    }
}
