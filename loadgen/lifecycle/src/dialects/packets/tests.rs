use super::model::{Source, What};
use super::*;
use crate::dialect::Ending;
use crate::dialects::learnt::tests::{content, files};
use crate::finding::{Finding, Rule};
use crate::oracle::tests::{LIMITS, seen};
use crate::packets::{CHUNK_RECEIVED_BYTES_MAX, Request, code};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

const KEY: Key = Key { seed: 7, number: 3 };

fn packets() -> Packets {
    let files = files(
        &[("a", content(1, 3_000)), ("large", content(2, 1_500_000)), ("nothing", Vec::new())],
        usize::MAX,
    );
    Packets::new(learn::Learnt { files, has_workers: true, is_read_only: false }, 5)
}

fn phrases(text: &str) -> Vec<String> {
    text.split(',').map(Into::into).collect()
}

fn random(mut state: u64) -> impl FnMut(u64) -> u64 {
    move |below| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % below
    }
}

/// Returns the answers of a correct server to `sent`.
fn honest(packets: &Packets, sent: &[u8]) -> Vec<u8> {
    let files = &packets.known.files;
    let mut out = Vec::new();
    for expected in Model::of(sent, files).expected {
        let id = expected.id;
        match expected.what {
            What::Echoed(place) => packet(&mut out, 0x81, id, &[&sent[place]]),
            What::Digested(place) => packet(&mut out, 0x82, id, &[&Sha256::digest(&sent[place])]),
            What::DigestedFile(Source::File(file)) => {
                packet(&mut out, 0x82, id, &[&files.0[file].sha256]);
            }
            What::DigestedFile(Source::Put(_, ranges)) => {
                let content: Vec<u8> =
                    ranges.into_iter().flat_map(|range| sent[range].to_vec()).collect();
                packet(&mut out, 0x82, id, &[&Sha256::digest(content)]);
            }
            What::BroadcastSent => {
                packet(&mut out, 0x90, 0, &[b"somebody's"]);
                packet(&mut out, 0x84, id, &[]);
            }
            What::Listed(_) => {
                let entry = |length: u64, name: &str| {
                    [&length.to_be_bytes()[..], &[name.len() as u8], name.as_bytes()].concat()
                };
                let mut entries: Vec<u8> =
                    files.0.iter().flat_map(|file| entry(file.length, &file.name)).collect();
                entries.extend(entry(9, "zzz"));
                packet(&mut out, 0x85, id, &[&[0], &entries]);
            }
            What::Offer { file, .. } => {
                let length = files.0[file].length;
                packet(&mut out, 0x86, id, &[&length.to_be_bytes(), &[0; 8]]);
            }
            What::Range { file, .. } => {
                let length = files.0[file].length;
                packet(&mut out, 0x8c, id, &[&length.to_be_bytes(), &[0; 8], &[7; 16]]);
            }
            What::Resumed { .. } => packet(&mut out, 0x8d, id, &[&[0; 8]]),
            What::Sent { file, offset, length } => {
                let all = files.0[file].bytes().expect("kept");
                let part = &all[offset as usize..(offset + length) as usize];
                for chunk in part.chunks(CHUNK_RECEIVED_BYTES_MAX as usize) {
                    packet(&mut out, 0x8b, id, &[&(chunk.len() as u32).to_be_bytes()]);
                    out.extend_from_slice(chunk);
                }
                packet(&mut out, 0x87, id, &[]);
            }
            What::Accepted { .. } => packet(&mut out, 0x88, id, &[]),
            What::Stored => packet(&mut out, 0x89, id, &[]),
            What::Aborted if sent.len().is_multiple_of(2) => {
                // The transfer had ended before the ABORT arrived.
                error(&mut out, id, code::NO_TRANSFER);
            }
            What::Aborted => packet(&mut out, 0x8a, id, &[]),
            What::Refusal { code, .. } => error(&mut out, id, code),
        }
    }
    out
}

