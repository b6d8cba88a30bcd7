//! `ringload`: puts load on a server and checks every byte that comes back.

use ringload::args::Cli;
use ringload::report::Outcome;
use ringload::run::{Failure, run};
use ringload::summary::summary;
use ringload::system::Interrupts;
use ringload::transfer;
use ringload::units::show_path;
use serde::Serialize;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::process::ExitCode;

/// What was asked for cannot be done.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    // Created before the run: ten minutes of load are too long to learn that it cannot be.
    let json = match cli.load().json.as_ref().map(|path| (path, File::create(path))) {
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
    let delivered = match cli.transfer() {
        None => run(&cli, &interrupts)
            .map(|report| deliver(&report, &summary(&report), report.exit_status, false, json)),
        Some(transfer) => transfer::run(&cli, transfer, &interrupts).map(|report| {
            // Where the file goes to standard output nothing else does.
            let aside = report.plan.file.is_none();
            deliver(&report, &report.summary(), report.exit_status, aside, json)
        }),
    };
    match delivered {
        Ok(status) => status,
        Err(Failure::Usage(what)) => fail(USAGE, &what),
        Err(Failure::Unresolved(what)) => fail(Outcome::Unreachable.exit_status(), &what),
        Err(Failure::Engine(error)) => fail(Outcome::Failed.exit_status(), &error.to_string()),
        Err(Failure::System(error)) => fail(Outcome::Failed.exit_status(), &error.to_string()),
    }
}

fn deliver(
    report: &impl Serialize,
    summary: &str,
    exit_status: u8,
    aside: bool,
    json: Option<File>,
) -> ExitCode {
    // A reader that has gone (`| head`) does not change how the run ended.
    let _ = match aside {
        false => std::io::stdout().write_all(summary.as_bytes()),
        true => std::io::stderr().write_all(summary.as_bytes()),
    };
    if let Some(file) = json
        && let Err(error) = write_json(report, file)
    {
        return fail(Outcome::Failed.exit_status(), &format!("--json: {error}"));
    }
    exit_status.into()
}

fn write_json(report: &impl Serialize, file: File) -> std::io::Result<()> {
    let mut file = BufWriter::new(file);
    serde_json::to_writer_pretty(&mut file, report)?;
    file.write_all(b"\n")?;
    file.flush()
}

fn fail(status: u8, what: &str) -> ExitCode {
    eprintln!("ringload: {what}");
    status.into()
}
