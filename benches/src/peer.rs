//! The options and the start-up that the servers on other runtimes share.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;

use clap::Args;

use crate::machine;

/// The listener and its CPU.
#[derive(Args)]
pub struct Place {
    /// Address to listen on; port 0 picks a free port. The address is printed when the server is
    /// ready.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// Pin the server to this CPU. Default: any CPU.
    #[arg(long, value_name = "N")]
    cpu: Option<usize>,
}

/// The read buffer of an echo server.
#[derive(Args)]
pub struct Buffer {
    /// Size of the read buffer of each connection, in bytes.
    #[arg(long = "buffer", value_name = "BYTES", default_value_t = 4096,
          value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    bytes: u32,
}

impl Buffer {
    /// Returns the size in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes as usize
    }
}

impl Place {
    /// Pins this thread, opens the listener and prints its address.
    pub fn listen(&self, scheme: &str) -> io::Result<TcpListener> {
        if let Some(cpu) = self.cpu {
            machine::pin_to_cpu(cpu).map_err(|error| {
                io::Error::new(error.kind(), format!("--cpu {cpu}: {error}; see nproc(1)"))
            })?;
        }
        let listener = machine::listen(self.listen).map_err(|error| {
            io::Error::new(error.kind(), format!("--listen {}: {error}", self.listen))
        })?;
        println!("listening {scheme}://{}", listener.local_addr()?);
        io::stdout().flush()?;
        Ok(listener)
    }
}

/// Prints an error and returns the exit status.
pub fn exit(program: &str, result: io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{program}: {error}");
            ExitCode::FAILURE
        }
    }
}
