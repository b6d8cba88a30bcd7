//! The client side of a transfer: the parts that both directions share.

use super::{Moved, Sha};
use ringload_lifecycle::fault::{ErrorKind, Fault};
use ringload_lifecycle::packets::{Answer, Packet, Request, ServerError, code};
use ringload_lifecycle::system::CpuTime;
use ringwright::packets::Framing;
use ringwright::workers::JobDone;
use ringwright::{Connection, ConnectionId, Handler, Local, Origin, Reason};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Id of the transfer's requests.
pub const TRANSFER_ID: u32 = 1;
/// Id of the digest request.
const VERIFY_ID: u32 = 2;
/// Interval of the timeout check.
const CHECK: Duration = Duration::from_millis(100);
/// Speed that the timeout assumes for server work on a whole file (sync, digest), bytes per second.
const WORK_BYTES_PER_S: u64 = 32 << 20;
/// Marks an unknown size.
const UNKNOWN: u64 = u64::MAX;

/// The parts that differ between the directions.
pub trait Side: Clone + Send + Sync + 'static {
    /// Returns the first packet.
    fn request(&self) -> Vec<u8>;

    /// Handles an answer of the server.
    ///
    /// # Errors
    /// The answer ends the transfer.
    fn answered(
        &mut self,
        connection: &mut Connection<'_>,
        answer: &Answer<'_>,
    ) -> Result<Progress, Fault>;

    /// Describes the server's refusal, with a remedy.
    fn refused(&self, error: &ServerError) -> String {
        error.to_string()
    }

    /// Describes the end of the connection if the local file caused it.
    fn ended(&self, reason: Reason) -> Option<String> {
        let _ = reason;
        None
    }

    /// Returns the side that must act next.
    fn turn(&self) -> Turn;

    /// Returns the number of chunk bytes before the next packet.
    fn chunk_missing_bytes(&self) -> u64 {
        0
    }

    /// Takes bytes of a chunk and returns their number, less than all while receiving is paused.
    ///
    /// # Errors
    /// The bytes cannot be handed to the worker.
    fn take(&mut self, connection: &mut Connection<'_>, bytes: &[u8]) -> Result<usize, Fault> {
        let _ = (connection, bytes);
        Ok(0)
    }

    /// As [`Handler::file_sent`].
    fn file_sent(&mut self, connection: &mut Connection<'_>) {
        let _ = connection;
    }

    /// As [`Handler::job_done`].
    ///
    /// # Errors
    /// The job failed.
    fn job_done(
        &mut self,
        connection: &mut Connection<'_>,
        job: JobDone,
    ) -> Result<Progress, Fault> {
        let _ = (connection, job);
        Ok(Progress::Going)
    }
}

/// The state of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More data is to come.
    Going,
    /// The last byte has arrived.
    Complete,
}

/// The side that must act next; determines the timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The server must answer.
    Server,
    /// The server must process the whole file before it answers.
    ServerAtWork,
    /// Ringload must send; the engine enforces the timeout.
    Ours,
}

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

/// State shared by the shard and the watching thread.
pub struct Shared {
    size_bytes: AtomicU64,
    moved_bytes: AtomicU64,
    is_verifying: AtomicBool,
    opened: OnceLock<Instant>,
    completed: OnceLock<Instant>,
    ended: OnceLock<(Instant, Result<Check, Fault>)>,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            size_bytes: AtomicU64::new(UNKNOWN),
            moved_bytes: AtomicU64::new(0),
            is_verifying: AtomicBool::new(false),
            opened: OnceLock::new(),
            completed: OnceLock::new(),
            ended: OnceLock::new(),
        }
    }
}

