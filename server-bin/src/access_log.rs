//! The access log: one line per reply, or per connection where there are no requests. A separate
//! thread writes it.
//!
//! # When a line is written
//! A line tells how its reply ended, so most of it waits until the last byte of the reply has left
//! or the connection has ended. The engine reports that by a marker in the output. Replies that
//! wait take at most `PENDING_BYTES_MAX` on a shard; beyond it, lines are written at once.
//!
//! # A stalled log
//! Shards never wait for the log. Each shard fills a buffer and passes it to the writer when the
//! buffer is full or old enough. If the writer is slow and all buffers are queued, the shard drops
//! and counts lines. A full disk or a stalled pipe loses log lines but does not delay replies.
//! [`Lost`] counts them for the admin listener.
//!
//! # Rotation
//! Before each batch the writer compares its file with the one at the path. After a rename or a
//! removal it creates the file again. SIGUSR1 does so at once.

mod connections;
mod file;
mod format;

pub use connections::ConnectionLog;
pub use file::LogFile;
pub(crate) use format::json_time;
pub use format::{Client, End, Ending, Entry, Format, Outcome, Texts};

use crate::messages;
use file::Lines;
use format::Formatter;
use ringwright::SentMarker;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::thread;
use std::time::Duration;

/// Bytes of lines after which a shard passes its buffer to the writer.
const BATCH_BYTES: usize = 32 << 10;
/// Maximum number of bytes of the lines of a shard whose replies are pending.
const PENDING_BYTES_MAX: usize = 4 << 20;
/// Maximum capacity that the text of a line keeps for the next one.
const SPARE_BYTES_MAX: usize = 1 << 10;
/// Maximum number of queued batches of all shards.
const BATCHES_MAX: usize = 64;
/// Time after which a shard passes its buffer to the writer at the latest.
pub const INTERVAL: Duration = Duration::from_millis(200);
/// Maximum time that the end of the program waits for the last lines.
const FINISH_TIMEOUT: Duration = Duration::from_secs(2);

/// Creates the logs of the shards. The writer ends after this and all of them are dropped.
#[derive(Clone)]
pub struct AccessLog {
    format: Format,
    batches: SyncSender<Batch>,
    lost: Lost,
    file: Option<Reopening>,
}

/// The number of lines that were lost so far: the queue was full, or writing failed.
#[derive(Clone, Debug, Default)]
pub struct Lost(Arc<AtomicU64>);

/// A handle with which the file of the log is opened again.
#[derive(Clone)]
pub struct Reopening(Arc<Mutex<LogFile>>);

/// The log of one shard.
pub struct ShardLog {
    formatter: Formatter,
    batches: SyncSender<Batch>,
    spares: Receiver<Vec<u8>>,
    back: SyncSender<Vec<u8>>,
    lost: Lost,
    buffer: Vec<u8>,
    lines: u64,
    /// By the tag of the marker.
    pending: Vec<Pending>,
    /// The tags that no reply has.
    free: Vec<usize>,
    pending_bytes: usize,
}

/// A line whose reply is pending.
#[derive(Default)]
struct Pending {
    /// The line as far as it is known.
    text: Vec<u8>,
    /// The place of the outcome in it.
    place: Range<usize>,
    /// The bytes of the queued body.
    bytes: u64,
    /// The time of the last byte of the head.
    begun: Option<Duration>,
}

/// The main thread's handle to the writer.
pub struct Writer {
    lost: Lost,
    finished: Receiver<io::Result<()>>,
}

struct Batch {
    bytes: Vec<u8>,
    /// Returns the buffer to its shard.
    back: SyncSender<Vec<u8>>,
}

