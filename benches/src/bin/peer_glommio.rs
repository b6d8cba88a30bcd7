//! `ringwright-peer-glommio`: an echo server on glommio.

use std::io;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::process::ExitCode;

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::net::{TcpListener, TcpStream};
use glommio::{LocalExecutorBuilder, Placement};
use ringwright_benches::peer;

/// Entries of each ring.
const ENTRIES: usize = 4096;

fn main() -> ExitCode {
    let about = "Echo server on glommio, for comparison: one executor, one task per connection";
    peer::echo_main("ringwright-peer-glommio", about, run)
}

fn run(listener: std::net::TcpListener, bytes: usize) -> io::Result<()> {
    let listener = listener.into_raw_fd();
    let executor = LocalExecutorBuilder::new(Placement::Unbound).ring_depth(ENTRIES).make()?;
    executor.run(async {
        // SAFETY: the descriptor is a listener's, and nothing else owns it.
        let listener = unsafe { TcpListener::from_raw_fd(listener) };
        loop {
            let stream = listener.accept().await?;
            glommio::spawn_local(echo(stream, bytes)).detach();
        }
    })
}

/// Serves one connection until its end or an error.
async fn echo(mut stream: TcpStream, bytes: usize) -> io::Result<()> {
    let mut buffer = vec![0; bytes];
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..count]).await?;
    }
}
