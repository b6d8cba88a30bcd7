//! `ringwright-bench`: compares all servers, or two servers, or two load generators.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};
use ringwright_benches::bare::CONNECTIONS_MAX;
use ringwright_benches::compare::{
    self, Common, Generator, PROGRAMS, Place, Protocol, Ring, Sides, Subject,
};
use ringwright_benches::{machine, suite};

/// Compare servers, or load generators, in short interleaved runs.
///
/// The servers run on one CPU and are loaded in turn from another one, in random order. Compare the
/// medians of the ratios and their spread, because absolute figures drift.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:\n  \
    ringwright-bench compare\n  \
    ringwright-bench compare echo http-512 --out results\n  \
    ringwright-bench echo\n  \
    ringwright-bench echo --a limit --b tokio --load bare --pairs 9 --seconds 1\n  \
    ringwright-bench http --connections 64 --json http.json --svg http.svg\n  \
    ringwright-bench http --a ringwrightd-epoll --b ringwrightd     both rings\n  \
    ringwright-bench echo --b tokio --ring epoll\n  \
    ringwright-bench http --program nginx=/opt/nginx/sbin/nginx\n  \
    ringwright-bench generators --pairs 15\n  \
    ringwright-bench generators --server nginx --a bare\n\n\
    Exit status: 0 done, 1 failed, 2 wrong usage. SIGINT or SIGTERM ends all children first."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Compare ringwrightd with all peers and write RESULTS.md, results.json and plots.
    ///
    /// Builds the programs first. Takes about 40 minutes and two CPUs. Expects nginx and strace
    /// where Debian installs them; --program names other places.
    Compare(Compare),
    /// Compare two echo servers.
    Echo {
        /// Server A, the numerator of the ratio.
        #[arg(long, value_enum, default_value = "ringwrightd")]
        a: Subject,
        /// Server B, the denominator.
        #[arg(long, value_enum, default_value = "limit")]
        b: Subject,
        /// Size of a message in bytes.
        #[arg(long, value_name = "BYTES", default_value_t = 64,
              value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
        size: u32,
        #[command(flatten)]
        load: Load,
        #[command(flatten)]
        runs: Runs,
    },
    /// Compare two HTTP servers that send one file over keep-alive connections.
    Http {
        /// Server A, the numerator of the ratio.
        #[arg(long, value_enum, default_value = "ringwrightd")]
        a: Subject,
        /// Server B, the denominator.
        #[arg(long, value_enum, default_value = "nginx")]
        b: Subject,
        /// Size of the file in bytes.
        #[arg(long, value_name = "BYTES", default_value_t = 1024,
              value_parser = clap::value_parser!(u32).range(1..=1 << 30))]
        size: u32,
        #[command(flatten)]
        load: Load,
        #[command(flatten)]
        runs: Runs,
    },
    /// Compare two load generators by their own CPU time.
    ///
    /// The figure is the number of replies per second of CPU time, user and system, of the
    /// generator's process from its start to its end.
    Generators {
        /// Load generator A, the numerator of the ratio.
        #[arg(long, value_enum, default_value = "ringload")]
        a: Generator,
        /// Load generator B, the denominator.
        #[arg(long, value_enum, default_value = "wrk")]
        b: Generator,
        /// Server from which both request one file over keep-alive connections.
        #[arg(long, value_enum, default_value = "ringwrightd")]
        server: Subject,
        /// Size of the file in bytes.
        #[arg(long, value_name = "BYTES", default_value_t = 1024,
              value_parser = clap::value_parser!(u32).range(1..=1 << 30))]
        size: u32,
        #[command(flatten)]
        runs: Runs,
    },
    /// Holds the clients of `compare probe`, which starts this itself.
    #[command(name = suite::HOLD_CLIENTS, hide = true)]
    HoldClients { address: SocketAddr, connections: usize, cpu: usize },
}

