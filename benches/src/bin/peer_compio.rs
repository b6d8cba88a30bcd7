//! `ringwright-peer-compio`: an echo server on compio's io_uring driver.

use std::io;
use std::process::ExitCode;

use compio::BufResult;
use compio::driver::ProactorBuilder;
use compio::io::{AsyncRead, AsyncWriteExt};
use compio::net::{TcpListener, TcpStream};
use compio::runtime::RuntimeBuilder;
use ringwright_benches::peer;

/// Entries of the submission queue.
const ENTRIES: u32 = 4096;
/// Entries of the completion queue: one for every connection.
const COMPLETIONS: u32 = 32_768;

fn main() -> ExitCode {
    let about = "Echo server on compio, for comparison: one thread, one task per connection";
    peer::echo_main("ringwright-peer-compio", about, run)
}

fn run(listener: std::net::TcpListener, bytes: usize) -> io::Result<()> {
    let mut driver = ProactorBuilder::new();
    driver.capacity(ENTRIES).cqsize(COMPLETIONS).single_issuer(true).defer_taskrun(true);
    let runtime = RuntimeBuilder::new().with_proactor(driver).build()?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            compio::runtime::spawn(echo(stream, bytes)).detach();
        }
    })
}

/// Serves one connection until its end or an error.
async fn echo(mut stream: TcpStream, bytes: usize) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(bytes);
    loop {
        let BufResult(count, read) = stream.read(buffer).await;
        if count? == 0 {
            return Ok(());
        }
        let BufResult(written, back) = stream.write_all(read).await;
        written?;
        buffer = back;
        buffer.clear();
    }
}
