//! The handler: pipelined commands, transactions, publish and subscribe.

use crate::commands::{self, Arguments};
use crate::resp::{BULK_BYTES_MAX, Parsed, Replies, parse};
use crate::store::{Access, Store};
use ringwright::workers::{Job, JobDone};
use ringwright::{
    Audience, BoxError, Connection, ConnectionId, EngineHandle, Handler, Local, Origin, Reason,
    SendStatus, SlowReaders,
};
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Replies are queued when they have so many bytes, and at the end of a batch of commands.
const REPLIES_BYTES: usize = 16 << 10;
/// The time between two looks for values whose time is over.
const EXPIRY_INTERVAL: Duration = Duration::from_millis(10);
/// Commands and bytes that a transaction may queue.
const QUEUED_MAX: usize = 100_000;
const QUEUED_BYTES_MAX: usize = BULK_BYTES_MAX;

/// The channels that have subscribers. Each is a group of connections.
#[derive(Default)]
pub struct Channels {
    by_name: HashMap<Vec<u8>, Channel>,
    next: u64,
}

struct Channel {
    group: u64,
    subscribers: usize,
}

/// The data and channels of all shards.
pub struct Shared {
    pub store: Store,
    pub channels: Mutex<Channels>,
}

/// The handler of a shard.
pub struct Server {
    shared: Arc<Shared>,
    replies: Replies,
    arguments: Vec<Range<usize>>,
    /// Connections whose PUBLISH found a full queue.
    waiting: Vec<ConnectionId>,
    /// The part of the data that is looked through next.
    part: usize,
}

/// The state of a connection.
#[derive(Default)]
pub struct Client {
    /// The commands between MULTI and EXEC, each as it was received.
    transaction: Option<Transaction>,
    subscriptions: HashSet<Vec<u8>>,
    /// A command waits for something. The next one must not overtake it.
    waits: bool,
}

#[derive(Default)]
struct Transaction {
    commands: Vec<Vec<u8>>,
    bytes: usize,
    /// A command was refused, so EXEC is refused, too.
    is_broken: bool,
}

/// The step that follows a command.
#[derive(PartialEq, Eq)]
enum Next {
    Command,
    /// The command is not used: it comes again.
    Again,
    /// The client waits for a job.
    Job,
    Close,
}

impl Server {
    pub fn new(shared: Arc<Shared>) -> Self {
        let (replies, arguments, waiting) = (Replies::default(), Vec::new(), Vec::new());
        Self { shared, replies, arguments, waiting, part: 0 }
    }

    fn flush(&mut self, connection: &mut Connection<'_>) -> SendStatus {
        let status = if self.replies.are_too_long() {
            SendStatus::Refused
        } else {
            connection.send(&self.replies.0)
        };
        self.replies.0.clear();
        self.replies.0.shrink_to(4 * REPLIES_BYTES);
        if status == SendStatus::Refused {
            connection.abort(); // it has too many unread replies, and must not miss one
        }
        status
    }

    /// Carries out the command in `bytes`.
    fn execute(
        &mut self,
        client: &mut Client,
        connection: &mut Connection<'_>,
        bytes: &[u8],
    ) -> Next {
        let arguments: Vec<&[u8]> = self.arguments.iter().map(|it| &bytes[it.clone()]).collect();
        let Some(first) = arguments.first() else { return Next::Command };
        let name = String::from_utf8_lossy(first).to_ascii_uppercase();
        if client.transaction.is_some()
            && !matches!(&*name, "EXEC" | "DISCARD" | "MULTI" | "QUIT" | "RESET")
        {
            self.queue(client, &name, bytes);
            return Next::Command;
        }
        if !client.subscriptions.is_empty()
            && !matches!(&*name, "SUBSCRIBE" | "UNSUBSCRIBE" | "PING" | "QUIT" | "RESET")
        {
            let name = name.to_ascii_lowercase();
            self.replies.error(&format!(
                "ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / \
                 QUIT / RESET are allowed in this context"
            ));
            return Next::Command;
        }
        let shared = self.shared.clone();
        if commands::run(&name, &arguments, &mut Access::Each(&shared.store), &mut self.replies) {
            return Next::Command;
        }
        self.control(&name, &arguments, client, connection)
    }

