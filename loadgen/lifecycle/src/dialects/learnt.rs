//! The files of a server as learnt before the run, to check every received byte of a body.

use crate::finding::{Finding, Rule};
use crate::http::fingerprint::{Fingerprint, Hasher};
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// Maximum total size of files kept in memory. Beyond it, a file has a fingerprint per block.
pub const KEPT_BYTES_MAX: usize = 64 << 20;
/// Size of a block.
const BLOCK_BYTES: u64 = 64 << 10;
/// Maximum size of a file, to limit the time to learn it.
pub const FILE_BYTES_MAX: u64 = 4 << 30;
/// Minimum size of a large file, which exceeds the initial socket buffers. A fault inside its body
/// is `in_file`.
pub const LARGE_BYTES_MIN: u64 = 256 << 10;
/// Minimum number of wrong bytes for an attribution; a shorter match may be chance.
const WINDOW_BYTES: usize = 16;

/// A learnt file.
#[derive(Clone, Debug)]
pub struct File {
    /// Its path or name.
    pub name: String,
    /// Its size in bytes.
    pub length: u64,
    /// Its SHA-256.
    pub sha256: [u8; 32],
    /// The body differs between replies, so it is not checked.
    pub varies: bool,
    content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    Whole(Vec<u8>),
    Blocks(Vec<Fingerprint>),
}

/// Records a file while it is received.
#[derive(Debug)]
pub struct Recorder {
    name: String,
    length: u64,
    sha256: Sha256,
    kept: Option<Vec<u8>>,
    kept_bytes_max: usize,
    blocks: Vec<Fingerprint>,
    block: Hasher,
}

impl Recorder {
    /// Creates a recorder for file `name`, which keeps at most `kept_bytes_max` bytes.
    pub fn new(name: &str, kept_bytes_max: usize) -> Self {
        Self {
            name: name.into(),
            length: 0,
            sha256: Sha256::new(),
            kept: Some(Vec::new()),
            kept_bytes_max,
            blocks: Vec::new(),
            block: Hasher::new(),
        }
    }

    /// Records the next bytes.
    ///
    /// # Errors
    /// The file is too large.
    pub fn take(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        self.length += bytes.len() as u64;
        if self.length > FILE_BYTES_MAX {
            return Err(format!("{} is too large: more than {FILE_BYTES_MAX} bytes", self.name));
        }
        self.sha256.update(bytes);
        self.kept = self.kept.take().filter(|kept| kept.len() + bytes.len() <= self.kept_bytes_max);
        if let Some(kept) = &mut self.kept {
            kept.extend_from_slice(bytes);
        }
        while !bytes.is_empty() {
            let room = (BLOCK_BYTES - self.block.length()) as usize;
            let (part, rest) = bytes.split_at(room.min(bytes.len()));
            self.block.update(part);
            bytes = rest;
            if self.block.length() == BLOCK_BYTES {
                self.blocks.push(std::mem::take(&mut self.block).finish());
            }
        }
        Ok(())
    }

    /// Ends the file.
    pub fn finish(mut self) -> File {
        if self.block.length() > 0 {
            self.blocks.push(self.block.finish());
        }
        let content = self.kept.map_or(Content::Blocks(self.blocks), Content::Whole);
        let Self { name, length, sha256, .. } = self;
        File { name, length, sha256: sha256.finalize().into(), varies: false, content }
    }
}

impl File {
    /// Returns the content if it is kept in memory.
    pub fn bytes(&self) -> Option<&[u8]> {
        match &self.content {
            Content::Whole(bytes) => Some(bytes),
            Content::Blocks(_) => None,
        }
    }

    /// Returns the number of bytes kept in memory.
    pub fn kept_bytes(&self) -> usize {
        self.bytes().map_or(0, <[u8]>::len)
    }
}

/// The learnt files.
#[derive(Clone, Debug, Default)]
pub struct Files(pub Vec<File>);

