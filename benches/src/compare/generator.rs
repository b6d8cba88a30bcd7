//! The load generators: `ringload`, the bare client, wrk, or oha.

use std::fs::{self, File};
use std::io;
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::ValueEnum;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::children::{Process, Scratch};
use super::subject::{PAYLOAD, Protocol, Ring, Server};
use super::{Place, oha, subject, wrk};

/// Beyond the length of the run, for connecting and reporting.
const OVERTIME_MAX: Duration = Duration::from_secs(30);
/// `ringload`: it was itself the bottleneck. Told here by how busy both sides were.
const GENERATOR_WAS_BOTTLENECK: i32 = 4;

/// A load generator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Generator {
    /// ringload, which checks every byte
    Ringload,
    /// ringwright-limit load, which checks byte counts only
    Bare,
    /// wrk, which checks the status only; http only, whole seconds
    Wrk,
    /// oha, which checks the status only; http only
    Oha,
}

/// One run.
pub struct Request<'a> {
    /// The server.
    pub server: &'a Server,
    /// The requests.
    pub work: Work,
    /// Number of connections.
    pub connections: u32,
    /// Duration.
    pub duration: Duration,
}

/// The requests of a run.
#[derive(Clone, Copy)]
pub struct Work {
    /// The protocol.
    pub protocol: Protocol,
    /// Echo: length of a message. HTTP: length of the body.
    pub size_bytes: u32,
    /// Requests in flight on a connection.
    pub pipeline: u32,
    /// Distinct files asked for in turn (the bare client only); none: the one that is always there.
    pub files: Option<u32>,
    /// Requests per second, on schedule (`ringload` and oha only); none: a closed loop.
    pub rate: Option<u32>,
    /// A connection for each request (`ringload` only).
    pub reconnects: bool,
}

impl Work {
    /// One request at a time on connections that are kept.
    pub fn plain(protocol: Protocol, size_bytes: u32) -> Self {
        Self { protocol, size_bytes, pipeline: 1, files: None, rate: None, reconnects: false }
    }
}

/// The counts of a generator; the JSON of `ringload` has the same names.
#[derive(Deserialize)]
pub struct Loaded {
    /// Requests answered in full.
    pub replies: u64,
    /// Length of the run.
    pub elapsed_s: f64,
    /// `ringload` and oha: of all replies, with `ringload` also of those that the end of the run
    /// cut off.
    #[serde(default)]
    pub received_bytes: Option<u64>,
    /// `ringload`.
    #[serde(default)]
    pub connections_opened: Option<u64>,
    /// `ringload` and oha with a rate: from when a request was to be sent.
    #[serde(default)]
    pub latency_us: Option<Times>,
    /// The bare client: the server's, while it was asked.
    #[serde(default)]
    pub server_cpu_s: Option<f64>,
}

/// A distribution of times, microseconds.
#[derive(Clone, Copy, Deserialize, JsonSchema, Serialize)]
#[allow(missing_docs)] // They say what they are.
pub struct Times {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    #[serde(rename = "p99.9")]
    pub p99_9: f64,
    pub max: f64,
}

impl Generator {
    /// Returns the name on the command line and in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ringload => "ringload",
            Self::Bare => "bare",
            Self::Wrk => "wrk",
            Self::Oha => "oha",
        }
    }

    /// The program.
    pub fn program(self) -> &'static str {
        match self {
            Self::Ringload => "ringload",
            Self::Bare => "ringwright-limit",
            Self::Wrk => "wrk",
            Self::Oha => "oha",
        }
    }

    /// Returns true for programs that are not built here.
    pub fn is_foreign(self) -> bool {
        matches!(self, Self::Wrk | Self::Oha)
    }

    /// Returns true if the generator supports the protocol.
    pub fn speaks(self, protocol: Protocol) -> bool {
        !self.is_foreign() || protocol == Protocol::Http
    }

    /// Runs it to its end.
    pub fn run(self, request: &Request, place: &Place, scratch: &Scratch) -> io::Result<Loaded> {
        let address = request.server.address;
        let path = scratch.path().join("load");
        let mut command = Command::new(subject::locate(self.program(), &place.programs)?);
        match self {
            Self::Ringload => ringload_arguments(request, place.ring, &mut command),
            Self::Bare => bare_arguments(request, &mut command),
            Self::Wrk => wrk::arguments(request, &mut command),
            Self::Oha => oha::arguments(request, &mut command),
        }
        if self.is_foreign() {
            command.stdout(File::create(&path)?);
        } else {
            let (connections, length_ms) = (request.connections, request.duration.as_millis());
            command.args(["-c", &connections.to_string(), "-d", &format!("{length_ms}ms")]);
            command.arg("--json").arg(&path).stdout(Stdio::null());
        }
        let mut process = Process::start(command, Some(place.load_cpu))?;
        let status = process.wait(request.duration + OVERTIME_MAX)?;
        if !status.success() && status.code() != Some(GENERATOR_WAS_BOTTLENECK) {
            return Err(process.failure(&format!("ended with {status} while loading {address}")));
        }
        let report = fs::read_to_string(&path).map_err(|error| {
            process.failure(&format!("wrote no report to {}: {error}", path.display()))
        })?;
        fs::remove_file(&path)?;
        let loaded = match self {
            Self::Ringload | Self::Bare => {
                serde_json::from_str(&report).map_err(|error| error.to_string())
            }
            Self::Wrk => wrk::parse(&report, request.connections),
            Self::Oha => oha::parse(&report),
        };
        loaded.map_err(|error| process.failure(&format!("{error}; its output:\n{report}")))
    }
}

fn ringload_arguments(request: &Request, ring: Ring, command: &mut Command) {
    let (address, work) = (request.server.address, &request.work);
    assert!(work.files.is_none(), "ringload gets one file");
    match work.protocol {
        Protocol::Echo => {
            command.args(["echo", &address.to_string(), "--size", &work.size_bytes.to_string()]);
        }
        Protocol::Http => {
            command.args(["http", &format!("http://{address}/{PAYLOAD}")]);
        }
    }
    command.args(["-t", "1", "--quiet", "--pipeline", &work.pipeline.to_string()]);
    command.args(["--ring", ring.name()]);
    if let Some(rate) = work.rate {
        command.args(["--rate", &rate.to_string()]);
    }
    if work.reconnects {
        command.args(["--requests-per-connection", "1"]);
    }
}

fn bare_arguments(request: &Request, command: &mut Command) {
    let (address, work) = (request.server.address, &request.work);
    assert!(work.rate.is_none() && !work.reconnects, "the bare client asks in a closed loop");
    command.args(["load", &address.to_string(), "--pipeline", &work.pipeline.to_string()]);
    match (work.protocol, work.files) {
        (Protocol::Echo, _) => {
            command.args(["--size", &work.size_bytes.to_string()]);
        }
        (Protocol::Http, None) => {
            command.args(["--http", &format!("/{PAYLOAD}")]);
        }
        (Protocol::Http, Some(files)) => {
            command.args(["--http", "/", "--files", &files.to_string()]);
        }
    }
    for process in request.server.processes() {
        command.args(["--cpu-of", &process.to_string()]);
    }
}
