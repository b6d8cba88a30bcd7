//! An upload. The engine sends the file from the page cache, so its bytes do not pass through this
//! process.

use super::Sha;
use super::client::{Progress, Shared, Side, TRANSFER_ID, Turn};
use ringload_lifecycle::fault::{ErrorKind, Fault};
use ringload_lifecycle::packets::{Answer, CHUNK_SENT_BYTES_MAX, Request, ServerError, code};
use ringload_lifecycle::units::{show_path, show_text};
use ringwright::files::OpenFile;
use ringwright::{Connection, Reason};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, ErrorKind as IoError};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

/// Size of a chunk behind a DATA header.
const CHUNK_BYTES: u64 = CHUNK_SENT_BYTES_MAX;
/// Size of a block that is read to be hashed.
const BLOCK_BYTES: usize = 256 << 10;
/// Flag of a PUT that replaces an existing file.
const REPLACE: u8 = 1;

/// The file to upload.
pub struct Source {
    path: PathBuf,
    file: File,
    size_bytes: u64,
}

impl Source {
    /// Opens the file.
    ///
    /// # Errors
    /// The file does not exist, or it is not a regular file.
    pub fn open(path: &Path) -> Result<Self, String> {
        let failed = |error: io::Error| format!("{}: {error}", show_path(path));
        // Checked before open(2), which would block on a pipe until somebody writes to it.
        let metadata = std::fs::metadata(path).map_err(failed)?;
        if !metadata.is_file() {
            return Err(format!(
                "{} is not a regular file; put needs the size before it sends the data",
                show_path(path)
            ));
        }
        let file = File::open(path).map_err(failed)?;
        Ok(Self { path: path.into(), file, size_bytes: metadata.len() })
    }

    /// Creates the sending side.
    ///
    /// # Errors
    /// errno of fstat(2) or dup(2).
    pub fn put(&self, name: &[u8], replace: bool, shared: Arc<Shared>) -> io::Result<Put> {
        shared.set_size(self.size_bytes);
        let flags = if replace { REPLACE } else { 0 };
        let size = self.size_bytes.to_be_bytes();
        Ok(Put {
            request: Request::PUT.packet(TRANSFER_ID, &[&[flags], &size, name]),
            name: show_text(&String::from_utf8_lossy(name)),
            replace,
            path: self.path.clone(),
            file: OpenFile::from_file(self.file.try_clone()?)?,
            size_bytes: self.size_bytes,
            queued_bytes: 0,
            is_accepted: false,
            shared,
        })
    }

    /// Starts a thread that computes the SHA-256 of the file, because its bytes do not pass through
    /// this process. The thread and the engine read the file at about the same pace, so the disk
    /// reads it once.
    ///
    /// # Errors
    /// errno of dup(2), or the thread cannot be started.
    pub fn hash(&self) -> io::Result<Hashing> {
        let (file, path, size) = (self.file.try_clone()?, self.path.clone(), self.size_bytes);
        let work = move || {
            digest(&file, size).map_err(|error| match error.kind() {
                IoError::UnexpectedEof => shrank(&path),
                _ => format!("reading {}: {error}", show_path(&path)),
            })
        };
        Ok(Hashing(std::thread::Builder::new().name("hash".into()).spawn(work)?))
    }
}

/// A SHA-256 computation on another thread.
pub struct Hashing(JoinHandle<Result<Sha, String>>);

impl Hashing {
    /// Waits for the result.
    ///
    /// # Errors
    /// The file could not be read completely.
    pub fn wait(self) -> Result<Sha, String> {
        self.0.join().unwrap_or_else(|_| {
            Err("the thread that computes the SHA-256 panicked; this is a bug in ringload".into())
        })
    }
}

/// Makes the error for a file that shrank after its size was announced.
fn shrank(path: &Path) -> String {
    format!("{} became shorter during the upload", show_path(path))
}

fn digest(file: &File, size_bytes: u64) -> io::Result<Sha> {
    let (mut hash, mut block, mut at) = (Sha256::new(), vec![0; BLOCK_BYTES], 0);
    while at < size_bytes {
        let room = &mut block[..(size_bytes - at).min(BLOCK_BYTES as u64) as usize];
        match file.read_at(room, at) {
            Ok(0) => return Err(IoError::UnexpectedEof.into()),
            Ok(count) => {
                hash.update(&room[..count]);
                at += count as u64;
            }
            Err(error) if error.kind() == IoError::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(hash.finalize().into())
}

/// The side that sends.
#[derive(Clone)]
pub struct Put {
    request: Vec<u8>,
    /// Name on the server, for messages.
    name: String,
    replace: bool,
    path: PathBuf,
    file: OpenFile,
    size_bytes: u64,
    /// Bytes handed to the engine.
    queued_bytes: u64,
    is_accepted: bool,
    shared: Arc<Shared>,
}

impl Put {
    /// Queues the next chunk, if any.
    fn queue_chunk(&mut self, connection: &mut Connection<'_>) {
        let count = CHUNK_BYTES.min(self.size_bytes - self.queued_bytes);
        if count > 0 {
            let data = Request::DATA.packet(TRANSFER_ID, &[&(count as u32).to_be_bytes()]);
            // Cannot fail: at most one chunk is queued.
            let _ = connection.send(&data);
            let _ = connection.send_file(self.file.clone(), self.queued_bytes, count);
            self.queued_bytes += count;
        }
    }
}

impl Side for Put {
    fn request(&self) -> Vec<u8> {
        self.request.clone()
    }

    fn answered(
        &mut self,
        connection: &mut Connection<'_>,
        answer: &Answer<'_>,
    ) -> Result<Progress, Fault> {
        let (queued, size) = (self.queued_bytes, self.size_bytes);
        match answer {
            Answer::Accepted if !self.is_accepted => {
                self.is_accepted = true;
                self.queue_chunk(connection);
                Ok(Progress::Going)
            }
            Answer::Stored if self.is_accepted && queued == size => {
                self.shared.set_moved(size);
                Ok(Progress::Complete)
            }
            other => {
                let detail =
                    format_args!("unexpected {} after {queued} of {size} bytes", other.name());
                Err(Fault::new(ErrorKind::Protocol, detail))
            }
        }
    }

    fn refused(&self, error: &ServerError) -> String {
        let remedy = match self.replace {
            _ if error.code != code::EXISTS => return error.to_string(),
            false => "use --replace if the server allows it, or another name with --as",
            true => "the server does not allow replacing",
        };
        format!("{error}: {}; {remedy}", self.name)
    }

    fn ended(&self, reason: Reason) -> Option<String> {
        (reason == Reason::FileTruncated).then(|| shrank(&self.path))
    }

    fn turn(&self) -> Turn {
        match self.shared.moved_bytes() {
            _ if !self.is_accepted => Turn::Server,
            moved if moved == self.size_bytes => Turn::ServerAtWork,
            _ => Turn::Ours,
        }
    }

    fn file_sent(&mut self, connection: &mut Connection<'_>) {
        self.shared.set_moved(self.queued_bytes);
        self.queue_chunk(connection);
    }
}
