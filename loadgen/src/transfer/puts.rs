//! Uploads of several files, one after the other on one connection.

use super::link::{self, Link};
use super::progress::Shared;
use super::report::{FileReport, Moved};
use super::{Check, Sha, with_remedy};
use ringload_lifecycle::fault::{ErrorKind, Fault};
use ringload_lifecycle::packets::{
    Answer, Packet, Request, ServerError, VERSION_BYTES, Version, code,
};
use ringload_lifecycle::units::{show_path, show_text};
use sha2::{Digest, Sha256};
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Size of a chunk behind a DATA header. An interrupted upload loses at most one.
const CHUNK_BYTES: usize = 1 << 20;
/// Flag of a PUT that replaces an existing file.
const REPLACE: u8 = 1;

/// The options of the uploads.
#[derive(Clone, Copy)]
pub struct Options {
    /// `--replace`.
    pub replace: bool,
    /// `--resume`: continues an interrupted upload.
    pub is_resumable: bool,
    /// Compare the digests.
    pub verify: bool,
}

/// The end of an upload that failed.
enum Failed {
    /// Only this file.
    File(Fault),
    /// The connection.
    Link(Fault),
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        Self::Link(fault)
    }
}

/// Uploads all files; one report for each, in their order.
#[must_use]
pub fn run(
    mut link: Link,
    files: &[PathBuf],
    names: &[Vec<u8>],
    options: Options,
    shared: &Shared,
) -> Vec<FileReport> {
    let sizes = files.iter().filter_map(|file| std::fs::metadata(file).ok()).map(|it| it.len());
    shared.set_size(sizes.sum());
    let mut reports = Vec::new();
    let mut broken: Option<Fault> = None;
    // Each upload has an id, and the digest request after it has the next one.
    for (id, (path, name)) in (1..).step_by(2).zip(files.iter().zip(names)) {
        if let Some(fault) = &broken {
            reports.push(FileReport::failed(name, fault));
            continue;
        }
        let mut upload = Upload { link: &mut link, id, path, name, options, shared };
        let mut moved = Moved::default();
        reports.push(match upload.run(&mut moved) {
            Ok((own, check)) => FileReport::checked(name, moved, own, check),
            Err(failed) => {
                let (Failed::File(fault) | Failed::Link(fault)) = &failed;
                let mut detail = fault.detail.clone();
                if matches!(failed, Failed::Link(_)) {
                    broken = Some(fault.clone());
                    if options.is_resumable {
                        detail += "; run it again with --resume";
                    }
                }
                let mut report = FileReport::failed(name, &Fault::new(fault.kind, detail));
                report.moved(moved);
                report
            }
        });
    }
    reports
}

/// The upload of a file.
struct Upload<'a> {
    link: &'a mut Link,
    id: u32,
    path: &'a Path,
    name: &'a [u8],
    options: Options,
    shared: &'a Shared,
}

