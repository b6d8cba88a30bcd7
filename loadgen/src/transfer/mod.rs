//! `ringload packets ADDR put`, `get` and `list`: transfers files and compares their SHA-256 with
//! those that the server computes. [`several`] transfers several files on a connection, and resumes
//! them; the rest of this module transfers one.
//!
//! [`perform`] starts an engine with one connection: a [`client::Client`] whose [`client::Side`] is
//! [`put::Put`] or [`get::Get`]. The calling thread shows the [`progress`] and makes the
//! [`report`].

pub mod client;
pub mod get;
pub mod progress;
pub mod put;
pub mod report;
pub mod several;
pub mod sink;
pub mod verdict;

use crate::args::{LoadArgs, Transfer};
use client::{Check, Client, Shared, Side};
use progress::Progress;
use report::{TransferPlan, TransferReport};
use ringload_lifecycle::delivery::Delivery;
use ringload_lifecycle::failure::Failure;
use ringload_lifecycle::fault::{ErrorKind, Fault};
use ringload_lifecycle::packets::{BODY_BYTES_MAX, DIGEST_BYTES};
use ringload_lifecycle::report::Environment;
use ringload_lifecycle::system::{self, CpuTime, Interrupts};
use ringwright::packets::Framing;
use ringwright::{Config, Engine, RingChoice, RingKind};
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use verdict::Verdict;

/// Interval at which the calling thread checks the transfer.
const POLL: Duration = Duration::from_millis(10);
/// Longest wait for the server's FIN after ringload's.
const GRACE: Duration = Duration::from_secs(1);

/// A SHA-256.
pub type Sha = [u8; DIGEST_BYTES];

/// Transfers a file and makes the report.
///
/// # Errors
/// The transfer could not start, or the engine failed.
pub fn perform(
    load: &LoadArgs,
    transfer: (&str, &Transfer),
    interrupts: &Interrupts,
) -> Result<Delivery, Failure> {
    let (target, what) = transfer;
    if !what.uses_ring() {
        return several::perform(load, target, what, interrupts);
    }
    let report = run(load, transfer, interrupts)?;
    // If the file goes to standard output, nothing else may.
    let aside = report.plan.file.is_none();
    let delivery = Delivery::new(&report, report.summary(), report.exit_status);
    Ok(Delivery { aside, ..delivery })
}

fn run(
    load: &LoadArgs,
    (target, transfer): (&str, &Transfer),
    interrupts: &Interrupts,
) -> Result<TransferReport, Failure> {
    let task = Task::new(load, target, transfer)?;
    let mut environment = Environment::of_this_process(None);
    let (moved, verdict, ring) = match transfer {
        Transfer::Put { files, .. } => {
            let source = put::Source::open(&files[0]).map_err(Failure::Usage)?;
            let hash = source.hash().map_err(Failure::System)?;
            let put = |shared| source.put(&task.name, task.plan.replace, shared);
            let side = |shared| put(shared).map_err(Failure::System);
            let (moved, ring) = task.carry_out(interrupts, side)?;
            let verdict = Verdict::new(&moved, || hash.wait());
            (moved, verdict, ring)
        }
        Transfer::List => unreachable!("a list moves no file"),
        Transfer::Get { .. } => {
            let (sink, place) = sink::open(task.file.as_deref()).map_err(Failure::Usage)?;
            let side = |shared| Ok(get::Get::new(&task.name, sink.clone(), shared));
            let (moved, ring) = task.carry_out(interrupts, side)?;
            let sink = sink::lock(&sink);
            let verdict = Verdict::new(&moved, || Ok(sink.digest()));
            (moved, verdict.and_keep(place, sink.written_bytes()), ring)
        }
    };
    environment.ring = Some(ring.to_string());
    Ok(TransferReport::new(task.plan, environment, &moved, verdict))
}

/// The transfer to make, in either direction.
struct Task {
    plan: TransferPlan,
    to: SocketAddr,
    name: Vec<u8>,
    /// The local file; `None` for standard output.
    file: Option<PathBuf>,
    timeout: Duration,
    ring: RingChoice,
    quiet: bool,
}

/// The result of a transfer.
pub struct Moved {
    /// The outcome; `None` if a signal ended the transfer.
    pub result: Option<Result<Check, Fault>>,
    /// Size of the file, if known.
    pub size_bytes: Option<u64>,
    /// Bytes sent or received.
    pub moved_bytes: u64,
    /// The whole file arrived.
    pub is_complete: bool,
    /// From the connect to the arrival of the last byte, or to the end.
    pub elapsed: Duration,
    /// CPU time of this process during the transfer.
    pub cpu: CpuTime,
}

