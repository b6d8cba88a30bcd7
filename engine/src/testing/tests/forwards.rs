//! Ranges of a stream that go to another connection, on the bench.

use crate::testing::{Bench, ClientEnd};
use crate::{Config, Connection, ConnectionId, Forwarded, Handler, Origin, Reason};
use std::time::Duration;

const BYTES: usize = 50_000;

/// Waits for all bytes, and then forwards them to the connection that they came from.
#[derive(Default)]
struct SendsBack(Option<u64>);

impl Handler for SendsBack {
    type State = ();

    fn opened(&mut self, connection: &mut Connection<'_>, _: Origin) {
        connection.need(BYTES);
    }

    fn received(&mut self, (): &mut (), connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
        assert_eq!(bytes.len(), BYTES);
        connection.forward(connection.id(), BYTES as u64).unwrap();
        0
    }

    fn forwarded(&mut self, (): &mut (), _: &mut Connection<'_>, forwarded: Forwarded) {
        assert!(forwarded.error.is_none(), "{forwarded:?}");
        self.0 = Some(forwarded.bytes);
    }
}

/// The engine keeps more bytes than an output queue ever takes.
#[test]
fn kept_bytes_are_forwarded_in_parts_where_the_queue_is_shorter() {
    let config = Config {
        message_bytes_max: 2 * BYTES,
        output_high_bytes: 4_000,
        output_low_bytes: 1_000,
        output_bytes_max: 8_000,
        ..Config::default()
    };
    let mut bench = Bench::new(config, |_| SendsBack::default());
    let client = bench.connect();
    let sent: Vec<u8> = (0..BYTES).map(|at| (at % 251) as u8).collect();
    bench.send(client, &sent);
    bench.run();
    assert_eq!(bench.handler(0).unwrap().0, Some(BYTES as u64));
    assert!(bench.received(client) == sent, "the bytes are others");
}

/// Forwards ranges of 1,000 bytes to the connection that was opened first.
#[derive(Default)]
struct ToFirst(Vec<ConnectionId>);

impl Handler for ToFirst {
    type State = ();

    fn opened(&mut self, connection: &mut Connection<'_>, _: Origin) {
        self.0.push(connection.id());
    }

    fn received(&mut self, (): &mut (), connection: &mut Connection<'_>, _: &[u8]) -> usize {
        connection.forward(self.0[0], 1_000).expect("it takes a range");
        0
    }
}

/// Output of the connection counted as progress of its range, which never was late.
#[test]
fn only_bytes_of_a_range_keep_it_from_being_late() {
    let transfer_timeout = Some(Duration::from_secs(10));
    let config = Config { transfer_timeout, idle_timeout: None, ..Config::default() };
    let mut bench = Bench::new(config, |_| ToFirst::default());
    let first = bench.connect();
    bench.run();
    let client = bench.connect();
    bench.run();
    let id = bench.handler(0).expect("it runs").0[1];
    bench.send(client, &[b'r'; 10]);
    for _ in 0..9 {
        bench.advance(Duration::from_secs(8));
        bench.handle().send(id, "a message").expect("there is room");
        bench.send(client, b"r");
        bench.run();
    }
    assert_eq!((bench.received(first).len(), bench.client_end(client)), (19, ClientEnd::Open));
    bench.advance(Duration::from_secs(8));
    bench.handle().send(id, "a message").expect("there is room");
    bench.advance(Duration::from_secs(3));
    assert_eq!(bench.client_end(client), ClientEnd::Reset);
    assert_eq!(bench.ledger().sum.closed_by[Reason::TransferTimeout as usize], 1);
}
