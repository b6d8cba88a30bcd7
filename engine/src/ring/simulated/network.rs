//! Listeners, sockets and peers as the ring sees them: who waits, who is accepted, who acts next.

use super::super::calls::TcpOptions;
use super::super::{Delivery, Descriptor, Errno, Instruction, Shutdown, Traffic};
use super::SimulatedRing;
use super::beside;
use super::descriptors::Object;
use super::operations::Pending;
use super::peers::{NEVER, Peer, Plan, Standing};
use super::sockets::Phase;
use crate::address::SocketPath;
use crate::admission::filter_machine::{network_header, run_filter};
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The address of this machine from which a connect may come.
pub const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 2, 0, 1));
/// A SYN that finds a full backlog is sent again after so long.
const SYN_AGAIN_US: u64 = 1_000_000;

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    /// Peers that are connected and not accepted.
    pub backlog: VecDeque<usize>,
    capacity: usize,
    open: bool,
    is_unix: bool,
    /// Others have it, too.
    is_shared: bool,
    /// Runs for the first packet of every client.
    filter: Vec<Instruction>,
    /// The options that were set since it was made.
    options: Option<TcpOptions>,
    /// Packets it has dropped.
    drops: u32,
}

/// Somebody who can be connected to.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint {
    /// Where.
    pub address: SocketAddr,
    /// How whoever answers there behaves; `None`: refuses.
    pub plan: Option<Plan>,
}

/// Whether a filter lets the first packet of a handshake pass.
fn passes(filter: &[Instruction], source: SocketAddr) -> bool {
    const SYN: u8 = 0x02;
    let mut tcp = [0; 20];
    tcp[13] = SYN;
    filter.is_empty() || run_filter(filter, &network_header(source.ip()), &tcp)
}

impl SimulatedRing {
    /// Opens a listening socket with so large a backlog.
    pub fn add_listener(&mut self, backlog: usize) -> Descriptor {
        self.add_listener_of(backlog, false, false)
    }

    /// The same on a Unix socket.
    pub fn add_unix_listener(&mut self, backlog: usize) -> Descriptor {
        self.add_listener_of(backlog, true, true)
    }

    /// The same with a TCP socket that others have, too.
    pub fn add_shared_listener(&mut self, backlog: usize) -> Descriptor {
        self.add_listener_of(backlog, false, true)
    }

    fn add_listener_of(&mut self, backlog: usize, is_unix: bool, is_shared: bool) -> Descriptor {
        let capacity = backlog.max(1);
        self.listeners.push(Listener {
            backlog: VecDeque::new(),
            capacity,
            open: true,
            is_unix,
            is_shared,
            filter: Vec::new(),
            options: None,
            drops: 0,
        });
        self.table.insert(Object::Listener(self.listeners.len() - 1))
    }

    /// Opens a directory; every file is beneath it.
    pub fn add_directory(&mut self) -> Descriptor {
        self.table.insert(Object::Directory)
    }

    /// Adds a peer that connects to a listener when its plan says, and then sends `bytes`.
    /// Returns its number.
    pub fn add_peer(&mut self, listener: Descriptor, plan: Plan, bytes: &[u8]) -> usize {
        let Object::Listener(listener) = self.object(listener, "add_peer") else {
            self.broken(format_args!("add_peer: {} is no listener", listener.0))
        };
        let number = self.peers.len();
        let mut peer = Peer::new(self.number, number, None, plan, &mut self.rng);
        peer.listener = listener;
        peer.socket.is_unix = self.listeners[listener].is_unix;
        peer.to_send.extend(bytes);
        self.peers.push(peer);
        self.peers_next_us.push(self.now_us.saturating_add(plan.start_after_us));
        number
    }

    /// Lets a peer send more, after what it has to send already.
    pub fn peer_sends(&mut self, peer: usize, bytes: &[u8]) {
        if matches!(self.peers[peer].standing, Standing::Unconnected | Standing::Connected) {
            self.peers[peer].to_send.extend(bytes);
            self.touch(peer);
        }
    }

    /// A peer sends RST now.
    pub fn peer_resets(&mut self, peer: usize) {
        self.peers[peer].reset(&mut self.rng);
        self.trace.peer(self.now_us, "resets", peer, 0);
    }