fn packet(out: &mut Vec<u8>, kind: u8, id: u32, fields: &[&[u8]]) {
    Request(kind).append(out, id, fields);
}

fn error(out: &mut Vec<u8>, id: u32, code: u16) {
    packet(out, 0x8f, id, &[&code.to_be_bytes(), b"why"]);
}

/// Returns the result of a checker for `bytes` and a FIN, after `sent` bytes were sent.
fn receive(
    packets: &Packets,
    say: &[String],
    sent: u64,
    bytes: &[u8],
    cuts: &[usize],
) -> (Result<(), Finding>, u64) {
    let mut checker = packets.checker(KEY, say).expect("phrases");
    let mut ends: Vec<usize> = cuts.iter().map(|cut| (*cut).min(bytes.len())).collect();
    ends.push(bytes.len());
    ends.sort_unstable();
    let (mut start, mut result) = (0, Ok(()));
    for end in ends {
        result = result.and_then(|()| checker.receive(&bytes[start..end], sent));
        start = end;
    }
    (result.and_then(|()| checker.fin()), checker.replies())
}

/// Returns the finding on a connection that sends `say` and receives `bytes`.
fn rule(say: &str, bytes: &[u8]) -> Option<Rule> {
    receive(&packets(), &phrases(say), u64::MAX, bytes, &[]).0.err().map(|finding| finding.rule)
}

/// Returns an answer to the first packet of the connection.
fn about_first(kind: u8, fields: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    packet(&mut out, kind, 0x301, &[fields]);
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn an_honest_server_is_never_blamed(
        state: u64, in_file: bool, cuts in prop::collection::vec(0_usize..200_000, 0..30),
    ) {
        let packets = packets();
        let drawn: Vec<String> = packets.draw(in_file, &mut random(state));
        let outgoing = packets.outgoing(KEY, &drawn).expect("phrases");
        // NO_TRANSFER is a valid answer to a late ABORT only if a transfer had ended before it.
        let aborts_nothing = |phrase: &String| {
            ["abort-get", "abort-put", "resume"].iter().any(|verb| phrase.starts_with(verb))
        };
        prop_assume!(!outgoing.bytes.len().is_multiple_of(2) || !drawn.iter().any(aborts_nothing));
        let answers = honest(&packets, &outgoing.bytes);
        let sent = outgoing.bytes.len() as u64;
        let (result, replies) = receive(&packets, &drawn, sent, &answers, &cuts);
        prop_assert_eq!(result, Ok(()), "{:?}", drawn);
        let due = Model::of(&outgoing.bytes, &packets.known.files).due(sent);
        prop_assert_eq!(replies, due);
        let is_file = |request: &crate::dialect::Request| request.is_file;
        prop_assert!(!in_file || outgoing.requests.iter().any(is_file), "{:?}", drawn);
    }

    #[test]
    fn a_fin_in_the_middle_of_an_answer_cuts_it(end in 1_usize..3_100) {
        let packets = packets();
        let say = phrases("echo:40,get:a");
        let outgoing = packets.outgoing(KEY, &say).expect("phrases");
        let answers = honest(&packets, &outgoing.bytes);
        let is_between = [49, 49 + 25].contains(&end) || end >= answers.len();
        let result = receive(&packets, &say, u64::MAX, &answers[..end.min(answers.len())], &[]).0;
        let rule = result.err().map(|finding| finding.rule);
        prop_assert_eq!(rule, (!is_between).then_some(Rule::CutReply));
    }

    #[test]
    fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..500), state: u64) {
        let packets = packets();
        let drawn = packets.draw(false, &mut random(state));
        let _ = receive(&packets, &drawn, u64::MAX, &noise, &[]);
        Model::of(&noise, &packets.known.files);
    }
}