impl Files {
    /// Returns the index of the file `name`.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|file| file.name == name)
    }

    /// Returns true if a file is large, or if no file is larger.
    pub fn is_large(&self, at: usize) -> bool {
        let length = self.0[at].length;
        length >= LARGE_BYTES_MIN || self.0.iter().all(|file| file.length <= length)
    }

    /// Draws a file; with `large`, a large one.
    pub fn draw(&self, large: bool, random: &mut dyn FnMut(u64) -> u64) -> &File {
        let among: Vec<usize> =
            (0..self.0.len()).filter(|at| !large || self.is_large(*at)).collect();
        &self.0[among[random(among.len() as u64) as usize]]
    }

    /// Finds the file and place to which `bytes` belong, which arrived at `offset` of file `at`.
    fn owner(&self, at: usize, offset: u64, bytes: &[u8]) -> Option<(&File, u64)> {
        if bytes.len() < WINDOW_BYTES {
            return None;
        }
        // The same offset in another file is the most likely origin.
        let there = |file: &File| {
            let begins = file.bytes().and_then(|kept| kept.get(usize::try_from(offset).ok()?..));
            begins.is_some_and(|kept| kept.starts_with(bytes))
        };
        let others = self.0.iter().enumerate().filter(|(other, _)| *other != at);
        if let Some((_, file)) = others.clone().find(|(_, file)| there(file)) {
            return Some((file, offset));
        }
        std::iter::once(&self.0[at]).chain(others.map(|(_, file)| file)).find_map(|file| {
            let place = file.bytes()?.windows(bytes.len()).position(|window| window == bytes)?;
            Some((file, place as u64))
        })
    }
}

/// Compares received bytes with a file from an offset on.
#[derive(Debug)]
pub struct Follower {
    file: usize,
    /// Offset of the next byte.
    offset: u64,
    /// The current block, if it was received from its beginning.
    block: Option<Hasher>,
    /// Offset of the first wrong byte, and the bytes received there, collected for an attribution.
    wrong: Option<(u64, Vec<u8>)>,
}

impl Follower {
    /// Creates a follower for file index `file` from `offset` on.
    pub fn new(file: usize, offset: u64) -> Self {
        let block = offset.is_multiple_of(BLOCK_BYTES).then(Hasher::new);
        Self { file, offset, block, wrong: None }
    }

    /// Returns the offset of the next byte.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Checks the next bytes.
    ///
    /// # Errors
    /// The bytes differ from the file. The error may be reported only after more bytes, which are
    /// needed for the attribution.
    pub fn follow(&mut self, files: &Files, bytes: &[u8]) -> Result<(), Finding> {
        let start = self.offset;
        self.offset += bytes.len() as u64;
        if let Some((_, wrong)) = &mut self.wrong {
            let missing = WINDOW_BYTES - wrong.len();
            wrong.extend_from_slice(&bytes[..missing.min(bytes.len())]);
        } else {
            match &files.0[self.file].content {
                Content::Whole(kept) => {
                    let must = kept.get(start as usize..).unwrap_or_default();
                    let same = bytes.iter().zip(must).take_while(|(is, must)| is == must).count();
                    if same < bytes.len() {
                        let shown = &bytes[same..bytes.len().min(same + WINDOW_BYTES)];
                        self.wrong = Some((start + same as u64, shown.to_vec()));
                    }
                }
                Content::Blocks(_) => return self.follow_blocks(files, start, bytes),
            }
        }
        match &self.wrong {
            Some((_, wrong)) if wrong.len() >= WINDOW_BYTES => self.finish(files),
            _ => Ok(()),
        }
    }

    /// Ends the comparison.
    ///
    /// # Errors
    /// A difference that [`Self::follow`] has not reported yet.
    pub fn finish(&self, files: &Files) -> Result<(), Finding> {
        let Some((offset, wrong)) = &self.wrong else { return Ok(()) };
        let file = &files.0[self.file];
        let must = file.bytes().and_then(|kept| kept.get(*offset as usize));
        let mut text = format!("byte {offset} of {} is {:#04x}", file.name, wrong[0]);
        let _ = match must {
            Some(must) => write!(text, ", expected {must:#04x}"),
            None => write!(text, ", but the file has {} bytes", file.length),
        };
        match files.owner(self.file, *offset, wrong) {
            Some((owner, place)) => {
                let _ = write!(text, ": these bytes belong to offset {place} of {}", owner.name);
                Err(Finding::new(Rule::ForeignBytes, text))
            }
            None => Err(Finding::new(Rule::WrongBytes, text)),
        }
    }

