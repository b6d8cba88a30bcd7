//! `ringload packets ADDR put`, `get` and `list`: transfers files and compares their SHA-256 with
//! those that the server computes.
//!
//! A thread talks to the server with blocking calls: [`gets`] and [`puts`] over a [`link`]. The
//! calling thread shows the [`progress`] and makes the [`report`]. A signal shuts the connection
//! down, which ends the thread.

pub mod gets;
pub mod link;
pub mod part;
pub mod progress;
pub mod puts;
pub mod report;

use crate::args::{LoadArgs, STDOUT, Transfer};
use link::Link;
use part::Part;
use progress::{Progress, Shared};
use report::{FileReport, FilesPlan, FilesReport, Moved, Run, TransferPlan, TransferReport};
use ringload_lifecycle::delivery::Delivery;
use ringload_lifecycle::failure::Failure;
use ringload_lifecycle::fault::{ErrorKind, Fault};
use ringload_lifecycle::packets::{self, Answer, DIGEST_BYTES, Packet, Request, ServerError, code};
use ringload_lifecycle::report::Environment;
use ringload_lifecycle::system::{self, Interrupts};
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Interval at which the calling thread checks the transfer.
pub const POLL: Duration = Duration::from_millis(10);
/// Longest wait for the thread after a signal. A write to a pipe that nobody reads ends later.
const GRACE: Duration = Duration::from_secs(1);
/// Maximum number of files in a list: a server must not fill the memory.
const LISTED_MAX: usize = 1_000_000;
/// Id of the requests of a list.
const LIST_ID: u32 = 1;

/// A SHA-256.
pub type Sha = [u8; DIGEST_BYTES];

/// The server's digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// The digest.
    Digest(Sha),
    /// The server has no workers to compute one.
    NoWorkers,
    /// The server was not asked for one.
    NotAsked,
}

/// Transfers or lists files and makes the report.
///
/// # Errors
/// The transfer could not start.
pub fn perform(
    load: &LoadArgs,
    (target, transfer): (&str, &Transfer),
    interrupts: &Interrupts,
) -> Result<Delivery, Failure> {
    let to = load.route.address_of(target).map_err(Failure::Unresolved)?;
    let environment = Environment::of_this_process(None);
    let plan = FilesPlan::new(load, target, &to.to_string(), transfer);
    let single = transfer.is_single().then(|| single(&plan, transfer));
    let out = match (transfer, &single) {
        (Transfer::Put { files, .. }, Some(_)) => {
            puts::open(&files[0]).map_err(Failure::Usage)?;
            None
        }
        (Transfer::Get { .. }, Some((_, out))) => {
            Some(Part::beside(out.as_deref()).map_err(Failure::Usage)?)
        }
        _ => None,
    };
    let is_in_place = out.as_ref().is_some_and(Part::is_in_place);
    let quiet = load.common.quiet;
    let shared = Arc::new(Shared::default());
    let session =
        Session { to, timeout: load.timeout, transfer: transfer.clone(), shared: shared.clone() };
    if !quiet {
        let what = single.as_ref().map(|(plan, _)| plan.what());
        let what = what.unwrap_or_else(|| plan.direction.into());
        ringload_lifecycle::note!("ringload packets {target}: {what}");
    }
    let cpu_before = system::cpu_time();
    let (files, is_interrupted) = watch(quiet, &shared, interrupts, move || session.run(out));
    let cpu = system::cpu_time().since(cpu_before);
    let elapsed = if single.is_some() { shared.elapsed() } else { shared.elapsed_with_digests() };
    let run = Run { environment, files, elapsed, cpu, is_interrupted };
    let Some((plan, out)) = single else {
        let report = FilesReport::new(plan, run);
        return Ok(Delivery::new(&report, report.summary(), report.exit_status));
    };
    let report = TransferReport::new(plan, run, is_in_place);
    let delivery = Delivery::new(&report, report.summary(), report.exit_status);
    // If the file goes to standard output, nothing else may.
    let aside = out.is_none();
    Ok(Delivery { aside, ..delivery })
}

/// Returns the plan of the transfer of one file, and the local file; `None` for standard output.
fn single(plan: &FilesPlan, transfer: &Transfer) -> (TransferPlan, Option<PathBuf>) {
    let name = transfer.names().swap_remove(0);
    let file = match transfer {
        Transfer::Put { files, .. } => Some(files[0].clone()),
        Transfer::Get { out: Some(out), .. } => {
            Some(out.clone()).filter(|out| out != Path::new(STDOUT))
        }
        _ => Some(OsStr::from_bytes(&name).into()),
    };
    (TransferPlan::new(plan, &name, file.as_deref()), file)
}

