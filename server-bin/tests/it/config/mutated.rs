//! Mutations of a configuration, byte by byte: whatever they make of it, the answer has a place.

use super::complete::{COMPLETE, check, files};
use std::panic;

/// Texts that mean something in TOML.
const TOKENS: [&str; 24] = [
    "\"",
    "'",
    "\"\"\"",
    "'''",
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    "=",
    ",",
    ".",
    "#",
    "\n",
    "\r",
    "\0",
    "\\",
    "\\u{10ffff}",
    "-",
    "99999999999999999999",
    "nan",
    "ä",
    "\u{feff}",
];

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % limit
    }
}

fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..=random.below(3) {
        if bytes.is_empty() {
            return;
        }
        let at = random.below(bytes.len());
        let end = (at + random.below(12)).min(bytes.len());
        match random.below(6) {
            0 => bytes[at] = random.below(256) as u8,
            1 => drop(bytes.drain(at..end)),
            2 => {
                let copy = bytes[at..end].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, copy);
            }
            3 => bytes.truncate(at.max(1)),
            4 => {
                let other = random.below(bytes.len());
                bytes.swap(at, other);
            }
            _ => {
                let token = TOKENS[random.below(TOKENS.len())];
                bytes.splice(at..at, token.bytes());
            }
        }
    }
}

/// Two tables of the complete configuration, each with the tables below it: a short text has more
/// of its bytes changed.
fn some_tables(random: &mut Random) -> String {
    let (of_engine, services) = COMPLETE.split_at(COMPLETE.find("[[site]]").unwrap());
    [of_engine, services]
        .map(|text| {
            let tables: Vec<&str> = text.split_inclusive("\n\n").collect();
            tables[random.below(tables.len())]
        })
        .concat()
}

#[test]
fn ten_thousand_mutations_cause_no_panic_and_each_refusal_has_a_place() {
    let files = files();
    let mut random = Random(0x5eed);
    let mut refused = 0;
    for round in 0..10_000 {
        let mut bytes = some_tables(&mut random).into_bytes();
        mutate(&mut random, &mut bytes);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let result = panic::catch_unwind(|| check(&files, &text));
        let result = result.unwrap_or_else(|_| panic!("round {round}: {text}"));
        let Err(said) = result else { continue };
        refused += 1;
        let lines = text.matches('\n').count() + 1;
        let mut places = 0;
        for fault in said.lines().filter(|line| line.starts_with("c.toml:")) {
            let mut parts = fault.splitn(4, ':').skip(1);
            let mut number = || parts.next().and_then(|number| number.parse::<usize>().ok());
            let (line, column) = (number(), number());
            let is_place = line.is_some_and(|line| (1..=lines).contains(&line))
                && column.is_some_and(|column| column >= 1);
            let what = parts.next().unwrap_or_default().trim();
            assert!(is_place && what.len() > 5, "round {round}: {fault}");
            places += 1;
        }
        assert!(places > 0, "round {round}: {said}");
    }
    assert!((3_000..10_000).contains(&refused), "{refused}");
}
