//! The SHA-256 of a file, slice by slice: between two of them others have their turn.

use super::wire::Refusal;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read};
use std::mem;
use std::sync::Arc;

/// Bytes of a file that are read in one go.
const BLOCK_BYTES: usize = 256 << 10;
/// Bytes of a file that one job digests: some milliseconds, for whoever comes next.
pub const SLICE_BYTES: u64 = 8 << 20;
/// Files that are being digested, of all connections: each is an open descriptor, and takes its
/// turn of every worker. Fewer than the queue of jobs has places, so that these alone never fill it.
const SUMS_MAX: usize = 256;

/// A SHA-256.
pub type Sum = [u8; 32];

/// Places for files that are being digested.
#[derive(Debug, Default)]
pub struct Places(Arc<()>);

/// One of them.
pub struct Place(#[expect(dead_code, reason = "it counts as long as it is there")] Arc<()>);

impl Places {
    /// None is left: try again later.
    pub fn take(&self) -> Option<Place> {
        let place = Place(self.0.clone());
        // One of these is our own.
        (Arc::strong_count(&self.0) <= 1 + SUMS_MAX).then_some(place)
    }
}

/// A file of which some has been digested.
pub struct FileSum {
    file: File,
    sum: Sha256,
    left: u64,
    _place: Place,
}

/// What a slice comes to.
pub enum Summed {
    /// It was the last one.
    Whole(Sum),
    /// There is more.
    Part(FileSum),
}

impl FileSum {
    /// Of a file as long as it is now.
    pub fn new(file: File, place: Place) -> Result<Self, Refusal> {
        let left = file.metadata().map_err(|error| Refusal::of_reading(&error))?.len();
        Ok(Self { file, sum: Sha256::new(), left, _place: place })
    }

    /// The next slice, unless nobody wants it any more.
    pub fn go_on(self, is_wanted: impl Fn() -> bool) -> Result<Summed, Refusal> {
        self.slice(is_wanted).map_err(|error| Refusal::of_reading(&error))
    }

    fn slice(mut self, is_wanted: impl Fn() -> bool) -> io::Result<Summed> {
        let mut slice = self.left.min(SLICE_BYTES);
        let mut block = vec![0; BLOCK_BYTES.min(slice as usize)];
        while slice > 0 && is_wanted() {
            let most = block.len().min(slice as usize);
            let read = match self.file.read(&mut block[..most]) {
                Ok(0) => return Err(io::Error::other("the file has become shorter")),
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
    use std::cell::Cell;

    #[test]
    fn a_file_comes_slice_by_slice_to_the_sum_of_the_whole() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places::default();
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
    fn nobody_waits_for_a_sum_that_nobody_wants() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 40).unwrap();
        let asked = Cell::new(0);
        let is_wanted = || {
            asked.set(asked.get() + 1);
            asked.get() < 3
        };
        let sum = FileSum::new(file, Places::default().take().unwrap()).unwrap();
        assert!(matches!(sum.go_on(is_wanted).unwrap(), Summed::Part(_)));
        assert_eq!(asked.get(), 3);
    }

    #[test]
    fn there_are_so_many_places_and_no_more() {
        let places = Places::default();
        let mut taken: Vec<Place> = std::iter::from_fn(|| places.take()).collect();
        assert_eq!(taken.len(), SUMS_MAX);
        taken.pop();
        assert!(places.take().is_some(), "one was given back");
    }
}
