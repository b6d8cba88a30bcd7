//! Downloads, several files at once.

use super::link::{self, Link};
use super::part::Part;
use super::progress::Shared;
use super::report::{FileReport, Moved};
use super::{Check, with_remedy};
use ringload_lifecycle::fault::{ErrorKind, Fault};
use ringload_lifecycle::packets::{
    Answer, CHUNK_RECEIVED_BYTES_MAX, Packet, Request, TO_THE_END, VERSION_BYTES, Version, code,
};
use ringload_lifecycle::units::show_text;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Downloads in progress. The server allows more.
const WINDOW: usize = 8;
/// Maximum number of bytes that are received and written at once.
const BLOCK_BYTES: usize = 256 << 10;
/// The largest offset in a file (off_t).
const FILE_BYTES_MAX: u64 = i64::MAX as u64;
/// Any version.
const ANY: Version = [0; VERSION_BYTES];

/// The options of the downloads.
#[derive(Clone, Copy)]
pub struct Options {
    /// `--resume`: keeps the data of an interrupted download and continues it.
    pub is_resumable: bool,
    /// Compare the digests.
    pub verify: bool,
}

/// The downloads of a connection.
pub struct Gets<'a> {
    link: Link,
    server: String,
    names: Vec<Vec<u8>>,
    options: Options,
    /// The target of a single download, which is requested with GET. All servers know GET.
    single: Option<Part>,
    is_single: bool,
    /// The number of names that were requested.
    begun: usize,
    /// The downloads in progress, by their ids.
    running: BTreeMap<u32, Download>,
    results: BTreeMap<u32, FileReport>,
    shared: &'a Shared,
    /// Sizes of all requested files, and bytes received.
    totals: (u64, u64),
    block: Vec<u8>,
}

/// A download in progress.
struct Download {
    step: Step,
    size_bytes: Option<u64>,
    version: Version,
    resumed_from: u64,
    part: Option<Part>,
}

enum Step {
    /// Asks for size and version, to find the data of an earlier run.
    Asking,
    /// Waits for RANGE, or for OFFER if it is the only download.
    Starting,
    Receiving,
    /// Waits for the server's digest.
    Verifying,
    /// The download failed. Data that still arrives is discarded.
    Discarding,
}

impl<'a> Gets<'a> {
    /// Prepares the downloads. `single` is the target if there is one file without `--resume`.
    #[must_use]
    pub fn new(
        link: Link,
        names: Vec<Vec<u8>>,
        options: Options,
        single: Option<Part>,
        shared: &'a Shared,
    ) -> Self {
        Self {
            server: link.server(),
            link,
            names,
            options,
            is_single: single.is_some(),
            single,
            begun: 0,
            running: BTreeMap::new(),
            results: BTreeMap::new(),
            shared,
            totals: (0, 0),
            block: vec![0; BLOCK_BYTES],
        }
    }

    /// Downloads all files; one report for each, in their order.
    #[must_use]
    pub fn run(mut self) -> Vec<FileReport> {
        if let Err(fault) = self.transfer() {
            // The connection is over, and with it all downloads that are not complete.
            for (id, download) in std::mem::take(&mut self.running) {
                self.fail(id, download, &fault);
            }
            for (id, name) in (1..).zip(&self.names).skip(self.begun) {
                self.results.insert(id, FileReport::failed(name, &fault));
            }
        }
        self.results.into_values().collect()
    }

    /// Returns the name of the file with this id. Ids start at 1.
    fn name(&self, id: u32) -> &[u8] {
        &self.names[id as usize - 1]
    }

    fn transfer(&mut self) -> Result<(), Fault> {
        loop {
            while self.running.len() < WINDOW && self.begun < self.names.len() {
                self.begin()?;
            }
            if self.running.is_empty() {
                return Ok(());
            }
            let is_verifying = |it: &&Download| matches!(it.step, Step::Verifying);
            let work = self.running.values().filter(is_verifying).filter_map(|it| it.size_bytes);
            self.link.expect_work(work.sum())?;
            self.shared.set_verifying(self.running.values().all(|it| is_verifying(&it)));
            let body = self.link.packet()?;
            self.packet(&link::parse(&body)?)?;
        }
    }

    fn begin(&mut self) -> Result<(), Fault> {
        self.begun += 1;
        let id = self.begun as u32;
        let step = if self.options.is_resumable { Step::Asking } else { Step::Starting };
        let part = self.single.take();
        let download = Download { step, size_bytes: None, version: ANY, resumed_from: 0, part };
        self.running.insert(id, download);
        match self.options.is_resumable {
            _ if self.is_single => self.link.send(&Request::GET.packet(id, &[self.name(id)])),
            true => self.request(id, 0, 0, ANY),
            false => self.request(id, 0, TO_THE_END, ANY),
        }
    }

