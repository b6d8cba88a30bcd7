//! What the servers of other runtimes have in common: how they are told where to listen, and how
//! they tell that they do.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;

use clap::Args;

use crate::machine;

/// Where to listen.
#[derive(Args)]
pub struct Place {
    /// Where to listen; port 0 takes a free one, which is printed.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// Stay on this CPU.
    #[arg(long, value_name = "N")]
    cpu: Option<usize>,
}

/// What an echo reads into.
#[derive(Args)]
pub struct Buffer {
    /// Read so many bytes at a time, into a buffer of each connection's own.
    #[arg(long = "buffer", value_name = "BYTES", default_value_t = 4096,
          value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    bytes: u32,
}

impl Buffer {
    /// Its length.
    pub fn bytes(&self) -> usize {
        self.bytes as usize
    }
}

impl Place {
    /// Pins this thread, listens as every server here does, and says so.
    pub fn listen(&self, scheme: &str) -> io::Result<TcpListener> {
        if let Some(cpu) = self.cpu {
            machine::pin_to_cpu(cpu)?;
        }
        let listener = machine::listen(self.listen)?;
        println!("listening {scheme}://{}", listener.local_addr()?);
        io::stdout().flush()?;
        Ok(listener)
    }
}

/// The status to end with; an error is told.
pub fn exit(program: &str, result: io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{program}: {error}");
            ExitCode::FAILURE
        }
    }
}
