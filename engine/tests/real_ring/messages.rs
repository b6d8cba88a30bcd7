//! Messages, closures and groups, sent from threads and from other shards.

use crate::common::{Doors, PATIENCE, many_descriptors, start, wait_until};
use ringwright::SendStatus::Ready;
use ringwright::{
    Audience, Config, Connection, ConnectionId, Engine, EngineHandle, Handler, Local, Message,
    Origin, PostMessageErrorKind, SlowReaders,
};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The group of those who send "join".
const GROUP: u64 = 7;
const LINE: &[u8] = b"published\n";

/// A message of these tests.
enum Note {
    /// For a connection, which sends it.
    Line(String),
    /// For a shard, which passes it on to the next one as often.
    Relay(u32),
    /// For a shard, which stops until the door is open.
    Stop,
}

struct Server {
    engine: Engine,
    opened: Receiver<ConnectionId>,
    relayed: Receiver<usize>,
    doors: Arc<Doors>,
}

struct Notes {
    opened: Sender<ConnectionId>,
    relayed: Sender<usize>,
    doors: Arc<Doors>,
    /// Lines that found no room.
    unsent: Vec<Note>,
}

impl Notes {
    fn relay(&mut self, shard: &mut Local<'_>, note: Note) {
        let next = (shard.shard() + 1) % shard.engine().shards();
        if let Err(refused) = shard.engine().post_to_shard(next, note) {
            assert_eq!(refused.kind, PostMessageErrorKind::Full);
            self.unsent.push(refused.message);
            shard.notify_of_room();
        }
    }
}

impl Handler for Notes {
    type State = ();

    fn opened(&mut self, connection: &mut Connection<'_>, _: Origin) {
        let _ = self.opened.send(connection.id());
    }

    /// "j" joins the group, "l" leaves it, "p" publishes a line to it.
    fn received(&mut self, _: &mut (), connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
        for byte in bytes {
            let done = match byte {
                b'j' => connection.join(GROUP).expect("few groups"),
                b'l' => connection.leave(GROUP),
                _ => {
                    let (line, group) = (Arc::from(LINE), Audience::Group(GROUP));
                    let engine = connection.local().engine().clone();
                    engine.broadcast(line, &group, SlowReaders::Queue).expect("there is room");
                    continue;
                }
            };
            let _ = connection.send(if done { b"1\n" } else { b"0\n" });
        }
        bytes.len()
    }

    fn message(&mut self, shard: &mut Local<'_>, message: Message) {
        match message.downcast().expect("a note") {
            Note::Relay(0) => drop(self.relayed.send(shard.shard())),
            Note::Relay(left) => self.relay(shard, Note::Relay(left - 1)),
            Note::Stop => assert!(self.doors.pass(0)),
            Note::Line(_) => unreachable!("lines are for connections"),
        }
    }

    fn message_to(&mut self, _: &mut (), connection: &mut Connection<'_>, message: Message) {
        let Ok(Note::Line(line)) = message.downcast() else { unreachable!("only lines") };
        let _ = connection.send(line.as_bytes());
    }

    fn mailbox_room(&mut self, shard: &mut Local<'_>) {
        std::mem::take(&mut self.unsent).into_iter().for_each(|note| self.relay(shard, note));
    }
}

fn serve(shards: usize, change: impl FnOnce(&mut Config)) -> Server {
    let mut config = Config {
        listeners: vec!["127.0.0.1:0".parse().unwrap()],
        shards: Some(shards),
        pin: false,
        ..Config::default()
    };
    change(&mut config);
    let ((opened_by, opened), (relayed_by, relayed)) = (channel(), channel());
    let doors: Arc<Doors> = Arc::default();
    let of_handlers = doors.clone();
    let engine = start(config, move |_| Notes {
        opened: opened_by.clone(),
        relayed: relayed_by.clone(),
        doors: of_handlers.clone(),
        unsent: Vec::new(),
    });
    Server { engine, opened, relayed, doors }
}

impl Server {
    fn connect(&self) -> (TcpStream, ConnectionId) {
        let client = TcpStream::connect(self.engine.addresses()[0]).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        (client, self.opened.recv_timeout(PATIENCE).expect("it is opened"))
    }

    fn finish(self) {
        self.engine.handle().drain(Duration::from_secs(5));
        let ledger = self.engine.join().expect("it ends");
        assert!(ledger.balanced(), "{ledger:?}");
    }
}

