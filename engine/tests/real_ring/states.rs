//! Closures that get the state of a connection: from callbacks of its shard and from other threads.

use crate::common::{PATIENCE, read_line, start, wait_until};
use ringwright::{
    Config, Connection, ConnectionId, Engine, Handler, Local, Message, Origin, Reason,
    RunWithStateError,
};
use std::io::Write;
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

/// What has happened on the shard, in its order.
type Journal = Arc<Mutex<Vec<String>>>;

/// The state is the number of closures that have run for the connection. Each byte received is one
/// order.
struct Counting {
    journal: Journal,
    ids: Vec<ConnectionId>,
    opened: Sender<ConnectionId>,
}

fn note(journal: &Journal, what: impl Into<String>) {
    journal.lock().unwrap().push(what.into());
}

impl Counting {
    /// Leaves a closure that counts in the state and tells the peer.
    fn leave(&self, local: &mut Local<'_>, id: ConnectionId) -> Result<(), RunWithStateError> {
        let journal = self.journal.clone();
        local.run_with_state(id, move |count: &mut u64, connection| {
            *count += 1;
            assert_eq!(connection.id(), id);
            note(&journal, format!("closure {count}"));
            let _ = connection.send(format!("{count}\n").as_bytes());
        })
    }

    fn obey(&self, order: u8, local: &mut Local<'_>, own: ConnectionId, other: ConnectionId) {
        match order {
            b'a' => {
                let shard = local.shard();
                local.engine().post_to_shard(shard, ()).unwrap();
                self.ids.iter().for_each(|id| self.leave(local, *id).unwrap());
                let wrong = local.run_with_state(own, |_: &mut String, _| unreachable!());
                assert_eq!(wrong, Err(RunWithStateError::OtherState));
            }
            // The first closure ends the connection, so the second one does not run.
            b'e' => {
                let end = |_: &mut u64, connection: &mut Connection<'_>| connection.abort();
                local.run_with_state(other, end).unwrap();
                self.leave(local, other).unwrap();
            }
            b'f' => {
                for _ in 0..1_024 {
                    local.run_with_state(own, |count: &mut u64, _| *count += 1).unwrap();
                }
                assert_eq!(self.leave(local, own), Err(RunWithStateError::Full));
            }
            b'k' => {
                local.kick(other);
                assert_eq!(self.leave(local, other), Err(RunWithStateError::NoSuchConnection));
            }
            // A closure leaves the next one.
            b'n' => {
                let journal = self.journal.clone();
                let nested = move |_: &mut u64, connection: &mut Connection<'_>| {
                    note(&journal, "first");
                    let after = journal.clone();
                    let then = move |_: &mut u64, _: &mut Connection<'_>| note(&after, "second");
                    connection.local().run_with_state(other, then).unwrap();
                    note(&journal, "first ends");
                };
                local.run_with_state(own, nested).unwrap();
                self.leave(local, own).unwrap();
            }
            b'p' => {
                self.leave(local, own).unwrap();
                self.leave(local, other).unwrap();
                panic!("behind two closures");
            }
            order => panic!("{order}"),
        }
    }
}

impl Handler for Counting {
    type State = u64;

    fn opened(&mut self, connection: &mut Connection<'_>, _: Origin) -> u64 {
        self.ids.push(connection.id());
        self.opened.send(connection.id()).unwrap();
        0
    }

    fn received(&mut self, _: &mut u64, connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
        note(&self.journal, "received");
        let own = connection.id();
        let other = *self.ids.iter().find(|id| **id != own).unwrap_or(&own);
        self.obey(bytes[0], &mut connection.local(), own, other);
        note(&self.journal, "received ends");
        1
    }

    fn message(&mut self, _: &mut Local<'_>, _: Message) {
        note(&self.journal, "message");
    }

    fn closed(&mut self, _: Option<u64>, _: &mut Local<'_>, id: ConnectionId, reason: Reason) {
        self.ids.retain(|open| *open != id);
        note(&self.journal, reason.name());
    }
}

struct Server {
    engine: Engine,
    journal: Journal,
    opened: Receiver<ConnectionId>,
}

impl Server {
    fn start() -> Self {
        let config = Config {
            listeners: vec!["127.0.0.1:0".parse().unwrap()],
            shards: Some(1),
            pin: false,
            ..Config::default()
        };
        let (sender, opened) = channel();
        let journal = Journal::default();
        let of_handler = journal.clone();
        let engine = start(config, move |_| Counting {
            journal: of_handler.clone(),
            ids: Vec::new(),
            opened: sender.clone(),
        });
        Self { engine, journal, opened }
    }