    fn request(
        &mut self,
        id: u32,
        offset: u64,
        length: u64,
        version: Version,
    ) -> Result<(), Fault> {
        let numbers = [offset.to_be_bytes(), length.to_be_bytes()].concat();
        let request = Request::GET_RANGE.packet(id, &[&numbers, &version, self.name(id)]);
        self.link.send(&request)
    }

    fn packet(&mut self, packet: &Packet<'_>) -> Result<(), Fault> {
        let Some(mut download) = self.running.remove(&packet.id) else {
            return Err(link::unanswering(packet));
        };
        let id = packet.id;
        match (&packet.answer, &download.step) {
            (Answer::Data { count_bytes }, Step::Receiving | Step::Discarding) => {
                return self.chunk(id, download, *count_bytes);
            }
            // The answer to ABORT is the last one. Its result is known.
            (Answer::Aborted, Step::Discarding) => {}
            (Answer::Error(error), Step::Discarding) if error.code == code::NO_TRANSFER => {}
            (Answer::Sent | Answer::Error(_), Step::Discarding) => {
                self.running.insert(id, download);
            }
            (Answer::Error(error), Step::Verifying) if error.code == code::NO_WORKERS => {
                self.complete(id, download, Check::NoWorkers);
            }
            (Answer::Error(error), _) if error.is_last() => {
                self.running.insert(id, download);
                return Err(Fault::new(ErrorKind::BadStatus, error));
            }
            (Answer::Error(error), _) => {
                let name = String::from_utf8_lossy(self.name(id));
                let why = with_remedy(error, &show_text(&name), false);
                self.fail(id, download, &Fault::new(ErrorKind::BadStatus, why));
            }
            (Answer::Range { size_bytes, version }, Step::Asking) => {
                (download.size_bytes, download.version) = (Some(*size_bytes), *version);
                self.running.insert(id, download);
            }
            (Answer::Sent, Step::Asking) => return self.resume(id, download),
            (Answer::Offer { size_bytes }, Step::Starting) if self.is_single => {
                let fields = [0_u64.to_be_bytes(), size_bytes.to_be_bytes()].concat();
                self.start(id, download, &packet.answer, *size_bytes)?;
                return self.link.send(&Request::TAKE.packet(id, &[&fields]));
            }
            (Answer::Range { size_bytes, .. }, Step::Starting) if !self.is_single => {
                return self.start(id, download, &packet.answer, *size_bytes);
            }
            (Answer::Sent, Step::Receiving) => return self.received(id, download),
            (Answer::Digested(theirs), Step::Verifying) => {
                self.complete(id, download, Check::Digest(*theirs));
            }
            (answer, _) => {
                let moved_bytes = download.part.as_ref().map_or(0, Part::bytes);
                let fault = link::unexpected(answer, moved_bytes, download.size_bytes);
                self.running.insert(id, download);
                return Err(fault);
            }
        }
        Ok(())
    }

    /// Continues the data of an earlier run, if there is any of this version.
    fn resume(&mut self, id: u32, mut download: Download) -> Result<(), Fault> {
        download.step = Step::Starting;
        let (version, size) = (download.version, download.size_bytes.unwrap_or_default());
        if version != ANY {
            let name = self.name(id);
            match Part::resume(&self.server, name, &version, size) {
                Ok(part) => {
                    download.resumed_from = part.bytes();
                    download.part = Some(part);
                }
                Err(why) => {
                    self.fail(id, download, &Fault::new(ErrorKind::Other, why));
                    return Ok(());
                }
            }
        }
        let offset = download.resumed_from;
        self.running.insert(id, download);
        self.request(id, offset, TO_THE_END, version)
    }

    fn start(
        &mut self,
        id: u32,
        mut download: Download,
        answer: &Answer<'_>,
        size_bytes: u64,
    ) -> Result<(), Fault> {
        if size_bytes > FILE_BYTES_MAX {
            self.running.insert(id, download);
            let name = answer.name();
            let why =
                format_args!("{name} announces {size_bytes} bytes, more than a file can have");
            return Err(Fault::new(ErrorKind::Protocol, why));
        }
        download.size_bytes = Some(size_bytes);
        download.step = Step::Receiving;
        self.totals.0 += size_bytes - download.resumed_from.min(size_bytes);
        self.shared.set_size(self.totals.0);
        if download.part.is_none() {
            match Part::create(OsStr::from_bytes(self.name(id)).into(), id) {
                Ok(part) => download.part = Some(part),
                Err(why) => return self.give_up(id, download, why),
            }
        }
        self.running.insert(id, download);
        Ok(())
    }