    /// A peer answers nothing any more.
    pub fn peer_vanishes(&mut self, peer: usize) {
        self.peers[peer].vanish(self.now_us);
        self.touch(peer);
    }

    /// Something has changed for a peer: it looks when it acts next.
    pub fn touch(&mut self, peer: usize) {
        if self.peers[peer].standing != Standing::Unconnected {
            let next_us = self.peers[peer].next_us(self.now_us, &mut self.rng);
            self.peers_next_us[peer] = self.peers_next_us[peer].min(next_us);
        }
    }

    /// When the next peer acts.
    pub(super) fn next_peer_us(&self) -> u64 {
        self.peers_next_us.iter().copied().min().unwrap_or(NEVER)
    }

    /// Lets all peers act whose time has come.
    pub(super) fn run_peers(&mut self) {
        for number in 0..self.peers.len() {
            if self.peers_next_us[number] > self.now_us {
                continue;
            }
            let peer = &mut self.peers[number];
            if peer.standing == Standing::Unconnected && !peer.outgoing {
                self.peer_connects(number);
                continue;
            }
            let before = (peer.standing, peer.sent, peer.received.len());
            peer.step(self.now_us, &self.faults, &mut self.rng);
            self.peers_next_us[number] = peer.next_us(self.now_us, &mut self.rng);
            if before != (peer.standing, peer.sent, peer.received.len()) {
                let what = match peer.standing {
                    Standing::SentReset => "resets",
                    Standing::GotReset => "sends to nobody and is reset",
                    Standing::Vanished => "vanishes",
                    Standing::Left => "closes",
                    _ => "acts",
                };
                self.trace.moved(self.now_us, what, number, peer.sent, peer.received.len());
            }
        }
    }

    fn peer_connects(&mut self, number: usize) {
        let peer = &mut self.peers[number];
        let listener = &mut self.listeners[peer.listener];
        if !listener.open {
            peer.standing = Standing::Refused;
            self.peers_next_us[number] = NEVER;
        } else if !passes(&listener.filter, peer.address)
            || listener.backlog.len() >= listener.capacity
        {
            listener.drops += 1;
            self.peers_next_us[number] = self.now_us + SYN_AGAIN_US;
        } else {
            listener.backlog.push_back(number);
            peer.socket.options = listener.options;
            peer.connect(self.now_us);
            if peer.plan.stillborn {
                peer.reset(&mut self.rng);
            }
            self.peers_next_us[number] = peer.next_us(self.now_us, &mut self.rng);
            self.trace.peer(self.now_us, "connects", number, 0);
        }
    }

    /// The last user of a listener is gone: who waits there is reset.
    pub(super) fn end_listener(&mut self, listener: usize) {
        self.listeners[listener].open = false;
        for peer in std::mem::take(&mut self.listeners[listener].backlog) {
            self.reset_peer(peer);
            self.peers[peer].socket.released = true;
        }
    }

    /// The last user of a socket is gone: RST if something was not read, else FIN.
    pub(super) fn end_socket(&mut self, number: usize) {
        let socket = &mut self.peers[number].socket;
        socket.released = true;
        if socket.phase != Phase::Connected {
            return;
        }
        if socket.is_unix {
            // ECONNRESET follows what the peer has still to read: nothing is lost.
            socket.inbound.clear();
        }
        if socket.inbound.is_empty() {
            self.closes_undelivered += u64::from(!socket.outbound.is_empty());
            socket.shut_write = true;
            self.touch(number);
        } else {
            self.closes_with_unread += 1;
            self.reset_peer(number);
        }
    }

    /// RST from our side.
    fn reset_peer(&mut self, number: usize) {
        let peer = &mut self.peers[number];
        peer.get_reset();
        if peer.socket.phase == Phase::Connected {
            peer.socket.die(libc::ECONNRESET);
        }
        self.trace.peer(self.now_us, "is reset, losing", number, peer.lost_by_reset as u64);
    }

    /// The peer of a socket.
    pub(super) fn socket_number(&self, socket: Descriptor, what: &str) -> usize {
        match self.object(socket, what) {
            Object::Socket(peer) => peer,
            other => self.broken(format_args!("{what} on {other:?}")),
        }
    }

