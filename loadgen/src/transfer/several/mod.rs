//! Several files on one connection, resumed files, and the list of files.
//!
//! A thread talks to the server with blocking calls: `gets` and `puts` over a `link`. The
//! calling thread shows the progress. A signal shuts the connection down, which ends the thread.

mod gets;
mod link;
mod part;
mod puts;
mod report;

use super::client::Shared;
use super::progress::Progress;
use crate::args::{LoadArgs, Transfer};
use link::Link;
use report::{FileReport, FilesPlan, FilesReport};
use ringload_lifecycle::delivery::Delivery;
use ringload_lifecycle::failure::Failure;
use ringload_lifecycle::fault::{ErrorKind, Fault};
use ringload_lifecycle::packets::{self, Answer, Packet, Request, ServerError, code};
use ringload_lifecycle::report::Environment;
use ringload_lifecycle::system::Interrupts;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Interval at which the calling thread looks.
const POLL: Duration = Duration::from_millis(10);
/// Maximum number of files in a list: a server must not fill the memory.
const LISTED_MAX: usize = 1_000_000;
/// Id of the requests of a list.
const LIST_ID: u32 = 1;

/// Transfers or lists files and makes the report.
///
/// # Errors
/// The transfer could not start.
pub fn perform(
    load: &LoadArgs,
    target: &str,
    transfer: &Transfer,
    interrupts: &Interrupts,
) -> Result<Delivery, Failure> {
    let to = load.route.address_of(target).map_err(Failure::Unresolved)?;
    let plan = FilesPlan::new(load, target, &to.to_string(), transfer);
    let environment = Environment::of_this_process(None);
    let quiet = load.common.quiet;
    if !quiet {
        ringload_lifecycle::note!("ringload packets {target}: {}", plan.direction);
    }
    let shared = Arc::new(Shared::default());
    let begun = Instant::now();
    let (files, is_interrupted) = match TcpStream::connect_timeout(&to, load.timeout) {
        Ok(stream) => {
            let link = Link::new(stream, load.timeout).map_err(Failure::System)?;
            let socket = link.socket().map_err(Failure::System)?;
            let session = Session { transfer, shared: shared.clone() };
            watch(&socket, quiet, &shared, interrupts, move || session.run(link))
        }
        Err(error) => {
            let kind = match error.kind() {
                std::io::ErrorKind::ConnectionRefused => ErrorKind::ConnectRefused,
                _ => ErrorKind::ConnectFailed,
            };
            let why = format!("connect to {to}: {error}; is the server running there?");
            let fail = |name: &Vec<u8>| FileReport::failed(name, Fault::new(kind, &why));
            let mut files: Vec<FileReport> = transfer.names().iter().map(fail).collect();
            if files.is_empty() {
                files.push(FileReport::failed(b"", Fault::new(kind, &why)));
            }
            (files, false)
        }
    };
    let moved = (shared.moved_bytes(), begun.elapsed());
    let report = FilesReport::new(plan, environment, files, moved, is_interrupted);
    Ok(Delivery::new(&report, report.summary(), report.exit_status))
}

/// Runs a session on a thread of its own, until it ends or a signal arrives.
fn watch(
    socket: &TcpStream,
    quiet: bool,
    shared: &Shared,
    interrupts: &Interrupts,
    session: impl FnOnce() -> Vec<FileReport> + Send,
) -> (Vec<FileReport>, bool) {
    let since = Instant::now();
    thread::scope(|scope| {
        let session = scope.spawn(session);
        let mut progress = Progress::new(quiet);
        let mut is_interrupted = false;
        while !session.is_finished() {
            progress.show(since.elapsed(), shared);
            if interrupts.wait(POLL) {
                is_interrupted = true;
                // The thread notices it at its next call. An error means that it has ended.
                let _ = socket.shutdown(Shutdown::Both);
                break;
            }
        }
        let files = session.join().unwrap_or_else(|_| {
            let why = "the thread of the transfers panicked; this is a bug in ringload";
            vec![FileReport::failed(b"", Fault::new(ErrorKind::Other, why))]
        });
        progress.clear();
        (files, is_interrupted)
    })
}

/// The work of the thread.
struct Session<'a> {
    transfer: &'a Transfer,
    shared: Arc<Shared>,
}

impl Session<'_> {
    fn run(self, mut link: Link) -> Vec<FileReport> {
        match self.transfer {
            Transfer::Put { files, replace, resume, no_verify, .. } => {
                let options =
                    puts::Options { replace: *replace, is_resumable: *resume, verify: !no_verify };
                puts::run(link, files, self.transfer.names(), options, &self.shared)
            }
            Transfer::Get { resume, no_verify, .. } => {
                let options = gets::Options { is_resumable: *resume, verify: !no_verify };
                gets::Gets::new(link, self.transfer.names(), options, &self.shared).run()
            }
            Transfer::List => {
                list(&mut link).unwrap_or_else(|fault| vec![FileReport::failed(b"", fault)])
            }
        }
    }
}

/// All pages of the list.
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
                return Err(Fault::new(ErrorKind::BadStatus, with_remedy(&error, "list")));
            }
            other => return Err(link::unexpected(&other)),
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

/// An ERROR about a file, and a remedy.
fn with_remedy(error: &ServerError, name: &str) -> String {
    let remedy = match error.code {
        code::UNKNOWN_TYPE => {
            "the server is older than this command; transfer one file at a time without --resume"
        }
        code::NO_SUCH_FILE => "ringload packets ADDR list shows what is there",
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