    /// Commands about the connection or the server.
    fn control(
        &mut self,
        name: &str,
        arguments: &Arguments<'_>,
        client: &mut Client,
        connection: &mut Connection<'_>,
    ) -> Next {
        let out = &mut self.replies;
        match (name, arguments) {
            ("PING", [_]) if client.subscriptions.is_empty() => out.simple("PONG"),
            ("PING", [_, rest @ ..]) if !client.subscriptions.is_empty() => {
                out.array(2);
                out.bulk(b"pong");
                out.bulk(rest.first().copied().unwrap_or_default());
            }
            ("PING" | "ECHO", [_, text]) => out.bulk(text),
            ("SELECT", [_, b"0"]) => out.simple("OK"),
            ("SELECT", [_, _]) => out.error("ERR DB index is out of range"),
            ("QUIT", _) => {
                out.simple("OK");
                return Next::Close;
            }
            ("RESET", [_]) => {
                self.unsubscribe_all(client, connection);
                client.transaction = None;
                self.replies.simple("RESET");
            }
            ("MULTI", [_]) if client.transaction.is_some() => {
                out.error("ERR MULTI calls can not be nested");
            }
            ("MULTI", [_]) => {
                client.transaction = Some(Transaction::default());
                out.simple("OK");
            }
            ("DISCARD", [_]) if client.transaction.take().is_some() => out.simple("OK"),
            ("EXEC", [_]) if client.transaction.is_some() => self.exec(client),
            ("EXEC" | "DISCARD", [_]) => out.error(&format!("ERR {name} without MULTI")),
            ("SUBSCRIBE", [_, names @ ..]) if !names.is_empty() => {
                names.iter().for_each(|name| self.subscribe(client, connection, name));
            }
            ("UNSUBSCRIBE", [_]) => self.unsubscribe_all(client, connection),
            ("UNSUBSCRIBE", [_, names @ ..]) => {
                names.iter().for_each(|name| self.unsubscribe(client, connection, name));
            }
            ("PUBLISH", [_, channel, message]) => {
                return self.publish(connection, channel, message);
            }
            ("PUBSUB", [_, what, names @ ..]) => self.pubsub(what, names),
            ("CLIENT", [_, what, rest @ ..]) => return self.client(what, rest, connection),
            // For redis-cli and redis-benchmark, which ask at their start.
            ("COMMAND" | "CONFIG", [_, ..]) => out.array(0),
            ("INFO", _) => {
                let clients = connection.local().engine().connections();
                out.bulk(format!("# Clients\r\nconnected_clients:{clients}\r\n").as_bytes());
            }
            (
                "PING" | "ECHO" | "SELECT" | "RESET" | "MULTI" | "SUBSCRIBE" | "PUBLISH" | "PUBSUB"
                | "CLIENT",
                _,
            ) => commands::wrong_number(name, out),
            _ => {
                let name = String::from_utf8_lossy(arguments[0]);
                let shown: String = name.chars().filter(|it| !it.is_control()).take(64).collect();
                out.error(&format!("ERR unknown command '{shown}'"));
            }
        }
        Next::Command
    }

    /// Queues a command of a transaction.
    fn queue(&mut self, client: &mut Client, name: &str, bytes: &[u8]) {
        let transaction = client.transaction.as_mut().expect("the caller has looked");
        let (commands, kept) = (&mut transaction.commands, &mut transaction.bytes);
        if matches!(name, "SUBSCRIBE" | "UNSUBSCRIBE" | "PUBLISH" | "PUBSUB" | "CLIENT") {
            transaction.is_broken = true;
            return self.replies.error("ERR the command is not allowed inside a transaction");
        }
        if commands.len() >= QUEUED_MAX || *kept + bytes.len() > QUEUED_BYTES_MAX {
            transaction.is_broken = true;
            return self.replies.error("ERR the transaction is too long");
        }
        *kept += bytes.len();
        commands.push(bytes.to_vec());
        self.replies.simple("QUEUED");
    }

    /// Carries out the commands of a transaction. No other command comes between them.
    fn exec(&mut self, client: &mut Client) {
        let Some(transaction) = client.transaction.take() else { return };
        if transaction.is_broken {
            let text = "EXECABORT Transaction discarded because of previous errors.";
            return self.replies.error(text);
        }
        self.replies.array(transaction.commands.len());
        let shared = self.shared.clone();
        let mut data = shared.store.all();
        let mut places = Vec::new();
        for bytes in &transaction.commands {
            parse(bytes, &mut places);
            let arguments: Vec<&[u8]> = places.iter().map(|it| &bytes[it.clone()]).collect();
            let name = String::from_utf8_lossy(arguments[0]).to_ascii_uppercase();
            if !commands::run(&name, &arguments, &mut data, &mut self.replies) {
                match &*name {
                    "PING" => self.replies.simple("PONG"),
                    "ECHO" if arguments.len() == 2 => self.replies.bulk(arguments[1]),
                    _ => self.replies.error("ERR the command is not allowed inside a transaction"),
                }
            }
            if self.replies.are_too_long() {
                return;
            }
        }
    }

