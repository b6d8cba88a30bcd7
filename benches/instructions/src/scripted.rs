//! A ring that plays a script: which bytes come when is written down, and nothing else happens.
//!
//! Every method is a function of its own, so that a profile tells its instructions from those of
//! the engine; none of them calls another function, allocates or draws lots.

use ringwright::SocketPath;
use ringwright::internals::{
    Calls, Completion, Delivery, Descriptor, Errno, F_BUFFER, F_MORE, FileStatus, Instruction, Op,
    Pipe, Ring, RingCounters, Shutdown, TcpOptions, Token, Traffic,
};
use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

/// Bytes that come at once: an operation is 64 bytes received and 64 bytes sent.
pub const PAYLOAD_BYTES: usize = 64;

/// Connections, all accepted in the first turns.
pub const CONNECTIONS: usize = 32;

/// The listener, and the first of the connections' descriptors. No such numbers are open.
pub const LISTENER: Descriptor = Descriptor(1 << 20);
const FIRST_SOCKET: i32 = (1 << 20) + 1;

/// Time that passes in a turn in which something comes.
const TURN_US: u64 = 20;

/// The completions of each turn.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Script {
    /// Each turn brings bytes for so many connections, and tells that the replies of the turn
    /// before were sent: what a ring under load does.
    Together(usize),
    /// Nothing comes until every connection is parked; then its probe completes, its bytes come,
    /// and its reply is sent.
    Parking,
}

/// The ring.
pub struct ScriptedRing {
    script: Script,
    now_us: u64,
    /// Completions that have not been taken, from `taken` on.
    ready: Vec<Completion>,
    taken: usize,
    /// Receive buffers that the ring has.
    free: Vec<u16>,
    /// The shard was told to look into its mailbox.
    told: bool,
    accept: Option<Token>,
    accepted: usize,
    /// Multishot receives, by connection.
    receives: [Option<Token>; CONNECTIONS],
    /// Probes, by connection, and how many there are.
    probes: [Option<Token>; CONNECTIONS],
    probing: usize,
    /// Their probes have completed and no bytes have come since.
    announced: bool,
    /// The connection whose bytes come next.
    next: usize,
    /// Bytes sent, over all connections.
    sent_bytes: Rc<Cell<u64>>,
    counters: RingCounters,
}

impl ScriptedRing {
    pub fn new(script: Script, sent_bytes: Rc<Cell<u64>>) -> Self {
        Self {
            script,
            now_us: 1_000_000_000,
            ready: Vec::with_capacity(8 * CONNECTIONS),
            taken: 0,
            free: Vec::with_capacity(1 << 15),
            told: false,
            accept: None,
            accepted: 0,
            receives: [None; CONNECTIONS],
            probes: [None; CONNECTIONS],
            probing: 0,
            announced: false,
            next: 0,
            sent_bytes,
            counters: RingCounters::default(),
        }
    }

    #[inline(always)]
    fn complete(&mut self, token: Token, result: i32, flags: u32) {
        assert!(self.ready.len() < self.ready.capacity(), "a script has few completions at a time");
        self.ready.push(Completion { token, result, flags });
    }

    /// Bytes come for the next so many connections.
    #[inline(always)]
    fn bytes_come(&mut self, connections: usize) {
        for _ in 0..connections {
            let token = self.receives[self.next];
            self.next = (self.next + 1) % CONNECTIONS;
            if let Some(token) = token {
                let buffer = self.free.pop().expect("a buffer comes back before it is needed");
                let flags = F_BUFFER | F_MORE | u32::from(buffer) << 16;
                self.complete(token, PAYLOAD_BYTES as i32, flags);
            }
        }
    }

    #[inline(always)]
    fn clients_come(&mut self, token: Token) {
        while self.accepted < CONNECTIONS {
            self.complete(token, FIRST_SOCKET + self.accepted as i32, F_MORE);
            self.accepted += 1;
        }
    }

