//! `ringwright-peer-tokio`: an echo server on tokio. `ringwright-limit` must be faster, or its
//! figures are no limit.

use std::io;
use std::process::ExitCode;

use ringwright_benches::peer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn main() -> ExitCode {
    let about = "Echo server on tokio, for comparison: one thread, one task per connection";
    peer::echo_main("ringwright-peer-tokio", about, run)
}

fn run(listener: std::net::TcpListener, bytes: usize) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
        let listener = TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(echo(stream, bytes));
        }
    })
}

/// Serves one connection until its end or an error.
async fn echo(mut stream: TcpStream, bytes: usize) -> io::Result<()> {
    let mut buffer = vec![0; bytes];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            count => stream.write_all(&buffer[..count]).await?,
        }
    }
}
