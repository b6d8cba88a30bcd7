//! Tests with good answers in every order and split, and with every kind of wrong answer.

use super::*;
use proptest::prelude::*;

const SIZE: usize = 100;

/// Every third request is a DIGEST: on connection 0 those with the ids 3, 6, 9 and so on.
fn packets() -> Packets {
    Packets::new(7, SIZE, 3, Arc::default())
}

/// Sends `count` requests and returns the bodies of their packets.
fn ask(packets: &mut Packets, state: &mut PacketsState, count: usize) -> Vec<Vec<u8>> {
    let mut bytes = Vec::new();
    let announced = packets.request(state, count, |part| bytes.extend_from_slice(part));
    assert_eq!(announced, bytes.len() as u64);
    let (mut rest, mut bodies) = (&bytes[..], Vec::new());
    while let Split::Packet { body, rest: after } = split(rest).expect("short enough") {
        bodies.push(body.to_vec());
        rest = after;
    }
    bodies
}

fn packet(kind: u8, id: &[u8], fields: &[u8]) -> Vec<u8> {
    let length = (5 + fields.len()) as u32;
    [&length.to_be_bytes()[..], &[kind], id, fields].concat()
}

/// Returns the answer of a correct server.
fn answer(request: &[u8]) -> Vec<u8> {
    let (id, fields) = (&request[1..5], &request[5..]);
    match request[0] {
        1 => packet(0x81, id, fields),
        2 => packet(0x82, id, &Sha256::digest(fields)),
        other => panic!("a request of type {other}"),
    }
}

/// Returns the answers in `bytes`, in order.
fn answers(
    packets: &mut Packets,
    state: &mut PacketsState,
    mut bytes: &[u8],
) -> Result<Vec<Answer>, Fault> {
    let mut found = Vec::new();
    loop {
        let step = packets.receive(state, bytes)?;
        bytes = &bytes[step.used..];
        match step.answer {
            Some(answer) => found.push(answer),
            None => return Ok(found),
        }
    }
}

fn fault(bytes: &[u8], asked: usize) -> Fault {
    let mut packets = packets();
    let mut state = packets.open(0);
    ask(&mut packets, &mut state, asked);
    answers(&mut packets, &mut state, bytes).expect_err("it is wrong")
}

/// Returns the only answer and its fault; the connection stays usable.
fn complaint(change: impl FnOnce(Vec<u8>) -> Vec<u8>, asked: usize) -> (Answer, Fault) {
    let mut packets = packets();
    let mut state = packets.open(0);
    let requests = ask(&mut packets, &mut state, asked);
    let bytes = change(answer(requests.last().expect("one was asked")));
    let mut found = answers(&mut packets, &mut state, &bytes).expect("framing is right");
    assert_eq!((found.len(), state.waiting.len()), (1, asked - 1));
    let fault = found[0].fault.take().expect("a fault");
    (found.remove(0), fault)
}

proptest! {
    #[test]
    fn answers_are_told_apart_by_id_however_they_are_mixed_and_cut(
        seed: u64, number in 0_u64..5, size in 1_usize..40_000, digest_every in 0_u64..5,
        order in Just((0..8_usize).collect::<Vec<_>>()).prop_shuffle(), cut in 1_usize..50_000,
    ) {
        let mut packets = Packets::new(seed, size, digest_every, Arc::default());
        let mut state = packets.open(number);
        let requests = ask(&mut packets, &mut state, order.len());
        // Digests keep their order; the other answers are shuffled.
        let is_digest = |place: &usize| requests[*place][0] == 2;
        let mut digests = (0..order.len()).filter(is_digest);
        let order = order.iter().map(|place| match is_digest(place) {
            true => digests.next().expect("as many"),
            false => *place,
        });
        let bytes: Vec<u8> = order.flat_map(|place| answer(&requests[place])).collect();
        let (mut unread, mut found) = (Vec::new(), 0);
        for piece in bytes.chunks(cut) {
            unread.extend_from_slice(piece);
            loop {
                let step = packets.receive(&mut state, &unread)
                    .map_err(|fault| TestCaseError::fail(fault.detail))?;
                unread.drain(..step.used);
                let Some(answer) = step.answer else {
                    prop_assert!(step.need > unread.len());
                    break;
                };
                prop_assert_eq!((answer.fault, answer.last), (None, false));
                found += 1;
            }
        }
        prop_assert_eq!((found, unread.len(), state.waiting.len()), (8, 0, 0));
    }
}

#[test]
fn as_many_digests_as_asked_for() {
    for (every, must) in [(0, 0), (1, 12), (3, 4), (4, 3)] {
        for number in 0..4 {
            let mut packets = Packets::new(7, SIZE, every, Arc::default());
            let mut state = packets.open(number);
            let requests = ask(&mut packets, &mut state, 12);
            let digests = requests.iter().filter(|request| request[0] == 2).count();
            assert_eq!(digests, must, "every {every}, connection {number}");
        }
    }
    // Connections with a single request also ask for digests.
    let mut packets = packets();
    let kinds = (0..6).map(|number| {
        let mut state = packets.open(number);
        ask(&mut packets, &mut state, 1)[0][0]
    });
    assert_eq!(kinds.collect::<Vec<_>>(), [1, 1, 2, 1, 1, 2]);
}

