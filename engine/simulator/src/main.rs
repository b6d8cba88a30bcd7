//! Runs seeds of the engine's simulation: whole lives of shards on a simulated kernel.
//!
//! A seed that fails is reduced: faults, actions, peers and events are left out while it still
//! fails. `engine/HACKING.md` explains how to read the output.

mod reduce;
mod seeds;

use clap::Parser;
use ringwright::simulation::{Without, be_quiet, run};
use std::num::{NonZeroU64, NonZeroUsize};
use std::process::ExitCode;

/// Runs seeds of the engine's simulation.
///
/// Exit status: 0 if all seeds pass, 1 if one fails, 2 if the command line is wrong.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Run only this seed, and print its trace if it fails
    #[arg(long, value_name = "N", conflicts_with_all = ["seeds", "from", "jobs"])]
    seed: Option<u64>,
    /// Number of seeds
    #[arg(long, value_name = "N", default_value = "4000")]
    seeds: NonZeroU64,
    /// First seed
    #[arg(long, value_name = "N", default_value_t = 0)]
    from: u64,
    /// Threads. Default: one for each CPU
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// Leave these faults and actions out: names separated by commas, or `list`
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    without: Vec<String>,
    /// Peers of each shard, at most
    #[arg(long, value_name = "N")]
    peers_max: Option<usize>,
    /// Events until the faults stop, at most
    #[arg(long, value_name = "N")]
    events_max: Option<u64>,
    /// Do not reduce a seed that fails
    #[arg(long)]
    no_reduce: bool,
    /// Print how often each place in the code was reached
    #[arg(long)]
    marks: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.without.iter().any(|name| name == "list") {
        Without::all().for_each(|name| println!("{name}"));
        return ExitCode::SUCCESS;
    }
    let mut without = Without::default();
    (without.peers_max, without.events_max) = (args.peers_max, args.events_max);
    for name in &args.without {
        if !without.leave_out(name) {
            eprintln!("--without {name}: no fault or action has this name; see --without list");
            return ExitCode::from(2);
        }
    }
    be_quiet();
    let failed = match args.seed {
        Some(seed) => run(seed, &without).err().map(|failed| (seed, failed)),
        None => seeds::run_all(&args, &without),
    };
    let Some((seed, failed)) = failed else { return ExitCode::SUCCESS };
    eprint!("{}", failed.trace);
    eprintln!("seed {seed} fails: {}", failed.message);
    let without = if args.no_reduce { without } else { reduce::reduce(seed, without) };
    eprintln!("commit {}", commit().as_deref().unwrap_or("unknown"));
    let command = "cargo run --profile seeds -p ringwright-simulator --";
    eprintln!("to run it again: {command} --seed {seed} {without}");
    ExitCode::FAILURE
}

/// The commit that is checked out here.
fn commit() -> Option<String> {
    let mut git = std::process::Command::new("git");
    let output = git.args(["describe", "--always", "--dirty"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