/// Starts a log that appends to the file at `path`, or prints to standard output for `-`.
///
/// # Errors
/// A message for the user: the file cannot be opened, or the thread cannot be started.
pub fn open(path: &Path, format: Format) -> Result<(AccessLog, Writer), String> {
    let (output, file) = if path == Path::new("-") {
        // Not through the buffer of `io::stdout`, which would hide how much was written.
        let stdout = io::stdout().as_fd().try_clone_to_owned();
        let stdout = stdout.map_err(|error| format!("cannot duplicate the output: {error}"))?;
        (Output::Stream(Lines::new(Box::new(File::from(stdout)))), None)
    } else {
        let file = LogFile::open(path, "--access-log").map_err(|error| {
            format!(
                "cannot open the file: {error}; give a file that this user may create or append to"
            )
        })?;
        let file = Reopening(Arc::new(Mutex::new(file)));
        (Output::File(file.clone()), Some(file))
    };
    let started = start(output, format);
    started
        .map(|(log, writer)| (AccessLog { file, ..log }, writer))
        .map_err(|error| format!("cannot start the writer thread: {error}"))
}

impl Lost {
    /// The number of lines.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, lines: u64) {
        self.0.fetch_add(lines, Ordering::Relaxed);
    }
}

impl Reopening {
    /// Opens the file of the path if it is no longer the open one. If the writer is at work it does
    /// so itself before the next batch.
    pub fn reopen(&self) {
        match self.0.try_lock() {
            Ok(mut file) => file.follow(),
            Err(TryLockError::Poisoned(file)) => file.into_inner().follow(),
            Err(TryLockError::WouldBlock) => {}
        }
    }
}

/// The output of the writer thread.
enum Output {
    File(Reopening),
    Stream(Lines<Box<dyn Write + Send>>),
}

impl Output {
    fn write(&mut self, lines: &[u8]) -> Result<(), (u64, io::Error)> {
        match self {
            Self::File(file) => file.0.lock().unwrap_or_else(PoisonError::into_inner).write(lines),
            Self::Stream(stream) => stream.write(lines),
        }
    }
}

fn start(mut output: Output, format: Format) -> io::Result<(AccessLog, Writer)> {
    let (batches, received) = sync_channel::<Batch>(BATCHES_MAX);
    let (finish, finished) = sync_channel(1);
    let lost = Lost::default();
    let of_writer = lost.clone();
    thread::Builder::new().name("access-log".into()).spawn(move || {
        let (mut result, mut reported) = (Ok(()), false);
        for Batch { mut bytes, back } in received {
            // Continues after an error, because the disk may have space again later.
            match output.write(&bytes) {
                Ok(()) => reported = false,
                Err((lines, error)) => {
                    of_writer.add(lines);
                    if !std::mem::replace(&mut reported, true) {
                        messages::error(&format!(
                            "--access-log: writing failed, and lines are lost: {error}"
                        ));
                    }
                    result = result.and(Err(error));
                }
            }
            bytes.clear();
            let _ = back.try_send(bytes);
        }
        let _ = finish.send(result);
    })?;
    let log = AccessLog { format, batches, lost: lost.clone(), file: None };
    Ok((log, Writer { lost, finished }))
}

impl AccessLog {
    /// The handle to the file; `None` if the log goes to standard output.
    #[must_use]
    pub fn reopening(&self) -> Option<Reopening> {
        self.file.clone()
    }

    /// The count of lost lines.
    #[must_use]
    pub fn lost(&self) -> Lost {
        self.lost.clone()
    }

    /// Creates the log of a shard.
    #[must_use]
    pub fn shard(&self) -> ShardLog {
        let (back, spares) = sync_channel(BATCHES_MAX);
        ShardLog {
            formatter: Formatter::new(self.format),
            batches: self.batches.clone(),
            spares,
            back,
            lost: self.lost.clone(),
            buffer: Vec::with_capacity(BATCH_BYTES),
            lines: 0,
            pending: Vec::new(),
            free: Vec::new(),
            pending_bytes: 0,
        }
    }
}

