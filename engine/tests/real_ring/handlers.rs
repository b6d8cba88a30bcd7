//! Several handlers in one engine.

use crate::common::{PATIENCE, address_of_its_own, start, wait_until};
use ringwright::{
    Config, Connection, ConnectionId, Handler, Handlers, Listener, Local, Origin, Reason, Reconnect,
};
use std::collections::BTreeSet;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};

/// Notes what it was told, and sends its name.
struct Named<S>(&'static str, Arc<Mutex<BTreeSet<String>>>, S);

impl<S: Clone + Send + 'static> Handler for Named<S> {
    type State = S;

    fn opened(&mut self, connection: &mut Connection<'_>, origin: Origin) -> S {
        if let Origin::Connected(tag) = origin {
            self.1.lock().unwrap().insert(format!("{} connected {tag}", self.0));
            connection.local().stop_reconnecting(tag);
        }
        let _ = connection.send(self.0.as_bytes());
        connection.close();
        self.2.clone()
    }

    fn received(&mut self, _: &mut S, _: &mut Connection<'_>, bytes: &[u8]) -> usize {
        bytes.len()
    }

    fn closed(&mut self, state: Option<S>, _: &mut Local<'_>, _: ConnectionId, _: Reason) {
        assert!(state.is_some());
    }
}

fn name(address: SocketAddr) -> String {
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn each_listener_has_its_handler_and_connects_go_to_who_asked() {
    let told = Arc::<Mutex<BTreeSet<String>>>::default();
    let listener = |handler| Listener { handler, ..address_of_its_own().into() };
    let listeners = vec![listener(0), listener(1)];
    let config = Config { listeners, shards: Some(2), pin: false, ..Config::default() };
    let of_shards = told.clone();
    let engine = start(config, move |_| {
        let first = Named("first", of_shards.clone(), ());
        Handlers::new(first, Named("second", of_shards.clone(), [7; 100]))
    });
    let addresses = engine.addresses();
    for _ in 0..8 {
        assert_eq!(name(addresses[0]), "first");
        assert_eq!(name(addresses[1]), "second");
    }
    let handle = engine.handle();
    let added = handle.add_listener(&listener(1)).unwrap();
    assert_eq!(name(added.address.ip().unwrap()), "second");
    let reconnect = Reconnect::default();
    for number in [0, 1] {
        let handle = handle.for_handler(number);
        handle.connect(1, addresses[0], 5).unwrap();
        handle.keep_connected(1, addresses[1], 6, reconnect).unwrap();
    }
    let all =
        ["first connected 5", "first connected 6", "second connected 5", "second connected 6"];
    wait_until("both are connected", || told.lock().unwrap().len() == all.len());
    assert!(told.lock().unwrap().iter().eq(all));
    handle.drain(PATIENCE);
    assert!(engine.join().unwrap().balanced());
}
