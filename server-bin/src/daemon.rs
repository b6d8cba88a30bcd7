//! The handler of the daemon: passes each connection on to the service of its listener.

use crate::access_log::{AccessLog, ConnectionLog};
use crate::clients::Clients;
use crate::echo::Echo;
use crate::files::{self, Files};
use crate::generation::{Current, Generation, PacketService, Serving};
use crate::packets::{self, Packets};
use crate::proxy_protocol::{self, Address, Parsed};
use ringwright::files::{NewFile, OpenFile, ReceiveFileError};
use ringwright::workers::JobDone;
use ringwright::{
    BoxError, Connection, ConnectionId, Deadline, Handler, Local, Origin, Reason, SentMarker,
};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// The time in which a proxy must name its client.
const PROXY_TIMEOUT: Duration = Duration::from_secs(5);

/// The handler of one shard.
pub struct Daemon {
    current: Arc<Current>,
    generation: Arc<Generation>,
    log: Option<AccessLog>,
    files: Files,
    echo: Echo,
    packets: Vec<PacketShard>,
    /// The clients of echo and packets that a proxy has named.
    named: HashMap<ConnectionId, IpAddr>,
    /// All clients that a proxy has named, over all shards.
    clients: Arc<Clients>,
    /// The number of those of this shard.
    clients_named: usize,
}

/// A packet service on one shard.
struct PacketShard {
    service: Arc<PacketService>,
    handler: Packets,
    /// The open connections.
    connections: usize,
}

/// The state of a connection. It is small, so that an idle connection of an echo takes no memory
/// for what the other protocols need.
pub enum State {
    /// A connection of a proxy on this listener that has not yet named its client.
    Proxied(u16),
    /// A connection to sites.
    Http(Box<files::Conversation>),
    /// A connection to an echo.
    Echo,
    /// A connection to the packet service with this number on the shard.
    Packets(u32, Box<packets::Conversation>),
}

const _: () = assert!(size_of::<State>() <= 16);

impl Daemon {
    /// The handler of a shard.
    #[must_use]
    pub fn new(
        current: Arc<Current>,
        shard: usize,
        shared: files::Shared,
        log: Option<AccessLog>,
        clients: Arc<Clients>,
    ) -> Self {
        let generation = current.get();
        let of_files = log.as_ref().map(AccessLog::shard);
        let mut daemon = Self {
            files: Files::new(shard, shared, of_files, generation.clone()),
            echo: Echo { log: ConnectionLog::new(log.as_ref(), "echo") },
            packets: Vec::new(),
            named: HashMap::new(),
            clients,
            clients_named: 0,
            current,
            generation,
            log,
        };
        daemon.take_over();
        daemon
    }

    /// Serves the current generation from now on.
    #[inline]
    fn refresh(&mut self) {
        if let Some(generation) = self.current.other_than(self.generation.number) {
            self.generation = generation;
            self.take_over();
        }
    }

    #[cold]
    fn take_over(&mut self) {
        self.files.serve(&self.generation);
        let wanted = &self.generation.packets;
        let is_wanted =
            |shard: &PacketShard| wanted.iter().any(|service| Arc::ptr_eq(service, &shard.service));
        while self.packets.last().is_some_and(|last| last.connections == 0 && !is_wanted(last)) {
            self.packets.pop();
        }
        for service in wanted.clone() {
            self.packet_shard(&service);
        }
    }

    /// Begins a connection of this listener.
    fn begin(&mut self, connection: &mut Connection<'_>, number: u16) -> State {
        let listening = self.generation.serving(number);
        if listening.proxies.has(connection.peer().ip()) {
            connection.set_timer(0, Some(PROXY_TIMEOUT));
            return State::Proxied(number);
        }
        self.serve(connection, number, None)
    }

    /// Begins to serve a connection of this listener, whose client a proxy may have named.
    fn serve(
        &mut self,
        connection: &mut Connection<'_>,
        number: u16,
        peer: Option<SocketAddr>,
    ) -> State {
        let origin = Origin::Listener(number);
        let listening = self.generation.serving(number);
        match &listening.service {
            Serving::Sites(..) => {
                let timeout = listening.request_timeout;
                State::Http(Box::new(files::Conversation::on(number, peer, timeout)))
            }
            Serving::Echo => State::Echo,
            Serving::Packets(service) => {
                let shard = self.packet_shard(&service.clone());
                self.packets[shard].connections += 1;
                let state = self.packets[shard].handler.opened(connection, origin);
                State::Packets(shard as u32, Box::new(state))
            }
        }
    }

