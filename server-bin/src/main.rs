//! `ringwrightd`: see `ringwrightd --help`.

use ringwrightd::options::{Command, Options};
use ringwrightd::serve::Failure;
use ringwrightd::{doctor, messages, serve};
use std::process::ExitCode;

fn main() -> ExitCode {
    let options = Options::of_process();
    let result = match &options.command {
        Command::Check(check) => serve::check(&check.file),
        Command::Doctor(options) => doctor::run(options).map_err(Failure::Failed),
        _ => serve::run(options),
    };
    let status = match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Failed(error)) => {
            messages::fail(&error);
            ExitCode::FAILURE
        }
        Err(Failure::Wrong(faults)) => {
            eprintln!("{faults}");
            ExitCode::from(2)
        }
    };
    messages::finish();
    status
}
