//! `ringload`: puts load on a server and checks every byte that comes back.

use ringload::args::{Cli, Target};
use ringload::delivery::Delivery;
use ringload::report::Outcome;
use ringload::run::Failure;
use ringload::system::Interrupts;
use ringload::units::show_path;
use ringload::{lifecycle, run, transfer};
use std::fs::File;
use std::process::ExitCode;

/// What was asked for cannot be done.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    // Created before the run: ten minutes of load are too long to learn that it cannot be.
    let json = match cli.common().json.as_ref().map(|path| (path, File::create(path))) {
        None => None,
        Some((_, Ok(file))) => Some(file),
        Some((path, Err(error))) => {
            return fail(USAGE, &format!("--json {}: {error}", show_path(path)));
        }
    };
    let interrupts = match Interrupts::block() {
        Ok(interrupts) => interrupts,
        Err(error) => return fail(Outcome::Failed.exit_status(), &error.to_string()),
    };
    match perform(&cli, &interrupts) {
        Ok(delivery) => match delivery.deliver(json) {
            Ok(()) => delivery.exit_status.into(),
            Err(what) => fail(Outcome::Failed.exit_status(), &what),
        },
        Err(Failure::Usage(what)) => fail(USAGE, &what),
        Err(Failure::Unresolved(what)) => fail(Outcome::Unreachable.exit_status(), &what),
        Err(Failure::Engine(error)) => fail(Outcome::Failed.exit_status(), &error.to_string()),
        Err(Failure::System(error)) => fail(Outcome::Failed.exit_status(), &error.to_string()),
    }
}

/// Does what was asked for: one arm per command.
fn perform(cli: &Cli, interrupts: &Interrupts) -> Result<Delivery, Failure> {
    match &cli.target {
        Target::Packets { address, load, transfer: Some(transfer), .. } => {
            transfer::perform(load, (address, transfer), interrupts)
        }
        Target::Http { load, .. } | Target::Echo { load, .. } | Target::Packets { load, .. } => {
            run::perform(cli, load, interrupts)
        }
        Target::Churn(churn) => lifecycle::churn::perform(churn, interrupts),
        Target::Replay(replay) => lifecycle::replay::perform(replay, interrupts),
    }
}

fn fail(status: u8, what: &str) -> ExitCode {
    eprintln!("ringload: {what}");
    status.into()
}
