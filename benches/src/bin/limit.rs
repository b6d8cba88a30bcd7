//! `ringwright-limit`: the performance limit to which the engine is compared.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use ringwright_benches::bare::CONNECTIONS_MAX;
use ringwright_benches::bare::client::{self, Load};
use ringwright_benches::bare::server::{self, Service};
use ringwright_benches::peer::{self, Place};
use ringwright_benches::{arguments, machine};

/// Server and load generator with one thread, one io_uring and only the necessary system calls.
///
/// It shows what the kernel allows. It has no timeouts, does not check content, and supports at
/// most 16,384 connections.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:\n  \
    ringwright-limit echo --listen 127.0.0.1:7000 --cpu 0\n  \
    ringwright-limit http --listen 127.0.0.1:8080 --size 1024\n  \
    ringwright-limit load 127.0.0.1:7000 --connections 64 --duration 2s --cpu 1\n  \
    ringwright-limit load 127.0.0.1:8080 --connections 64 --duration 2s --http /\n\n\
    Exit status: 0 done, or ended by SIGINT or SIGTERM; 1 failed; 2 wrong usage."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run an echo server: send every received chunk back.
    Echo {
        #[command(flatten)]
        server: Place,
    },
    /// Run an HTTP server: answer every request with a fixed 200.
    ///
    /// A request is anything that ends in an empty line.
    Http {
        #[command(flatten)]
        server: Place,
        /// Size of the reply's body in bytes.
        #[arg(long, value_name = "BYTES", default_value_t = 1024,
              value_parser = clap::value_parser!(u32).range(..=1 << 20))]
        size: u32,
    },
    /// Load a server in a closed loop and print the requests per second.
    ///
    /// Checks the number of received bytes, but not their content.
    Load(LoadArguments),
}

#[derive(Args)]
struct LoadArguments {
    /// Address of the server.
    #[arg(value_name = "ADDRESS:PORT")]
    address: SocketAddr,
    /// Number of connections, each with --pipeline requests in flight.
    #[arg(short, long, value_name = "N", default_value_t = 64,
          value_parser = clap::value_parser!(u32).range(1..=CONNECTIONS_MAX as i64))]
    connections: u32,
    /// Duration of the run: 100ms, 5s, 2m; at most 60m.
    #[arg(short, long, default_value = "2s", value_parser = arguments::duration)]
    duration: Duration,
    /// Size of an echo message in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 64,
          value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    size: u32,
    /// Request this path over HTTP/1.1 instead of echoing messages.
    #[arg(long, value_name = "PATH", conflicts_with = "size")]
    http: Option<String>,
    /// Request N files in turn: PATH0, PATH1 and so on. All replies must have the same length.
    #[arg(long, value_name = "N", requires = "http",
          value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    files: Option<u32>,
    /// Requests in flight on each connection.
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    pipeline: u32,
    /// Also measure the CPU time of this process during the run; repeatable.
    #[arg(long, value_name = "PID")]
    cpu_of: Vec<u32>,
    /// Pin this process to this CPU. Default: any CPU.
    #[arg(long, value_name = "N")]
    cpu: Option<usize>,
    /// Also write the result to FILE as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    let result = machine::catch_termination().and_then(|()| match Arguments::parse().command {
        Command::Echo { server } => serve(&server, "echo", &Service::Echo),
        Command::Http { server, size } => {
            serve(&server, "http", &Service::Http { body_bytes: size as usize })
        }
        Command::Load(arguments) => load(&arguments),
    });
    peer::exit("ringwright-limit", result)
}

fn serve(place: &Place, scheme: &str, service: &Service) -> io::Result<()> {
    server::serve(&place.listen(scheme)?, service)
}

fn load(arguments: &LoadArguments) -> io::Result<()> {
    peer::pin(arguments.cpu)?;
    let address = arguments.address;
    let (requests, reply_bytes) = match (&arguments.http, arguments.files) {
        (None, _) => (vec![vec![b'e'; arguments.size as usize]], arguments.size as usize),
        (Some(path), None) => {
            (vec![client::get(address, path)], client::probe_http(address, path)?)
        }
        (Some(path), Some(files)) => {
            let requests = (0..files).map(|file| client::get(address, &format!("{path}{file}")));
            (requests.collect(), client::probe_http(address, &format!("{path}0"))?)
        }
    };
    let report = client::run(&Load {
        address,
        connections: arguments.connections as usize,
        duration: arguments.duration,
        requests,
        reply_bytes,
        pipeline: arguments.pipeline as usize,
        servers: arguments.cpu_of.clone(),
    })?;
    println!(
        "{:.0} requests/s, {} requests in {:.2} s, {:.2} µs of client CPU per request",
        report.replies_per_s, report.replies, report.elapsed_s, report.cpu_us_per_reply
    );
    if report.connections_silent > 0 {
        println!(
            "{} of {} connections received no reply",
            report.connections_silent, arguments.connections
        );
    }
    let Some(path) = &arguments.json else { return Ok(()) };
    fs::write(path, serde_json::to_string(&report)?).map_err(|error| {
        io::Error::new(error.kind(), format!("--json {}: cannot write: {error}", path.display()))
    })
}