#[derive(Args)]
struct Compare {
    /// Names of the measurements to run; --list prints them. Default: all.
    #[arg(value_name = "NAME", value_parser = measured)]
    only: Vec<String>,
    /// Print the names of all measurements.
    #[arg(long, exclusive = true)]
    list: bool,
    /// Run one short round of each measurement, as a smoke test.
    #[arg(long)]
    quick: bool,
    /// Minimum number of rounds; more follow until the ratios are known within 3 %.
    #[arg(long, value_name = "N", default_value_t = 9,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Maximum number of rounds.
    #[arg(long, value_name = "N", default_value_t = 31,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds_max: u32,
    /// Duration of one run in seconds, 0.1 to 600.
    #[arg(long, value_name = "SECONDS", default_value = "0.5", value_parser = run_length)]
    seconds: Duration,
    /// Folder for RESULTS.md, results.json and the plots. Default: benches in the source tree.
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Do not build the programs first.
    #[arg(long)]
    no_build: bool,
    #[command(flatten)]
    place: PlaceOptions,
}

#[derive(Args)]
struct PlaceOptions {
    /// Path of a program; repeatable. Default: beside this program, or where Debian installs it.
    #[arg(long = "program", value_name = "PROGRAM=PATH", value_parser = program)]
    programs: Vec<(String, PathBuf)>,
    /// Kernel interface of ringwrightd and ringload. Where it is forbidden, the run fails.
    #[arg(long, value_name = "RING", value_enum, default_value = "io_uring")]
    ring: Ring,
    /// CPU to which the servers are pinned.
    #[arg(long, value_name = "N", default_value_t = 0)]
    server_cpu: usize,
    /// CPU to which the load generator is pinned.
    #[arg(long, value_name = "N", default_value_t = 1)]
    load_cpu: usize,
    /// Seed for the order of the runs. Default: from the clock.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

#[derive(Args)]
struct Load {
    /// Load generator; wrk and oha support http only.
    #[arg(long, value_name = "NAME", value_enum, default_value = "ringload")]
    load: Generator,
}

#[derive(Args)]
struct Runs {
    /// Pairs of runs for each number of connections.
    #[arg(long, value_name = "N", default_value_t = 9,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    pairs: u32,
    /// Numbers of connections, separated by commas.
    #[arg(long, value_name = "N,…", default_value = "64,512",
          value_delimiter = ',', num_args = 1,
          value_parser = clap::value_parser!(u32).range(1..=CONNECTIONS_MAX as i64))]
    connections: Vec<u32>,
    /// Duration of one run in seconds, 0.1 to 600; wrk rounds it up to whole seconds.
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = run_length)]
    seconds: Duration,
    #[command(flatten)]
    place: PlaceOptions,
    /// Also write the report to FILE as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Also draw the ratios to FILE as SVG.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

impl PlaceOptions {
    fn with_runs_of(&self, duration: Duration) -> Place {
        Place {
            duration,
            programs: self.programs.iter().cloned().collect(),
            ring: self.ring,
            server_cpu: self.server_cpu,
            load_cpu: self.load_cpu,
            seed: self.seed.unwrap_or_else(clock_seed),
        }
    }
}

fn run_length(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(format!("`{text}`: expected a number of seconds from 0.1 to 600")),
    }
}

fn measured(name: &str) -> Result<String, String> {
    match suite::names().contains(&name.to_owned()) {
        true => Ok(name.to_owned()),
        false => {
            Err("unknown measurement; `ringwright-bench compare --list` prints all names".into())
        }
    }
}

fn program(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, path)) if PROGRAMS.contains(&name) => Ok((name.to_owned(), path.into())),
        _ => Err(format!("expected PROGRAM=PATH with one of the programs {}", PROGRAMS.join(", "))),
    }
}

