//! Ranges of a stream that go to another connection, on the bench.

use crate::testing::Bench;
use crate::{Config, Connection, Forwarded, Handler, Origin};

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
