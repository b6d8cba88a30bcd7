use super::*;
use crate::clients::echo::Echo;
use crate::clients::http::{Http, Learnt, Request, Requests, Rules};
use crate::clients::packets::Packets;
use crate::packets::LENGTH_BYTES;
use proptest::prelude::*;
use std::sync::Arc;

/// Size of a probe.
const SIZE: usize = 32;
/// The number of the connection.
const NUMBER: u64 = 3;
/// Number of its earlier probes.
const ROUND: u64 = 2;

fn echo() -> Echo {
    known(Echo::new(7, SIZE as u64, Arc::default()))
}

fn packets() -> Packets {
    known(Packets::new(7, SIZE, 0, Arc::default()))
}

/// Lets the protocol know nine connections with three probes each.
fn known<P: Protocol>(mut protocol: P) -> P {
    for number in 0..9 {
        let mut state = protocol.open(number);
        protocol.request(&mut state, 3, |_| ());
    }
    protocol
}

fn http(vary_ok: bool) -> Http {
    let url = "http://localhost:81/a".parse().expect("a URL");
    let requests = Requests::new(vec![Request::new("GET", &url, &[], None, 1)]);
    let learnt = Arc::new(Learnt::new(requests.clone()));
    Http::new((requests, Rules { vary_ok, statuses: None }), 1, learnt, (0, 0))
}

/// Returns a connection with a probe in flight, and the bytes of the probe.
fn probing<P: Protocol>(protocol: &mut P, number: u64, round: u64) -> (Talk<P>, Vec<u8>) {
    let mut talk = Talk::new(protocol, number, round);
    talk.ask(protocol, 1);
    let bytes = std::mem::take(&mut talk.unsent);
    (talk, bytes)
}

/// Handles bytes on a connection with a probe in flight.
fn receive<P: Protocol>(protocol: &mut P, bytes: &[u8]) -> Result<Received, Wrong> {
    probing(protocol, NUMBER, ROUND).0.receive(protocol, true, bytes)
}

/// Turns the bytes of an ECHO into those of its answer.
fn echoed(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes[LENGTH_BYTES] = 0x81;
    bytes
}

fn http_answer(_: Vec<u8>) -> Vec<u8> {
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi".to_vec()
}

fn receive_in_pieces<P: Protocol>(mut protocol: P, answer: fn(Vec<u8>) -> Vec<u8>, cut: usize) {
    let (mut talk, bytes) = probing(&mut protocol, NUMBER, ROUND);
    let bytes = answer(bytes);
    let mut pieces = bytes.chunks(cut).peekable();
    while let Some(piece) = pieces.next() {
        let must = if pieces.peek().is_some() { Received::Part } else { Received::Answer };
        assert_eq!(talk.receive(&mut protocol, true, piece), Ok(must));
    }
    assert!(talk.is_idle(&protocol));
}

fn receive_anything<P: Protocol>(mut protocol: P, pieces: &[Vec<u8>], is_probing: bool) {
    let (mut talk, _) = probing(&mut protocol, NUMBER, ROUND);
    for piece in pieces {
        if talk.receive(&mut protocol, is_probing, piece).is_err() {
            break;
        }
    }
}

proptest! {
    #[test]
    fn an_answer_is_complete_however_it_is_cut(cut in 1_usize..60) {
        receive_in_pieces(echo(), |bytes| bytes, cut);
        receive_in_pieces(packets(), echoed, cut);
        receive_in_pieces(http(false), http_answer, cut);
    }

    #[test]
    fn any_bytes_are_judged(pieces: Vec<Vec<u8>>, is_probing: bool) {
        receive_anything(echo(), &pieces, is_probing);
        receive_anything(packets(), &pieces, is_probing);
        receive_anything(http(false), &pieces, is_probing);
    }
}

/// The bytes of other connections and of earlier probes are attributed.
fn receive_foreign<P: Protocol>(new: fn() -> P, answer: fn(Vec<u8>) -> Vec<u8>) {
    for (number, round, says) in [
        (8, 1, "belong to offset 32 of connection 8"),
        (NUMBER, 0, " of connection 3"),
        (99, 2, " is 0x"),
    ] {
        // Another value makes the foreign bytes, so that connection 99 stays unknown.
        let (_, other) = probing(&mut new(), number, round);
        let mut protocol = new();
        let (mut talk, own) = probing(&mut protocol, NUMBER, ROUND);
        let mut bytes = answer(own);
        let start = bytes.len() - SIZE;
        bytes[start..].copy_from_slice(&other[other.len() - SIZE..]);
        let wrong = talk.receive(&mut protocol, true, &bytes).expect_err("they are not its own");
        assert_eq!(wrong.how, How::WrongBytes);
        assert!(wrong.detail.contains(says), "{}", wrong.detail);
    }
}