    fn follow_blocks(
        &mut self,
        files: &Files,
        mut start: u64,
        mut bytes: &[u8],
    ) -> Result<(), Finding> {
        let file = &files.0[self.file];
        let Content::Blocks(blocks) = &file.content else { return Ok(()) };
        while !bytes.is_empty() {
            let number = start / BLOCK_BYTES;
            let end = ((number + 1) * BLOCK_BYTES).min(file.length.max(start + 1));
            let count = ((end - start) as usize).min(bytes.len());
            let (part, rest) = bytes.split_at(count);
            if let Some(block) = &mut self.block {
                block.update(part);
            }
            start += count as u64;
            bytes = rest;
            if start == end {
                let seen = self.block.replace(Hasher::new());
                let must = blocks.get(number as usize);
                if seen.is_some_and(|seen| Some(&seen.finish()) != must) {
                    let from = number * BLOCK_BYTES;
                    let detail =
                        format!("bytes {from} to {end} of {} differ from the file", file.name);
                    return Err(Finding::new(Rule::WrongBytes, detail));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::stream::Stream;
    use proptest::prelude::*;

    /// Returns the content of file `number`.
    pub fn content(number: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        Stream::new(99, number).fill(0, &mut bytes);
        bytes
    }

    /// Returns files with the given contents.
    pub fn files(named: &[(&str, Vec<u8>)], kept_bytes_max: usize) -> Files {
        let record = |(name, bytes): &(&str, Vec<u8>)| {
            let mut recorder = Recorder::new(name, kept_bytes_max);
            recorder.take(bytes).expect("a small file");
            recorder.finish()
        };
        Files(named.iter().map(record).collect())
    }

    fn two(kept_bytes_max: usize) -> Files {
        files(&[("/a", content(1, 200_000)), ("/b", content(2, 150_000))], kept_bytes_max)
    }

    fn follow(files: &Files, offset: u64, bytes: &[u8], cuts: &[usize]) -> Result<(), Finding> {
        let mut follower = Follower::new(0, offset);
        let mut rest = bytes;
        for cut in cuts {
            let (part, after) = rest.split_at((*cut).min(rest.len()));
            follower.follow(files, part)?;
            rest = after;
        }
        follower.follow(files, rest)?;
        follower.finish(files)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_part_is_right_however_it_is_cut_and_one_wrong_byte_is_found(
            from in 0_usize..1_000, length in 1_usize..1_000, at: prop::sample::Index, by in 1_u8..,
            cuts in prop::collection::vec(0_usize..300, 0..10),
        ) {
            let files = files(&[("/a", content(1, 2_000))], usize::MAX);
            let mut bytes = content(1, 2_000)[from..from + length].to_vec();
            prop_assert_eq!(follow(&files, from as u64, &bytes, &cuts), Ok(()));
            let at = at.index(length);
            bytes[at] ^= by;
            let finding = follow(&files, from as u64, &bytes, &cuts).expect_err("a wrong byte");
            prop_assert_eq!(finding.rule, Rule::WrongBytes);
            let detail = format!("byte {} of /a is", from + at);
            prop_assert!(finding.detail.starts_with(&detail), "{}", finding.detail);
        }
    }

    #[test]
    fn bytes_of_another_file_or_place_are_told_whose_they_are_however_they_are_cut() {
        let files = two(usize::MAX);
        let mut bytes = content(1, 200_000);
        bytes[70_000..80_000].copy_from_slice(&content(2, 150_000)[1_000..11_000]);
        for cuts in [&[][..], &[70_001], &[69_999, 3, 1, 1, 5]] {
            let finding = follow(&files, 0, &bytes, cuts).expect_err("another's bytes");
            assert_eq!(finding.rule, Rule::ForeignBytes, "{finding:?}");
            assert!(finding.detail.contains("offset 1000 of /b"), "{finding:?}");
        }
        let finding = follow(&files, 5, &content(1, 100)[3..], &[]).expect_err("another place");
        assert!(finding.detail.contains("offset 3 of /a"), "{finding:?}");
        let finding = follow(&files, 9, &content(2, 100)[9..], &[]).expect_err("another file");
        assert!(finding.detail.contains("offset 9 of /b"), "{finding:?}");
    }

    #[test]
    fn a_file_that_is_not_kept_is_checked_block_by_block() {
        let files = two(100_000);
        assert_eq!(files.0[0].bytes(), None);
        let mut bytes = content(1, 200_000);
        for cuts in [&[][..], &[1, 65_535, 65_536], &[70_000]] {
            assert_eq!(follow(&files, 0, &bytes, cuts), Ok(()));
        }
        bytes[199_999] ^= 1;
        let finding = follow(&files, 0, &bytes, &[70_000]).expect_err("the last byte");
        assert_eq!(finding.detail, "bytes 196608 to 200000 of /a differ from the file");
        // A part that begins in the middle of a block is checked from the next block on.
        assert!(follow(&files, 65_000, &bytes[65_000..], &[]).is_err());
        assert_eq!(follow(&files, 199_000, &bytes[199_000..], &[]), Ok(()));
    }

    #[test]
    fn more_than_the_file_has_is_wrong() {
        let files = two(usize::MAX);
        let finding = follow(&files, 199_999, &content(1, 200_016)[199_999..], &[]);
        assert!(finding.expect_err("too long").detail.contains("the file has 200000 bytes"));
    }

    #[test]
    fn the_largest_file_is_large_whatever_its_size() {
        let files = two(usize::MAX);
        assert!(files.is_large(0) && !files.is_large(1));
        for pick in 0..5 {
            assert_eq!(files.draw(true, &mut |below| pick % below).name, "/a");
        }
    }
}
