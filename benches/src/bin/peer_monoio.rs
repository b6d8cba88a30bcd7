//! `ringwright-peer-monoio`: an echo server on monoio's io_uring driver.

use std::io;
use std::process::ExitCode;

use clap::Parser;
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::{TcpListener, TcpStream};
use monoio::{IoUringDriver, RuntimeBuilder};
use ringwright_benches::peer::{self, Buffer, Place};

/// Entries of the submission queue.
const ENTRIES: u32 = 4096;
/// Entries of the completion queue: one for every connection.
const COMPLETIONS: u32 = 32_768;

/// Echo server on monoio, for comparison: one thread, one task per connection.
#[derive(Parser)]
#[command(name = "ringwright-peer-monoio", version)]
struct Arguments {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    buffer: Buffer,
}

fn main() -> ExitCode {
    peer::exit("ringwright-peer-monoio", run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> io::Result<()> {
    let listener = arguments.place.listen("echo")?;
    let bytes = arguments.buffer.bytes();
    let mut ring = monoio_io_uring::IoUring::builder();
    ring.setup_single_issuer().setup_defer_taskrun().setup_cqsize(COMPLETIONS);
    let builder = RuntimeBuilder::<IoUringDriver>::new().uring_builder(ring);
    let mut runtime = builder.with_entries(ENTRIES).build()?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            monoio::spawn(echo(stream, bytes));
        }
    })
}

/// Serves one connection until its end or an error.
async fn echo(mut stream: TcpStream, bytes: usize) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(bytes);
    loop {
        let (count, read) = stream.read(buffer).await;
        if count? == 0 {
            return Ok(());
        }
        let (written, back) = stream.write_all(read).await;
        written?;
        buffer = back;
        buffer.clear();
    }
}