/// Posts and waits for room as long as it takes.
fn insist(engine: &EngineHandle, id: ConnectionId, mut note: Note) {
    while let Err(refused) = engine.post_to_connection(id, note) {
        assert_eq!(refused.kind, PostMessageErrorKind::Full);
        note = refused.message;
        let (room, has_room) = channel();
        engine.notify_of_room(move || room.send(()).unwrap());
        has_room.recv_timeout(PATIENCE).expect("a notice of room");
    }
}

/// More than the queues hold: senders wait for room, and nothing is lost or out of order.
#[test]
fn messages_and_sends_of_each_thread_keep_their_order() {
    const SENDERS: usize = 4;
    const EACH: usize = 3_000;
    let server = serve(2, |config| config.mailbox_commands_max = 64);
    let clients: Vec<_> = (0..3).map(|_| server.connect()).collect();
    let ids: Vec<ConnectionId> = clients.iter().map(|(_, id)| *id).collect();
    let handle = server.engine.handle();
    let total = SENDERS * EACH;
    std::thread::scope(|scope| {
        for sender in 0..SENDERS {
            let (handle, ids) = (&handle, &ids);
            scope.spawn(move || {
                for number in 0..EACH {
                    for id in ids {
                        let line = format!("{sender} {number}\n");
                        // A send and a message take the same way.
                        if number % 3 > 0 || handle.send(*id, line.clone()).is_err() {
                            insist(handle, *id, Note::Line(line));
                        }
                    }
                }
            });
        }
        for (client, _) in &clients {
            scope.spawn(move || {
                let mut next = [0; SENDERS];
                for line in BufReader::new(client).lines().take(total) {
                    let line = line.unwrap();
                    let (sender, number) = line.split_once(' ').expect("two numbers");
                    let next = &mut next[sender.parse::<usize>().unwrap()];
                    assert_eq!(number.parse::<usize>().unwrap(), *next, "of sender {sender}");
                    *next += 1;
                }
                assert_eq!(next, [EACH; SENDERS]);
            });
        }
    });
    server.finish();
}

#[test]
fn a_full_queue_gives_the_message_back_and_tells_when_there_is_room() {
    let server = serve(2, |config| config.mailbox_commands_max = 16);
    let handle = server.engine.handle();
    // The shard takes this one and reads no other until the door is open.
    handle.post_to_shard(0, Note::Stop).unwrap();
    server.doors.has_begun(1);
    for _ in 0..16 {
        handle.post_to_shard(0, Note::Relay(0)).unwrap();
    }
    let refused = handle.post_to_shard(0, Note::Relay(3)).unwrap_err();
    assert!(matches!(refused.message, Note::Relay(3)), "{refused}");
    assert_eq!(refused.kind, PostMessageErrorKind::Full);
    // One full queue is enough for all to get nothing.
    let all = Arc::new(Mutex::new(0));
    let refused = handle.post_to_shards(all.clone()).unwrap_err();
    assert!(Arc::ptr_eq(&refused.message, &all));
    drop(refused);
    assert_eq!(Arc::strong_count(&all), 1);
    assert!(handle.broadcast(Arc::from(LINE), &Audience::All, SlowReaders::Skip).is_err());
    let (room, has_room) = channel();
    handle.notify_of_room(move || room.send(()).unwrap());
    assert!(has_room.recv_timeout(Duration::from_millis(50)).is_err(), "the queue is full");
    // A shard waits for room as well, and gives its message up to nobody.
    handle.post_to_shard(1, Note::Relay(1)).unwrap();
    server.doors.open(0);
    has_room.recv_timeout(PATIENCE).expect("there is room");
    for _ in 0..17 {
        server.relayed.recv_timeout(PATIENCE).expect("it arrives");
    }
    let gone = ConnectionId::from_number(0xff << 56);
    let refused = handle.post_to_connection(gone, Note::Stop).unwrap_err();
    assert_eq!(refused.kind, PostMessageErrorKind::NoSuchShard);
    server.finish();
    let refused = handle.post_to_shard(0, Note::Relay(3)).unwrap_err();
    assert_eq!(refused.kind, PostMessageErrorKind::Ended);
    let refused = handle.post_to_shards(7).unwrap_err();
    assert_eq!((refused.message, refused.kind), (7, PostMessageErrorKind::Ended));
    handle.notify_of_room(move || assert_eq!(Arc::strong_count(&all), 1));
}

