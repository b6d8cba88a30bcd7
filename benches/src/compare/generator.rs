//! Who asks: `ringload`, the bare client, or wrk.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::ValueEnum;
use serde::Deserialize;

use super::children::{Process, Scratch};
use super::subject::{PAYLOAD, Protocol};
use super::{Common, subject, wrk};

/// Beyond the length of the run, for connecting and reporting.
pub const OVERTIME_MAX: Duration = Duration::from_secs(30);
/// `ringload`: it was itself the bottleneck. Told here by how busy both sides were.
const GENERATOR_WAS_BOTTLENECK: i32 = 4;

/// A load generator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Generator {
    /// `ringload`, which checks every byte.
    Ringload,
    /// `ringwright-limit load`, which checks byte counts: the cheaper one.
    Bare,
    /// wrk, which checks the status. HTTP only, and whole seconds.
    Wrk,
}

/// One run.
pub struct Request {
    pub protocol: Protocol,
    pub address: SocketAddr,
    pub connections: u32,
    pub duration: Duration,
    pub size_bytes: u32,
    pub cpu: usize,
}

/// What all generators report; ours in JSON under the same names.
#[derive(Deserialize)]
pub struct Loaded {
    pub replies: u64,
    pub elapsed_s: f64,
}

impl Generator {
    /// What it is called on the command line, and in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ringload => "ringload",
            Self::Bare => "bare",
            Self::Wrk => "wrk",
        }
    }

    /// The program.
    pub fn program(self) -> &'static str {
        match self {
            Self::Ringload => "ringload",
            Self::Bare => "ringwright-limit",
            Self::Wrk => "wrk",
        }
    }

    /// Whether it can ask in this protocol.
    pub fn speaks(self, protocol: Protocol) -> bool {
        self != Self::Wrk || protocol == Protocol::Http
    }

    /// Runs it to its end.
    pub fn run(self, request: &Request, common: &Common, scratch: &Scratch) -> io::Result<Loaded> {
        if self == Self::Wrk {
            return wrk::run(request, common, scratch);
        }
        let json = scratch.path().join("load.json");
        let mut command = Command::new(subject::locate(self.program(), common)?);
        self.arguments(request, &mut command);
        command.arg("--json").arg(&json).stdout(Stdio::null());
        let mut process = Process::start(command, request.cpu)?;
        let status = process.wait(request.duration + OVERTIME_MAX)?;
        if !status.success() && status.code() != Some(GENERATOR_WAS_BOTTLENECK) {
            return Err(
                process.failure(&format!("ended with {status} loading {}", request.address))
            );
        }
        let report = fs::read_to_string(&json).map_err(|error| {
            process.failure(&format!("left no report in {}: {error}", json.display()))
        })?;
        fs::remove_file(&json)?;
        Ok(serde_json::from_str(&report)?)
    }

    fn arguments(self, request: &Request, command: &mut Command) {
        let Request { protocol, address, connections, duration, size_bytes, .. } = request;
        match (self, protocol) {
            (Self::Ringload, Protocol::Echo) => {
                command.args(["echo", &address.to_string(), "--size", &size_bytes.to_string()]);
            }
            (Self::Ringload, Protocol::Http) => {
                command.args(["http", &format!("http://{address}/{PAYLOAD}")]);
            }
            (Self::Bare, Protocol::Echo) => {
                command.args(["load", &address.to_string(), "--size", &size_bytes.to_string()]);
            }
            (Self::Bare, Protocol::Http) => {
                command.args(["load", &address.to_string(), "--http", &format!("/{PAYLOAD}")]);
            }
            (Self::Wrk, _) => unreachable!("its command line is its own"),
        }
        if self == Self::Ringload {
            command.args(["-t", "1", "--quiet"]);
        }
        command.args([
            "-c",
            &connections.to_string(),
            "-d",
            &format!("{}ms", duration.as_millis()),
        ]);
    }
}