impl Task {
    fn new(load: &LoadArgs, target: &str, transfer: &Transfer) -> Result<Self, Failure> {
        let name = transfer.names().swap_remove(0);
        let to = load.route.address_of(target).map_err(Failure::Unresolved)?;
        let (direction, file, replace, no_verify) = match transfer {
            Transfer::Put { files, replace, no_verify, .. } => {
                ("put", Some(files[0].clone()), *replace, *no_verify)
            }
            Transfer::List => unreachable!("a list moves no file"),
            Transfer::Get { out, no_verify, .. } => {
                let out = out.clone().unwrap_or_else(|| OsStr::from_bytes(&name).into());
                ("get", Some(out).filter(|out| out != Path::new("-")), false, *no_verify)
            }
        };
        let plan = TransferPlan {
            protocol: "packets",
            direction,
            target: target.into(),
            address: to.to_string(),
            name: String::from_utf8_lossy(&name).into_owned(),
            file: file.as_ref().map(|file| file.display().to_string()),
            replace,
            verify: !no_verify,
            timeout_s: load.timeout.as_secs_f64(),
        };
        let (timeout, ring, quiet) = (load.timeout, load.ring.choice(), load.common.quiet);
        Ok(Self { plan, to, name, file, timeout, ring, quiet })
    }

    /// Runs the engine until the transfer has succeeded or failed. Returns the ring, too.
    fn carry_out<S: Side>(
        &self,
        interrupts: &Interrupts,
        side: impl FnOnce(Arc<Shared>) -> Result<S, Failure>,
    ) -> Result<(Moved, RingKind), Failure> {
        let shared = Arc::new(Shared::default());
        let config = config(self.timeout, self.ring);
        let framing = Framing::new(BODY_BYTES_MAX, &config).expect("message_bytes_max has room");
        let verify = self.plan.verify.then(|| self.name.clone());
        let side = side(shared.clone())?;
        let client = Client::new(self.to, side, framing, verify, self.timeout, shared.clone());
        if !self.quiet {
            ringload_lifecycle::note!("{}", self.plan.opening());
        }
        let engine = Engine::start(config, move |_| client.clone())
            .map_err(|error| Failure::Engine(error.into()))?;
        for notice in engine.notices() {
            ringload_lifecycle::note!("ringload: {notice}");
        }
        let cpu_before = system::cpu_time();
        let handle = engine.handle();
        // The handler must not connect when it starts: the workers start after the shards.
        if let Err(busy) = handle.connect(0, self.to, 0) {
            shared.end(Err(Fault::new(ErrorKind::Other, busy)));
        }
        let interrupted = self.watch(&shared, interrupts);
        if interrupted {
            handle.stop();
        } else {
            handle.drain(GRACE);
        }
        let ledger = engine.join().map_err(|error| Failure::Engine(error.into()))?;
        let mut moved = shared.moved(interrupted);
        if !ledger.balanced() {
            let detail = format_args!(
                "the ledger of ringload's own engine does not balance (this is a bug in \
                 ringwright; please report it): {}",
                ledger.to_json()
            );
            moved.result = Some(Err(Fault::new(ErrorKind::Other, detail)));
        }
        moved.cpu = system::cpu_time().since(cpu_before);
        Ok((moved, ledger.ring.kind))
    }

    /// Shows the progress until the end of the transfer. Returns true if a signal arrived first.
    fn watch(&self, shared: &Shared, interrupts: &Interrupts) -> bool {
        let since = Instant::now();
        let mut progress = Progress::new(self.quiet);
        let interrupted = loop {
            if shared.has_ended() {
                break false;
            }
            progress.show(since.elapsed(), shared);
            if interrupts.wait(POLL) {
                break true;
            }
        };
        progress.clear();
        interrupted
    }
}

fn config(timeout: Duration, ring: RingChoice) -> Config {
    Config {
        ring,
        shards: Some(1),
        pin: false,
        max_connections: 1,
        // 64 KiB receive a chunk of 1 MiB in few operations; 4 MiB in total, as by default.
        receive_buffers: 64,
        receive_buffer_bytes: 64 << 10,
        message_bytes_max: Framing::HEADER_BYTES + BODY_BYTES_MAX,
        // One worker, so that received blocks are written in order.
        workers: 1,
        jobs_per_connection_max: get::BLOCKS_MAX,
        idle_timeout: None,
        receive_timeout: None,
        write_timeout: Some(timeout),
        transfer_timeout: Some(timeout),
        connect_timeout: timeout,
        linger_timeout: GRACE,
        ..Config::default()
    }
}
