//! Packets: each request gets one answer with its id, whatever the kernel does.

use super::{FILES, Simulated, content, seeds};
use ringwright::testing::{ClientEnd, StormClient};
use std::collections::BTreeMap;

const CONFIGURATION: &str = r#"
[engine]
workers = 2

[[packets]]
listen = ["127.0.0.1:7000"]
root = "root"
replace = true
"#;

/// Numbers of types, as in PACKETS.md.
const ECHO: u8 = 0x01;
const DIGEST: u8 = 0x02;
const DATA: u8 = 0x09;
const GET_RANGE: u8 = 0x0b;
const PUT: u8 = 0x08;
const ECHOED: u8 = 0x81;
const DIGESTED: u8 = 0x82;
const SENT: u8 = 0x87;
const ACCEPTED: u8 = 0x88;
const STORED: u8 = 0x89;
const DATA_FOLLOWS: u8 = 0x8b;
const RANGE: u8 = 0x8c;
const ERROR: u8 = 0x8f;

fn packet(kind: u8, id: u32, fields: &[u8]) -> Vec<u8> {
    let length = (5 + fields.len()) as u32;
    [&length.to_be_bytes()[..], &[kind], &id.to_be_bytes(), fields].concat()
}

fn echo(id: u32, bytes: usize) -> Vec<u8> {
    packet(ECHO, id, &vec![id as u8; bytes])
}

/// All of a file.
fn get(id: u32, number: usize) -> Vec<u8> {
    let all = [&0u64.to_be_bytes()[..], &u64::MAX.to_be_bytes(), &[0; 16]].concat();
    packet(GET_RANGE, id, &[&all[..], FILES[number].0.as_bytes()].concat())
}

/// An upload whose bytes follow at once.
fn put(id: u32, bytes: usize) -> Vec<u8> {
    let fields = [&[1][..], &(bytes as u64).to_be_bytes(), b"uploaded"].concat();
    let data = packet(DATA, id, &(bytes as u32).to_be_bytes());
    [packet(PUT, id, &fields), data, vec![b'u'; bytes]].concat()
}

/// The answers to an id.
#[derive(Default)]
struct Answers {
    kinds: Vec<u8>,
    /// Bytes of the last answer, or of the file.
    bytes: Vec<u8>,
    file: Vec<u8>,
}

/// Reads all answers, by id. The rest is an answer that is not complete.
fn answers(mut bytes: &[u8]) -> (BTreeMap<u32, Answers>, usize) {
    let mut all: BTreeMap<u32, Answers> = BTreeMap::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        assert!((5..=65_536).contains(&length), "a packet of {length} bytes");
        let Some(body) = rest.get(..length) else { break };
        let id = u32::from_be_bytes(body[1..5].try_into().expect("four bytes"));
        let mut after = &rest[length..];
        let answers = all.entry(id).or_default();
        if body[0] == DATA_FOLLOWS {
            let count = u32::from_be_bytes(body[5..9].try_into().expect("four bytes")) as usize;
            let Some(chunk) = after.get(..count) else { break };
            answers.file.extend_from_slice(chunk);
            after = &after[count..];
        }
        answers.kinds.push(body[0]);
        answers.bytes = body[5..].to_vec();
        bytes = after;
    }
    (all, bytes.len())
}

/// A request with this id, and the number of its file if it asks for one.
type Asked = (u32, Option<usize>);

fn judge(client: &StormClient, texts: &[(Vec<u8>, Vec<Asked>)]) {
    let (all, rest) = answers(client.received());
    let of_these = texts.iter().find(|(text, _)| text.starts_with(client.sent()));
    let (text, asked) = of_these.expect("it says one of these");
    for (id, answers) in &all {
        let (_, number) = asked.iter().find(|(known, _)| known == id).expect("an id of ours");
        let failed = answers.kinds.last() == Some(&ERROR);
        // The file is shorter for everybody from then on.
        let failed = failed || client.had_fault("truncate");
        let kinds: Vec<u8> =
            answers.kinds.iter().copied().filter(|kind| *kind != DATA_FOLLOWS).collect();
        let right = match kinds[..] {
            [ECHOED] => answers.bytes.iter().all(|byte| *byte == *id as u8),
            [DIGESTED] => answers.bytes.len() == 32,
            [RANGE, SENT] => number.is_some_and(|number| answers.file == content(number)),
            // Bytes that could not be read are padded. An ERROR follows, unless the client leaves.
            [RANGE] if client.had_fault("file_error") => true,
            [RANGE] => number.is_some_and(|number| content(number).starts_with(&answers.file)),
            [ACCEPTED] | [ACCEPTED, STORED] => true,
            _ => false,
        };
        assert!(right || failed, "{id} is answered by {:x?}", answers.kinds);
    }
    if client.was_disturbed() || client.end() == ClientEnd::Reset || client.sent() != text {
        return;
    }
    assert!(rest == 0 || client.end() == ClientEnd::Finished, "half an answer, and it stays open");
    if client.end() == ClientEnd::Open {
        let ends = |answers: &Answers| {
            let last = answers.kinds.last();
            last.is_some_and(|last| [ECHOED, DIGESTED, SENT, STORED, ERROR].contains(last))
        };
        let missing: Vec<u32> =
            asked.iter().map(|(id, _)| *id).filter(|id| !all.get(id).is_some_and(ends)).collect();
        assert!(missing.is_empty(), "no answer to {missing:?}");
    }
}

#[test]
fn every_packet_is_answered_whatever_the_kernel_does() {
    let simulated = Simulated::new(CONFIGURATION);
    let texts: Vec<(Vec<u8>, Vec<Asked>)> = vec![
        (
            [echo(1, 10), packet(DIGEST, 2, b"abc"), echo(3, 5_000), get(4, 0)].concat(),
            vec![(1, None), (2, None), (3, None), (4, Some(0))],
        ),
        (
            [get(11, 1), get(12, 2), echo(13, 1), get(14, 0)].concat(),
            vec![(11, Some(1)), (12, Some(2)), (13, None), (14, Some(0))],
        ),
        (
            [put(21, 20_000), echo(22, 3), put(23, 1)].concat(),
            vec![(21, None), (22, None), (23, None)],
        ),
        (
            [packet(0x55, 31, b""), get(32, 2), echo(33, 60_000)].concat(),
            vec![(31, None), (32, Some(2)), (33, None)],
        ),
    ];
    let mut storm = simulated.storm().judge(|client| judge(client, &texts));
    for (text, _) in &texts {
        storm = storm.sends(text.clone());
    }
    let reached = storm.run(seeds());
    for mark in ["receive without a buffer", "send cut short", "receive failed", "hang-up"] {
        assert!(reached.count(mark) > 0, "{mark}");
    }
}
