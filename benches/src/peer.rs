//! The options, the start-up and the main function that the servers of this package share.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Parser};

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
struct Buffer {
    /// Size of the read buffer of each connection, in bytes.
    #[arg(long = "buffer", value_name = "BYTES", default_value_t = 4096,
          value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    bytes: u32,
}

#[derive(Parser)]
#[command(version)]
struct Arguments<Own: Args> {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    own: Own,
}

impl Place {
    /// Pins this thread, opens the listener and prints its address.
    pub fn listen(&self, scheme: &str) -> io::Result<TcpListener> {
        pin(self.cpu)?;
        let listener = machine::listen(self.listen).map_err(|error| {
            io::Error::new(error.kind(), format!("--listen {}: {error}", self.listen))
        })?;
        println!("listening {scheme}://{}", listener.local_addr()?);
        io::stdout().flush()?;
        Ok(listener)
    }
}

/// Pins this thread to the CPU of the option `--cpu`.
pub fn pin(cpu: Option<usize>) -> io::Result<()> {
    let Some(cpu) = cpu else { return Ok(()) };
    machine::pin_to_cpu(cpu).map_err(|error| {
        io::Error::new(error.kind(), format!("--cpu {cpu}: {error}; see nproc(1)"))
    })
}

/// The main function of an echo server. `serve` gets the listener and the size of a read buffer.
pub fn echo_main(
    program: &'static str,
    about: &'static str,
    serve: impl FnOnce(TcpListener, usize) -> io::Result<()>,
) -> ExitCode {
    main(program, about, "echo", |listener, buffer: &Buffer| serve(listener, buffer.bytes as usize))
}

/// The main function of a server with options of its own.
pub fn main<Own: Args>(
    program: &'static str,
    about: &'static str,
    scheme: &str,
    serve: impl FnOnce(TcpListener, &Own) -> io::Result<()>,
) -> ExitCode {
    let matches = Arguments::<Own>::command().name(program).about(about).get_matches();
    let arguments = Arguments::<Own>::from_arg_matches(&matches);
    let Arguments { place, own } = arguments.unwrap_or_else(|error| error.exit());
    exit(program, place.listen(scheme).and_then(|listener| serve(listener, &own)))
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
