//! The SHA-256 of a file, in slices. Other jobs run between two slices.

use super::wire::Refusal;
use crate::places::Place;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read};
use std::mem;

/// Bytes that one read(2) asks for.
const BLOCK_BYTES: usize = 256 << 10;
/// Bytes of a file that one job digests. It takes some milliseconds, which delay other jobs.
pub const SLICE_BYTES: u64 = 8 << 20;
/// Maximum number of files being digested, over all connections. Each needs a descriptor and worker
/// time. It is below the length of the job queue, so that these files alone never fill the queue.
pub const SUMS_MAX: usize = 256;

/// A SHA-256.
pub type Sum = [u8; 32];

/// A partly digested file.
pub struct FileSum {
    file: File,
    sum: Sha256,
    left: u64,
    _place: Place,
}

/// The result of a slice.
pub enum Summed {
    /// The slice was the last one.
    Whole(Sum),
    /// More slices follow.
    Part(FileSum),
}

impl FileSum {
    /// Starts to digest `file` up to its current length.
    pub fn new(file: File, place: Place) -> Result<Self, Refusal> {
        let left = file.metadata().map_err(|error| Refusal::of_reading(&error))?.len();
        Ok(Self { file, sum: Sha256::new(), left, _place: place })
    }

    /// Digests the next slice. Stops early when `is_wanted` returns `false`.
    pub fn go_on(self, is_wanted: impl Fn() -> bool) -> Result<Summed, Refusal> {
        self.slice(is_wanted).map_err(|error| Refusal::of_reading(&error))
    }

    fn slice(mut self, is_wanted: impl Fn() -> bool) -> io::Result<Summed> {
        let mut slice = self.left.min(SLICE_BYTES);
        let mut block = vec![0; BLOCK_BYTES.min(slice as usize)];
        while slice > 0 && is_wanted() {
            let most = block.len().min(slice as usize);
            let read = match self.file.read(&mut block[..most]) {
                Ok(0) => {
                    return Err(io::Error::other("the file became shorter while it was digested"));
                }
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.sum.update(&block[..read]);
            slice -= read as u64;
            self.left -= read as u64;
        }
        if self.left > 0 {
            return Ok(Summed::Part(self));
        }
        Ok(Summed::Whole(mem::take(&mut self.sum).finalize().into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::places::Places;
    use std::cell::Cell;

    #[test]
    fn slices_of_a_file_have_the_digest_of_the_whole_file() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places::new(1);
        for (length, slices) in
            [(0, 1), (1, 1), (SLICE_BYTES, 1), (SLICE_BYTES + 1, 2), (3 * SLICE_BYTES - 1, 3)]
        {
            let bytes: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            let path = dir.path().join("file");
            std::fs::write(&path, &bytes).unwrap();
            let file = File::open(&path).unwrap();
            let mut rest = FileSum::new(file, places.take().unwrap()).unwrap();
            let mut told = 0;
            let sum = loop {
                told += 1;
                match rest.go_on(|| true).unwrap() {
                    Summed::Whole(sum) => break sum,
                    Summed::Part(part) => rest = part,
                }
            };
            assert_eq!(told, slices, "{length} bytes");
            assert_eq!(sum[..], Sha256::digest(&bytes)[..], "{length} bytes");
        }
    }

    #[test]
    fn an_unwanted_digest_stops_early() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 40).unwrap();
        let asked = Cell::new(0);
        let is_wanted = || {
            asked.set(asked.get() + 1);
            asked.get() < 3
        };
        let sum = FileSum::new(file, Places::new(1).take().unwrap()).unwrap();
        assert!(matches!(sum.go_on(is_wanted).unwrap(), Summed::Part(_)));
        assert_eq!(asked.get(), 3);
    }
}
