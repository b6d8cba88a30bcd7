//! Long messages, on the bench.

use crate::testing::{Bench, Client, Place};
use crate::{Config, Connection, ConnectionId, Handler, Origin};

/// More than the long buffer holds.
const BYTES: usize = 150_000;

/// The answer to received bytes.
#[derive(Clone, Copy, PartialEq)]
enum Answer {
    /// None.
    Nothing,
    /// The bytes.
    Echo,
    /// The bytes, and then their number.
    Tail,
    /// The number of bytes, and then the bytes.
    Head,
    /// The bytes, to the other connection.
    Other,
    /// The bytes, to all connections.
    All,
    /// The bytes, and then a FIN.
    Last,
}

struct Answers {
    answer: Answer,
    connections: Vec<ConnectionId>,
    lengths: Vec<usize>,
}

impl Handler for Answers {
    type State = ();

    fn opened(&mut self, connection: &mut Connection<'_>, _: Origin) {
        self.connections.push(connection.id());
    }

    fn received(&mut self, (): &mut (), connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
        self.lengths.push(bytes.len());
        let count = (bytes.len() as u32).to_be_bytes();
        if self.answer == Answer::Head {
            let _ = connection.send(&count);
        }
        let own = connection.id();
        for id in self.connections.iter().copied() {
            let gets = match self.answer {
                Answer::Nothing => false,
                Answer::All => true,
                Answer::Other => id != own,
                _ => id == own,
            };
            if gets {
                let mut local = connection.local();
                let _ = local.connection(id).expect("it is open").send(bytes);
            }
        }
        match self.answer {
            Answer::Tail => {
                let _ = connection.send(&count);
            }
            Answer::Last => connection.close(),
            _ => {}
        }
        bytes.len()
    }
}

fn config() -> Config {
    Config { output_high_bytes: 1 << 20, output_low_bytes: 1 << 19, ..Config::default() }
}

fn bench(config: Config, answer: Answer) -> Bench<Answers> {
    let answers = move |_: &Place| Answers { answer, connections: vec![], lengths: vec![] };
    Bench::new(config, answers)
}

fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at % 251) as u8).collect()
}

/// Sends a long message, in which the connection turns to long reads.
fn lengthen(bench: &mut Bench<Answers>, client: Client) -> usize {
    bench.send(client, &content(BYTES));
    bench.run();
    bench.handler(0).unwrap().lengths.clear();
    BYTES
}

fn lengths(bench: &mut Bench<Answers>) -> Vec<usize> {
    bench.handler(0).unwrap().lengths.split_off(0)
}

/// The bytes that a client has received behind the first `skipped` bytes.
fn received(bench: &mut Bench<Answers>, client: Client, skipped: usize) -> Vec<u8> {
    bench.received(client)[skipped..].to_vec()
}

#[test]
fn long_messages_are_received_in_long_pieces_and_short_ones_in_buffers_again() {
    let mut bench = bench(config(), Answer::Echo);
    let client = bench.connect();
    bench.send(client, &content(BYTES));
    bench.run();
    let first = lengths(&mut bench);
    assert_eq!(first[0], 4_096, "nothing is known of the connection: {first:?}");
    assert_eq!(bench.ledger().sum.streaming_now, 1);
    bench.send(client, &content(BYTES));
    bench.run();
    let second = lengths(&mut bench);
    assert!(second.contains(&(64 << 10)) && second.iter().sum::<usize>() == BYTES, "{second:?}");
    for _ in 0..16 {
        bench.send(client, b"s");
        bench.run();
    }
    assert_eq!(lengths(&mut bench), [1; 16]);
    bench.send(client, &content(4_096));
    bench.run();
    bench.send(client, &content(10_000));
    bench.run();
    let longest = lengths(&mut bench).into_iter().take(2).max();
    assert!(longest <= Some(4_096), "a multishot receive has short buffers");
    let mut expected = [content(BYTES), content(BYTES), vec![b's'; 16]].concat();
    expected.extend([content(4_096), content(10_000)].concat());
    assert!(bench.received(client) == expected);
    bench.finish();
}