    /// Reads the header of a proxy. Returns its length once it is complete.
    fn proxied(
        &mut self,
        state: &mut State,
        connection: &mut Connection<'_>,
        number: u16,
        bytes: &[u8],
    ) -> usize {
        match proxy_protocol::parse(bytes) {
            Parsed::Incomplete => 0,
            Parsed::Complete { length, address } => {
                connection.set_timer(0, None);
                let peer = match address {
                    Address::Named { source, .. } => Some(source),
                    Address::Local => None,
                };
                *state = self.serve(connection, number, peer);
                if let Some(peer) = peer {
                    self.clients.add(connection.id(), peer);
                    self.clients_named += 1;
                }
                let client = peer.map(|peer| peer.ip().to_canonical());
                if client.is_some_and(|client| !self.admit(state, connection, client)) {
                    return bytes.len();
                }
                length + self.received(state, connection, &bytes[length..])
            }
            Parsed::Malformed(_) => {
                connection.protocol_error();
                bytes.len()
            }
        }
    }

    /// Counts and checks the client that a proxy has named. Returns false if the connection ends.
    fn admit(&mut self, state: &State, connection: &mut Connection<'_>, client: IpAddr) -> bool {
        if !connection.count_client(client) {
            connection.abort();
            return false;
        }
        if matches!(state, State::Http(_)) {
            // Each of its requests is checked, and a banned client gets a reply.
            return true;
        }
        if connection.local().is_banned(client) {
            // There is no reply that every client of these would understand.
            connection.protocol_error();
            return false;
        }
        self.named.insert(connection.id(), client);
        true
    }

    /// The number of a packet service on this shard. A client of a removed listener, accepted while
    /// that ends, may need one that the current generation does not have.
    fn packet_shard(&mut self, service: &Arc<PacketService>) -> usize {
        let mut shards = self.packets.iter();
        let found = shards.position(|shard| Arc::ptr_eq(service, &shard.service));
        found.unwrap_or_else(|| {
            let log = ConnectionLog::new(self.log.as_ref(), "packets");
            let (service, handler) = (service.clone(), Packets::new(service, log));
            self.packets.push(PacketShard { service, handler, connections: 0 });
            self.packets.len() - 1
        })
    }
}

impl Handler for Daemon {
    type State = State;

    fn opened(&mut self, connection: &mut Connection<'_>, origin: Origin) -> State {
        self.refresh();
        let Origin::Listener(number) = origin else {
            unreachable!("the daemon opens no connection")
        };
        self.begin(connection, number)
    }

    fn received(
        &mut self,
        state: &mut State,
        connection: &mut Connection<'_>,
        bytes: &[u8],
    ) -> usize {
        match state {
            State::Proxied(number) => {
                let number = *number;
                self.refresh();
                self.proxied(state, connection, number, bytes)
            }
            State::Http(state) => {
                self.refresh();
                self.files.received(state, connection, bytes)
            }
            State::Echo => self.echo.received(&mut (), connection, bytes),
            State::Packets(at, state) => {
                self.packets[*at as usize].handler.received(state, connection, bytes)
            }
        }
    }

    fn file_opened(
        &mut self,
        state: &mut State,
        connection: &mut Connection<'_>,
        result: io::Result<OpenFile>,
    ) {
        match state {
            State::Http(state) => self.files.file_opened(state, connection, result),
            State::Echo | State::Proxied(_) => {}
            State::Packets(at, state) => {
                self.packets[*at as usize].handler.file_opened(state, connection, result);
            }
        }
    }

    fn file_sent(&mut self, state: &mut State, connection: &mut Connection<'_>) {
        match state {
            State::Http(state) => self.files.file_sent(state, connection),
            State::Echo | State::Proxied(_) => {}
            State::Packets(at, state) => {
                self.packets[*at as usize].handler.file_sent(state, connection)
            }
        }
    }

    fn file_created(
        &mut self,
        state: &mut State,
        connection: &mut Connection<'_>,
        result: io::Result<NewFile>,
    ) {
        if let State::Packets(at, state) = state {
            self.packets[*at as usize].handler.file_created(state, connection, result);
        }
    }

