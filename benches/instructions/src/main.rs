//! Counts the instructions that the engine spends on an operation.
//!
//! A scripted ring drives a shard, turn by turn. Both come in by the engine's feature `internals`.

mod play;
mod scripted;

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Counts the engine's instructions per operation with valgrind's callgrind and compares them with
/// the committed figures.
///
/// The same sources and the same compiler give the same counts on every machine. Counts show if a
/// change costs or saves instructions; they do not show time.
#[derive(Parser)]
#[command(
    name = "ringwright-instructions",
    version,
    after_help = "Examples:\n  \
    cargo run --release -p ringwright-instructions\n  \
    cargo run --release -p ringwright-instructions -- --update\n  \
    cargo run --release -p ringwright-instructions -- --top 30\n\n\
    Exit status: 0 within bounds, 1 not, 2 usage."
)]
struct Arguments {
    /// File with the figures to compare with.
    #[arg(long, value_name = "FILE", default_value = "benches/instructions.json")]
    figures: PathBuf,
    /// Write the new figures to that file instead of comparing.
    #[arg(long)]
    update: bool,
    /// Number of functions to list for each scenario, the most expensive first.
    #[arg(long, value_name = "N", default_value_t = 10)]
    top: usize,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Play one scenario; the program runs itself this way under callgrind.
    #[command(hide = true)]
    Play { scenario: String, operations: u64 },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.command {
        Some(Command::Play { scenario, operations }) => play::play(&scenario, operations),
        None => {
            let scenarios: Vec<_> = play::SCENARIOS.iter().map(play::Scenario::figure).collect();
            ringwright_instructions::run(
                &arguments.figures,
                arguments.update,
                arguments.top,
                &scenarios,
            )
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringwright-instructions: {error}");
            ExitCode::FAILURE
        }
    }
}