    fn connect(&self) -> (TcpStream, ConnectionId) {
        let client = TcpStream::connect(self.engine.addresses()[0]).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        (client, self.opened.recv_timeout(PATIENCE).unwrap())
    }

    /// Waits for the last of these entries, and compares what was noted since the last call.
    #[track_caller]
    fn expect(&self, expected: &[&str]) {
        let has_come = || self.journal.lock().unwrap().len() >= expected.len();
        wait_until("the journal", has_come);
        assert_eq!(std::mem::take(&mut *self.journal.lock().unwrap()), expected);
    }

    fn finish(self, unclaimed: u64, panics: u64) {
        self.engine.handle().drain(PATIENCE);
        let ledger = self.engine.join().unwrap();
        assert!(ledger.balanced());
        assert_eq!((ledger.sum.messages_unclaimed, ledger.sum.handler_panics), (unclaimed, panics));
    }
}

#[test]
fn closures_of_a_callback_run_right_behind_it_with_the_state_of_each_connection() {
    let server = Server::start();
    let (mut one, _) = server.connect();
    let (mut other, _) = server.connect();
    for round in ["1", "2"] {
        one.write_all(b"a").unwrap();
        assert_eq!(read_line(&mut one).unwrap(), round);
        assert_eq!(read_line(&mut other).unwrap(), round);
        let closure = format!("closure {round}");
        // The message was posted before the closures were left.
        server.expect(&["received", "received ends", &closure, &closure, "message"]);
    }
    one.write_all(b"n").unwrap();
    assert_eq!(read_line(&mut one).unwrap(), "3");
    server.expect(&["received", "received ends", "first", "first ends", "closure 3", "second"]);
    one.write_all(b"f").unwrap();
    server.expect(&["received", "received ends"]);
    one.write_all(b"a").unwrap();
    assert_eq!(read_line(&mut one).unwrap(), (3 + 1_024 + 1).to_string());
    drop((one, other));
    server.finish(0, 0);
}

#[test]
fn closures_of_a_connection_that_ends_first_are_dropped() {
    let server = Server::start();
    let (mut one, _) = server.connect();
    let (_other, _) = server.connect();
    one.write_all(b"e").unwrap();
    server.expect(&["received", "received ends", "aborted"]);
    let (_other, _) = server.connect();
    one.write_all(b"k").unwrap();
    server.expect(&["received", "received ends", "kicked"]);
    let (mut other, _) = server.connect();
    // The panic ends the first connection, and the closure of the other one runs all the same.
    one.write_all(b"p").unwrap();
    assert_eq!(read_line(&mut other).unwrap(), "1");
    server.expect(&["received", "closure 1", "handler_panicked"]);
    server.finish(2, 1);
}

#[test]
fn threads_reach_the_state_of_a_connection_by_its_id() {
    let server = Server::start();
    let handle = server.engine.handle();
    let (mut client, id) = server.connect();
    let wrong = handle.run_with_state(id, |_: &mut String, _| unreachable!());
    assert_eq!(wrong, Err(RunWithStateError::OtherState));
    for _ in 0..2 {
        let count = |count: &mut u64, connection: &mut Connection<'_>| {
            *count += 1;
            let _ = connection.send(format!("{count}\n").as_bytes());
        };
        handle.run_with_state(id, count).unwrap();
    }
    assert_eq!(read_line(&mut client).unwrap(), "1");
    assert_eq!(read_line(&mut client).unwrap(), "2");
    // In order with messages and other commands of this thread.
    handle.post_to_shard(0, ()).unwrap();
    let journal = server.journal.clone();
    let last = move |_: &mut u64, connection: &mut Connection<'_>| {
        note(&journal, "closure");
        connection.close();
    };
    handle.run_with_state(id, last).unwrap();
    handle.post_to_shard(0, ()).unwrap();
    let held = Arc::new(());
    let holds = held.clone();
    handle.run_with_state(id, move |_: &mut u64, _| drop(holds)).unwrap();
    server.expect(&["message", "closure", "message", "local_close"]);
    wait_until("a closure for nobody is dropped", || Arc::strong_count(&held) == 1);
    server.finish(1, 0);
    // Of a shard that has ended there is no connection, which is no error.
    assert_eq!(handle.run_with_state(id, |_: &mut u64, _| unreachable!()), Ok(()));
}
