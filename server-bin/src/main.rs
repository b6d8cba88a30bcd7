//! `ringwrightd`: see `ringwrightd --help`.

use ringwrightd::options::{Command, Options};
use ringwrightd::{doctor, serve};
use std::process::ExitCode;

fn main() -> ExitCode {
    let result = match Options::of_process().command {
        Command::Http(options) => serve::http(&options),
        Command::Echo(options) => serve::echo(&options),
        Command::Packets(options) => serve::packets(&options),
        Command::Doctor(options) => doctor::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            serve::say(&error);
            ExitCode::FAILURE
        }
    }
}