    fn channels(&self) -> std::sync::MutexGuard<'_, Channels> {
        self.shared.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn subscribe(&mut self, client: &mut Client, connection: &mut Connection<'_>, name: &[u8]) {
        if !client.subscriptions.contains(name) {
            let mut channels = self.shared.channels.lock().unwrap_or_else(PoisonError::into_inner);
            let Channels { by_name, next } = &mut *channels;
            let channel = by_name.entry(name.to_vec()).or_insert_with(|| {
                *next += 1;
                Channel { group: *next, subscribers: 0 }
            });
            if let Err(error) = connection.join(channel.group) {
                if channel.subscribers == 0 {
                    by_name.remove(name);
                }
                return self.replies.error(&format!("ERR {error}"));
            }
            channel.subscribers += 1;
            client.subscriptions.insert(name.to_vec());
        }
        self.reply_of_subscription(b"subscribe", Some(name), client);
    }

    fn unsubscribe(&mut self, client: &mut Client, connection: &mut Connection<'_>, name: &[u8]) {
        if client.subscriptions.remove(name) {
            connection.leave(self.leave_channel(name));
        }
        self.reply_of_subscription(b"unsubscribe", Some(name), client);
    }

    fn unsubscribe_all(&mut self, client: &mut Client, connection: &mut Connection<'_>) {
        if client.subscriptions.is_empty() {
            return self.reply_of_subscription(b"unsubscribe", None, client);
        }
        for name in client.subscriptions.clone() {
            self.unsubscribe(client, connection, &name);
        }
    }

    /// Counts a subscriber less. Returns the group of the channel.
    fn leave_channel(&self, name: &[u8]) -> u64 {
        let mut channels = self.channels();
        let channel = channels.by_name.get_mut(name).expect("it has a subscriber");
        channel.subscribers -= 1;
        let (group, is_empty) = (channel.group, channel.subscribers == 0);
        if is_empty {
            channels.by_name.remove(name);
        }
        group
    }

    fn reply_of_subscription(&mut self, what: &[u8], name: Option<&[u8]>, client: &Client) {
        self.replies.array(3);
        self.replies.bulk(what);
        self.replies.bulk_or_null(name);
        self.replies.integer(client.subscriptions.len() as i64);
    }

    /// One command for each shard reaches all subscribers. If a queue is full, the command stays
    /// unused, and the client waits.
    fn publish(&mut self, connection: &mut Connection<'_>, name: &[u8], message: &[u8]) -> Next {
        let channel = self.channels().by_name.get(name).map(|it| (it.group, it.subscribers));
        let Some((group, subscribers)) = channel else {
            self.replies.integer(0);
            return Next::Command;
        };
        let mut payload = Replies::default();
        payload.array(3);
        payload.bulk(b"message");
        payload.bulk(name);
        payload.bulk(message);
        let (payload, to) = (payload.0.into(), Audience::Group(group));
        let mut local = connection.local();
        if local.engine().broadcast(payload, &to, SlowReaders::Queue).is_err() {
            local.notify_of_room();
            self.waiting.push(connection.id());
            return Next::Again;
        }
        self.replies.integer(subscribers as i64);
        Next::Command
    }

    fn pubsub(&mut self, what: &[u8], names: &[&[u8]]) {
        let channels = self.shared.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if what.eq_ignore_ascii_case(b"CHANNELS") && names.is_empty() {
            self.replies.array(channels.by_name.len());
            channels.by_name.keys().for_each(|name| self.replies.bulk(name));
        } else if what.eq_ignore_ascii_case(b"NUMSUB") {
            self.replies.array(2 * names.len());
            for name in names {
                self.replies.bulk(name);
                let count = channels.by_name.get(*name).map_or(0, |channel| channel.subscribers);
                self.replies.integer(count as i64);
            }
        } else {
            self.replies.error("ERR unknown subcommand of PUBSUB");
        }
    }

