//! `ringload`: puts load on a server and checks every byte that comes back.

use ringload::args::Cli;
use ringload::report::{Outcome, Report};
use ringload::run::{Failure, run};
use ringload::summary::summary;
use ringload::system::Interrupts;
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
            return fail(USAGE, &format!("--json {}: {error}", path.display()));
        }
    };
    let interrupts = match Interrupts::block() {
        Ok(interrupts) => interrupts,
        Err(error) => return fail(Outcome::Failed.exit_status(), &error.to_string()),
    };
    match run(&cli, &interrupts) {
        Ok(report) => deliver(&report, json),
        Err(Failure::Usage(what)) => fail(USAGE, &what),
        Err(Failure::Unresolved(what)) => fail(Outcome::Unreachable.exit_status(), &what),
        Err(Failure::Engine(error)) => fail(Outcome::Failed.exit_status(), &error.to_string()),
    }
}

fn deliver(report: &Report, json: Option<File>) -> ExitCode {
    // A reader that has gone (`| head`) does not change how the run ended.
    let _ = std::io::stdout().write_all(summary(report).as_bytes());
    if let Some(file) = json
        && let Err(error) = write_json(report, file)
    {
        return fail(Outcome::Failed.exit_status(), &format!("--json: {error}"));
    }
    report.exit_status.into()
}

fn write_json(report: &Report, file: File) -> std::io::Result<()> {
    let mut file = BufWriter::new(file);
    serde_json::to_writer_pretty(&mut file, report)?;
    file.write_all(b"\n")?;
    file.flush()
}

fn fail(status: u8, what: &str) -> ExitCode {
    eprintln!("ringload: {what}");
    status.into()
}