    fn file_received(
        &mut self,
        state: &mut State,
        connection: &mut Connection<'_>,
        result: Result<NewFile, ReceiveFileError>,
    ) {
        if let State::Packets(at, state) = state {
            self.packets[*at as usize].handler.file_received(state, connection, result);
        }
    }

    fn file_published(
        &mut self,
        state: &mut State,
        connection: &mut Connection<'_>,
        result: io::Result<()>,
    ) {
        if let State::Packets(at, state) = state {
            self.packets[*at as usize].handler.file_published(state, connection, result);
        }
    }

    fn job_done(&mut self, state: &mut State, connection: &mut Connection<'_>, job: JobDone) {
        match state {
            State::Http(state) => self.files.job_done(state, connection, job),
            State::Echo | State::Proxied(_) => {}
            State::Packets(at, state) => {
                self.packets[*at as usize].handler.job_done(state, connection, job)
            }
        }
    }

    fn writable(&mut self, state: &mut State, connection: &mut Connection<'_>) {
        match state {
            State::Http(state) => self.files.writable(state, connection),
            State::Proxied(_) => {}
            State::Echo => self.echo.writable(&mut (), connection),
            State::Packets(at, state) => {
                self.packets[*at as usize].handler.writable(state, connection)
            }
        }
    }

    fn half_closed(&mut self, state: &mut State, connection: &mut Connection<'_>) {
        match state {
            State::Http(state) => self.files.half_closed(state, connection),
            State::Proxied(_) => connection.close(),
            State::Echo => self.echo.half_closed(&mut (), connection),
            State::Packets(at, state) => {
                self.packets[*at as usize].handler.half_closed(state, connection)
            }
        }
    }

    fn timer(&mut self, state: &mut State, connection: &mut Connection<'_>, timer: u8) {
        match state {
            State::Http(state) => self.files.timer(state, connection, timer),
            State::Proxied(_) => connection.protocol_error(),
            State::Echo => self.echo.timer(&mut (), connection, timer),
            State::Packets(at, state) => {
                self.packets[*at as usize].handler.timer(state, connection, timer)
            }
        }
    }

    fn expired(&mut self, state: &mut State, connection: &mut Connection<'_>, deadline: Deadline) {
        match state {
            State::Http(state) => self.files.expired(state, connection, deadline),
            State::Proxied(_) => {}
            State::Echo => self.echo.expired(&mut (), connection, deadline),
            State::Packets(at, state) => {
                self.packets[*at as usize].handler.expired(state, connection, deadline);
            }
        }
    }

    fn draining(&mut self, state: &mut State, connection: &mut Connection<'_>) {
        match state {
            State::Http(state) => self.files.draining(state, connection),
            State::Proxied(_) => connection.close(),
            State::Echo => self.echo.draining(&mut (), connection),
            State::Packets(at, state) => {
                self.packets[*at as usize].handler.draining(state, connection)
            }
        }
    }

    fn closed(
        &mut self,
        state: Option<State>,
        shard: &mut Local<'_>,
        id: ConnectionId,
        reason: Reason,
    ) {
        if self.clients_named > 0 && self.clients.remove(id) {
            self.clients_named -= 1;
            self.named.remove(&id);
        }
        match state {
            Some(State::Http(state)) => self.files.closed(Some(*state), shard, id, reason),
            Some(State::Echo) => self.echo.closed(Some(()), shard, id, reason),
            Some(State::Packets(at, state)) => {
                self.packets[at as usize].connections -= 1;
                self.packets[at as usize].handler.closed(Some(*state), shard, id, reason);
            }
            Some(State::Proxied(_)) | None => {}
        }
    }

    fn started(&mut self, shard: &mut Local<'_>) -> Result<(), BoxError> {
        self.tick(shard);
        Ok(())
    }

    fn sent(&mut self, _: &mut Local<'_>, sent: &[SentMarker]) {
        self.files.log_ends(sent);
    }

    fn bans_changed(&mut self, shard: &mut Local<'_>) {
        for (id, client) in &self.named {
            if shard.is_banned(*client) {
                shard.kick(*id);
            }
        }
    }

    fn tick(&mut self, shard: &mut Local<'_>) {
        self.files.hand_over_log();
        self.echo.log.hand_over();
        let next = self.packets.iter_mut().filter_map(|packets| packets.handler.upkeep());
        if let Some(next) = next.chain(self.echo.log.interval()).min() {
            shard.tick_after(next);
        }
    }
}