impl ShardLog {
    /// Begins the line of a reply that is queued with so many bytes of a body. `begun` is the time
    /// of the last byte of the head, if it has an end. [`end`](Self::end) with the same tag writes
    /// the line. `None`: it is written already.
    pub fn begin(
        &mut self,
        entry: &Entry<'_>,
        bytes: u64,
        begun: Option<Duration>,
        now: Duration,
    ) -> Option<u64> {
        let tag = self.free.pop().unwrap_or(self.pending.len());
        if tag == self.pending.len() {
            self.pending.push(Pending::default());
        }
        let pending = &mut self.pending[tag];
        (pending.bytes, pending.begun) = (bytes, begun);
        pending.place = self.formatter.begin(entry, bytes, &mut pending.text);
        self.pending_bytes += pending.text.len();
        if self.pending_bytes > PENDING_BYTES_MAX {
            self.write(tag, 0, now, End::Queued);
            return None;
        }
        Some(tag as u64)
    }

    /// Writes the line of a reply that has ended.
    pub fn end(&mut self, sent: &SentMarker) {
        self.write(sent.tag as usize, sent.unsent_bytes, sent.at, End::of(sent.reason));
    }

    fn write(&mut self, tag: usize, unsent_bytes: u64, at: Duration, end: End) {
        let has_room = self.has_room();
        let pending = &mut self.pending[tag];
        if has_room && unsent_bytes == 0 && self.formatter.is_whole() {
            self.buffer.extend_from_slice(&pending.text);
        } else if has_room {
            let bytes = pending.bytes.saturating_sub(unsent_bytes);
            let duration = pending.begun.map_or(Duration::ZERO, |begun| at.saturating_sub(begun));
            let outcome = Outcome { bytes, duration, end };
            let place = pending.place.clone();
            self.formatter.append(&pending.text, place, &outcome, &mut self.buffer);
        }
        self.pending_bytes -= pending.text.len();
        pending.text.clear();
        pending.text.shrink_to(SPARE_BYTES_MAX);
        self.free.push(tag);
    }

    /// Adds a line for a connection that has ended.
    pub fn record_end(&mut self, ending: &Ending) {
        if self.has_room() {
            self.formatter.append_end(ending, &mut self.buffer);
        }
    }

    /// Counts a line, which is lost without room for it.
    fn has_room(&mut self) -> bool {
        if self.buffer.len() >= BATCH_BYTES {
            self.hand_over();
        }
        if self.buffer.len() >= BATCH_BYTES {
            self.lost.add(1);
            return false;
        }
        self.lines += 1;
        true
    }

    /// Passes the buffered lines to the writer. Keeps them if its queue is full.
    pub fn hand_over(&mut self) {
        if self.lines == 0 {
            return;
        }
        let spare = self.spares.try_recv().unwrap_or_default();
        let bytes = std::mem::replace(&mut self.buffer, spare);
        let batch = Batch { bytes, back: self.back.clone() };
        match self.batches.try_send(batch) {
            Ok(()) => self.lines = 0,
            Err(refused) => {
                let (std::sync::mpsc::TrySendError::Full(batch)
                | std::sync::mpsc::TrySendError::Disconnected(batch)) = refused;
                self.buffer = batch.bytes;
            }
        }
    }
}

impl Drop for ShardLog {
    fn drop(&mut self) {
        self.hand_over();
        let pending = self.pending.len() - self.free.len();
        self.lost.add(self.lines + pending as u64);
    }
}