#[test]
fn an_answer_says_which_request_it_is_to() {
    let mut packets = packets();
    let mut state = packets.open(0);
    let requests = ask(&mut packets, &mut state, 4);
    let bytes: Vec<u8> = [1, 3, 2, 0].iter().flat_map(|at| answer(&requests[*at])).collect();
    let found = answers(&mut packets, &mut state, &bytes).expect("all are right");
    let places: Vec<_> = found.iter().map(|answer| answer.place).collect();
    assert_eq!(places, [1, 2, 1, 0], "among those that wait, the oldest first");
}

#[test]
fn another_connections_bytes_are_traced_to_it() {
    let mut packets = packets();
    let (mut one, mut other) = (packets.open(0), packets.open(6));
    ask(&mut packets, &mut one, 1);
    let requests = ask(&mut packets, &mut other, 1);
    let mut found = answers(&mut packets, &mut one, &answer(&requests[0])).expect("it goes on");
    let fault = found.remove(0).fault.expect("not its own");
    assert_eq!(fault.kind, ErrorKind::ForeignBytes);
    assert!(fault.detail.contains("connection 0: byte 0 of ECHOED 1"), "{}", fault.detail);
    assert!(
        fault.detail.ends_with("these bytes belong to offset 0 of connection 6"),
        "{}",
        fault.detail
    );
}

#[test]
fn wrong_bytes_are_named_and_the_connection_goes_on() {
    let (_, fault) = complaint(
        |mut bytes| {
            bytes[9 + 42] ^= 1;
            bytes
        },
        1,
    );
    assert_eq!(fault.kind, ErrorKind::WrongBytes);
    assert!(fault.detail.contains("connection 0: byte 42 of ECHOED 1 is"), "{}", fault.detail);
    let (_, fault) = complaint(|_| packet(0x81, &[0, 0, 0, 2], b"short"), 2);
    assert_eq!(fault.kind, ErrorKind::WrongBytes);
    assert!(fault.detail.contains("ECHOED 2 has 5 bytes, expected 100"), "{}", fault.detail);
    let (_, fault) = complaint(
        |mut bytes| {
            bytes[9] ^= 1;
            bytes
        },
        3,
    );
    assert_eq!(fault.kind, ErrorKind::WrongBytes);
    assert!(fault.detail.contains("DIGESTED 3 is "), "{}", fault.detail);
}

#[test]
fn errors_are_statuses() {
    for (code, last) in [(11, false), (1, true), (2, true)] {
        let (answer, fault) = complaint(|_| packet(0x8f, &[0, 0, 0, 3], &[0, code, b'!']), 3);
        assert_eq!((answer.status, answer.last), (Some(code.into()), last));
        assert_eq!(fault.kind, ErrorKind::BadStatus);
        assert!(fault.detail.contains(&format!("request 3: error {code} ")), "{}", fault.detail);
    }
    let fault = fault(&packet(0x8f, &[0; 4], b"\0\x01why"), 1);
    assert_eq!(fault.kind, ErrorKind::BadStatus);
    assert!(fault.detail.contains("error 1 MALFORMED: why"), "{}", fault.detail);
}

#[test]
fn what_nobody_waits_for_breaks_the_protocol() {
    let digest = |id| packet(0x82, &[0, 0, 0, id], &[0; 32]);
    for (bytes, asked, says) in [
        (digest(6), 6, "DIGESTED 6 arrived before DIGESTED 3"),
        (digest(1), 3, "ECHO 1 was answered with DIGESTED"),
        (packet(0x81, &[0, 0, 0, 3], &[0; SIZE]), 3, "DIGEST 3 was answered with ECHOED"),
        (packet(0x81, &[0, 0, 0, 4], b""), 3, "ECHOED 4 answers no pending request"),
        (packet(0x8f, &[0, 0, 0, 4], b"\0\x0a"), 3, "ERROR 4 answers no pending"),
        (packet(0x87, &[0, 0, 0, 1], b""), 1, "ECHO 1 was answered with SENT"),
        (packet(0x42, &[0, 0, 0, 1], b""), 1, "type 0x42"),
        (vec![0, 0, 0, 1, 0x81], 1, "has no id"),
        (vec![0, 1, 0, 1], 1, "65537 bytes is too long"),
    ] {
        let fault = fault(&bytes, asked);
        assert_eq!(fault.kind, ErrorKind::Protocol, "{}", fault.detail);
        assert!(fault.detail.contains(says), "{says}: {}", fault.detail);
    }
}

#[test]
fn broadcasts_of_others_are_passed_over() {
    let mut packets = packets();
    let mut state = packets.open(0);
    let requests = ask(&mut packets, &mut state, 1);
    let message = packet(0x90, &[0; 4], b"hello, all");
    let bytes = [&message[..], &answer(&requests[0])].concat();
    let step = packets.receive(&mut state, &bytes).expect("both are right");
    assert_eq!((step.used, step.answer.is_some()), (bytes.len(), true));
}

#[test]
fn ids_are_never_zero() {
    assert_eq!((id_of(0), id_of(u64::from(u32::MAX) - 1)), (1, u32::MAX));
    assert_eq!((id_of(u32::MAX.into()), id_of(u64::from(u32::MAX) + 1)), (1, 2));
}