impl Upload<'_> {
    fn run(&mut self, moved: &mut Moved) -> Result<(Sha, Check), Failed> {
        let (file, status) = open(self.path).map_err(local)?;
        let size = status.len();
        moved.size_bytes = Some(size);
        self.shared.set_verifying(false);
        let offset = self.begin(&status, moved)?;
        if offset > size {
            let why = format_args!("RESUMED from {offset}, but the file has {size} bytes");
            return Err(Failed::Link(Fault::new(ErrorKind::Protocol, why)));
        }
        moved.resumed_from = offset;
        let before = self.shared.moved_bytes();
        let mut hash = hash_start(&file, offset).map_err(|error| self.unreadable(&error))?;
        let mut block = vec![0; CHUNK_BYTES];
        let mut at = offset;
        while at < size {
            let chunk = &mut block[..(size - at).min(CHUNK_BYTES as u64) as usize];
            // Read before it is announced: a file that became shorter ends only its own upload.
            if let Err(error) = file.read_exact_at(chunk, at) {
                self.abort(moved)?;
                return Err(self.unreadable(&error));
            }
            if let Some(body) = self.link.early_packet()? {
                // Nothing but an ERROR can come before the last byte.
                return Err(self.failure(&link::parse(&body)?, moved));
            }
            let count = (chunk.len() as u32).to_be_bytes();
            self.link.send(&Request::DATA.packet(self.id, &[&count]))?;
            self.link.send(chunk)?;
            hash.update(&*chunk);
            at += chunk.len() as u64;
            moved.transferred_bytes = at - offset;
            self.shared.set_moved(before + at);
        }
        self.link.expect_work(size)?;
        self.expect(moved, |answer| matches!(answer, Answer::Stored))?;
        moved.is_complete = true;
        self.shared.set_moved(before + size);
        self.shared.set_verifying(true);
        Ok((hash.finalize().into(), self.digest()?))
    }

    /// Announces the file; returns the offset from which the server wants its bytes.
    fn begin(&mut self, status: &Metadata, moved: &Moved) -> Result<u64, Failed> {
        let flags = [if self.options.replace { REPLACE } else { 0 }];
        let size = status.len().to_be_bytes();
        let request = match self.options.is_resumable {
            true => {
                let fields: [&[u8]; 4] = [&flags, &size, &version_of(status), self.name];
                Request::PUT_RESUMABLE.packet(self.id, &fields)
            }
            false => Request::PUT.packet(self.id, &[&flags, &size, self.name]),
        };
        self.link.send(&request)?;
        let body = self.link.packet()?;
        match link::parse(&body)? {
            Packet { id, answer: Answer::Accepted } if id == self.id => Ok(0),
            Packet { id, answer: Answer::Resumed { offset } } if id == self.id => Ok(offset),
            other => Err(self.failure(&other, moved)),
        }
    }

    /// Asks for the digest of the stored file.
    fn digest(&mut self) -> Result<Check, Failed> {
        if !self.options.verify {
            return Ok(Check::NotAsked);
        }
        self.id += 1;
        self.link.send(&Request::DIGEST_FILE.packet(self.id, &[self.name]))?;
        let body = self.link.packet()?;
        let packet = link::parse(&body)?;
        match &packet.answer {
            _ if packet.id != self.id => Err(Failed::Link(link::unanswering(&packet))),
            Answer::Digested(digest) => Ok(Check::Digest(*digest)),
            Answer::Error(error) if error.code == code::NO_WORKERS => Ok(Check::NoWorkers),
            Answer::Error(error) if !error.is_last() => Err(self.refused(error)),
            _ => Err(Failed::Link(link::unanswering(&packet))),
        }
    }

    fn abort(&mut self, moved: &Moved) -> Result<(), Failed> {
        self.link.send(&Request::ABORT.packet(self.id, &[]))?;
        self.expect(moved, |answer| matches!(answer, Answer::Aborted))
    }

    fn expect(
        &mut self,
        moved: &Moved,
        is_expected: impl Fn(&Answer<'_>) -> bool,
    ) -> Result<(), Failed> {
        let body = self.link.packet()?;
        match link::parse(&body)? {
            Packet { id, answer } if id == self.id && is_expected(&answer) => Ok(()),
            other => Err(self.failure(&other, moved)),
        }
    }

    fn failure(&self, packet: &Packet<'_>, moved: &Moved) -> Failed {
        match &packet.answer {
            Answer::Error(error) if packet.id == self.id && !error.is_last() => self.refused(error),
            Answer::Error(_) => Failed::Link(link::unanswering(packet)),
            _ if packet.id != self.id => Failed::Link(link::unanswering(packet)),
            answer => {
                let bytes = moved.resumed_from + moved.transferred_bytes;
                Failed::Link(link::unexpected(answer, bytes, moved.size_bytes))
            }
        }
    }

    fn refused(&self, error: &ServerError) -> Failed {
        let name = show_text(&String::from_utf8_lossy(self.name));
        let why = with_remedy(error, &name, self.options.replace);
        Failed::File(Fault::new(ErrorKind::BadStatus, why))
    }

    fn unreadable(&self, error: &io::Error) -> Failed {
        let path = show_path(self.path);
        local(match error.kind() {
            io::ErrorKind::UnexpectedEof => format!("{path} became shorter during the upload"),
            _ => format!("cannot read {path}: {error}"),
        })
    }
}

fn local(why: String) -> Failed {
    Failed::File(Fault::new(ErrorKind::Other, why))
}

/// Opens the file to upload.
///
/// # Errors
/// The file does not exist, or it is not a regular file.
pub fn open(path: &Path) -> Result<(File, Metadata), String> {
    let failed = |error: io::Error| format!("cannot open {}: {error}", show_path(path));
    // Checked before open(2), which would block on a pipe until somebody writes to it.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(format!("{} is not a regular file", show_path(path)));
    }
    let file = File::open(path).map_err(failed)?;
    let status = file.metadata().map_err(failed)?;
    Ok((file, status))
}

/// Names the content of a file for the server: any change of the file changes it.
fn version_of(status: &Metadata) -> Version {
    let mut hash = Sha256::new();
    for number in [status.dev(), status.ino(), status.len()] {
        hash.update(number.to_be_bytes());
    }
    for number in [status.mtime(), status.mtime_nsec(), status.ctime(), status.ctime_nsec()] {
        hash.update(number.to_be_bytes());
    }
    let mut version = [0; VERSION_BYTES];
    version.copy_from_slice(&hash.finalize()[..VERSION_BYTES]);
    version
}

/// Hashes the bytes that the server has already.
fn hash_start(file: &File, bytes: u64) -> io::Result<Sha256> {
    let mut hash = Sha256::new();
    let mut start = file.take(bytes);
    let mut block = vec![0; CHUNK_BYTES];
    loop {
        match start.read(&mut block)? {
            0 if start.limit() > 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            0 => return Ok(hash),
            count => hash.update(&block[..count]),
        }
    }
}