#[test]
fn each_way_to_answer_wrongly_has_its_rule() {
    let sum = Sha256::digest(b"something else");
    for (say, bytes, must) in [
        ("echo:40", about_first(0x81, &[1; 40]), Rule::WrongBytes),
        ("echo:40", about_first(0x81, &[]), Rule::WrongBytes),
        ("digest:40", about_first(0x82, &sum), Rule::WrongBytes),
        ("digest-file:a", about_first(0x82, &sum), Rule::WrongBytes),
        ("echo:40", about_first(0x82, &sum), Rule::Unasked),
        ("echo:40", about_first(0x99, &[]), Rule::Protocol),
        ("echo:40", b"HTTP/1.1 400 Bad Request\r\n".to_vec(), Rule::Protocol),
        ("echo:40", about_first(0x8f, b"\0\x0anot now"), Rule::BadStatus),
        ("digest:40", about_first(0x8f, b"\0\x0bnobody works"), Rule::BadStatus),
        ("get:a", about_first(0x86, &[0; 16]), Rule::WrongBytes),
        ("get:a", about_first(0x8f, b"\0\x04gone"), Rule::BadStatus),
        ("range:a:0:9", about_first(0x8c, &[0; 32]), Rule::WrongBytes),
        ("range:a:0:9", about_first(0x8f, b"\0\x0abusy"), Rule::BadStatus),
        ("resume:9", about_first(0x8d, b"\0\0\0\0\0\0\0\x01"), Rule::WrongBytes),
        ("put:9", about_first(0x8f, b"\0\x06taken"), Rule::BadStatus),
        ("list", about_first(0x85, b"\0"), Rule::Protocol),
        ("type:ff:0", about_first(0x8f, b"\0\x01malformed"), Rule::BadStatus),
        ("lie:65537:0", about_first(0x81, &[]), Rule::Unasked),
    ] {
        assert_eq!(rule(say, &bytes), Some(must), "{say}: {bytes:?}");
    }
}

#[test]
fn whose_an_answer_is_can_be_read_from_it() {
    let packets = packets();
    let other = Key { seed: 7, number: 1_000 };
    packets.checker(other, &phrases("echo:100")).expect("phrases");
    let theirs = packets.outgoing(other, &phrases("echo:100")).expect("phrases").bytes;
    // Its content under our id.
    let answer = about_first(0x81, &theirs[29..69]);
    let finding = receive(&packets, &phrases("echo:40"), 49, &answer, &[]).0.expect_err("theirs");
    assert_eq!(finding.rule, Rule::ForeignBytes);
    assert!(
        finding.detail.ends_with("these bytes belong to offset 29 of connection 1000"),
        "{finding:?}"
    );
    // Their id.
    let answer = [&[0, 0, 0, 9, 0x81][..], &theirs[5..13]].concat();
    let finding = receive(&packets, &phrases("echo:40"), 49, &answer, &[]).0.expect_err("theirs");
    assert!(finding.detail.contains("answer 1 of connection 1000"), "{finding:?}");
}

#[test]
fn a_files_bytes_are_checked_by_place() {
    let packets = packets();
    let say = phrases("get:large:1000:5000");
    let outgoing = packets.outgoing(KEY, &say).expect("phrases");
    let mut answers = honest(&packets, &outgoing.bytes);
    let start = answers.len() - 9 - 5_000;
    let other = content(1, 3_000);
    answers[start + 100..start + 200].copy_from_slice(&other[..100]);
    let finding = receive(&packets, &say, u64::MAX, &answers, &[]).0.expect_err("another file's");
    assert_eq!(finding.rule, Rule::ForeignBytes);
    assert!(finding.detail.starts_with("byte 1100 of large is"), "{finding:?}");
    assert!(finding.detail.ends_with("offset 0 of a"), "{finding:?}");
}