    /// The peer of the socket that an operation holds.
    pub(super) fn pending_socket(&self, pending: &Pending) -> usize {
        match self.table.object(pending.holding.expect("resolved when submitted")) {
            Object::Socket(peer) => peer,
            other => self.broken(format_args!("{:?} on {other:?}", pending.op)),
        }
    }

    /// The listener that an operation holds.
    pub(super) fn listener_of(&self, pending: &Pending) -> usize {
        match self.table.object(pending.holding.expect("resolved when submitted")) {
            Object::Listener(listener) => listener,
            other => self.broken(format_args!("{:?} on {other:?}", pending.op)),
        }
    }

    /// Who waits at the listener that an operation holds.
    pub(super) fn backlog_of(&self, pending: &Pending) -> &VecDeque<usize> {
        &self.listeners[self.listener_of(pending)].backlog
    }

    /// Whether the listener of an accept was shut down.
    pub(super) fn listens_no_more(&self, pending: &Pending) -> bool {
        !self.listeners[self.listener_of(pending)].open
    }

    /// A descriptor for somebody from a backlog.
    pub(super) fn accepted(&mut self, peer: usize) -> Descriptor {
        self.peers[peer].established = true;
        self.accepted += 1;
        self.peers[peer].accepted_as = self.accepted;
        let descriptor = self.table.insert(Object::Socket(peer));
        if self.peers[peer].socket.is_unix {
            beside::note_unix(descriptor, self.peers[peer].address, self.peers[peer].birth);
        }
        descriptor
    }

    pub(super) fn accept_one(&mut self, listener: Descriptor) -> Result<Descriptor, Errno> {
        let Object::Listener(number) = self.object(listener, "accept4(2)") else {
            self.broken(format_args!("accept4(2) on {}, which does not listen", listener.0))
        };
        let somebody_waits = !self.listeners[number].backlog.is_empty();
        if let Some(errno) = self.accept_failure(somebody_waits) {
            return Err(super::failed(errno));
        }
        let peer = self.listeners[number].backlog.pop_front();
        peer.map(|peer| self.accepted(peer)).ok_or(Errno(libc::EAGAIN))
    }

    /// Attaches a filter to a listener, or takes off what an accepted socket has inherited.
    pub(super) fn filter(
        &mut self,
        socket: Descriptor,
        program: &[Instruction],
    ) -> Result<(), Errno> {
        if !program.is_empty() && self.rng.per_mille(self.faults.no_filter_memory) {
            return Err(Errno(libc::ENOMEM));
        }
        match self.object(socket, "setsockopt(2)") {
            Object::Listener(listener) if self.listeners[listener].is_shared => {
                self.broken(format_args!("a filter on a socket that others have"))
            }
            Object::Listener(listener) => self.listeners[listener].filter = program.to_vec(),
            Object::Socket(_) => assert!(program.is_empty(), "accepted sockets need no filter"),
            other => self.broken(format_args!("setsockopt(2) on {other:?}")),
        }
        Ok(())
    }

    /// Returns whether a listener, named by its place among all that there were, still listens.
    pub fn is_open(&self, listener: usize) -> bool {
        self.listeners[listener].open
    }

    /// The filter of a listener.
    pub fn filter_of(&self, listener: Descriptor) -> &[Instruction] {
        match self.object(listener, "getsockopt(2)") {
            Object::Listener(listener) => &self.listeners[listener].filter,
            other => self.broken(format_args!("getsockopt(2) on {other:?}")),
        }
    }

    pub(super) fn queued_at(&self, listener: Descriptor) -> u32 {
        match self.object(listener, "getsockopt(2)") {
            Object::Listener(listener) => self.listeners[listener].backlog.len() as u32,
            other => self.broken(format_args!("getsockopt(2) on {other:?}")),
        }
    }

    pub(super) fn dropped_at(&self, listener: Descriptor) -> u32 {
        match self.object(listener, "getsockopt(2)") {
            Object::Listener(listener) => self.listeners[listener].drops,
            other => self.broken(format_args!("getsockopt(2) on {other:?}")),
        }
    }

    /// `FIONREAD`.
    pub(super) fn unread(&self, socket: Descriptor) -> u32 {
        self.peers[self.socket_number(socket, "ioctl(2)")].socket.inbound.len() as u32
    }

