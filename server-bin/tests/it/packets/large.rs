//! Files beyond 4 GiB both ways, with flat memory. Without `RINGWRIGHT_FULL` a tenth of it.

use super::client::*;
use super::{Served, alone};
use ringwrightd_test_support::scale::is_full;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::time::Instant;

/// Beyond what 32 bits hold, and no whole number of chunks.
const BYTES: u64 = (5 << 30) + 12_345;
/// Data in the holes of the sparse file: around what 31 and 32 bits hold, and at both ends.
const ISLANDS: [u64; 5] = [0, (2 << 30) - 50_000, (4 << 30) - 50_000, 5 << 30, BYTES - 100_000];
/// What a transfer may add to the daemon's memory.
const GROWTH_KIB_MAX: usize = 8 << 10;

/// FNV-1a over words of 8 bytes.
struct Sum {
    hash: u64,
    rest: Vec<u8>,
}

impl Sum {
    fn new() -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, rest: Vec::new() }
    }

    fn add(&mut self, bytes: &[u8]) {
        let fill = bytes.len().min((8 - self.rest.len()) % 8);
        self.rest.extend_from_slice(&bytes[..fill]);
        if self.rest.len() == 8 {
            self.word(self.rest[..].try_into().unwrap());
            self.rest.clear();
        }
        let words = bytes[fill..].chunks_exact(8);
        self.rest.extend_from_slice(words.remainder());
        words.for_each(|word| self.word(word.try_into().unwrap()));
    }

    fn word(&mut self, word: [u8; 8]) {
        self.hash = (self.hash ^ u64::from_le_bytes(word)).wrapping_mul(0x100_0000_01b3);
    }
}

fn sum_of(file: &File, part: Range<u64>) -> (u64, Vec<u8>) {
    let (mut sum, mut block, mut offset) = (Sum::new(), vec![0; 1 << 20], part.start);
    while offset < part.end {
        let room = (part.end - offset).min(block.len() as u64) as usize;
        let read = file.read_at(&mut block[..room], offset).unwrap();
        assert!(read > 0, "the end at {offset}");
        sum.add(&block[..read]);
        offset += read as u64;
    }
    (sum.hash, sum.rest)
}

/// The range that is transferred both ways: the whole file, or a tenth of it across 4 GiB.
fn moved() -> Range<u64> {
    if is_full() { 0..BYTES } else { (4 << 30) - BYTES / 20..(4 << 30) + BYTES / 20 }
}

#[test]
fn five_gib_both_ways() {
    let _alone = alone();
    let part = moved();
    let length = part.end - part.start;
    let served = Served::start(&[]);
    let sparse = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(served.dir.path().join("sparse"))
        .unwrap();
    sparse.set_len(BYTES).unwrap();
    for (number, at) in ISLANDS.into_iter().enumerate() {
        let island: Vec<u8> = (0..100_000_usize).map(|byte| (byte * 31 + number) as u8).collect();
        let room = usize::try_from(BYTES - at).unwrap().min(island.len());
        sparse.write_all_at(&island[..room], at).unwrap();
    }
    assert_eq!(sparse.metadata().unwrap().len(), BYTES);
    let expected = sum_of(&sparse, part.clone());
    let mut down = served.client();
    down.echoes();
    let before_kib = served.daemon.resident_kib();

    // What comes down on one connection goes up on another.
    let begun = Instant::now();
    assert_eq!(down.get(1, "sparse"), BYTES);
    down.write(&take(1, part.start, length));
    let mut up = served.client();
    up.write(&put(2, "copy", length));
    up.expect(ACCEPTED, 2);
    let (mut sum, mut most_kib) = (Sum::new(), 0);
    let mut bytes = Vec::new();
    loop {
        let answer = down.answer();
        if answer.says() == (SENT, 1, 0) {
            break;
        }
        bytes.resize(answer.count(), 0);
        down.stream.read_exact(&mut bytes).unwrap();
        sum.add(&bytes);
        up.send(DATA, 2, &(bytes.len() as u32).to_be_bytes());
        up.write(&bytes);
        most_kib = most_kib.max(served.daemon.resident_kib());
    }
    up.expect(STORED, 2);
    eprintln!("{length} down and up in {:.1?}, {before_kib} to {most_kib} KiB", begun.elapsed());
    assert!((sum.hash, sum.rest) == expected, "what came down differs");
    assert!(most_kib < before_kib + GROWTH_KIB_MAX, "{before_kib} KiB became {most_kib}");
    let copy = File::open(served.dir.path().join("copy")).unwrap();
    assert_eq!(copy.metadata().unwrap().len(), length);
    assert!(sum_of(&copy, 0..length) == expected, "what went up differs");
    drop((up, down));
    served.stop(&["copy", "sparse"]);
}
