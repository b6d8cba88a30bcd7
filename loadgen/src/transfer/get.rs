//! A download. A worker hashes and writes the received data, block by block.
//!
//! # Backpressure
//! When [`BLOCKS_MAX`] blocks wait for the disk, the connection is paused until half of them are
//! written. Memory does not grow with the size of the file.

use super::client::{Progress, Shared, Side, TRANSFER_ID, Turn};
use super::sink::{Sink, lock};
use ringload_lifecycle::fault::{ErrorKind, Fault};
use ringload_lifecycle::packets::{Answer, CHUNK_RECEIVED_BYTES_MAX, Request};
use ringwright::Connection;
use ringwright::workers::{Job, JobDone};
use std::sync::{Arc, Mutex};

/// Size of a block that is hashed and written at once.
const BLOCK_BYTES: usize = 256 << 10;
/// Maximum number of blocks handed to the worker.
pub const BLOCKS_MAX: u32 = 16;

/// The largest offset in a file (off_t).
const FILE_BYTES_MAX: u64 = i64::MAX as u64;

/// The result of a worker: the block for reuse, and the error.
type Written = (Vec<u8>, Result<(), String>);

/// The side that receives.
#[derive(Clone)]
pub struct Get {
    request: Vec<u8>,
    sink: Arc<Mutex<Sink>>,
    size_bytes: Option<u64>,
    received_bytes: u64,
    chunk_missing_bytes: u64,
    /// Data received and not yet handed to the worker.
    block: Vec<u8>,
    /// Written blocks for reuse.
    spare: Vec<Vec<u8>>,
    is_paused: bool,
    /// The server has confirmed that it sent everything.
    is_sent: bool,
    shared: Arc<Shared>,
}

impl Get {
    /// Creates the receiving side, which writes file `name` into `sink`.
    pub fn new(name: &[u8], sink: Arc<Mutex<Sink>>, shared: Arc<Shared>) -> Self {
        Self {
            request: Request::GET.packet(TRANSFER_ID, &[name]),
            sink,
            size_bytes: None,
            received_bytes: 0,
            chunk_missing_bytes: 0,
            block: Vec::with_capacity(BLOCK_BYTES),
            spare: Vec::new(),
            is_paused: false,
            is_sent: false,
            shared,
        }
    }

    /// Hands the received data to the worker; pauses the connection at [`BLOCKS_MAX`].
    fn hand_over(&mut self, connection: &mut Connection<'_>) -> Result<(), Fault> {
        let next = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(BLOCK_BYTES));
        let mut block = std::mem::replace(&mut self.block, next);
        let (sink, end) = (self.sink.clone(), self.received_bytes);
        let job = Job::new(end, move || -> Written {
            let result = lock(&sink).write(end - block.len() as u64, &block);
            block.clear();
            (block, result)
        });
        connection.offload(job).map_err(|refused| Fault::new(ErrorKind::Other, refused))?;
        if connection.jobs_under_way() >= BLOCKS_MAX as usize {
            self.is_paused = true;
            connection.pause();
        }
        Ok(())
    }

    fn progress(&self, connection: &Connection<'_>) -> Progress {
        match self.is_sent && connection.jobs_under_way() == 0 {
            true => Progress::Complete,
            false => Progress::Going,
        }
    }

    /// Handles the announcement of a chunk.
    fn begin_chunk(&mut self, size_bytes: u64, count_bytes: u64) -> Result<(), Fault> {
        let missing = size_bytes - self.received_bytes;
        if count_bytes == 0 || count_bytes > CHUNK_RECEIVED_BYTES_MAX.min(missing) {
            return Err(Fault::new(
                ErrorKind::Protocol,
                format_args!(
                    "DATA announces {count_bytes} bytes; {missing} bytes are missing, and a \
                     chunk has 1 to {CHUNK_RECEIVED_BYTES_MAX}"
                ),
            ));
        }
        self.chunk_missing_bytes = count_bytes;
        Ok(())
    }
}

impl Side for Get {
    fn request(&self) -> Vec<u8> {
        self.request.clone()
    }

    fn answered(
        &mut self,
        connection: &mut Connection<'_>,
        answer: &Answer<'_>,
    ) -> Result<Progress, Fault> {
        match (answer, self.size_bytes) {
            (Answer::Offer { size_bytes }, None) if *size_bytes > FILE_BYTES_MAX => {
                let detail =
                    format_args!("OFFER announces {size_bytes} bytes, more than a file can have");
                return Err(Fault::new(ErrorKind::Protocol, detail));
            }
            (Answer::Offer { size_bytes }, None) => {
                self.size_bytes = Some(*size_bytes);
                self.shared.set_size(*size_bytes);
                let (offset, length) = (0_u64.to_be_bytes(), size_bytes.to_be_bytes());
                let _ = connection.send(&Request::TAKE.packet(TRANSFER_ID, &[&offset, &length]));
            }
            (Answer::Data { count_bytes }, Some(size)) if !self.is_sent => {
                self.begin_chunk(size, *count_bytes)?;
            }
            (Answer::Sent, Some(size)) if !self.is_sent && self.received_bytes == size => {
                self.is_sent = true;
                if !self.block.is_empty() {
                    self.hand_over(connection)?;
                }
            }
            (other, size) => {
                let (name, received) = (other.name(), self.received_bytes);
                let of = size.map(|size| format!(" of {size}")).unwrap_or_default();
                let detail = format_args!("unexpected {name} after {received}{of} bytes");
                return Err(Fault::new(ErrorKind::Protocol, detail));
            }
        }
        Ok(self.progress(connection))
    }

    fn turn(&self) -> Turn {
        if self.is_paused || self.is_sent { Turn::Ours } else { Turn::Server }
    }

    fn chunk_missing_bytes(&self) -> u64 {
        self.chunk_missing_bytes
    }

    fn take(&mut self, connection: &mut Connection<'_>, bytes: &[u8]) -> Result<usize, Fault> {
        let mut taken = 0;
        while taken < bytes.len() && !self.is_paused {
            let room = BLOCK_BYTES - self.block.len();
            let part = &bytes[taken..bytes.len().min(taken + room)];
            self.block.extend_from_slice(part);
            taken += part.len();
            self.received_bytes += part.len() as u64;
            self.chunk_missing_bytes -= part.len() as u64;
            if self.block.len() == BLOCK_BYTES {
                self.hand_over(connection)?;
            }
        }
        self.shared.set_moved(self.received_bytes);
        Ok(taken)
    }

    fn job_done(
        &mut self,
        connection: &mut Connection<'_>,
        job: JobDone,
    ) -> Result<Progress, Fault> {
        let other = |detail: String| Fault::new(ErrorKind::Other, detail);
        let (block, written) = job.result::<Written>().map_err(|error| other(error.to_string()))?;
        written.map_err(other)?;
        self.spare.push(block);
        if self.is_paused && connection.jobs_under_way() <= BLOCKS_MAX as usize / 2 {
            self.is_paused = false;
            connection.resume();
        }
        Ok(self.progress(connection))
    }
}
