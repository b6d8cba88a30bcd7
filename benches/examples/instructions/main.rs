//! How many instructions the engine spends on an operation, without noise.
//!
//! The engine's sources are compiled into this program, so that its shard can be driven by a ring that
//! plays a script; the engine itself needs no door for that. What `engine/src/lib.rs` lists is
//! listed here again. An example, because that is never built as a test, with the tests of the engine in it.

// Not all of it is used here.
#![allow(dead_code, unused_imports)]

#[macro_use]
#[path = "../../../engine/src/bugs.rs"]
mod bugs;
#[macro_use]
#[path = "../../../engine/src/marks.rs"]
mod marks;

#[path = "../../../engine/src/admission/mod.rs"]
mod admission;
#[path = "../../../engine/src/config.rs"]
mod config;
#[path = "../../../engine/src/connection.rs"]
mod connection;
#[path = "../../../engine/src/cpu.rs"]
mod cpu;
#[path = "../../../engine/src/engine.rs"]
mod engine;
#[path = "../../../engine/src/error.rs"]
mod error;
#[path = "../../../engine/src/file.rs"]
mod file;
// rustfmt would look for its tests beside this file.
#[rustfmt::skip]
#[path = "../../../engine/src/framing.rs"]
mod framing;
#[path = "../../../engine/src/handler.rs"]
mod handler;
#[path = "../../../engine/src/info.rs"]
mod info;
#[path = "../../../engine/src/ledger.rs"]
mod ledger;
#[path = "../../../engine/src/local.rs"]
mod local;
#[path = "../../../engine/src/mailbox.rs"]
mod mailbox;
#[path = "../../../engine/src/memory/mod.rs"]
mod memory;
#[path = "../../../engine/src/reason.rs"]
mod reason;
#[path = "../../../engine/src/reconnect.rs"]
mod reconnect;
#[path = "../../../engine/src/remote.rs"]
mod remote;
#[path = "../../../engine/src/ring/mod.rs"]
mod ring;
#[path = "../../../engine/src/shard/mod.rs"]
mod shard;
#[path = "../../../engine/src/workers/mod.rs"]
mod workers;

use std::sync::atomic;

use admission::{NoPrefix, Prefix};
use config::{AtCapacity, Config, Probe};
use connection::{Connection, Room};
use engine::Engine;
use error::Error;
use file::{Directory, NewFile, OpenFile, Publish, ReceiveFailed};
use framing::{Framing, FramingTooLarge, PacketTooLong, Packets};
use handler::{Deadline, Handler, Origin};
use info::ConnectionInfo;
use ledger::{Histogram, Ledger, Pair, ShardLedger};
use local::Local;
use mailbox::Busy;
use reason::Reason;
use reconnect::{KeepRefused, Reconnect};
use remote::{Ask, BanFailed, Remote, SlowReaders};
use ring::probe;
use ring::{Errno, FileKind, FileStatus, Setup};
use shard::slots::ConnectionId;
use workers::{Job, JobDone, JobError, Refusal, Refused, WorkersFailed};

mod play;
mod scripted;

use clap::{Parser, Subcommand};
use ringwright_benches::instructions;
use std::path::PathBuf;
use std::process::ExitCode;

/// Counts the instructions that the engine spends on an operation, by valgrind's callgrind, and
/// compares them with what is written down.
///
/// The same program, built by the same compiler, gives the same figures everywhere: they say whether a
/// change of the engine costs or saves, not how long anything takes.
#[derive(Parser)]
#[command(
    name = "instructions",
    version,
    after_help = "Examples:\n  \
    cargo run --release -p ringwright-benches --example instructions\n  \
    cargo run --release -p ringwright-benches --example instructions -- --update\n  \
    cargo run --release -p ringwright-benches --example instructions -- --top 30\n\n\
    Exit status: 0 within bounds, 1 not, 2 usage."
)]
struct Arguments {
    /// The figures to compare with.
    #[arg(long, value_name = "FILE", default_value = "benches/instructions.json")]
    figures: PathBuf,
    /// Write the figures instead of comparing.
    #[arg(long)]
    update: bool,
    /// Functions shown for each scenario, the dearest first.
    #[arg(long, value_name = "N", default_value_t = 10)]
    top: usize,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Play a scenario, for callgrind to watch.
    #[command(hide = true)]
    Play { scenario: String, operations: u64 },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.command {
        Some(Command::Play { scenario, operations }) => play::play(&scenario, operations),
        None => {
            let scenarios: Vec<_> = play::SCENARIOS.iter().map(play::Scenario::figure).collect();
            instructions::run(&arguments.figures, arguments.update, arguments.top, &scenarios)
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("instructions: {error}");
            ExitCode::FAILURE
        }
    }
}