#[test]
fn an_error_that_ends_the_connection_ends_a_download_behind_a_chunk_and_not_within() {
    let packets = packets();
    let say = phrases("get:large,lie:65537:0");
    let sent = packets.outgoing(KEY, &say).expect("phrases").bytes;
    let answers = honest(&packets, &sent);
    let chunk = 25 + 13 + CHUNK_RECEIVED_BYTES_MAX as usize;
    let mut ended = answers[..chunk].to_vec();
    assert_eq!(
        receive(&packets, &say, u64::MAX, &ended, &[]).0.expect_err("cut").rule,
        Rule::CutReply
    );
    error(&mut ended, 0, code::TOO_LONG);
    assert_eq!(receive(&packets, &say, u64::MAX, &ended, &[]), (Ok(()), 2));
}

#[test]
fn digests_come_in_order_and_nothing_before_it_was_asked() {
    let packets = packets();
    let say = phrases("digest:1,digest:2");
    let outgoing = packets.outgoing(KEY, &say).expect("phrases");
    let answers = honest(&packets, &outgoing.bytes);
    let (first, second) = answers.split_at(answers.len() / 2);
    let swapped = [second, first].concat();
    let result = receive(&packets, &say, u64::MAX, &swapped, &[]).0;
    assert_eq!(result.expect_err("out of order").rule, Rule::Protocol);
    let early = receive(&packets, &say, 9, first, &[]).0;
    assert_eq!(early.expect_err("early").rule, Rule::Unasked);
}

#[test]
fn transfers_that_are_refused_or_given_up_take_what_follows_with_them() {
    // The second get arrives during the first.
    let packets = packets();
    let say = phrases("get:nothing,get:nothing");
    let sent = packets.outgoing(KEY, &say).expect("phrases").bytes;
    let mut answers = honest(&packets, &sent)[..34].to_vec();
    error(&mut answers, 0x302, code::BUSY);
    error(&mut answers, 0x302, code::NO_TRANSFER);
    assert_eq!(receive(&packets, &say, u64::MAX, &answers, &[]), (Ok(()), 4));
    // A put whose rest never follows after a FIN, and one whose file exists already.
    let say = phrases("put:100");
    let mut answers = about_first(0x88, &[]);
    error(&mut answers, 0x301, code::FAILED);
    assert_eq!(receive(&packets, &say, 150, &answers, &[]), (Ok(()), 1));
    assert_eq!(
        receive(&packets, &say, u64::MAX, &answers, &[]).0.expect_err("whole").rule,
        Rule::BadStatus
    );
    let mut answers = about_first(0x8f, b"\0\x06");
    error(&mut answers, 0x302, code::NO_SUCH_FILE);
    assert_eq!(receive(&packets, &say, u64::MAX, &answers, &[]), (Ok(()), 3));
    // A packet that is not complete in time.
    let mut answers = Vec::new();
    error(&mut answers, 0, code::EXPIRED);
    let mut checker = packets.checker(KEY, &phrases("echo:40")).expect("phrases");
    assert_eq!(checker.receive(&answers, 20), Ok(()));
    assert!(checker.is_last());
    assert_eq!(checker.receive(b"more", 20).expect_err("behind the end").rule, Rule::Unasked);
}

#[test]
fn endings_are_judged_by_the_answers_that_are_owed() {
    use Ending::{Fin, Reset, Silence};
    let packets = packets();
    // 49 bytes and 4.
    let outgoing = packets.outgoing(KEY, &phrases("echo:40,lie:65537:0")).expect("phrases");
    for (sent, replies, ending, must) in [
        (48, 0, Fin, None),
        (48, 0, Reset, Some(Rule::UnprovokedReset)),
        (49, 0, Fin, Some(Rule::LostReply)),
        (49, 0, Reset, Some(Rule::ResetInsteadOfReply)),
        (49, 0, Silence, Some(Rule::NotServed)),
        (49, 1, Silence, None),
        (53, 1, Fin, Some(Rule::LostReply)),
        (53, 2, Fin, None),
    ] {
        let mut record = seen(sent, replies * 49, ending);
        record.replies = replies;
        let found = packets.judge(&outgoing, &record, &LIMITS).finding.map(|finding| finding.rule);
        assert_eq!(found, must, "{sent} {replies} {ending:?}");
    }
    let mut record = seen(53, 80, Silence);
    (record.replies, record.announced_end) = (2, true);
    let found = packets.judge(&outgoing, &record, &LIMITS).finding.map(|finding| finding.rule);
    assert_eq!(found, Some(Rule::NoReaction));
}