    fn client(&mut self, what: &[u8], rest: &[&[u8]], connection: &mut Connection<'_>) -> Next {
        match (what.to_ascii_uppercase().as_slice(), rest) {
            (b"ID", []) => self.replies.integer(connection.id().get() as i64),
            (b"SETNAME" | b"SETINFO" | b"NO-EVICT" | b"NO-TOUCH", _) => self.replies.simple("OK"),
            (b"GETNAME", []) => self.replies.null(),
            (b"LIST", []) => {
                // The list of all shards waits for their answers, which a callback must not do.
                let engine = connection.local().engine().clone();
                return match connection.offload(Job::new(0, move || list_of_clients(&engine))) {
                    Ok(()) => Next::Job,
                    Err(_) => {
                        self.replies.error("ERR too many lists at a time");
                        Next::Command
                    }
                };
            }
            (b"KILL", [kind, id]) if kind.eq_ignore_ascii_case(b"ID") => {
                let number = std::str::from_utf8(id).ok().and_then(|id| id.parse::<i64>().ok());
                let id = number.map(|number| ConnectionId::from_number(number as u64));
                let killed = id.is_some_and(|id| connection.local().engine().kick(id).is_ok());
                self.replies.integer(i64::from(killed));
            }
            _ => self.replies.error("ERR unknown subcommand of CLIENT"),
        }
        Next::Command
    }
}

fn list_of_clients(engine: &EngineHandle) -> Vec<u8> {
    let mut text = String::new();
    for info in engine.list(None, usize::MAX).unwrap_or_default() {
        let (id, age, idle) = (info.id.get() as i64, info.age.as_secs(), info.idle.as_secs());
        text += &format!("id={id} addr={} age={age} idle={idle} db=0\n", info.peer);
    }
    text.into_bytes()
}

impl Handler for Server {
    type State = Client;

    fn started(&mut self, shard: &mut Local<'_>) -> Result<(), BoxError> {
        shard.tick_after(EXPIRY_INTERVAL);
        Ok(())
    }

    fn tick(&mut self, shard: &mut Local<'_>) {
        // Each shard looks through its own share of the parts.
        let step = shard.engine().shards();
        self.shared.store.remove_expired(self.part * step + shard.shard());
        self.part += 1;
        shard.tick_after(EXPIRY_INTERVAL);
    }

    fn opened(&mut self, _: &mut Connection<'_>, _: Origin) -> Client {
        Client::default()
    }

    fn received(
        &mut self,
        client: &mut Client,
        connection: &mut Connection<'_>,
        bytes: &[u8],
    ) -> usize {
        let mut used = 0;
        while !client.waits {
            let left = &bytes[used..];
            let mut arguments = std::mem::take(&mut self.arguments);
            let parsed = parse(left, &mut arguments);
            self.arguments = arguments;
            match parsed {
                Parsed::Command(length) => {
                    let next = self.execute(client, connection, &left[..length]);
                    if next == Next::Again {
                        client.waits = true;
                        break;
                    }
                    used += length;
                    client.waits = next == Next::Job;
                    if next == Next::Close {
                        let _ = self.flush(connection);
                        connection.close();
                        return bytes.len();
                    }
                    if self.replies.0.len() >= REPLIES_BYTES
                        && self.flush(connection) == SendStatus::Full
                    {
                        break; // the engine shows the rest when the client has read
                    }
                }
                Parsed::Incomplete(least) => {
                    if !left.is_empty() {
                        connection.need(least);
                    }
                    break;
                }
                Parsed::Wrong(text) => {
                    self.replies.error(&format!("ERR {text}"));
                    let _ = self.flush(connection);
                    connection.protocol_error();
                    return bytes.len();
                }
            }
        }
        if client.waits {
            connection.pause();
        }
        if !self.replies.0.is_empty() {
            let _ = self.flush(connection);
        }
        used
    }

    fn job_done(&mut self, client: &mut Client, connection: &mut Connection<'_>, job: JobDone) {
        self.replies.bulk(&job.result::<Vec<u8>>().unwrap_or_default());
        let _ = self.flush(connection);
        client.waits = false;
        connection.resume();
    }

    fn message_to(
        &mut self,
        client: &mut Client,
        connection: &mut Connection<'_>,
        _: ringwright::Message,
    ) {
        client.waits = false;
        connection.resume();
    }

    fn mailbox_room(&mut self, shard: &mut Local<'_>) {
        // A message to each client that waits: it clears the mark in its state.
        for id in std::mem::take(&mut self.waiting) {
            if shard.engine().post_to_connection(id, ()).is_err() {
                self.waiting.push(id);
            }
        }
        if !self.waiting.is_empty() {
            shard.notify_of_room();
        }
    }

    fn closed(&mut self, client: Option<Client>, _: &mut Local<'_>, id: ConnectionId, _: Reason) {
        for name in client.unwrap_or_default().subscriptions {
            self.leave_channel(&name);
        }
        self.waiting.retain(|other| *other != id);
    }
}
