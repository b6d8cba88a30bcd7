//! `ringload`: a load generator that checks every byte of every reply.

use ringload::args::{Cli, HttpArgs, Target};
use ringload::output::files;
use ringload::{flow, plan, run, search, transfer};
use ringload_lifecycle::delivery::Delivery;
use ringload_lifecycle::failure::Failure;
use ringload_lifecycle::report::Outcome;
use ringload_lifecycle::system::Interrupts;
use ringload_lifecycle::{churn, herd, note, replay};
use std::process::ExitCode;

/// Exit status of wrong usage, also clap's.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    match flow::carry_out(&cli, perform) {
        Ok(status) => status.into(),
        Err(Failure::Usage(what)) => fail(USAGE, &what),
        Err(Failure::Unresolved(what)) => fail(Outcome::Unreachable.exit_status(), &what),
        Err(Failure::Engine(error)) => fail(Outcome::Failed.exit_status(), &error.to_string()),
        Err(Failure::System(error)) => fail(Outcome::Failed.exit_status(), &error.to_string()),
        Err(Failure::Server(what)) => fail(Outcome::Failed.exit_status(), &what),
        Err(Failure::Interrupted(what)) => fail(Outcome::Interrupted.exit_status(), &what),
    }
}

/// Runs the command.
fn perform(cli: &Cli, interrupts: &Interrupts) -> Result<Delivery, Failure> {
    match &cli.target {
        Target::Packets { address, load, transfer: Some(transfer), .. } => {
            transfer::perform(load, (address, transfer), interrupts)
        }
        Target::Http(HttpArgs { load, .. })
        | Target::Echo { load, .. }
        | Target::Packets { load, .. } => run::perform(cli, load, interrupts),
        Target::Search(search) => search::perform(search, interrupts),
        Target::Reports(reports) => files::perform(reports),
        Target::Idle(idle) => herd::perform(&idle.own, idle.common.run(), interrupts),
        Target::Plan(plan) => plan::perform(plan, interrupts),
        Target::Churn(churn) => churn::perform(&churn.own, churn.common.run(), interrupts),
        Target::Replay(replay) => replay::perform(&replay.own, interrupts),
    }
}

fn fail(status: u8, what: &str) -> ExitCode {
    note!("ringload: {what}");
    status.into()
}