/// Runs a session on a thread of its own, until it ends or a signal arrives. Returns true if a
/// signal arrived.
fn watch(
    quiet: bool,
    shared: &Shared,
    interrupts: &Interrupts,
    session: impl FnOnce() -> Vec<FileReport> + Send + 'static,
) -> (Vec<FileReport>, bool) {
    let session = thread::spawn(session);
    let mut progress = Progress::new(quiet);
    let mut interrupted: Option<Instant> = None;
    while !session.is_finished() && interrupted.is_none_or(|at| at.elapsed() < GRACE) {
        progress.show(shared);
        if interrupts.wait(POLL) && interrupted.is_none() {
            interrupted = Some(Instant::now());
            shared.interrupt();
        }
    }
    progress.clear();
    let failed = |why| {
        let mut report = FileReport::failed(b"", &Fault::new(ErrorKind::Other, why));
        let (size_bytes, transferred_bytes) = (shared.size_bytes(), shared.moved_bytes());
        report.moved(Moved { size_bytes, transferred_bytes, ..Moved::default() });
        vec![report]
    };
    let panicked = "the thread of the transfers panicked; this is a bug in ringload";
    let files = match session.is_finished() {
        true => session.join().unwrap_or_else(|_| failed(panicked)),
        false => failed("the transfer was interrupted"),
    };
    (files, interrupted.is_some())
}

/// The work of the thread.
struct Session {
    to: SocketAddr,
    timeout: Duration,
    transfer: Transfer,
    shared: Arc<Shared>,
}

impl Session {
    /// Transfers all files; one report for each. `out` is the file that one download is written to.
    fn run(self, out: Option<Part>) -> Vec<FileReport> {
        let names = self.transfer.names();
        let mut link = match Link::connect(self.to, self.timeout, self.shared.clone()) {
            Ok(link) => link,
            Err(fault) if names.is_empty() => return vec![FileReport::failed(b"", &fault)],
            Err(fault) => {
                return names.iter().map(|name| FileReport::failed(name, &fault)).collect();
            }
        };
        match &self.transfer {
            Transfer::Put { files, replace, resume, no_verify, .. } => {
                let options =
                    puts::Options { replace: *replace, is_resumable: *resume, verify: !no_verify };
                puts::run(link, files, &names, options, &self.shared)
            }
            Transfer::Get { resume, no_verify, .. } => {
                let options = gets::Options { is_resumable: *resume, verify: !no_verify };
                gets::Gets::new(link, names, options, out, &self.shared).run()
            }
            Transfer::List => {
                list(&mut link).unwrap_or_else(|fault| vec![FileReport::failed(b"", &fault)])
            }
        }
    }
}

/// Reads all pages of the list.
fn list(link: &mut Link) -> Result<Vec<FileReport>, Fault> {
    let mut files = Vec::new();
    let mut after = Vec::new();
    loop {
        link.send(&Request::LIST.packet(LIST_ID, &[&after]))?;
        let body = link.packet()?;
        let (more, page) = match link::parse(&body)? {
            Packet { id: LIST_ID, answer: Answer::Listed(fields) } => {
                packets::listed(fields).map_err(|why| Fault::new(ErrorKind::Protocol, why))?
            }
            Packet { answer: Answer::Error(error), .. } => {
                return Err(Fault::new(ErrorKind::BadStatus, with_remedy(&error, "list", false)));
            }
            other => return Err(link::unanswering(&other)),
        };
        // Otherwise a server could list for ever.
        if page.first().is_some_and(|(_, name)| *name <= after) || (more && page.is_empty()) {
            let why = "a page of the list does not begin behind the page before";
            return Err(Fault::new(ErrorKind::Protocol, why));
        }
        if files.len() + page.len() > LISTED_MAX {
            let why = format_args!("the list has more than {LISTED_MAX} files");
            return Err(Fault::new(ErrorKind::Protocol, why));
        }
        files.extend(page.iter().map(|(size, name)| FileReport::listed(name, *size)));
        match page.last() {
            Some((_, last)) if more => after.clone_from(last),
            _ => return Ok(files),
        }
    }
}

/// Returns an error about a file and a remedy. `replace` is true if the request had `--replace`.
fn with_remedy(error: &ServerError, name: &str, replace: bool) -> String {
    let remedy = match error.code {
        code::UNKNOWN_TYPE => {
            "the server is older than this command; transfer one file at a time without --resume"
        }
        code::NO_SUCH_FILE => "ringload packets ADDR list shows what is there",
        code::EXISTS if replace => "the server does not allow replacing",
        code::EXISTS => {
            "use --replace if the server allows it (ringwrightd: --replace), or another name with \
             --as"
        }
        code::TOO_LARGE => "the server can allow more (ringwrightd: --upload-max)",
        code::DISK_FULL => "free space on the server's disk and try again",
        code::BUSY => "try again in half a minute",
        code::READ_ONLY => "the server must run without --read-only",
        code::NO_WORKERS => "the server must run with --workers above 0",
        code::CHANGED => "it changed on the server during the download; run it again",
        _ => return format!("{error}: {name}"),
    };
    format!("{error}: {name}; {remedy}")
}