impl Shared {
    /// Sets the size of the file.
    pub fn set_size(&self, bytes: u64) {
        self.size_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Sets the number of bytes transferred.
    pub fn set_moved(&self, bytes: u64) {
        self.moved_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Returns the size of the file, if known.
    #[must_use]
    pub fn size_bytes(&self) -> Option<u64> {
        Some(self.size_bytes.load(Ordering::Relaxed)).filter(|size| *size != UNKNOWN)
    }

    /// Returns the number of bytes transferred.
    #[must_use]
    pub fn moved_bytes(&self) -> u64 {
        self.moved_bytes.load(Ordering::Relaxed)
    }

    /// Returns true after the digest request.
    #[must_use]
    pub fn is_verifying(&self) -> bool {
        self.is_verifying.load(Ordering::Relaxed)
    }

    /// Returns true after the end of the transfer.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended.get().is_some()
    }

    /// Returns the result.
    #[must_use]
    pub fn moved(&self, interrupted: bool) -> Moved {
        let (end, result) = self.ended.get().cloned().unzip();
        let end = self.completed.get().copied().or(end).unwrap_or_else(Instant::now);
        let start = self.opened.get().copied().unwrap_or(end);
        Moved {
            // A transfer that finished before the signal was noticed has succeeded.
            result: result.filter(|result| !interrupted || result.is_ok()),
            size_bytes: self.size_bytes(),
            moved_bytes: self.moved_bytes(),
            is_complete: self.completed.get().is_some(),
            elapsed: end.saturating_duration_since(start),
            cpu: CpuTime::default(),
        }
    }

    /// Ends the transfer. Only the first call counts.
    pub fn end(&self, result: Result<Check, Fault>) {
        let _ = self.ended.set((Instant::now(), result));
    }
}

/// The handler of the one connection.
#[derive(Clone)]
pub struct Client<S> {
    to: SocketAddr,
    side: S,
    framing: Framing,
    /// Name of the file for the digest request; `None` without verification.
    verify: Option<Vec<u8>>,
    timeout: Duration,
    shared: Arc<Shared>,
    /// Time of the last activity.
    active: Instant,
}

impl<S: Side> Client<S> {
    /// Creates a client for the server at `to`. The transfer fails after `timeout` without
    /// progress.
    pub fn new(
        to: SocketAddr,
        side: S,
        framing: Framing,
        verify: Option<Vec<u8>>,
        timeout: Duration,
        shared: Arc<Shared>,
    ) -> Self {
        Self { to, side, framing, verify, timeout, shared, active: Instant::now() }
    }

    fn is_over(&self) -> bool {
        self.shared.has_ended()
    }

    fn finish(&mut self, connection: &mut Connection<'_>, check: Check) {
        assert!(
            self.shared.completed.get().is_some(),
            "a transfer succeeds only when it is complete"
        );
        self.shared.end(Ok(check));
        connection.close();
    }

    #[cold]
    fn fail(&mut self, connection: &mut Connection<'_>, fault: Fault) {
        let is_refusal = fault.kind == ErrorKind::BadStatus;
        self.shared.end(Err(fault));
        // A refusal is a valid answer, so close cleanly; after a protocol error, do not wait.
        if is_refusal { connection.close() } else { connection.abort() }
    }

    fn advance(&mut self, connection: &mut Connection<'_>, step: Result<Progress, Fault>) {
        match step {
            Ok(Progress::Going) => {}
            Ok(Progress::Complete) => self.complete(connection),
            Err(fault) => self.fail(connection, fault),
        }
    }

    fn complete(&mut self, connection: &mut Connection<'_>) {
        self.shared.completed.get_or_init(Instant::now);
        match &self.verify {
            None => self.finish(connection, Check::NotAsked),
            Some(name) => {
                self.shared.is_verifying.store(true, Ordering::Relaxed);
                let _ = connection.send(&Request::DIGEST_FILE.packet(VERIFY_ID, &[name]));
            }
        }
    }

    /// Handles a packet.
    fn hear(&mut self, connection: &mut Connection<'_>, packet: Packet<'_>) {
        let Packet { id, answer } = packet;
        let is_complete = self.shared.completed.get().is_some();
        match (id, answer) {
            // Another client's broadcast.
            (_, Answer::Message) => {}
            (VERIFY_ID, Answer::Digested(digest)) if is_complete => {
                self.finish(connection, Check::Digest(digest));
            }
            (VERIFY_ID, Answer::Error(error)) if is_complete && error.code == code::NO_WORKERS => {
                self.finish(connection, Check::NoWorkers);
            }
            (0 | TRANSFER_ID | VERIFY_ID, Answer::Error(error)) => {
                let detail = match is_complete {
                    false => self.side.refused(&error),
                    true => error.to_string(),
                };
                self.fail(connection, Fault::new(ErrorKind::BadStatus, detail));
            }
            (TRANSFER_ID, answer) if !is_complete => {
                let step = self.side.answered(connection, &answer);
                self.advance(connection, step);
            }
            (id, answer) => {
                let detail = format_args!("{} {id} answers no pending request", answer.name());
                self.fail(connection, Fault::new(ErrorKind::Protocol, detail));
            }
        }
    }