#[test]
fn an_exact_full_buffer_in_each_turn_is_no_long_message() {
    let mut bench = bench(config(), Answer::Echo);
    let client = bench.connect();
    for _ in 0..10 {
        bench.send(client, &content(4_096));
        bench.run();
    }
    bench.send(client, &content(10_000));
    bench.run();
    assert_eq!(lengths(&mut bench)[10], 4_096, "still in receive buffers");
}

#[test]
fn lent_bytes_that_do_not_leave_are_copied_in_their_order() {
    for answer in [Answer::Echo, Answer::Tail, Answer::Head, Answer::Other, Answer::All] {
        let mut bench = bench(config(), answer);
        let (client, other) = (bench.connect(), bench.connect());
        bench.run();
        lengthen(&mut bench, client);
        let readers = [client, other].map(|it| (it, bench.received(it).len()));
        readers.iter().for_each(|(reader, _)| bench.stop_reading(*reader));
        bench.send(client, &content(BYTES));
        bench.run();
        readers.iter().for_each(|(reader, _)| bench.read_on(*reader, usize::MAX));
        bench.run();
        let mut expected = vec![];
        let mut at = 0;
        for length in lengths(&mut bench) {
            let count = (length as u32).to_be_bytes();
            expected.extend(if answer == Answer::Head { &count[..] } else { &[] });
            expected.extend(&content(BYTES)[at..at + length]);
            expected.extend(if answer == Answer::Tail { &count[..] } else { &[] });
            at += length;
        }
        assert_eq!(at, BYTES);
        for (reader, skipped) in readers {
            let gets = match answer {
                Answer::All => true,
                Answer::Other => reader == other,
                _ => reader == client,
            };
            let found = received(&mut bench, reader, skipped);
            assert!(found == if gets { &expected[..] } else { &[] }, "{} bytes", found.len());
        }
        bench.finish();
    }
}

#[test]
fn a_fin_follows_lent_bytes() {
    let mut bench = bench(config(), Answer::Echo);
    let client = bench.connect();
    let skipped = lengthen(&mut bench, client);
    bench.handler(0).unwrap().answer = Answer::Last;
    bench.send(client, &content(30_000));
    bench.run();
    assert!(received(&mut bench, client, skipped) == content(30_000));
    assert_eq!(bench.client_end(client), crate::testing::ClientEnd::Finished);
    bench.finish();
}

/// One connection must not take more memory at once than its limits allow.
#[test]
fn a_long_piece_is_no_longer_than_a_message_or_the_mark() {
    let message = Config { message_bytes_max: 10_000, ..config() };
    let mark = Config { output_high_bytes: 10_000, output_low_bytes: 5_000, ..config() };
    for config in [message, mark] {
        let mut bench = bench(config, Answer::Echo);
        let client = bench.connect();
        let skipped = lengthen(&mut bench, client);
        bench.send(client, &content(BYTES));
        bench.run();
        assert!(received(&mut bench, client, skipped) == content(BYTES));
        let lengths = lengths(&mut bench);
        assert!(lengths.contains(&10_000) && lengths.iter().all(|length| *length <= 10_000));
    }
}

#[test]
fn no_poll_is_armed_where_receive_buffers_are_as_long() {
    let buffers = Config { receive_buffers: 16, receive_buffer_bytes: 64 << 10, ..config() };
    let mut bench = bench(buffers, Answer::Nothing);
    let client = bench.connect();
    lengthen(&mut bench, client);
    let before = bench.ledger().sum.submitted;
    bench.send(client, &content(BYTES));
    bench.run();
    let operations = bench.ledger().sum.submitted - before;
    assert!(operations < 2, "{operations} operations, and the multishot receive stays armed");
}