    #[inline(always)]
    fn play(&mut self, timeout: Duration) {
        let idle = self.ready.is_empty();
        match self.script {
            Script::Together(connections) => self.bytes_come(connections),
            Script::Parking if !idle => {}
            Script::Parking if self.announced => {
                self.announced = false;
                self.bytes_come(CONNECTIONS);
            }
            Script::Parking if self.probing == CONNECTIONS => {
                self.announced = true;
                self.probing = 0;
                for connection in 0..CONNECTIONS {
                    if let Some(token) = self.probes[connection].take() {
                        self.complete(token, 0, 0);
                    }
                }
            }
            Script::Parking => self.now_us += timeout.as_micros() as u64,
        }
    }
}

fn connection(socket: Descriptor) -> usize {
    (socket.0 - FIRST_SOCKET) as usize
}

impl Ring for ScriptedRing {
    #[inline(never)]
    fn push(&mut self, token: Token, op: Op) -> bool {
        self.counters.submitted += 1;
        match op {
            Op::Accept { .. } => self.accept = Some(token),
            Op::Receive { socket, multishot: true } => {
                self.receives[connection(socket)] = Some(token);
            }
            Op::Send { length, .. } => {
                assert!(length as usize == PAYLOAD_BYTES, "a reply is as long as what came");
                self.sent_bytes.set(self.sent_bytes.get() + u64::from(length));
                self.complete(token, length as i32, 0);
            }
            Op::Probe { socket } => {
                self.probes[connection(socket)] = Some(token);
                self.probing += 1;
            }
            Op::Cancel { target } => {
                for connection in 0..CONNECTIONS {
                    if self.receives[connection] == Some(target) {
                        self.receives[connection] = None;
                    }
                }
                self.complete(target, -libc::ECANCELED, 0);
                self.complete(token, 0, 0);
            }
            // The event descriptor announces a listener. After that nobody writes to it.
            Op::Poll { .. } if !self.told => {
                self.told = true;
                self.complete(token, i32::from(libc::POLLIN), 0);
            }
            Op::Poll { .. } => {}
            _ => panic!("no script has such an operation"),
        }
        true
    }

    #[inline(never)]
    fn submit_and_wait(&mut self, _want: u32, timeout: Duration) -> Result<(), Errno> {
        self.counters.enters += 1;
        self.now_us += TURN_US;
        match self.accept {
            Some(token) if self.accepted < CONNECTIONS => self.clients_come(token),
            _ => self.play(timeout),
        }
        Ok(())
    }

    // An operation is done when it is pushed.
    fn submit_all(&mut self) -> bool {
        true
    }

    #[inline(never)]
    fn completion(&mut self) -> Option<Completion> {
        let Some(completion) = self.ready.get(self.taken).copied() else {
            self.ready.clear();
            self.taken = 0;
            return None;
        };
        self.taken += 1;
        self.counters.completed += 1;
        Some(completion)
    }

    #[inline(never)]
    fn provide(&mut self, buffer: u16) {
        assert!(self.free.len() < self.free.capacity(), "a buffer is given back once");
        self.free.push(buffer);
    }

    fn wall_ms(&mut self) -> i64 {
        unscripted(0)
    }

    // A clock that did not move would be a function like many others, and be made one with them.
    #[inline(never)]
    fn now_us(&mut self) -> u64 {
        self.now_us += 1;
        self.now_us
    }

    #[inline(never)]
    fn counters(&self) -> RingCounters {
        self.counters
    }
}

impl Calls for ScriptedRing {
    fn peer_address(&mut self, socket: Descriptor) -> Result<SocketAddr, Errno> {
        let port = connection(socket) as u16 + 1;
        Ok(SocketAddr::from(([127, 0, 0, 1], port)))
    }

    fn shutdown(&mut self, _: Descriptor, _: Shutdown) -> Result<(), Errno> {
        unscripted(Err(Errno(libc::ENOSYS)))
    }

    fn abort(&mut self, _: Descriptor) -> Result<(), Errno> {
        unscripted(Err(Errno(libc::ENOSYS)))
    }

    fn delivery(&mut self, _: Descriptor) -> Result<Delivery, Errno> {
        Ok(Delivery::default())
    }