#[test]
fn bytes_of_another_connection_or_time_are_attributed() {
    receive_foreign(echo, |bytes| bytes);
    receive_foreign(packets, echoed);
}

#[test]
fn bytes_without_a_probe_are_shown() {
    let came = b"HTTP/1.1 408 Request Timeout\r\n\r\n";
    let wrongs = [
        Talk::new(&echo(), NUMBER, ROUND).receive(&mut echo(), false, came),
        Talk::new(&http(false), NUMBER, ROUND).receive(&mut http(false), false, came),
    ];
    for wrong in wrongs.map(|wrong| wrong.expect_err("no probe")) {
        assert_eq!(wrong.how, How::Unasked);
        assert!(wrong.detail.contains("\"HTTP/1.1 408 Request Timeout\\r\\n"), "{wrong:?}");
    }
    let mut echo = echo();
    let (mut talk, bytes) = probing(&mut echo, NUMBER, ROUND);
    let wrong = talk.receive(&mut echo, true, &bytes.repeat(2)).expect_err("too much");
    assert_eq!(wrong.how, How::Unasked);
}

#[test]
fn packets_that_are_no_answer_are_distinguished() {
    let broadcast = b"\0\0\0\x05\x90\0\0\0\0";
    let mut idle = Talk::new(&packets(), NUMBER, ROUND);
    assert_eq!(idle.receive(&mut packets(), false, broadcast), Ok(Received::Part));
    assert_eq!(receive(&mut packets(), broadcast), Ok(Received::Part));
    for (bytes, how) in [
        (&b"\0\0\0\x07\x8f\0\0\0\0\0\x01"[..], How::BadStatus),
        (b"\0\0\0\x05\x87\0\0\0\x03", How::Protocol),
        (b"\0\0\0\x05\x81\0\0\0\x09", How::Protocol),
        (b"\0\0\0\x05\x81\0\0\0\x03", How::WrongBytes),
        (b"\0\0\0\x01\x81", How::Protocol),
        (b"\xff\xff\xff\xff", How::Protocol),
    ] {
        let wrong = receive(&mut packets(), bytes).expect_err("no answer");
        assert_eq!(wrong.how, how, "{bytes:?}: {}", wrong.detail);
    }
}

#[test]
fn http_answers_are_equal_and_may_be_the_last() {
    let mut http = http(false);
    let good = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
    assert_eq!(receive(&mut http, good), Ok(Received::Answer));
    let last = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
    assert_eq!(receive(&mut http, last), Ok(Received::LastAnswer));
    for (bytes, how) in [
        (&b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nho"[..], How::WrongBytes),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", How::BadStatus),
        (b"220 mail.example.org", How::Protocol),
    ] {
        assert_eq!(receive(&mut http, bytes).expect_err("not the answer").how, how);
    }
    let (mut talk, _) = probing(&mut http, NUMBER, ROUND);
    let until_close = b"HTTP/1.0 200 OK\r\n\r\nhi";
    assert_eq!(talk.receive(&mut http, true, until_close), Ok(Received::Part));
    assert_eq!(talk.end(&mut http), Ok(Ended::Answer));
    let (mut talk, _) = probing(&mut http, NUMBER, ROUND);
    assert_eq!(talk.end(&mut http), Ok(Ended::Between));
}

/// The wrong answers are those of connection 0, and with `vary_ok` there are none.
#[test]
fn an_odd_first_answer_is_the_only_wrong_one() {
    for (bodies, vary_ok, must) in [
        (["no", "hi", "hi", "hi"], false, &[0][..]),
        (["no", "hi", "ho", "ha"], false, &[1, 2, 3]),
        (["no", "hi", "hi", "hi"], true, &[]),
        (["no", "hi", "ho", "ha"], true, &[]),
    ] {
        let mut http = http(vary_ok);
        for (number, body) in (0..).zip(bodies) {
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{body}");
            let (mut talk, _) = probing(&mut http, number, 0);
            assert_eq!(talk.receive(&mut http, true, answer.as_bytes()), Ok(Received::Answer));
        }
        let late = [http.late(false), http.late(true)].concat();
        assert!(late.iter().all(|(_, fault)| fault.kind == ErrorKind::WrongBytes));
        assert_eq!(late.iter().map(|(number, _)| *number).collect::<Vec<_>>(), must, "{bodies:?}");
    }
}
