//! `ringwright-compare`: two servers in turn, pair by pair.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use ringwright_benches::bare::CONNECTIONS_MAX;
use ringwright_benches::compare::{self, Generator, PROGRAMS, Plan, Protocol, Subject};
use ringwright_benches::machine;

/// Compare two servers in interleaved pairs of short runs.
///
/// Both servers stay alive on one CPU and are loaded in turn from another; who goes first is drawn
/// for each pair. Look at the medians of the ratios and their spread: absolute figures drift.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:\n  \
    ringwright-compare echo\n  \
    ringwright-compare echo --a limit --b tokio --load bare --pairs 9 --seconds 1\n  \
    ringwright-compare http --connections 64 --json http.json --svg http.svg\n  \
    ringwright-compare http --server nginx=/opt/nginx/sbin/nginx"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Messages that come back.
    Echo {
        /// Above the line of the ratio.
        #[arg(long, value_enum, default_value = "ringwrightd")]
        a: Subject,
        /// Below it.
        #[arg(long, value_enum, default_value = "limit")]
        b: Subject,
        /// Bytes per message.
        #[arg(long, value_name = "BYTES", default_value_t = 64,
              value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
        size: u32,
        #[command(flatten)]
        common: Common,
    },
    /// One file over HTTP/1.1, connections kept.
    Http {
        /// Above the line of the ratio.
        #[arg(long, value_enum, default_value = "ringwrightd")]
        a: Subject,
        /// Below it.
        #[arg(long, value_enum, default_value = "nginx")]
        b: Subject,
        /// Bytes of the file.
        #[arg(long, value_name = "BYTES", default_value_t = 1024,
              value_parser = clap::value_parser!(u32).range(1..=1 << 30))]
        size: u32,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Args)]
struct Common {
    /// Pairs of runs for each count of connections.
    #[arg(long, value_name = "N", default_value_t = 9,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    pairs: u32,
    /// Counts of connections.
    #[arg(long, value_name = "N,…", default_value = "64,512",
          value_delimiter = ',', num_args = 1,
          value_parser = clap::value_parser!(u32).range(1..=CONNECTIONS_MAX as i64))]
    connections: Vec<u32>,
    /// Length of one run.
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = run_length)]
    seconds: Duration,
    /// Load generator, ringload or bare, if need be with where it lies.
    #[arg(long, value_name = "NAME[=PATH]", default_value = "ringload", value_parser = generator)]
    load: (Generator, Option<PathBuf>),
    /// Where a server's program lies that is not beside this one (repeatable).
    #[arg(long = "server", value_name = "PROGRAM=PATH", value_parser = program)]
    servers: Vec<(String, PathBuf)>,
    /// CPU of the servers.
    #[arg(long, value_name = "N", default_value_t = 0)]
    server_cpu: usize,
    /// CPU of the load generator.
    #[arg(long, value_name = "N", default_value_t = 1)]
    load_cpu: usize,
    /// Draw the order from this instead of from the clock.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Write the report there, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the ratios there.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

fn run_length(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(format!("`{text}`: expected seconds between 0.1 and 600")),
    }
}

fn generator(text: &str) -> Result<(Generator, Option<PathBuf>), String> {
    let (name, path) = match text.split_once('=') {
        Some((name, path)) => (name, Some(PathBuf::from(path))),
        None => (text, None),
    };
    Ok((Generator::from_str(name, false)?, path))
}

fn program(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, path)) if PROGRAMS.contains(&name) => Ok((name.to_owned(), path.into())),
        _ => Err(format!("expected PROGRAM=PATH with one of {}", PROGRAMS.join(", "))),
    }
}

fn main() -> ExitCode {
    let (plan, common) = match Arguments::parse().command {
        Command::Echo { a, b, size, common } => (plan(Protocol::Echo, a, b, size, &common), common),
        Command::Http { a, b, size, common } => (plan(Protocol::Http, a, b, size, &common), common),
    };
    match run(&plan, &common) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringwright-compare: {error}");
            ExitCode::FAILURE
        }
    }
}

fn plan(protocol: Protocol, a: Subject, b: Subject, size_bytes: u32, common: &Common) -> Plan {
    for subject in [a, b] {
        if !subject.speaks(protocol) {
            let message = format!("{subject} does not speak {protocol}");
            Arguments::command().error(ErrorKind::ValueValidation, message).exit();
        }
    }
    let (generator, generator_path) = common.load.clone();
    let mut programs: HashMap<_, _> = common.servers.iter().cloned().collect();
    programs.extend(generator_path.map(|path| (generator.program().to_owned(), path)));
    Plan {
        protocol,
        a,
        b,
        pairs: common.pairs as usize,
        connections: common.connections.clone(),
        duration: common.seconds,
        size_bytes,
        generator,
        programs,
        server_cpu: common.server_cpu,
        load_cpu: common.load_cpu,
        seed: common.seed.unwrap_or_else(clock_seed),
    }
}

fn clock_seed() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_nanos() as u64)
}

fn run(plan: &Plan, common: &Common) -> io::Result<()> {
    // So that the children and the temporary folder go before we do.
    machine::catch_termination()?;
    let report = compare::run(plan)?;
    print!("{report}");
    if let Some(path) = &common.json {
        write("--json", path, &serde_json::to_string_pretty(&report)?)?;
    }
    if let Some(path) = &common.svg {
        write("--svg", path, &report.svg())?;
    }
    Ok(())
}

fn write(option: &str, path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text).map_err(|error| {
        io::Error::new(error.kind(), format!("{option} {}: {error}", path.display()))
    })
}
