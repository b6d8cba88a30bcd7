//! Our own client, which keeps its connections up.

use super::told;
use crate::common::{PATIENCE, Server, command};
use ringwright::{
    BoxError, Config, Connection, ConnectionId, Engine, Handler, Local, Origin, Reason, Reconnect,
};
use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

const MS: Duration = Duration::from_millis(1);
/// Bytes of a message.
const MESSAGE: usize = 100;

/// How the lives of connections have ended, and why connects failed.
#[derive(Default)]
struct Heard {
    ends: HashMap<Reason, u64>,
    lives: HashMap<u64, u64>,
    failed: HashMap<ErrorKind, u64>,
}

/// Keeps connections up and sends messages on each, one after the other.
struct Caller {
    to: SocketAddr,
    tags: u64,
    heard: Arc<Mutex<Heard>>,
}

struct Call {
    tag: u64,
    /// Bytes that came back in this life.
    back: usize,
}

impl Call {
    /// What is sent at this place of the stream.
    fn byte(&self, at: usize) -> u8 {
        (at as u64 * 7 + self.tag * 31) as u8
    }

    fn send_next(&self, connection: &mut Connection<'_>) {
        let message: Vec<u8> = (0..MESSAGE).map(|at| self.byte(self.back + at)).collect();
        let _ = connection.send(&message);
    }
}

impl Handler for Caller {
    type State = Call;

    fn started(&mut self, shard: &mut Local<'_>) -> Result<(), BoxError> {
        let reconnect = Reconnect { first: MS, most: 20 * MS, attempts: None };
        for tag in 0..self.tags {
            shard.keep_connected(self.to, tag, reconnect).expect("there is room");
        }
        Ok(())
    }

    fn opened(&mut self, connection: &mut Connection<'_>, origin: Origin) -> Call {
        let Origin::Connected(tag) = origin else { panic!("a pure client") };
        let call = Call { tag, back: 0 };
        call.send_next(connection);
        call
    }

    fn received(
        &mut self,
        call: &mut Call,
        connection: &mut Connection<'_>,
        bytes: &[u8],
    ) -> usize {
        for byte in bytes {
            assert_eq!(*byte, call.byte(call.back), "of {} at {}", call.tag, call.back);
            call.back += 1;
        }
        if call.back.is_multiple_of(MESSAGE) {
            call.send_next(connection);
        }
        bytes.len()
    }

    fn connect_failed(&mut self, _: &mut Local<'_>, _: u64, error: std::io::Error) {
        *self.heard.lock().unwrap().failed.entry(error.kind()).or_default() += 1;
    }

    fn draining(&mut self, _: &mut Call, connection: &mut Connection<'_>) {
        connection.close();
    }

    fn closed(&mut self, call: Option<Call>, _: &mut Local<'_>, _: ConnectionId, reason: Reason) {
        let Some(call) = call else { return };
        let mut heard = self.heard.lock().unwrap();
        *heard.ends.entry(reason).or_default() += 1;
        *heard.lives.entry(call.tag).or_default() += 1;
    }
}

#[test]
fn a_client_that_keeps_its_connections_up_comes_back_from_every_ending() {
    let (tags, lives) = (16, 20);
    let rate = ["--disconnect-rate", "10%", "--disconnect-seed", "3"];
    let mut daemon = command(&["echo", "--listen", "127.0.0.1:0", "--shards", "2"]);
    let server = Server::start(daemon.args(rate), "echo");
    let descriptors = server.descriptors();
    let heard = Arc::new(Mutex::new(Heard::default()));
    let (to, of_client) = (server.address, heard.clone());
    let config = Config {
        shards: Some(1),
        pin: false,
        // It gives a server up that has stalled.
        idle_timeout: Some(200 * MS),
        ..Config::default()
    };
    let client = Engine::start(config, move |_| Caller { to, tags, heard: of_client.clone() });
    let client = client.unwrap();
    let give_up = Instant::now() + PATIENCE;
    loop {
        let heard = heard.lock().unwrap();
        if heard.lives.len() as u64 == tags && heard.lives.values().all(|count| *count >= lives) {
            break;
        }
        assert!(Instant::now() < give_up, "somebody did not come back: {:?}", heard.lives);
        drop(heard);
        thread::sleep(5 * MS);
    }
    client.handle().drain(Duration::from_secs(10));
    let ledger = client.join().unwrap();
    let heard = heard.lock().unwrap();
    assert!(ledger.balanced() && ledger.open() == 0, "{}", ledger.to_json());
    assert_eq!(ledger.permits.free, ledger.permits.total, "{}", ledger.to_json());
    assert_eq!(ledger.sum.handler_panics, 0);
    let ends: u64 = heard.lives.values().sum();
    // An RST at once may be there before the connect has come back.
    let failed: u64 = heard.failed.values().sum();
    assert_eq!((ends, failed), (ledger.sum.connected, ledger.sum.connect_failed));
    assert!(
        heard.failed.keys().all(|why| *why == ErrorKind::ConnectionReset),
        "{:?}",
        heard.failed
    );
    assert!(ledger.sum.reconnects >= tags * (lives - 1), "{}", ledger.to_json());
    for reason in [Reason::PeerFin, Reason::PeerReset, Reason::IdleTimeout] {
        assert!(heard.ends.contains_key(&reason), "never by {reason:?}: {:?}", heard.ends);
    }
    // Everything of the server's is back as well, and it has met nobody else.
    let give_up = Instant::now() + PATIENCE;
    while server.descriptors() != descriptors {
        assert!(Instant::now() < give_up, "{} descriptors were left", server.descriptors());
        thread::sleep(5 * MS);
    }
    let ended = server.stop().cleanly();
    let all = ends + failed;
    let opened = format!("\"connections\":{{\"opened\":{all},\"closed\":{all},\"open\":0,");
    assert!(ended.stderr.contains(&opened), "{all} connections: {}", ended.stderr);
    let told = told(&ended);
    assert!(told.values().all(|count| *count > 0), "{told:?}");
    assert!(told.values().sum::<u64>() >= tags * lives, "{told:?}");
}
