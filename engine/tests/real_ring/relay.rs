//! A small proxy: each accepted connection is relayed to a backend over one outgoing connection.

use crate::common::{PATIENCE, start, stream_byte};
use ringwright::{
    Config, Connection, ConnectionId, Engine, Handler, Local, Origin, Reason, SendStatus,
};
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::channel;
use std::thread::{JoinHandle, spawn};

/// Relays between pairs of connections of one shard.
struct Proxy {
    backend: SocketAddr,
    /// The other connection of each connection's pair.
    pairs: HashMap<ConnectionId, ConnectionId>,
}

impl Proxy {
    /// Calls `act` with the other connection of the pair, if it is still open.
    fn with_other<T>(
        &self,
        connection: &mut Connection<'_>,
        act: impl FnOnce(&mut Connection<'_>) -> T,
    ) -> Option<T> {
        let other = *self.pairs.get(&connection.id())?;
        connection.local().connection(other).map(|mut other| act(&mut other))
    }
}

impl Handler for Proxy {
    type State = ();

    fn opened(&mut self, connection: &mut Connection<'_>, origin: Origin) {
        connection.receive_while_full(true);
        let id = connection.id();
        match origin {
            Origin::Listener(_) => {
                connection.pause();
                assert!(connection.local().connect(self.backend, id.get()), "the connect is taken");
            }
            Origin::Connected(tag) => {
                let client = ConnectionId::from_number(tag);
                self.pairs.insert(id, client);
                self.pairs.insert(client, id);
                self.with_other(connection, |other| other.resume());
            }
        }
    }

    fn received(&mut self, (): &mut (), connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
        if self.with_other(connection, |other| other.send(bytes)) == Some(SendStatus::Full) {
            connection.pause();
        }
        bytes.len()
    }

    fn writable(&mut self, (): &mut (), connection: &mut Connection<'_>) {
        self.with_other(connection, |other| other.resume());
    }

    fn half_closed(&mut self, (): &mut (), connection: &mut Connection<'_>) {
        self.with_other(connection, |other| other.shutdown());
    }

    fn connect_failed(&mut self, _: &mut Local<'_>, _: u64, error: io::Error) {
        panic!("the backend is there: {error}");
    }

    fn closed(&mut self, _: Option<()>, shard: &mut Local<'_>, id: ConnectionId, _: Reason) {
        let Some(other) = self.pairs.remove(&id) else { return };
        if let Some(mut other) = shard.connection(other) {
            other.close();
        }
    }
}

/// Starts a proxy at default bounds in front of a backend that `serve` plays for one connection.
fn proxy(serve: impl FnOnce(TcpStream) + Send + 'static) -> (Engine, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let backend = listener.local_addr().expect("it is bound");
    let server = spawn(move || serve(listener.accept().expect("the proxy connects").0));
    let config = Config {
        listeners: vec!["127.0.0.1:0".parse().expect("an address")],
        shards: Some(1),
        pin: false,
        ..Config::default()
    };
    let engine = start(config, move |_| Proxy { backend, pairs: HashMap::new() });
    (engine, server)
}

fn connect(engine: &Engine) -> TcpStream {
    let client = TcpStream::connect(engine.addresses()[0]).expect("the proxy accepts");
    client.set_read_timeout(Some(PATIENCE)).expect("a socket");
    client.set_write_timeout(Some(PATIENCE)).expect("a socket");
    client
}

fn stream(bytes: usize) -> Vec<u8> {
    (0..bytes as u64).map(stream_byte).collect()
}

/// Ends the engine and checks that everything balances.
fn finish(engine: Engine, server: JoinHandle<()>) {
    server.join().expect("the backend has ended");
    engine.handle().drain(PATIENCE);
    let ledger = engine.join().expect("the shard ends well");
    assert!(ledger.balanced() && ledger.open() == 0, "{}", ledger.to_json());
}

/// Both directions were full, so the proxy received from neither.
#[test]
fn an_upload_passes_a_proxy_before_its_client_reads() {
    let (engine, server) = proxy(|mut socket| {
        let (pieces, queue) = channel::<Vec<u8>>();
        let mut writer = socket.try_clone().expect("a socket");
        // Reads and writes at once, whatever the proxy takes.
        let answering = spawn(move || {
            for piece in queue {
                writer.write_all(&piece).expect("the proxy reads");
            }
            writer.shutdown(Shutdown::Write).expect("a socket");
        });
        let mut buffer = vec![0; 1 << 16];
        loop {
            let length = socket.read(&mut buffer).expect("the proxy sends");
            if length == 0 {
                break;
            }
            pieces.send(buffer[..length].to_vec()).expect("the writer runs");
        }
        drop(pieces);
        answering.join().expect("everything is answered");
    });
    let content = stream(50_000_000);
    let mut client = connect(&engine);
    client.write_all(&content).expect("the proxy takes the upload");
    client.shutdown(Shutdown::Write).expect("a socket");
    let mut echoed = Vec::new();
    client.read_to_end(&mut echoed).expect("the proxy answers");
    assert!(echoed == content, "{} of {} bytes", echoed.len(), content.len());
    drop(client);
    finish(engine, server);
}

/// A backend that reads nothing while it writes.
#[test]
fn a_blocking_echo_behind_a_proxy_gets_everything_back() {
    let (engine, server) = proxy(|mut socket| {
        let mut buffer = vec![0; 1 << 18];
        loop {
            let length = socket.read(&mut buffer).expect("the proxy sends");
            if length == 0 {
                break;
            }
            socket.write_all(&buffer[..length]).expect("the proxy reads");
        }
    });
    let content = stream(100_000_000);
    let mut client = connect(&engine);
    let mut writer = client.try_clone().expect("a socket");
    let sent = content.clone();
    let writing = spawn(move || {
        writer.write_all(&sent).expect("the proxy takes everything");
        writer.shutdown(Shutdown::Write).expect("a socket");
    });
    let mut echoed = Vec::with_capacity(content.len());
    client.read_to_end(&mut echoed).expect("the proxy answers");
    writing.join().expect("everything was sent");
    assert!(echoed == content, "{} of {} bytes", echoed.len(), content.len());
    drop(client);
    finish(engine, server);
}
