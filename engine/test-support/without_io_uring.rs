//! Runs a command where io_uring is forbidden, as in most containers:
//!
//! ```sh
//! cargo run -p ringwright --example without_io_uring -- EPERM cargo test --workspace
//! ```
//!
//! The first argument says how a seccomp filter answers the system calls of io_uring: with the
//! errno `EPERM` or `ENOSYS`, or by `kill`.

use ringwright_test_support::seccomp::{fails_with, filter};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

const IO_URING: [libc::c_long; 3] =
    [libc::SYS_io_uring_setup, libc::SYS_io_uring_register, libc::SYS_io_uring_enter];

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let outcome = match arguments.next().as_ref().and_then(|it| it.to_str()) {
        Some("EPERM") => fails_with(libc::EPERM),
        Some("ENOSYS") => fails_with(libc::ENOSYS),
        Some("kill") => libc::SECCOMP_RET_KILL_PROCESS,
        _ => return usage(),
    };
    let Some(program) = arguments.next() else { return usage() };
    filter(&IO_URING, outcome);
    let error = Command::new(&program).args(arguments).exec();
    eprintln!("without_io_uring: cannot run {}: {error}", program.display());
    ExitCode::FAILURE
}

fn usage() -> ExitCode {
    eprintln!("usage: without_io_uring EPERM|ENOSYS|kill COMMAND...");
    ExitCode::from(2)
}
