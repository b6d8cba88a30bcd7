//! Counts the instructions that the engine spends on an operation.
//!
//! This program compiles the engine's sources as its own modules, because the crate exports neither
//! `Ring` nor `Shard`. A scripted ring then drives a shard. The list below repeats the modules and
//! re-exports of `engine/src/lib.rs`.

// The scenarios use only a part of the engine.
#![allow(dead_code, unused_imports)]

#[macro_use]
#[path = "../../../engine/src/bugs.rs"]
mod bugs;
#[macro_use]
#[path = "../../../engine/src/marks.rs"]
mod marks;

#[path = "../../../engine/src/admission/mod.rs"]
mod admission;
#[path = "../../../engine/src/cgroup.rs"]
mod cgroup;
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
#[path = "../../../engine/src/listener.rs"]
mod listener;
#[path = "../../../engine/src/local.rs"]
mod local;
#[path = "../../../engine/src/mailbox.rs"]
mod mailbox;
#[path = "../../../engine/src/memory/mod.rs"]
mod memory;
#[path = "../../../engine/src/panics.rs"]
mod panics;
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
#[path = "../../../engine/src/validate.rs"]
mod validate;
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
use info::{ConnectionInfo, EndedConnection};
use ledger::{Histogram, Ledger, Pair, ShardLedger};
use listener::{Listener, ListenerInfo, ListenerSettings, ListenerState};
use local::Local;
use mailbox::Busy;
use reason::Reason;
use reconnect::{KeepRefused, Reconnect};
use remote::{Ask, Audience, BanFailed, Remote, SlowReaders};
use ring::probe;
use ring::{Errno, Features, FileKind, FileStatus, RingChoice, RingInUse, RingKind, Setup};
use shard::slots::ConnectionId;
use workers::{Job, JobDone, JobError, Refusal, Refused, WorkersFailed};

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
