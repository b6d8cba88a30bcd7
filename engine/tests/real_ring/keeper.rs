//! A client that keeps connections up and writes down what it is told of them.

use crate::common::{PATIENCE, start};
use ringwright::{
    BoxError, Config, Connection, ConnectionId, Engine, EngineHandle, Handler, Ledger, Local,
    Origin, Reason,
};
use std::collections::HashMap;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// What the handler was told, with the tag; and how long until the next attempt.
#[derive(Debug)]
pub enum Told {
    Opened(u64, ConnectionId),
    Received(u64, Vec<u8>),
    Failed(u64, io::Error, Option<Duration>),
    Closed(u64, Reason, Option<Duration>),
}

/// What is done as soon as it can be.
type Start = Box<dyn FnOnce(&mut Local<'_>) + Send>;
/// What is done with every connection when it is opened.
pub type Open = fn(&mut Connection<'_>, u64);

/// Writes down what it is told.
struct Keeper {
    told: Sender<Told>,
    start: Option<Start>,
    open: Open,
    /// The tags of the connections that were opened, also of those whose `opened` panics.
    tags: HashMap<ConnectionId, u64>,
}

impl Handler for Keeper {
    type State = u64;

    fn started(&mut self, shard: &mut Local<'_>) -> Result<(), BoxError> {
        self.start.take().expect("once")(shard);
        Ok(())
    }

    fn opened(&mut self, connection: &mut Connection<'_>, origin: Origin) -> u64 {
        let Origin::Connected(tag) = origin else { panic!("a pure client") };
        self.tags.insert(connection.id(), tag);
        let _ = self.told.send(Told::Opened(tag, connection.id()));
        (self.open)(connection, tag);
        tag
    }

    fn received(&mut self, tag: &mut u64, _: &mut Connection<'_>, bytes: &[u8]) -> usize {
        let _ = self.told.send(Told::Received(*tag, bytes.to_vec()));
        bytes.len()
    }

    fn connect_failed(&mut self, shard: &mut Local<'_>, tag: u64, error: io::Error) {
        let _ = self.told.send(Told::Failed(tag, error, shard.reconnects_in(tag)));
    }

    fn closed(
        &mut self,
        tag: Option<u64>,
        shard: &mut Local<'_>,
        id: ConnectionId,
        reason: Reason,
    ) {
        assert!(tag.is_none_or(|tag| self.tags.get(&id) == Some(&tag)));
        let tag = self.tags.remove(&id).expect("it was opened");
        let _ = self.told.send(Told::Closed(tag, reason, shard.reconnects_in(tag)));
    }
}

pub struct Client {
    pub engine: Engine,
    pub told: Receiver<Told>,
}

pub fn client(
    change: impl FnOnce(&mut Config),
    open: Open,
    act: impl FnOnce(&mut Local<'_>) + Send + 'static,
) -> Client {
    let mut config = Config { shards: Some(1), pin: false, ..Config::default() };
    change(&mut config);
    let (sender, told) = channel();
    let act = std::sync::Mutex::new(Some(Box::new(act) as Start));
    let engine = start(config, move |_| Keeper {
        told: sender.clone(),
        tags: HashMap::new(),
        start: act.lock().unwrap().take(),
        open,
    });
    Client { engine, told }
}

impl Client {
    pub fn next(&self) -> Told {
        self.told.recv_timeout(PATIENCE).expect("something happens")
    }

    /// What is opened next; and how often it was refused before.
    #[track_caller]
    pub fn opened(&self, tag: u64) -> (ConnectionId, u64) {
        let mut refused = 0;
        loop {
            match self.next() {
                Told::Opened(found, id) if found == tag => return (id, refused),
                Told::Failed(found, ..) if found == tag => refused += 1,
                other => panic!("{tag} is not opened, but {other:?}"),
            }
        }
    }

    #[track_caller]
    pub fn refused(&self, tag: u64) -> Option<Duration> {
        match self.next() {
            Told::Failed(found, error, next)
                if found == tag && error.kind() == io::ErrorKind::ConnectionRefused =>
            {
                next
            }
            other => panic!("{tag} is not refused, but {other:?}"),
        }
    }

    #[track_caller]
    pub fn closed(&self, tag: u64) -> (Reason, Option<Duration>) {
        match self.next() {
            Told::Closed(found, reason, next) if found == tag => (reason, next),
            other => panic!("{tag} does not end, but {other:?}"),
        }
    }

    pub fn handle(&self) -> EngineHandle {
        self.engine.handle()
    }

    /// Gives one up; the shard has heard of it.
    pub fn stop_reconnecting(&self, tag: u64) {
        self.handle().stop_reconnecting(0, tag).expect("there is room for it");
        self.handle().list(None, 1).expect("what came before was done before");
    }

    /// Drains, and everything is back.
    pub fn finish(self) -> Ledger {
        let begun = Instant::now();
        self.engine.handle().drain(2 * PATIENCE);
        let ledger = self.engine.join().expect("the shard ends well");
        assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
        assert!(ledger.balanced() && ledger.open() == 0, "{}", ledger.to_json());
        assert_eq!(ledger.permits.free, ledger.permits.total, "{}", ledger.to_json());
        ledger
    }
}
