//! Each ABORT, and each word behind it, has an answer of its own.

use super::Served;
use super::client::*;
use std::fs::File;

/// The kind, the id and the code of an answer.
type Says = (u8, u32, u16);

/// Four chunks.
const SIZE: u64 = 4 << 20;

fn served() -> Served {
    let served = Served::start(&[]);
    File::create(served.dir.path().join("large")).unwrap().set_len(SIZE).unwrap();
    served.write("small", b"small");
    served
}

/// The answers, without the chunks, to these requests and an ECHO behind them.
fn answers(client: &mut Client, requests: &[&[u8]]) -> Vec<Says> {
    client.write(&[&requests.concat()[..], &packet(ECHO, 999, b"")].concat());
    let (mut answers, mut is_echoed) = (Vec::new(), false);
    // A transfer may end behind the ECHO.
    let mut running = 0;
    while !is_echoed || running > 0 {
        let answer = client.answer();
        match answer.kind {
            CHUNK => {
                client.chunk(&answer);
                running = 1;
            }
            ECHOED if answer.id == 999 => is_echoed = true,
            _ => {
                running = 0;
                answers.push(answer.says());
            }
        }
    }
    answers
}

/// GET of the large file and its TAKE, as id 1.
fn get() -> Vec<u8> {
    [packet(GET, 1, b"large"), take(1, 0, SIZE)].concat()
}

#[test]
fn every_abort_of_a_download_has_its_answer() {
    let served = served();
    let mut client = served.client();
    let abort = packet(ABORT, 1, b"");
    let offer = (OFFER, 1, 0);
    let none = (ERROR, 1, NO_TRANSFER);
    let aborted = (ABORTED, 1, 0);
    let again = take(1, 0, SIZE);
    let cases: [(&[&[u8]], &[Says]); 5] = [
        (&[&abort], &[aborted]),
        (&[&abort, &abort], &[aborted, none]),
        (&[&abort, &again], &[aborted, none]),
        (&[&abort, &again, &abort, &abort], &[aborted, none, none, none]),
        // The second TAKE stops the transfer. The ABORT finds none.
        (&[&again, &abort], &[none, none]),
    ];
    for (behind, expected) in cases {
        let got = answers(&mut client, &[&get(), &behind.concat()]);
        assert_eq!(got, [&[offer], expected].concat());
    }
    drop(client);
    served.stop(&["large", "small"]);
}

/// The id is free as soon as ABORTED was sent, and the requests behind an ABORT wait for that.
#[test]
fn an_id_is_used_again_right_behind_an_abort() {
    let served = served();
    let mut client = served.client();
    let abort = packet(ABORT, 1, b"");
    let small = [packet(GET, 1, b"small"), take(1, 0, 5)].concat();
    let got = answers(&mut client, &[&get(), &abort, &small]);
    assert_eq!(got, [(OFFER, 1, 0), (ABORTED, 1, 0), (OFFER, 1, 0), (SENT, 1, 0)]);
    let up = [put(1, "up", 2), data(1, b"up")].concat();
    let got = answers(&mut client, &[&get(), &abort, &up]);
    assert_eq!(got, [(OFFER, 1, 0), (ABORTED, 1, 0), (ACCEPTED, 1, 0), (STORED, 1, 0)]);
    // An offer, and an upload between two chunks.
    let got = answers(&mut client, &[&packet(GET, 1, b"small"), &abort, &abort, &small]);
    let end = [(OFFER, 1, 0), (SENT, 1, 0)];
    assert_eq!(got[..3], [(OFFER, 1, 0), (ABORTED, 1, 0), (ERROR, 1, NO_TRANSFER)]);
    assert_eq!(got[3..], end);
    let part = [put(1, "part", 9), data(1, b"up")].concat();
    let got = answers(&mut client, &[&part, &abort, &abort, &small]);
    assert_eq!(got[..3], [(ACCEPTED, 1, 0), (ABORTED, 1, 0), (ERROR, 1, NO_TRANSFER)]);
    assert_eq!(got[3..], end);
    // With nothing under way.
    let got = answers(&mut client, &[&abort, &abort, &small]);
    assert_eq!(got[..2], [(ERROR, 1, NO_TRANSFER); 2]);
    assert_eq!(got[2..], end);
    drop(client);
    served.stop(&["large", "small", "up"]);
}

/// All bytes are in the last chunk: ABORTED takes the place of SENT, or ERROR follows it.
#[test]
fn an_abort_during_the_last_chunk_has_one_answer() {
    let served = served();
    let mut client = served.client();
    for id in 1..200 {
        let requests = [packet(GET, id, b"small"), take(id, 0, 5), packet(ABORT, id, b"")];
        let got = answers(&mut client, &[&requests.concat()]);
        assert_eq!(got[0], (OFFER, id, 0));
        let aborted = got[1..] == [(ABORTED, id, 0)];
        let late = got[1..] == [(SENT, id, 0), (ERROR, id, NO_TRANSFER)];
        assert!(aborted || late, "{got:?}");
    }
    drop(client);
    served.stop(&["large", "small"]);
}

/// Thousands of ABORTs in one chunk keep nothing: they wait in the socket.
#[test]
fn a_storm_of_aborts_is_answered_one_by_one() {
    const ABORTS: usize = 20_000;
    let served = served();
    let mut client = served.client();
    client.write(&get());
    let mut writer = client.stream.get_ref().try_clone().unwrap();
    let storm = packet(ABORT, 1, b"").repeat(ABORTS);
    let writing = std::thread::spawn(move || std::io::Write::write_all(&mut writer, &storm));
    client.expect(OFFER, 1);
    let mut aborted = 0;
    let mut errors = 0;
    while aborted + errors < ABORTS {
        let answer = client.answer();
        match answer.says() {
            (CHUNK, 1, 0) => drop(client.chunk(&answer)),
            (ABORTED, 1, 0) => aborted += 1,
            (ERROR, 1, NO_TRANSFER) => errors += 1,
            other => panic!("{other:?}"),
        }
    }
    writing.join().unwrap().unwrap();
    assert_eq!((aborted, errors), (1, ABORTS - 1));
    client.echoes();
    drop(client);
    served.stop(&["large", "small"]);
}

/// Our FIN behind ABORT: the answer, then the server's FIN.
#[test]
fn an_abort_before_a_fin_is_answered() {
    let served = served();
    let mut client = served.client();
    client.write(&[&get()[..], &packet(ABORT, 1, b"").repeat(2)].concat());
    client.half_close();
    client.expect(OFFER, 1);
    let first = client.answer();
    client.chunk(&first);
    client.expect(ABORTED, 1);
    client.error(1, NO_TRANSFER);
    client.is_at_its_end();
    drop(client);
    served.stop(&["large", "small"]);
}