    fn traffic(&mut self, _: Descriptor, _: bool) -> Result<Traffic, Errno> {
        unscripted(Err(Errno(libc::ENOSYS)))
    }

    fn discard(&mut self, _: Descriptor, _: u32) -> Result<u32, Errno> {
        unscripted(Err(Errno(libc::ENOSYS)))
    }

    fn is_reset(&mut self, _: Descriptor) -> bool {
        unscripted(false)
    }

    #[inline(never)]
    fn send_now(&mut self, _: Descriptor, pieces: &[libc::iovec], _: bool) -> Result<u32, Errno> {
        let length = pieces[0].iov_len;
        assert!(pieces.len() == 1 && length == PAYLOAD_BYTES, "a reply is as long as what came");
        self.sent_bytes.set(self.sent_bytes.get() + length as u64);
        Ok(length as u32)
    }

    fn splice_to_socket(
        &mut self,
        _: Descriptor,
        _: Descriptor,
        _: u32,
        _: bool,
    ) -> Result<u32, Errno> {
        unscripted(Err(Errno(libc::ENOSYS)))
    }

    fn read_cached(&mut self, _: Descriptor, _: *mut u8, _: u32, _: u64) -> Result<u32, Errno> {
        unscripted(Err(Errno(libc::ENOSYS)))
    }

    fn is_cached(&mut self, _: Descriptor, _: u64, _: u32) -> bool {
        unscripted(false)
    }

    fn send_file(&mut self, _: Descriptor, _: u64, _: u32, _: Descriptor) -> Result<u32, Errno> {
        unscripted(Err(Errno(libc::ENOSYS)))
    }

    fn splice_from_socket(&mut self, _: Descriptor, _: Descriptor, _: u32) -> Result<u32, Errno> {
        unscripted(Err(Errno(libc::ENOSYS)))
    }

    fn socket(
        &mut self,
        _: &SocketAddr,
        _: Option<SocketAddr>,
        _: Option<u32>,
    ) -> Result<Descriptor, Errno> {
        unscripted(Err(Errno(libc::ENOSYS)))
    }

    fn connect_unix(&mut self, _: &SocketPath) -> Result<Descriptor, Errno> {
        unscripted(Err(Errno(libc::ENOSYS)))
    }

    fn set_user_timeout(&mut self, _: Descriptor, _: u32) -> Result<(), Errno> {
        unscripted(Err(Errno(libc::ENOSYS)))
    }

    fn set_tcp_options(&mut self, _: Descriptor, _: TcpOptions) -> Result<(), Errno> {
        unscripted(Err(Errno(libc::ENOSYS)))
    }

    fn pipe(&mut self, _: u32) -> Result<Pipe, Errno> {
        unscripted(Err(Errno(libc::ENOSYS)))
    }

    fn accept_now(&mut self, _: Descriptor) -> Result<Descriptor, Errno> {
        unscripted(Err(Errno(libc::ENOSYS)))
    }

    fn unread_bytes(&mut self, _: Descriptor) -> Result<u32, Errno> {
        Ok(0)
    }

    fn set_filter(&mut self, _: Descriptor, _: &[Instruction]) -> Result<(), Errno> {
        Ok(())
    }

    fn unaccepted(&mut self, _: Descriptor) -> Result<u32, Errno> {
        unscripted(Err(Errno(libc::ENOSYS)))
    }

    fn drops(&mut self, _: Descriptor) -> Result<u32, Errno> {
        unscripted(Err(Errno(libc::ENOSYS)))
    }

    fn close_now(&mut self, _: Descriptor) {
        unscripted(());
    }

    fn file_status(&mut self, _: Descriptor) -> Result<FileStatus, Errno> {
        unscripted(Err(Errno(libc::ENOSYS)))
    }

    fn clear_wake(&mut self, _: Descriptor) {}
}

/// A call that no script leads to. The compiler must not know: what a shard does with the answers
/// would be left out.
#[inline(never)]
fn unscripted<T>(answer: T) -> T {
    assert!(!std::hint::black_box(true), "no script leads to this call");
    answer
}