impl Writer {
    /// Waits at most `FINISH_TIMEOUT` for the last lines. Every [`AccessLog`] and [`ShardLog`]
    /// must be dropped before. Returns a message for the user if lines were lost.
    #[must_use]
    pub fn finish(self) -> Option<String> {
        let result = self.finished.recv_timeout(FINISH_TIMEOUT);
        let lost = self.lost.lines();
        let trouble = match result {
            Ok(Ok(())) if lost == 0 => return None,
            Ok(Ok(())) => "the output was too slow".to_owned(),
            Ok(Err(error)) => format!("writing failed: {error}"),
            Err(RecvTimeoutError::Timeout) => {
                format!("the output has not taken the last lines within {FINISH_TIMEOUT:?}")
            }
            Err(RecvTimeoutError::Disconnected) => "the writer thread panicked".to_owned(),
        };
        Some(format!("--access-log: {trouble}; {lost} line(s) were lost"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::mpsc::channel;

    fn entry(request: u64) -> Entry<'static> {
        Entry {
            seconds: 784_111_777,
            client: &Client::Other(ringwright::Peer::Unix),
            socket: None,
            site: "",
            connection: 1,
            request,
            texts: Texts::of_part(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
            status: 200,
        }
    }

    /// A reply whose last byte leaves at once.
    fn record(shard: &mut ShardLog, request: u64) {
        let tag = shard.begin(&entry(request), 5, None, Duration::ZERO).unwrap();
        let connection = ringwright::ConnectionId::from_number(1);
        let (at, unsent_bytes, reason) = (Duration::ZERO, 0, None);
        shard.end(&SentMarker { tag, connection, at, unsent_bytes, reason });
    }

    fn stream(output: impl Write + Send + 'static) -> Output {
        Output::Stream(Lines::new(Box::new(output)))
    }

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_line_arrives_whole() {
        let output = Shared::default();
        let (log, writer) = start(stream(output.clone()), Format::Json).unwrap();
        let mut shards = [log.shard(), log.shard()];
        drop(log);
        for request in 0..2_000 {
            for shard in &mut shards {
                record(shard, request);
            }
            // Slow enough for the writer.
            if request % 50 == 0 {
                shards.iter_mut().for_each(ShardLog::hand_over);
                thread::sleep(Duration::from_millis(1));
            }
        }
        drop(shards);
        assert_eq!(writer.finish(), None);
        let text = String::from_utf8(output.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 4_000);
        assert!(text.lines().all(|line| line.starts_with('{') && line.ends_with('}')));
    }

    #[test]
    fn lines_that_wait_for_their_replies_are_bounded() {
        let output = Shared::default();
        let (log, writer) = start(stream(output.clone()), Format::Json).unwrap();
        let mut shard = log.shard();
        drop(log);
        let mut tags = Vec::new();
        while let Some(tag) = shard.begin(&entry(1), 5, None, Duration::ZERO) {
            tags.push(tag);
        }
        assert!(shard.pending_bytes <= PENDING_BYTES_MAX && tags.len() > 10_000);
        assert_eq!(shard.begin(&entry(2), 5, None, Duration::ZERO), None, "still full");
        let connection = ringwright::ConnectionId::from_number(1);
        let (at, reason) = (Duration::from_millis(7), Some(ringwright::Reason::PeerReset));
        for tag in tags.drain(..2) {
            shard.end(&SentMarker { tag, connection, at, unsent_bytes: 2, reason });
        }
        assert!(shard.begin(&entry(3), 5, None, Duration::ZERO).is_some(), "there is room again");
        drop(shard);
        let trouble = writer.finish().unwrap();
        assert!(trouble.contains(&format!("{} line(s) were lost", tags.len() + 1)), "{trouble}");
        let text = String::from_utf8(output.0.lock().unwrap().clone()).unwrap();
        let ends: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let ends: Vec<_> = ends.iter().map(|line| (&line["end"], &line["bytes"])).collect();
        assert_eq!(format!("{ends:?}").matches("queued").count(), 2);
        assert_eq!(format!("{ends:?}").matches("client_gone\"), Number(3)").count(), 2, "{ends:?}");
    }

    #[test]
    fn a_stalled_writer_costs_lines_and_not_time() {
        struct Stalled(std::sync::mpsc::Receiver<()>);
        impl Write for Stalled {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let _ = self.0.recv();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (release, stalled) = channel();
        let (log, writer) = start(stream(Stalled(stalled)), Format::Combined).unwrap();
        let lost = log.lost();
        let mut shard = log.shard();
        drop(log);
        let lines = 60_000;
        for request in 0..lines {
            record(&mut shard, request);
        }
        assert!((1..lines).contains(&lost.lines()), "{lost:?} of {lines} lines");
        assert!(shard.buffer.capacity() <= 2 * BATCH_BYTES);
        drop(release);
        drop(shard);
        let trouble = writer.finish().unwrap();
        assert!(trouble.starts_with("--access-log: the output was too slow; "), "{trouble}");
    }
}
