use super::*;
use proptest::prelude::*;

const PROBE: Probe = Probe { number: 3, round: 2 };

fn http() -> Tongue {
    Tongue::http(&"http://localhost:81/a".parse().expect("a URL"), false)
}

/// Returns a correct answer in `tongue`.
fn answer(tongue: &Tongue, probe: Probe) -> Vec<u8> {
    let mut bytes = tongue.question(probe);
    match tongue {
        Tongue::Echo(_) => {}
        Tongue::Packets(_) => bytes[LENGTH_BYTES] = 0x81,
        Tongue::Http(_) => bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi".to_vec(),
    }
    bytes
}

proptest! {
    #[test]
    fn an_answer_is_heard_however_it_is_cut(cut in 1_usize..60) {
        for mut tongue in [Tongue::echo(7, 9), Tongue::packets(7, 9), http()] {
            let mut ear = Ear::default();
            let bytes = answer(&tongue, PROBE);
            let mut pieces = bytes.chunks(cut).peekable();
            while let Some(piece) = pieces.next() {
                let must = if pieces.peek().is_some() { Heard::Part } else { Heard::Answer };
                prop_assert_eq!(tongue.hear(&mut ear, Some(PROBE), piece), Ok(must));
            }
            prop_assert!(ear.is_idle());
        }
    }

    #[test]
    fn whatever_comes_is_judged_and_bounded(pieces: Vec<Vec<u8>>, asked: bool) {
        for mut tongue in [Tongue::echo(7, 9), Tongue::packets(7, 9), http()] {
            let mut ear = Ear::default();
            for piece in &pieces {
                if tongue.hear(&mut ear, asked.then_some(PROBE), piece).is_err() {
                    break;
                }
            }
        }
    }
}

#[test]
fn bytes_of_another_connection_or_time_are_attributed() {
    for mut tongue in [Tongue::echo(7, 9), Tongue::packets(7, 9)] {
        for (whose, says) in [
            (Probe { number: 8, round: 1 }, "the bytes of connection 8, probe 1"),
            (Probe { number: 3, round: 0 }, "the bytes of probe 0"),
            (Probe { number: 99, round: 2 }, "byte 0 of the answer to probe 2 is"),
        ] {
            let mut bytes = answer(&tongue, whose);
            if let Tongue::Packets(_) = tongue {
                bytes[5..9].copy_from_slice(&id_of(PROBE).to_be_bytes());
            }
            let wrong = tongue.hear(&mut Ear::default(), Some(PROBE), &bytes);
            let wrong = wrong.expect_err("they are not its own");
            assert_eq!(wrong.how, How::WrongBytes);
            assert!(wrong.detail.contains(says), "{}", wrong.detail);
        }
    }
}

#[test]
fn what_nobody_asked_for_is_shown() {
    for mut tongue in [Tongue::echo(7, 9), http()] {
        let came = b"HTTP/1.1 408 Request Timeout\r\n\r\n";
        let wrong = tongue.hear(&mut Ear::default(), None, came).expect_err("no probe");
        assert_eq!(wrong.how, How::Unasked);
        assert!(wrong.detail.contains("\"HTTP/1.1 408 Request Timeout\\r\\n"), "{wrong:?}");
    }
    let mut tongue = Tongue::echo(7, 9);
    let twice = answer(&tongue, PROBE).repeat(2);
    let wrong = tongue.hear(&mut Ear::default(), Some(PROBE), &twice).expect_err("too much");
    assert_eq!(wrong.how, How::Unasked);
}

#[test]
fn packets_that_are_no_answer_are_told_apart() {
    let hear = |bytes: &[u8], probe| Tongue::packets(7, 9).hear(&mut Ear::default(), probe, bytes);
    let broadcast = b"\0\0\0\x05\x90\0\0\0\0";
    assert_eq!(hear(broadcast, None), Ok(Heard::Part));
    assert_eq!(hear(broadcast, Some(PROBE)), Ok(Heard::Part));
    for (bytes, how) in [
        (&b"\0\0\0\x07\x8f\0\0\0\0\0\x01"[..], How::BadStatus),
        (b"\0\0\0\x05\x87\0\0\0\x03", How::Protocol),
        (b"\0\0\0\x05\x81\0\0\0\x09", How::Protocol),
        (b"\0\0\0\x05\x81\0\0\0\x03", How::WrongBytes),
        (b"\0\0\0\x01\x81", How::Protocol),
        (b"\xff\xff\xff\xff", How::Protocol),
    ] {
        let wrong = hear(bytes, Some(PROBE)).expect_err("no answer");
        assert_eq!(wrong.how, how, "{bytes:?}: {}", wrong.detail);
    }
}

#[test]
fn http_answers_are_equal_and_may_be_the_last() {
    let mut tongue = http();
    let mut hear = |bytes: &[u8]| tongue.hear(&mut Ear::default(), Some(PROBE), bytes);
    let good = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
    assert_eq!(hear(good), Ok(Heard::Answer));
    let last = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
    assert_eq!(hear(last), Ok(Heard::LastAnswer));
    for (bytes, how) in [
        (&b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nho"[..], How::WrongBytes),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", How::BadStatus),
        (b"220 mail.example.org", How::Protocol),
    ] {
        assert_eq!(hear(bytes).expect_err("not the answer").how, how);
    }
    let mut ear = Ear::default();
    let until_close = b"HTTP/1.0 200 OK\r\n\r\nhi";
    assert_eq!(tongue.hear(&mut ear, Some(PROBE), until_close), Ok(Heard::Part));
    assert_eq!(tongue.end(&mut ear, PROBE), Ok(true));
    assert_eq!(tongue.end(&mut Ear::default(), PROBE), Ok(false));
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
        let url = "http://localhost:81/a".parse().expect("a URL");
        let mut tongue = Tongue::http(&url, vary_ok);
        for (number, body) in (0..).zip(bodies) {
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{body}");
            let probe = Some(Probe { number, round: 0 });
            let heard = tongue.hear(&mut Ear::default(), probe, answer.as_bytes());
            assert_eq!(heard, Ok(Heard::Answer));
        }
        let late = [tongue.late(false), tongue.late(true)].concat();
        assert!(late.iter().all(|(_, wrong)| wrong.how == How::WrongBytes));
        assert_eq!(late.iter().map(|(number, _)| *number).collect::<Vec<_>>(), must, "{bodies:?}");
    }
}
