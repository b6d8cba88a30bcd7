//! `ringwright-peer-glommio`: an echo server on glommio.

use std::io;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::process::ExitCode;

use clap::Parser;
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::net::{TcpListener, TcpStream};
use glommio::{LocalExecutorBuilder, Placement};
use ringwright_benches::peer::{self, Buffer, Place};

/// Entries of each ring.
const ENTRIES: usize = 4096;

/// Echo server on glommio, for comparison: one executor, one task per connection.
#[derive(Parser)]
#[command(name = "ringwright-peer-glommio", version)]
struct Arguments {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    buffer: Buffer,
}

fn main() -> ExitCode {
    peer::exit("ringwright-peer-glommio", run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> io::Result<()> {
    let listener = arguments.place.listen("echo")?.into_raw_fd();
    let bytes = arguments.buffer.bytes();
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