#[test]
fn a_put_given_up_in_the_middle_of_a_get_takes_nothing_from_it() {
    let packets = packets();
    let say = phrases("get:large,abort-put:201");
    let sent = packets.outgoing(KEY, &say).expect("phrases").bytes;
    let whole = honest(&packets, &sent);
    let get = packets.outgoing(KEY, &say[..1]).expect("phrases").bytes;
    // The get without SENT, then the put, then SENT.
    let end_bytes = 9;
    let (get, put) = whole.split_at(honest(&packets, &get).len());
    let (data, end) = get.split_at(get.len() - end_bytes);
    let mixed = [data, put, end].concat();
    assert_eq!(receive(&packets, &say, sent.len() as u64, &mixed, &[]).0, Ok(()));
}

/// The chunks of two downloads take turns: each byte is compared with its own file.
#[test]
fn interleaved_chunks_are_checked_by_their_ids() {
    let packets = packets();
    let say = phrases("range:large:0:1400000,range:a:5:2000");
    let sent = packets.outgoing(KEY, &say).expect("phrases").bytes;
    let (large, small) = (content(2, 1_500_000), content(1, 3_000));
    let mut turns = Vec::new();
    let range = |out: &mut Vec<u8>, id, size: u64| {
        packet(out, 0x8c, id, &[&size.to_be_bytes(), &[0; 8], &[7; 16]]);
    };
    let data = |out: &mut Vec<u8>, id, bytes: &[u8]| {
        packet(out, 0x8b, id, &[&(bytes.len() as u32).to_be_bytes()]);
        out.extend_from_slice(bytes);
    };
    range(&mut turns, 0x301, 1_500_000);
    data(&mut turns, 0x301, &large[..1_000_000]);
    range(&mut turns, 0x302, 3_000);
    data(&mut turns, 0x302, &small[5..1_000]);
    let swapped_at = turns.len();
    data(&mut turns, 0x301, &large[1_000_000..1_400_000]);
    data(&mut turns, 0x302, &small[1_000..2_005]);
    packet(&mut turns, 0x87, 0x302, &[]);
    packet(&mut turns, 0x87, 0x301, &[]);
    assert_eq!(receive(&packets, &say, sent.len() as u64, &turns, &[]), (Ok(()), 4));
    // A chunk under the other's id.
    let mut wrong = turns[..swapped_at].to_vec();
    data(&mut wrong, 0x301, &small[1_000..2_005]);
    let finding = receive(&packets, &say, u64::MAX, &wrong, &[]).0.expect_err("another file's");
    assert_eq!(finding.rule, Rule::ForeignBytes, "{finding:?}");
    // A FIN before both are whole.
    let cut = receive(&packets, &say, u64::MAX, &turns[..swapped_at], &[]).0.expect_err("cut");
    assert_eq!(cut.rule, Rule::CutReply);
    // A range that is refused takes its bytes with it.
    let mut busy = turns[..32 + 9].to_vec();
    error(&mut busy, 0x302, code::BUSY);
    data(&mut busy, 0x301, &large[..1_000_000]);
    data(&mut busy, 0x301, &large[1_000_000..1_400_000]);
    packet(&mut busy, 0x87, 0x301, &[]);
    assert_eq!(receive(&packets, &say, u64::MAX, &busy, &[]), (Ok(()), 4));
}
