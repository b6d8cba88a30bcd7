//! What a handler does by itself, when its time has come.

use crate::common::{PATIENCE, start};
use ringwright::{BoxError, Config, Connection, ConnectionId, Handler, Local, Origin, Reason};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

/// A fifth of a millisecond.
const PAUSE: Duration = Duration::from_micros(200);
/// Ticks that are looked at, at least.
const TICKS: usize = 200;

/// Tells of every tick how long it took to come.
struct Clock {
    asked: Instant,
    took: Sender<Duration>,
}

impl Handler for Clock {
    type State = ();

    fn started(&mut self, shard: &mut Local<'_>) -> Result<(), BoxError> {
        self.asked = Instant::now();
        shard.tick_after(PAUSE);
        Ok(())
    }

    fn tick(&mut self, shard: &mut Local<'_>) {
        let took = self.asked.elapsed();
        self.asked = Instant::now();
        shard.tick_after(PAUSE);
        let _ = self.took.send(took);
    }

    fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}

    fn received(&mut self, (): &mut (), _: &mut Connection<'_>, bytes: &[u8]) -> usize {
        bytes.len()
    }
}

fn config() -> Config {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    Config { listeners: vec![any.into()], shards: Some(1), pin: false, ..Config::default() }
}

#[test]
fn ticks_are_finer_than_a_millisecond() {
    let (took, ticks) = channel();
    let engine = start(config(), move |_| Clock { asked: Instant::now(), took: took.clone() });
    let mut took: Vec<Duration> = ticks.iter().take(TICKS).collect();
    // On a busy machine most are late.
    let begun = Instant::now();
    while !took.iter().any(|took| (PAUSE / 2..4 * PAUSE).contains(took)) {
        assert!(begun.elapsed() < PATIENCE, "{took:?}");
        took.push(ticks.recv().expect("the shard runs"));
    }
    // A pause counts from the beginning of the batch: it seems short if the shard's thread was
    // kept from running just before the handler asked.
    let early = took.iter().filter(|took| **took < PAUSE / 2).count();
    assert!(early <= took.len() / 10, "{took:?}");
    engine.handle().stop();
    engine.join().expect("it ended well");
}

/// Greets every connection from a tick, ends it from the next one, and then it is not there.
struct Greeter {
    here: Option<ConnectionId>,
    greeted: bool,
    gone: Sender<(bool, Reason)>,
}

impl Handler for Greeter {
    type State = ();

    fn tick(&mut self, shard: &mut Local<'_>) {
        let Some(mut connection) = self.here.and_then(|id| shard.connection(id)) else { return };
        if std::mem::replace(&mut self.greeted, true) {
            connection.close();
            assert!(shard.connection(self.here.expect("it was")).is_none(), "it is ending");
        } else {
            let _ = connection.send(b"hello");
            shard.tick_after(PAUSE);
        }
    }

    fn opened(&mut self, connection: &mut Connection<'_>, _: Origin) {
        self.here = Some(connection.id());
        connection.local().tick_after(PAUSE);
    }

    fn received(&mut self, (): &mut (), _: &mut Connection<'_>, bytes: &[u8]) -> usize {
        bytes.len()
    }

    fn closed(&mut self, _: Option<()>, shard: &mut Local<'_>, id: ConnectionId, reason: Reason) {
        let _ = self.gone.send((shard.connection(id).is_some(), reason));
    }
}

#[test]
fn a_tick_may_do_with_a_connection_what_its_own_callbacks_may() {
    let (gone, ends) = channel();
    let engine =
        start(config(), move |_| Greeter { here: None, greeted: false, gone: gone.clone() });
    let mut client = TcpStream::connect(engine.addresses()[0]).expect("it listens");
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).expect("a FIN behind it");
    assert_eq!(heard, b"hello");
    let _ = client.write_all(b"bye");
    drop(client);
    assert_eq!(ends.recv(), Ok((false, Reason::LocalClose)));
    engine.handle().stop();
    let ledger = engine.join().expect("it ended well");
    assert!(ledger.balanced(), "{}", ledger.to_json());
    assert_eq!(ledger.sum.handler_panics, 0);
}