    pub(super) fn make_socket(
        &mut self,
        to: SocketAddr,
        source: Option<SocketAddr>,
    ) -> Result<Descriptor, Errno> {
        if self.table.is_full() || self.rng.per_mille(self.faults.no_descriptor) {
            return Err(Errno(libc::EMFILE));
        }
        if self.rng.per_mille(self.faults.no_memory) {
            return Err(Errno(self.rng.pick(&[libc::ENFILE, libc::ENOBUFS, libc::ENOMEM])));
        }
        if source.is_some_and(|source| source.ip() != SOURCE) {
            return Err(Errno(libc::EADDRNOTAVAIL));
        }
        let number = self.peers.len();
        let peer = Peer::new(self.number, number, Some(to), Plan::plain(), &mut self.rng);
        self.peers.push(peer);
        self.peers_next_us.push(NEVER);
        Ok(self.table.insert(Object::Socket(number)))
    }

    /// connect(2) of a new Unix socket. Its path is the text of the endpoint's address.
    pub(super) fn connect_path(&mut self, path: &SocketPath) -> Result<Descriptor, Errno> {
        let to = path.path.to_str().and_then(|text| text.strip_prefix('/')?.parse().ok());
        let socket = self.make_socket(to.ok_or(Errno(libc::ENOENT))?, None)?;
        let peer = self.socket_number(socket, "connect(2)");
        self.peers[peer].socket.is_unix = true;
        let endpoint = self.endpoints.iter().find(|endpoint| Some(endpoint.address) == to);
        let plan = endpoint.and_then(|endpoint| endpoint.plan);
        let refused = self.rng.per_mille(self.faults.connect_refused);
        let Some(plan) = plan.filter(|_| !refused) else {
            self.close(socket);
            return Err(Errno(self.rng.pick(&[libc::ECONNREFUSED, libc::EAGAIN, libc::EACCES])));
        };
        beside::note_unix(socket, self.peers[peer].address, self.peers[peer].birth);
        self.peers[peer].plan = plan;
        self.peers[peer].connect(self.now_us);
        self.peers[peer].established = true;
        self.touch(peer);
        Ok(socket)
    }

    /// `TCP_USER_TIMEOUT`. It ends a connect, too, so it is set afterwards.
    pub(super) fn time_out(&self, socket: Descriptor) -> Result<(), Errno> {
        let phase = self.peers[self.socket_number(socket, "setsockopt(2)")].socket.phase;
        if matches!(phase, Phase::Fresh | Phase::Connecting) {
            self.broken(format_args!("TCP_USER_TIMEOUT before the connect has ended"));
        }
        Ok(())
    }

    pub(super) fn set_options(
        &mut self,
        socket: Descriptor,
        options: TcpOptions,
    ) -> Result<(), Errno> {
        match self.object(socket, "setsockopt(2)") {
            Object::Listener(listener) if !self.listeners[listener].is_unix => {
                self.listeners[listener].options = Some(options);
            }
            Object::Socket(number) if !self.peers[number].socket.is_unix => {
                self.peers[number].socket.options = Some(options);
            }
            other => self.broken(format_args!("options of TCP on {other:?}")),
        }
        Ok(())
    }

    pub(super) fn shut_down(&mut self, socket: Descriptor, how: Shutdown) -> Result<(), Errno> {
        if let Object::Listener(listener) = self.object(socket, "shutdown(2)") {
            if self.listeners[listener].is_shared {
                self.broken(format_args!("shutdown(2) of a socket that other shards have"));
            }
            // `inet_shutdown`: it listens no more, and whoever waits in accept is told.
            self.end_listener(listener);
            return Ok(());
        }
        let number = self.socket_number(socket, "shutdown(2)");
        let socket = &mut self.peers[number].socket;
        match socket.phase {
            Phase::Fresh | Phase::Dead => Err(Errno(libc::ENOTCONN)),
            Phase::Connecting => {
                socket.disconnect(libc::ECONNRESET);
                Ok(())
            }
            Phase::Connected if socket.is_finished() => Err(Errno(libc::ENOTCONN)),
            Phase::Connected => {
                socket.shut_write = true;
                socket.shut_read |= how == Shutdown::Both;
                self.touch(number);
                Ok(())
            }
        }
    }

