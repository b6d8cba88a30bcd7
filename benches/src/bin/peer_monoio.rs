//! `ringwright-peer-monoio`: an echo server on monoio's io_uring driver.

use std::io;
use std::process::ExitCode;

use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::{TcpListener, TcpStream};
use monoio::{IoUringDriver, RuntimeBuilder};
use ringwright_benches::peer;

/// Entries of the submission queue.
const ENTRIES: u32 = 4096;
/// Entries of the completion queue: one for every connection.
const COMPLETIONS: u32 = 32_768;

fn main() -> ExitCode {
    let about = "Echo server on monoio, for comparison: one thread, one task per connection";
    peer::echo_main("ringwright-peer-monoio", about, run)
}

fn run(listener: std::net::TcpListener, bytes: usize) -> io::Result<()> {
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