/// Each shard fills the queue of the other one: both wait for room and go on.
#[test]
fn shards_that_fill_each_others_queues_go_on() {
    const RELAYS: usize = 500;
    let server = serve(2, |config| config.mailbox_commands_max = 16);
    let handle = server.engine.handle();
    for number in 0..RELAYS {
        while let Err(refused) = handle.post_to_shard(number % 2, Note::Relay(40)) {
            assert_eq!(refused.kind, PostMessageErrorKind::Full);
            std::thread::yield_now();
        }
    }
    for _ in 0..RELAYS {
        server.relayed.recv_timeout(PATIENCE).expect("each arrives in the end");
    }
    let ledger = handle.ledger();
    wait_until("the counters", || handle.ledger().sum.messages_delivered >= (RELAYS * 41) as u64);
    assert_eq!(ledger.sum.messages_unclaimed, 0);
    server.finish();
}

#[test]
fn closures_run_on_their_shard_or_connection_or_are_dropped() {
    let server = serve(2, |_| {});
    let handle = server.engine.handle();
    let (mut client, id) = server.connect();
    let (sender, shards) = channel();
    for shard in [1, 0] {
        let sender = sender.clone();
        let run = move |local: &mut Local<'_>| sender.send(local.shard()).unwrap();
        handle.run_on_shard(shard, run).unwrap();
        assert_eq!(shards.recv_timeout(PATIENCE), Ok(shard));
    }
    assert!(handle.run_on_shard(2, |_| {}).is_err());
    let say = |connection: &mut Connection<'_>| assert_eq!(connection.send(b"hello\n"), Ready);
    handle.run_on_connection(id, say).unwrap();
    let mut hello = [0; 6];
    client.read_exact(&mut hello).unwrap();
    assert_eq!(&hello, b"hello\n");
    // A panic resets the connection, and on the shard it is counted only.
    handle.run_on_shard(id.shard(), |_| panic!("of a closure")).unwrap();
    handle.run_on_connection(id, |_| panic!("of a closure")).unwrap();
    assert!(client.read(&mut hello).is_err(), "it is reset");
    // Whatever the closure holds is dropped.
    let held = Arc::new(());
    let holds = held.clone();
    handle.run_on_connection(id, move |_| drop(holds)).unwrap();
    handle.post_to_connection(id, Note::Stop).unwrap();
    wait_until("both are dropped", || {
        let sum = handle.ledger().sum;
        Arc::strong_count(&held) == 1 && sum.messages_unclaimed == 2 && sum.handler_panics == 2
    });
    server.finish();
}

/// PUBLISH lost a third of 5,000 subscribers, because each took a place in a queue.
#[test]
fn every_member_of_a_group_gets_every_line_on_all_shards() {
    let _turn = many_descriptors();
    let full = std::env::var_os("RINGWRIGHT_FULL").is_some();
    let (members, rounds) = if full { (5_000, 1_000) } else { (600, 50) };
    let server = serve(2, |_| {});
    let mut clients: Vec<TcpStream> = (0..members).map(|_| server.connect().0).collect();
    let (mut publisher, _) = server.connect();
    let mut answer = [0; 2];
    for client in &mut clients {
        client.write_all(b"jj").unwrap();
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"1\n");
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"0\n");
    }
    let mut line = [0; LINE.len()];
    for _ in 0..rounds {
        publisher.write_all(b"p").unwrap();
        for client in &mut clients {
            client.read_exact(&mut line).unwrap();
            assert_eq!(line, LINE);
        }
    }
    // A connection that has left or ended gets nothing more. The next one in its slot is in no
    // group.
    let leaver = &mut clients[0];
    leaver.write_all(b"ll").unwrap();
    let mut answers = [0; 4];
    leaver.read_exact(&mut answers).unwrap();
    assert_eq!(&answers, b"1\n0\n");
    drop(clients.drain(1..members / 2));
    let handle = server.engine.handle();
    wait_until("half have gone", || handle.connections() <= (members / 2 + 2) as u64);
    let mut others: Vec<TcpStream> = (0..20).map(|_| server.connect().0).collect();
    publisher.write_all(b"p").unwrap();
    for client in &mut clients[1..] {
        client.read_exact(&mut line).unwrap();
    }
    others.push(clients.swap_remove(0));
    for client in &mut others {
        // The answer to "l" is the first that comes.
        client.write_all(b"l").unwrap();
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"0\n");
    }
    server.finish();
}