    /// connect(2) to `AF_UNSPEC`.
    pub(super) fn disconnect(&mut self, socket: Descriptor) {
        let number = self.socket_number(socket, "connect(2)");
        if self.peers[number].socket.is_unix {
            let _ = self.shut_down(socket, Shutdown::Both);
            return;
        }
        let error = if self.rng.below(2) == 0 { libc::ECONNRESET } else { 0 };
        let peer = &mut self.peers[number];
        peer.get_reset();
        peer.socket.disconnect(error);
        self.trace.peer(self.now_us, "is aborted, losing", number, peer.lost_by_reset as u64);
    }

    pub(super) fn address_of(&self, socket: Descriptor) -> Result<SocketAddr, Errno> {
        let peer = &self.peers[self.socket_number(socket, "getpeername(2)")];
        if peer.socket.phase == Phase::Connected && !peer.socket.is_finished() {
            Ok(peer.address)
        } else {
            Err(Errno(libc::ENOTCONN))
        }
    }

    /// `TCP_INFO`: whether the state is `TCP_CLOSE`.
    pub(super) fn is_dead(&self, socket: Descriptor) -> bool {
        let socket = &self.peers[self.socket_number(socket, "getsockopt(2)")].socket;
        socket.phase == Phase::Dead && !socket.is_unix
    }

    /// `TCP_INFO` and `SIOCOUTQ`.
    pub(super) fn delivery_of(&self, socket: Descriptor) -> Delivery {
        let peer = &self.peers[self.socket_number(socket, "getsockopt(2)")];
        let outstanding = match peer.socket.phase {
            Phase::Connected => peer.socket.outbound.len() as u32,
            _ => 0,
        };
        if peer.socket.is_unix {
            let is_there = peer.socket.phase == Phase::Connected;
            let unread = (peer.acknowledged() - peer.received.len() as u64) as u32;
            let outstanding = if is_there { outstanding + unread } else { 0 };
            let acknowledged = u64::from(outstanding.wrapping_neg());
            return Delivery { acknowledged, outstanding, ..Delivery::default() };
        }
        let (acknowledged, lost) = (peer.acknowledged(), peer.socket.lost);
        Delivery { acknowledged, outstanding, lost, received: peer.sent }
    }

    /// `TCP_INFO`: the bytes of both directions.
    pub(super) fn traffic_of(&self, socket: Descriptor) -> Result<Traffic, Errno> {
        let peer = &self.peers[self.socket_number(socket, "getsockopt(2)")];
        if peer.socket.is_unix {
            return Err(Errno(libc::EOPNOTSUPP));
        }
        let sent_bytes = peer.acknowledged() + peer.socket.outbound.len() as u64;
        Ok(Traffic { received_bytes: peer.sent, sent_bytes })
    }

    /// The bytes that a recv(2) finds; 0 at the end of the stream.
    fn readable(&mut self, number: usize) -> Result<usize, Errno> {
        let socket = &mut self.peers[number].socket;
        if !socket.is_readable() {
            return Err(Errno(libc::EAGAIN));
        }
        if !socket.inbound.is_empty() {
            return Ok(socket.inbound.len());
        }
        match socket.end_of_input() {
            0 => Ok(0),
            result => Err(Errno(-result)),
        }
    }

    /// recv(2).
    pub(super) fn receive_some(
        &mut self,
        socket: Descriptor,
        bytes: &mut [u8],
    ) -> Result<u32, Errno> {
        let number = self.socket_number(socket, "recv(2)");
        if self.rng.per_mille(self.faults.no_receive_memory) {
            return Err(Errno(libc::ENOMEM));
        }
        let mut count = self.readable(number)?.min(bytes.len());
        if count > 0 && self.rng.per_mille(self.faults.short_receive) {
            count = self.rng.up_to(count);
        }
        let socket = &mut self.peers[number].socket;
        for (to, byte) in bytes.iter_mut().zip(socket.inbound.drain(..count)) {
            *to = byte;
        }
        self.touch(number);
        Ok(count as u32)
    }

    /// recv(2) with `MSG_TRUNC`.
    pub(super) fn discard_some(
        &mut self,
        socket: Descriptor,
        bytes_max: usize,
    ) -> Result<u32, Errno> {
        let number = self.socket_number(socket, "recv(2)");
        let count = self.readable(number)?.min(bytes_max);
        self.peers[number].socket.inbound.drain(..count);
        self.touch(number);
        Ok(count as u32)
    }
}