    /// Handles the packet at the beginning of `bytes` and returns its length, or 0 if it is
    /// incomplete.
    fn packet(&mut self, connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
        let mut packets = self.framing.packets(bytes);
        let packet = match packets.next() {
            None => {
                connection.need(packets.need());
                return 0;
            }
            Some(Ok(body)) => Packet::parse(body),
            Some(Err(too_long)) => Err(too_long.to_string()),
        };
        match packet {
            Ok(packet) => self.hear(connection, packet),
            Err(wrong) => self.fail(connection, Fault::new(ErrorKind::Protocol, wrong)),
        }
        packets.used()
    }

    /// Returns the timeout if the server must act.
    fn patience(&self) -> Option<Duration> {
        let turn = match self.shared.is_verifying() {
            true => Turn::ServerAtWork,
            false => self.side.turn(),
        };
        let size = self.shared.size_bytes().unwrap_or_default();
        match turn {
            Turn::Server => Some(self.timeout),
            Turn::ServerAtWork => Some(self.timeout + Duration::from_secs(size / WORK_BYTES_PER_S)),
            Turn::Ours => None,
        }
    }

    fn progress(&self) -> String {
        let moved = self.shared.moved_bytes();
        match self.shared.size_bytes() {
            Some(size) => format!("after {moved} of {size} bytes"),
            None => "before the size was known".into(),
        }
    }
}

impl<S: Side> Handler for Client<S> {
    type State = ();

    fn connect_failed(&mut self, _: &mut Local<'_>, _: u64, error: io::Error) {
        let kind = match error.kind() {
            io::ErrorKind::ConnectionRefused => ErrorKind::ConnectRefused,
            _ => ErrorKind::ConnectFailed,
        };
        self.shared.end(Err(Fault::new(kind, format_args!("connect to {}: {error}", self.to))));
    }

    fn opened(&mut self, connection: &mut Connection<'_>, _: Origin) {
        self.active = Instant::now();
        self.shared.opened.get_or_init(|| self.active);
        let _ = connection.send(&self.side.request());
        connection.set_timer(Some(CHECK));
    }

    fn received(&mut self, (): &mut (), connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
        self.active = Instant::now();
        let mut used = 0;
        while used < bytes.len() && !self.is_over() {
            let rest = &bytes[used..];
            let missing = self.side.chunk_missing_bytes();
            let (step, wanted) = if missing > 0 {
                let part = &rest[..missing.min(rest.len() as u64) as usize];
                match self.side.take(connection, part) {
                    Ok(taken) => (taken, part.len()),
                    Err(fault) => {
                        self.fail(connection, fault);
                        break;
                    }
                }
            } else {
                (self.packet(connection, rest), 1)
            };
            used += step;
            if step < wanted {
                return used;
            }
        }
        if self.is_over() { bytes.len() } else { used }
    }

    fn file_sent(&mut self, (): &mut (), connection: &mut Connection<'_>) {
        self.active = Instant::now();
        if !self.is_over() {
            self.side.file_sent(connection);
        }
    }

    fn job_done(&mut self, (): &mut (), connection: &mut Connection<'_>, job: JobDone) {
        self.active = Instant::now();
        if !self.is_over() {
            let step = self.side.job_done(connection, job);
            self.advance(connection, step);
        }
    }

    fn timer(&mut self, (): &mut (), connection: &mut Connection<'_>) {
        let silence = self.active.elapsed();
        if !self.is_over() && self.patience().is_some_and(|patience| silence > patience) {
            let detail = format_args!("no data for {silence:.1?} {}", self.progress());
            return self.fail(connection, Fault::new(ErrorKind::Timeout, detail));
        }
        connection.set_timer(Some(CHECK));
    }

    fn half_closed(&mut self, (): &mut (), connection: &mut Connection<'_>) {
        if self.is_over() {
            return connection.close();
        }
        let detail = format!("the server closed the connection (FIN) {}", self.progress());
        self.fail(connection, Fault::new(ErrorKind::Eof, detail));
    }

    fn draining(&mut self, (): &mut (), connection: &mut Connection<'_>) {
        connection.close();
    }

    fn closed(&mut self, _: Option<()>, _: &mut Local<'_>, _: ConnectionId, reason: Reason) {
        let kind = match reason {
            Reason::PeerReset | Reason::BrokenPipe => ErrorKind::Reset,
            Reason::WriteTimeout | Reason::TransferTimeout => ErrorKind::Timeout,
            _ => ErrorKind::Other,
        };
        let detail = self.side.ended(reason).unwrap_or_else(|| {
            format!("the connection ended {} ({})", self.progress(), reason.name())
        });
        self.shared.end(Err(Fault::new(kind, detail)));
    }
}