    fn chunk(&mut self, id: u32, mut download: Download, count_bytes: u64) -> Result<(), Fault> {
        let size = download.size_bytes.unwrap_or_default();
        let missing = download.part.as_ref().map_or(u64::MAX, |part| size - part.bytes());
        if count_bytes == 0 || count_bytes > CHUNK_RECEIVED_BYTES_MAX.min(missing) {
            let why = format_args!(
                "DATA announces {count_bytes} bytes; {missing} bytes are missing, and a chunk has \
                 1 to {CHUNK_RECEIVED_BYTES_MAX}"
            );
            self.running.insert(id, download);
            return Err(Fault::new(ErrorKind::Protocol, why));
        }
        let (mut left, mut failure) = (count_bytes, None);
        while left > 0 {
            let want = left.min(BLOCK_BYTES as u64) as usize;
            let count = match self.link.read(&mut self.block[..want]) {
                Ok(count) => count,
                Err(fault) => {
                    self.running.insert(id, download);
                    return Err(fault);
                }
            };
            left -= count as u64;
            if failure.is_none()
                && let Some(part) = &mut download.part
            {
                failure = part.write(&self.block[..count]).err();
            }
            self.totals.1 += count as u64;
            self.shared.set_moved(self.totals.1);
        }
        if let Some(why) = failure {
            return self.give_up(id, download, why);
        }
        self.running.insert(id, download);
        Ok(())
    }

    /// Aborts a download that cannot be written here.
    fn give_up(&mut self, id: u32, mut download: Download, why: String) -> Result<(), Fault> {
        let (version, resumed_from) = (download.version, download.resumed_from);
        let rest = Download {
            step: Step::Discarding,
            size_bytes: None,
            version,
            resumed_from,
            part: None,
        };
        download.step = Step::Discarding;
        self.fail(id, download, &Fault::new(ErrorKind::Other, why));
        self.running.insert(id, rest);
        self.link.send(&Request::ABORT.packet(id, &[]))
    }

    /// All bytes have been sent: asks for the digest.
    fn received(&mut self, id: u32, mut download: Download) -> Result<(), Fault> {
        let bytes = download.part.as_ref().map_or(0, Part::bytes);
        if Some(bytes) != download.size_bytes {
            let fault = link::unexpected(&Answer::Sent, bytes, download.size_bytes);
            self.running.insert(id, download);
            return Err(fault);
        }
        if !self.options.verify {
            self.complete(id, download, Check::NotAsked);
            return Ok(());
        }
        download.step = Step::Verifying;
        self.running.insert(id, download);
        self.link.send(&Request::DIGEST_FILE.packet(id, &[self.name(id)]))
    }

    /// Compares the digests, and gives the file its name.
    fn complete(&mut self, id: u32, mut download: Download, check: Check) {
        let part = download.part.take().expect("a download that was received has one");
        let moved = moved(&download, Some(part.bytes()));
        let mut report = FileReport::checked(self.name(id), moved, part.digest(), check);
        if report.error.is_some() {
            part.discard();
        } else if let Err(why) = part.finish() {
            report.fail(&Fault::new(ErrorKind::Other, why));
        }
        self.results.insert(id, report);
    }

    fn fail(&mut self, id: u32, download: Download, fault: &Fault) {
        if matches!(download.step, Step::Discarding) && self.results.contains_key(&id) {
            return;
        }
        let remains = download.part.as_ref().and_then(Part::remains);
        let detail = [Some(fault.detail.clone()), remains];
        let detail = detail.into_iter().flatten().collect::<Vec<_>>().join("; ");
        let bytes = download.part.as_ref().map(Part::bytes);
        let mut report = FileReport::failed(self.name(id), &Fault::new(fault.kind, detail));
        report.moved(moved(&download, bytes));
        self.results.insert(id, report);
    }
}

fn moved(download: &Download, bytes: Option<u64>) -> Moved {
    let transferred_bytes = bytes.unwrap_or_default().saturating_sub(download.resumed_from);
    Moved {
        size_bytes: download.size_bytes,
        resumed_from: download.resumed_from,
        transferred_bytes,
        is_complete: matches!(download.step, Step::Verifying),
    }
}