fn main() -> ExitCode {
    // Termination signals set a flag, so that children and the temporary folder are removed first.
    let caught = machine::catch_termination();
    match caught.and_then(|()| perform(Arguments::parse().command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringwright-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn perform(command: Command) -> io::Result<()> {
    match command {
        Command::Compare(arguments) => compare_all(arguments),
        Command::Echo { a, b, size, load, runs } => {
            let common = runs.common(Protocol::Echo, size, &[load.load], &[a, b]);
            runs.report(Sides::Servers { a, b, generator: load.load }, &common)
        }
        Command::Http { a, b, size, load, runs } => {
            let common = runs.common(Protocol::Http, size, &[load.load], &[a, b]);
            runs.report(Sides::Servers { a, b, generator: load.load }, &common)
        }
        Command::Generators { a, b, server, size, runs } => {
            let common = runs.common(Protocol::Http, size, &[a, b], &[server]);
            runs.report(Sides::Generators { a, b, server }, &common)
        }
        Command::HoldClients { address, connections, cpu } => {
            suite::hold_clients(address, connections, cpu)
        }
    }
}

fn compare_all(arguments: Compare) -> io::Result<()> {
    if arguments.list {
        suite::names().iter().for_each(|name| println!("{name}"));
        return Ok(());
    }
    if !arguments.no_build {
        build()?;
    }
    let Compare { only, quick, rounds, rounds_max, seconds, out, place, .. } = arguments;
    let results = suite::run(&suite::Plan {
        only,
        quick,
        rounds_min: if quick { 1 } else { rounds as usize },
        rounds_max: if quick { 1 } else { rounds_max.max(rounds) as usize },
        out: out.unwrap_or_else(|| Path::new(SOURCES).to_owned()),
        place: place.with_runs_of(if quick { QUICK_RUN } else { seconds }),
    })?;
    let missed = results.verdicts.iter().filter(|verdict| !verdict.reached).count();
    println!(
        "{} of {} requirements are met",
        results.verdicts.len() - missed,
        results.verdicts.len()
    );
    Ok(())
}

const QUICK_RUN: Duration = Duration::from_millis(200);
/// The source tree from which this program was built.
const SOURCES: &str = env!("CARGO_MANIFEST_DIR");

/// Builds all programs with the profile of this one.
fn build() -> io::Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = std::process::Command::new(cargo);
    command.args(["build", "--locked", "--workspace", "--bins"]).current_dir(SOURCES);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    match command.status()?.success() {
        true => Ok(()),
        false => {
            Err(io::Error::other("the build failed; use --no-build to run the existing programs"))
        }
    }
}

impl Runs {
    /// Rejects servers and load generators that do not support the protocol.
    fn common(
        &self,
        protocol: Protocol,
        size_bytes: u32,
        generators: &[Generator],
        servers: &[Subject],
    ) -> Common {
        let mute_generator = generators.iter().find(|generator| !generator.speaks(protocol));
        let mute_server = servers.iter().find(|server| !server.speaks(protocol));
        let mute = mute_generator.map(|generator| generator.name().to_owned());
        if let Some(mute) = mute.or(mute_server.map(Subject::to_string)) {
            let message = format!("{mute} does not support {protocol}");
            Arguments::command().error(ErrorKind::ValueValidation, message).exit();
        }
        Common {
            protocol,
            pairs: self.pairs as usize,
            connections: self.connections.clone(),
            size_bytes,
            place: self.place.with_runs_of(self.seconds),
        }
    }

    /// Compares, prints the report, and writes the files that the options name.
    fn report(&self, sides: Sides, common: &Common) -> io::Result<()> {
        let report = compare::run(sides, common)?;
        print!("{report}");
        if let Some(path) = &self.json {
            write("--json", path, &serde_json::to_string_pretty(&report)?)?;
        }
        if let Some(path) = &self.svg {
            write("--svg", path, &report.svg())?;
        }
        Ok(())
    }
}

fn clock_seed() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_nanos() as u64)
}

fn write(option: &str, path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text).map_err(|error| {
        io::Error::new(error.kind(), format!("{option} {}: cannot write: {error}", path.display()))
    })
}
